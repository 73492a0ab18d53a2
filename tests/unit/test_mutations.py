"""A certificate cannot contradict itself: every leaf of every kind of certificate is changed, and every file is damaged; what
comes of it is one clear line, or a certificate that promises the same."""

import copy
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privset import PrivsetError, methods
from privset.data.datasets import PublicFacts
from privset.jobs.run import Run
from privset.methods import dp_merf, dp_sinkhorn, dp_swd, dpsgd, g_pate, gs_wgan, psg, psg_continual, psm, psm_releases
from privset.privacy import accounting, certificates
from privset.privacy.ledger import Release
from privset.privacy.noise import key_of
from privset.privacy.vault import Vault
from privset.sets import arrays, files

FACTS = PublicFacts(records=40, classes=10, channels=1, size=28, mean=(0.5,), std=(0.5,))
PSG = {"outer": 2, "inner": 1, "iterations": 2, "batches": 2, "batch_size": 8, "width": 4}
KINDS = {
    "psg": (psg, PSG, 1),
    "dp_merf": (dp_merf, {"length_scale": 105, "features": 20, "steps": 2}, 1),
    "dp_sinkhorn": (dp_sinkhorn, {"steps": 2, "batch_size": 8, "generated": 3, "width": 2}, 1),
    "dp_swd": (dp_swd, {"steps": 2, "batch_size": 8, "generated": 3, "directions": 4}, 1),
    "gs_wgan": (
        gs_wgan,
        {"members": 5, "steps": 2, "warm_steps": 0, "critic_steps": 1, "batch_size": 3, "hidden": 4, "width": 2},
        1,
    ),
    "g_pate": (g_pate, {"members": 4, "steps": 2, "batch_size": 3, "hidden": 4, "width": 2}, 1),
    "psg_continual": (psg_continual, {**PSG, "batch_size": 4}, 1),
    "dpsgd": (dpsgd, {"epochs": 1, "batch_size": 4, "width": 4}, None),
    "psm statistics": (
        psm_releases,
        {"random_networks": 2, "trained_networks": 1, "rounds": 2, "width": 4, "first_iterations": 2, "round_iterations": 2},
        None,
    ),
    "psm": (psm, {"iterations": 2, "first_iterations": 2}, 1),
}
FREE = ("cell.preset", "cell.dataset", "cell.seed", "code", "device", "versions", "statistics_sha256", "config", "releases")
"""Names and figures that promise nothing: where something was made, by what, and hyper-parameters that no release depends on."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with file and certificate for each kind, from real runs; noise from the operating system for half of them."""
    folders = {}
    before = torch.get_num_threads()
    patch = pytest.MonkeyPatch()
    patch.setattr(psm_releases, "SCHEDULES", (2,))
    for number, (kind, (module, block, spc)) in enumerate(KINDS.items()):
        folder = tmp_path_factory.mktemp(kind.replace(" ", "_"))
        images = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(3))
        vault = Vault(images, torch.arange(40) % 10, facts=FACTS, epsilon=2.0, delta=1e-5, key=key_of(number))
        run = Run(spc=spc, generator=torch.Generator().manual_seed(1))
        place = {"preset": "tiny", "dataset": "digits", "method": kind.split()[0], "epsilon": "2", "seed": "0"}
        details = {
            "cell": {**place, "spc": "any" if spc is None else str(spc)},
            "config": block,
            "code": "0123456789abcdef",
            "device": "cpu (a processor, 1 thread(s))",
            "versions": {"python": "3.11", "torch": "2.15.0"},
        }
        seed = number if number % 2 else None
        if kind == "psm":
            path, source = folder / "set.npz", folders["psm statistics"]
            tensors = {name: torch.from_numpy(array) for name, array in arrays.read_statistics(source / "statistics.npz").items()}
            pixels, labels = psm.synthesize(psm.Statistics.from_tensors(tensors, FACTS), FACTS, psm.Config(**block), run)
            arrays.write_set(path, arrays.Set(FACTS.to_pixels(pixels).numpy(), labels.numpy()))
            stated = certificates.post_processed(files.read_json(source / "certificate.json"), path, run=details)
        elif spc is None:
            path = folder / "statistics.npz"
            released = module.release(vault, module.ReleaseConfig(**block), run).to_tensors()
            arrays.write_statistics(path, {name: tensor.numpy() for name, tensor in released.items()})
            stated = certificates.certificate(vault.ledger, path, noise_seed=seed, run=details)
        else:
            path = folder / "set.npz"
            pixels, labels = module.synthesize(vault, module.Config(**block), run)
            arrays.write_set(path, arrays.Set(FACTS.to_pixels(pixels).numpy(), labels.numpy()))
            stated = certificates.certificate(vault.ledger, path, noise_seed=seed, run=details)
        files.write_json(folder / "certificate.json", stated)
        folders[kind] = folder
    patch.undo()
    torch.set_num_threads(before)
    return folders


@pytest.fixture(scope="module", autouse=True)
def quick_accounting():
    """The same numbers; each epsilon is computed once."""
    patch = pytest.MonkeyPatch()

    def remember(function):
        cached = functools.lru_cache(maxsize=None)(lambda counted, delta: function(counted, delta))
        return lambda counted, delta: cached(tuple(counted), delta)

    patch.setattr(accounting, "pld_epsilon", remember(accounting.pld_epsilon))
    yield
    patch.undo()


def file_of(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.suffix == ".npz")


def verified(folder: Path):
    """As the command does."""
    stated = certificates.verify(file_of(folder))
    methods.check(stated, file_of(folder))
    return stated


def promise(stated):
    """What a reader relies on."""
    keys = (
        "private",
        "delta",
        "neighbouring_relation",
        "protects_labels",
        "statement",
        "public_facts",
        "set_sha256",
        "noise_stream",
    )
    numbers = ("epsilon", "epsilon_budget", "epsilon_rdp", "epsilon_pld", "epsilon_replacing")
    return [stated[key] for key in keys], [float(stated[key]) for key in numbers]


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def changed(stated, path, value):
    new = copy.deepcopy(stated)
    block = new
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    return new


def judge(folder, stated, path):
    """One line, or the same promise."""
    file = folder / "certificate.json"
    original = file.read_text()
    try:
        before = json.loads(original)
        file.write_text(json.dumps(stated))
        try:
            after = verified(folder)
        except PrivsetError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            return "refused"
        (said, numbers), (said_before, numbers_before) = promise(after), promise(before)
        assert said == said_before, path
        assert numbers == pytest.approx(numbers_before, rel=2e-4), path
        return "equal"
    finally:
        file.write_text(original)


def others(value):
    """Values that a leaf could be given."""
    if isinstance(value, bool):
        return [not value, None, int(value), str(value)]
    if isinstance(value, (int, float)):
        return [0, -1, value * 2, value / 2, value + 1, -value, 1e300, str(value), True, None, [value], 10**9, float("inf")]
    if isinstance(value, str):
        return ["", value + "x", value[:-1], value.upper(), "inf", 3, None, True, [value], "0" * 64, "operating system", "seed 3"]
    return [0, "x", {}, []]


@pytest.mark.parametrize("kind", KINDS)
def test_each_leaf_changed_in_each_of_many_ways(made, kind):
    folder = made[kind]
    stated = json.loads((folder / "certificate.json").read_text())
    assert promise(verified(folder)) == promise(stated)
    unnoticed = set()
    for path, value in leaves(stated):
        for other in others(value):
            if other != value and judge(folder, changed(stated, path, other), path) == "equal":
                unnoticed.add(".".join(str(key) for key in path if not isinstance(key, int)))
        for gone in (True, False):  # the leaf removed, or another one beside it
            new = copy.deepcopy(stated)
            block = new
            for key in path[:-1]:
                block = block[key]
            if gone:
                del block[path[-1]]
            elif isinstance(block, dict):
                block["unheard_of"] = value
            else:
                block.append(value)
            if judge(folder, new, path) == "equal":
                unnoticed.add(".".join(str(key) for key in path if not isinstance(key, int)))
    # Another seed; sizes on which no epsilon depends; of several parts, more noise for one that is not the dearest.
    expected = (*FREE, "noise_source", "ledger.dimension", "ledger.records")
    expected += ("ledger.noise_multiplier",) if kind in ("psg_continual", "dpsgd") else ()
    assert {name for name in unnoticed if not name.startswith(expected)} == set()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_leaves_changed_at_random(made, data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    stated = json.loads((made[kind] / "certificate.json").read_text())
    path, _ = data.draw(st.sampled_from(list(leaves(stated))))
    other = data.draw(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**12), 10**12),
            st.floats(),
            st.text(max_size=20),
            st.lists(st.integers(0, 9), max_size=3),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )
    )
    judge(made[kind], changed(stated, path, other), path)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_of_every_file(made, kind):
    folder = made[kind]
    before = promise(verified(folder))
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        random = np.random.default_rng(0)
        for position in sorted({*range(0, min(len(whole), 40)), *random.integers(0, len(whole), 60).tolist()}):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            try:
                after = promise(verified(folder))
                assert path.suffix == ".json" and after[0] == before[0] and after[1] == pytest.approx(before[1], rel=2e-4)
            except PrivsetError as error:
                assert "\n" not in str(error)
        for keep in (0, 1, 10, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:keep])
            with pytest.raises(PrivsetError) as error:
                verified(folder)
            assert "\n" not in str(error.value)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "text",
    ['{"epsilon": NaN}', '{"epsilon": Infinity}', "[" * 100_000, '{"a": 1, "a": 2}', "null", "[]", '"x"', "3", "{}", "\ud800"],
    ids=range(10),
)
def test_certificates_that_are_none(made, text):
    folder = made["psg"]
    file = folder / "certificate.json"
    whole = file.read_bytes()
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(PrivsetError) as error:
        verified(folder)
    file.write_bytes(whole)
    assert "\n" not in str(error.value)


def test_arrays_that_do_not_belong_and_files_that_announce_too_much(made, monkeypatch):
    folder = made["psg"]
    file = folder / "set.npz"
    whole, certificate = file.read_bytes(), (folder / "certificate.json").read_bytes()
    content = dict(np.load(file))
    for extra in (
        {"extra": np.zeros(3)},
        {"tiles": np.array([1, 2])},
        {"tiles": np.array("x")},
        {"labels": np.array(["a"] * 10)},
    ):
        np.savez(file, **{**content, **extra})
        stated = {**json.loads(certificate), "set_sha256": files.sha256(file)}
        (folder / "certificate.json").write_text(json.dumps(stated))
        with pytest.raises(PrivsetError):
            verified(folder)
    file.write_bytes(whole)
    (folder / "certificate.json").write_bytes(certificate)
    monkeypatch.setattr(arrays, "LARGEST", 1000)
    with pytest.raises(PrivsetError, match="it announces"):
        verified(folder)


def test_the_configuration_and_the_ledger_are_compared(made):
    """Every number of a configuration on which a release depends."""
    for kind, key, value in (
        ("psg", "iterations", 3),
        ("psg", "clip", 0.2),
        ("psg", "batch_size", 9),
        ("gs_wgan", "members", 4),
        ("gs_wgan", "clip", 0.5),
        ("g_pate", "directions", 9),
        ("psg_continual", "outer", 3),
        ("dpsgd", "epochs", 2),
        ("psm statistics", "random_networks", 3),
        ("psm statistics", "rounds", 1),
        ("psm statistics", "error_clip", 0.8),
    ):
        stated = copy.deepcopy(json.loads((made[kind] / "certificate.json").read_text()))
        stated["config"][key] = value
        methods.check(json.loads((made[kind] / "certificate.json").read_text()), file_of(made[kind]))
        with pytest.raises(PrivsetError):
            methods.check(stated, file_of(made[kind]))


@pytest.mark.parametrize("kind", ["dp_merf", "psm", "psm statistics", "psg", "dp_sinkhorn", "dp_swd", "gs_wgan", "g_pate"])
def test_a_forged_relation_with_all_that_follows_from_it(made, kind):
    """Whoever forges computes everything again: what the method does not ask is still refused."""
    stated = json.loads((made[kind] / "certificate.json").read_text())
    for entry in stated["ledger"]:
        before = entry["neighbouring_relation"]
        entry["neighbouring_relation"] = "replace-one" if before == "add-or-remove-one" else "add-or-remove-one"
    releases = [Release.from_dict(entry) for entry in stated["ledger"]]
    follows = certificates._follows(releases, stated["delta"], "rdp", stated["noise_source"], stated["noise_stream"])
    assert judge(made[kind], {**stated, **follows}, ("ledger",)) == "refused"


def test_statistics_with_something_else_in_them_are_refused(made):
    """Records, say; the checksum is made to fit."""
    for kind in ("psm statistics", "dpsgd"):
        folder = made[kind]
        file, certificate = folder / "statistics.npz", folder / "certificate.json"
        whole, text = file.read_bytes(), certificate.read_text()
        content = arrays.read_statistics(file)
        for new in ({**content, "train_images": np.zeros((40, 784), dtype=np.float32)}, {"x": np.zeros(3)}):
            np.savez(file, **new)
            certificate.write_text(json.dumps({**json.loads(text), "set_sha256": files.sha256(file)}))
            with pytest.raises(PrivsetError, match="not the arrays that"):
                verified(folder)
        file.write_bytes(whole)
        certificate.write_text(text)


def test_data_that_are_not_private_cannot_claim_an_epsilon(tmp_path):
    vault = Vault(torch.zeros(40, 1, 28, 28), torch.arange(40) % 10, facts=FACTS, epsilon=math.inf, delta=1e-5, key=1)
    images, labels = vault.everything()
    arrays.write_set(tmp_path / "set.npz", arrays.Set(FACTS.to_pixels(images).numpy(), labels.numpy()))
    place = {"preset": "tiny", "dataset": "digits", "method": "real", "epsilon": "inf", "spc": "all", "seed": "0"}
    run = {"cell": place, "config": {}, "code": "a", "device": "cpu", "versions": {}}
    stated = certificates.certificate(vault.ledger, tmp_path / "set.npz", noise_seed=None, run=run)
    for change in ({}, {"epsilon": 1.0}, {"epsilon_pld": 1.0}, {"epsilon_rdp": 2.0}, {"epsilon_replacing": 3.0}):
        files.write_json(tmp_path / "certificate.json", {**stated, **change})
        if change:
            with pytest.raises(PrivsetError, match="it was changed"):
                verified(tmp_path)
        else:
            assert verified(tmp_path)["epsilon"] == "inf"


def test_verifying_takes_seconds_whatever_is_claimed(made):
    """The dearest ledgers within the ranges: refused, or computed in time."""
    import time

    stated = json.loads((made["psg"] / "certificate.json").read_text())
    for rate, multiplier, count in ((1e-6, 0.05, 1_000_000), (0.5, 1e-6, 1_000_000), (1e-4, 20.0, 1_000_000), (0.9, 1e6, 1)):
        new = copy.deepcopy(stated)
        new["ledger"][0] |= {"sampling_rate": rate, "noise_multiplier": multiplier, "count": count}
        if multiplier < 1:
            new |= {"epsilon_budget": "inf"}
            new["cell"]["epsilon"] = "inf"
        begin = time.monotonic()
        assert judge(made["psg"], new, ()) == "refused"
        assert time.monotonic() - begin < 5

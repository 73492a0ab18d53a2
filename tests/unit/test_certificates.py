"""Sets and certificates: whole files or one clear line; every kind of tampering is noticed."""

import json
import math
import re

import numpy as np
import pytest

from privset import PrivsetError
from privset.privacy import accounting, certificates
from privset.privacy.ledger import Ledger, Release
from privset.privacy.noise import ROUNDING
from privset.sets import arrays, files


def a_set(count=20):
    rng = np.random.default_rng(0)
    return rng.random((count, 1, 28, 28), dtype=np.float32), (np.arange(count) % 10).astype(np.int64)


def a_ledger(epsilon=1.0, releases=5):
    ledger = Ledger(epsilon=epsilon, delta=1e-5)
    sigma = accounting.calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=0.01, releases=releases)
    event = accounting.gaussian_event(noise_multiplier=sigma, sampling_rate=0.01)
    for _ in range(releases):
        ledger.charge(
            Release(
                mechanism="gradient_mean",
                event=event,
                relation="add-or-remove-one",
                sensitivity=0.1 * (1 + ROUNDING),
                records=1000,
                dimension=500,
            )
        )
    return ledger


CONFIG = {"outer": 1, "inner": 1, "iterations": 5, "batches": 1, "batch_size": 10, "clip": 0.1}
"""Of PSG, for that ledger."""


def a_run(epsilon=1, **cell):
    """What a job says of itself."""
    place = {"preset": "quick", "dataset": "mnist", "method": "psg", "epsilon": f"{epsilon:g}", "spc": "2", "seed": "0"}
    return {"cell": {**place, **cell}, "config": CONFIG, "code": "abc", "device": "cpu", "versions": {"torch": "2"}}


@pytest.fixture
def cell(tmp_path):
    """A set with its certificate in a folder."""
    arrays.write_set(tmp_path / "set.npz", arrays.Set(*a_set()))
    content = certificates.certificate(a_ledger(), tmp_path / "set.npz", noise_seed=None, run=a_run())
    files.write_json(tmp_path / "certificate.json", content)
    return tmp_path


def test_the_first_images_of_each_class():
    images, labels = a_set(35)
    cut = arrays.first_of_each_class(arrays.Set(images, labels), 2)
    assert cut.labels.tolist() == [*range(10), *range(10)] and np.array_equal(cut.images, images[:20])
    assert len(arrays.first_of_each_class(arrays.Set(images, labels), 4)) == 35  # five classes have three
    with pytest.raises(PrivsetError, match="cannot be cut"):
        arrays.first_of_each_class(arrays.Set(images, labels, tiles=2), 2)


def test_a_set_is_read_as_it_was_written(tmp_path):
    images, labels = a_set()
    arrays.write_set(tmp_path / "set.npz", arrays.Set(images, labels))
    again = arrays.read_set(tmp_path / "set.npz", classes=10)
    assert np.array_equal(images, again.images) and np.array_equal(labels, again.labels)
    assert (again.tiles, again.soft_labels) == (1, None)
    first = files.sha256(tmp_path / "set.npz")
    arrays.write_set(tmp_path / "set.npz", arrays.Set(images, labels))
    assert files.sha256(tmp_path / "set.npz") == first  # no time stamps inside


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(np.float64), y), "not float32"),
        (lambda x, y: (x[:-1], y), "are not"),
        (lambda x, y: (np.where(x > 0.99, np.nan, x).astype(np.float32), y), "NaN"),
        (lambda x, y: (x[:0], y[:0]), "are not"),
    ],
)
def test_what_is_no_set_is_not_written(tmp_path, change, message):
    with pytest.raises(PrivsetError, match=message):
        arrays.write_set(tmp_path / "set.npz", arrays.Set(*change(*a_set())))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [lambda y: np.where(y == 9, 0, y), lambda y: np.where(y == 9, 10, y), lambda y: y - 1])
def test_missing_and_unknown_classes_are_refused(tmp_path, change):
    images, labels = a_set()
    arrays.write_set(tmp_path / "set.npz", arrays.Set(images, change(labels)))
    with pytest.raises(PrivsetError, match=r"not all of 0\.\.9"):
        arrays.read_set(tmp_path / "set.npz", classes=10)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_sets_are_refused(tmp_path, keep):
    path = tmp_path / "set.npz"
    arrays.write_set(path, arrays.Set(*a_set()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PrivsetError, match="not a readable set"):
        arrays.read_set(path)


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"a": 1})

    def fail(stream):
        stream.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(PrivsetError, match="No space left on device"):
        files.write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_certificate_says_what_happened(cell):
    content = certificates.verify(cell / "set.npz")
    (entry,) = content["ledger"]
    assert entry["count"] == 5 and entry["kind"] == "poisson-subsampled-gaussian" and entry["sampling_rate"] == 0.01
    assert content["epsilon"] <= content["epsilon_budget"] == 1.0
    assert content["epsilon_pld"] <= content["epsilon_rdp"]
    assert content["neighbouring_relation"] == "add-or-remove-one"
    assert content["private"] and "may be published" in content["statement"]


def test_a_seeded_certificate_says_that_its_set_is_not_for_publication(cell):
    content = certificates.certificate(a_ledger(), cell / "set.npz", noise_seed=7, run=a_run())
    assert "must not be published" in content["statement"] and content["noise_source"] == "seed 7"


def test_every_flipped_byte_of_a_set_is_noticed(cell):
    path = cell / "set.npz"
    whole = path.read_bytes()
    for position in range(0, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(PrivsetError):
            certificates.verify(path)


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.5},
        {"epsilon_rdp": 0.5},
        {"epsilon_pld": 0.1},
        {"epsilon_budget": 0.2},
        {"delta": 1e-3},
        {"ledger": []},
        {"set_sha256": "0" * 64},
        {"private": False},
        {"epsilon": None},
        {"protects_labels": False},
        {"neighbouring_relation": "replace-one"},
        {"noise_source": "seed 3"},
        {"statement": "Do as you like."},
        {"format": 1},
    ],
)
def test_every_edited_number_of_a_certificate_is_noticed(cell, change):
    path = cell / "certificate.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(PrivsetError):
        certificates.verify(cell / "set.npz")


@pytest.mark.parametrize(
    "change",
    [{"count": 4}, {"count": 50}, {"noise_multiplier": 9.0}, {"sampling_rate": 0.001}, {"kind": "gaussian"}, {"extra": 1}],
)
def test_every_edited_line_of_a_ledger_is_noticed(cell, change):
    path = cell / "certificate.json"
    content = json.loads(path.read_text())
    content["ledger"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(PrivsetError):
        certificates.verify(cell / "set.npz")


def test_the_real_data_are_certified_as_not_private(tmp_path, make_vault):
    vault = make_vault(epsilon=math.inf)
    vault.everything()
    arrays.write_set(tmp_path / "set.npz", arrays.Set(*a_set()))
    run = a_run(math.inf, method="real", spc="all")
    content = certificates.certificate(vault.ledger, tmp_path / "set.npz", noise_seed=None, run=run)
    files.write_json(tmp_path / "certificate.json", content)
    again = certificates.verify(tmp_path / "set.npz")
    assert again["epsilon"] == "inf" and "NOT PRIVATE" in again["statement"] and not again["protects_labels"]


def test_unreadable_json_is_named(tmp_path):
    (tmp_path / "certificate.json").write_text('{"epsilon": ')
    with pytest.raises(PrivsetError, match=r"certificate\.json is not readable JSON"):
        files.read_json(tmp_path / "certificate.json")


def test_a_private_set_whose_classes_are_not_balanced_is_noticed(cell):
    images, labels = a_set()
    arrays.write_set(cell / "set.npz", arrays.Set(images[:-1], labels[:-1]))
    content = json.loads((cell / "certificate.json").read_text())
    files.write_json(cell / "certificate.json", {**content, "set_sha256": files.sha256(cell / "set.npz")})
    with pytest.raises(PrivsetError, match="not balanced"):
        certificates.verify(cell / "set.npz")


def test_a_ledger_beyond_its_budget_is_noticed_even_if_all_numbers_agree(cell):
    ledger = a_ledger(epsilon=2.0)
    ledger.epsilon = 1.0
    content = certificates.certificate(ledger, cell / "set.npz", noise_seed=None, run=a_run())
    files.write_json(cell / "certificate.json", content)
    with pytest.raises(PrivsetError, match="was spent of a budget of 1"):
        certificates.verify(cell / "set.npz")


@pytest.fixture
def cell_in_parts(tmp_path):
    """A set whose releases concerned the records of two classes each, every part with the whole budget."""
    arrays.write_set(tmp_path / "set.npz", arrays.Set(*a_set()))
    ledger = Ledger(epsilon=1.0, delta=1e-5)
    for part in ((0, 1), (2, 3)):
        for release in a_ledger().releases:
            ledger.charge(Release(**{**release.__dict__, "part": part}))
    content = certificates.certificate(ledger, tmp_path / "set.npz", noise_seed=None, run=a_run())
    files.write_json(tmp_path / "certificate.json", content)
    return tmp_path


def test_disjoint_parts_cost_what_the_dearest_costs(cell_in_parts):
    path = cell_in_parts / "set.npz"
    stated = certificates.verify(path)
    whole = certificates.certificate(a_ledger(), path, noise_seed=None, run=a_run())
    for key in ("epsilon", "epsilon_rdp", "epsilon_pld"):
        assert stated[key] == whole[key]
    assert not stated["protects_labels"] and "to which part a record belongs is not protected" in stated["statement"]
    assert "of each part" in stated["public_facts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ledger: [entry.pop("part") for entry in ledger], "are one release"),
        (lambda ledger: ledger[0].pop("part"), "its ledger gives"),
        (lambda ledger: ledger[1].update(part=[0, 1]), "are one release"),
        (lambda ledger: ledger[1].update(part=[1, 2]), "overlap"),
        (lambda ledger: ledger[1].update(part=[]), "not a certificate"),
    ],
)
def test_parts_cannot_be_tampered_with(cell_in_parts, change, message):
    path = cell_in_parts / "certificate.json"
    content = json.loads(path.read_text())
    change(content["ledger"])
    path.write_text(json.dumps(content))
    with pytest.raises(PrivsetError, match=message):
        certificates.verify(cell_in_parts / "set.npz")


# ------------------------------------------------------------------------------------------------- one of many shards


@pytest.fixture
def of_shards(tmp_path):
    """A set from 200 answers about one of 50 shards, with its certificate in a folder, and what writes another one."""
    ledger = Ledger(epsilon=2.0, delta=1e-5)
    sigma = accounting.calibrate(epsilon=2.0, delta=1e-5, sampling_rate=1.0, releases=200, shards=50)
    event = accounting.gaussian_event(noise_multiplier=sigma, shards=50)
    release = Release(
        mechanism="one_gradient",
        event=event,
        relation="replace-one",
        sensitivity=0.5 * (1 + ROUNDING),
        records=1000,
        dimension=784,
        count=200,
    )
    ledger.charge(release)
    arrays.write_set(tmp_path / "set.npz", arrays.Set(*a_set()))

    def write(**changed):
        entry = {**ledger.releases[0].to_dict(), **changed}
        content = certificates.certificate(ledger, tmp_path / "set.npz", noise_seed=None, run=a_run(2, method="gs_wgan"))
        files.write_json(tmp_path / "certificate.json", {**content, "ledger": [entry]})
        return tmp_path / "set.npz"

    return write


def test_answers_about_one_shard_of_many_have_certificates(of_shards):
    stated = certificates.verify(of_shards())
    assert (stated["ledger"][0]["kind"], stated["ledger"][0]["sampling_rate"]) == ("gaussian-of-one-shard", 1 / 50)
    assert stated["neighbouring_relation"] == "replace-one" and stated["epsilon_pld"] < stated["epsilon"] <= 2.0


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"records": 40}, "more shards than its 40 records"),
        ({"sampling_rate": 0.15}, "gaussian-of-one-shard with sampling_rate = 0.15"),
        ({"sampling_rate": 1e-320}, "more shards than its 1000 records"),
        ({"kind": "poisson-subsampled-gaussian"}, "one_gradient is never poisson-subsampled-gaussian"),
        ({"neighbouring_relation": "add-or-remove-one"}, "one_gradient is for neighbours of replace-one"),
        ({"mechanism": "votes"}, "votes is never gaussian-of-one-shard"),
    ],
)
def test_what_no_ensemble_can_have_done_is_refused(of_shards, changed, line):
    with pytest.raises(PrivsetError, match=re.escape(line)):
        certificates.verify(of_shards(**changed))


def test_accountants_of_one_shard_that_err_are_seen(of_shards, monkeypatch):
    """A third of the rate in Renyi DP, ten times the shards in the privacy losses: both are outside what dp-accounting bounds."""
    renyi, losses = accounting._rdp, accounting._one_of
    with monkeypatch.context() as patch:
        patch.setattr(accounting, "_one_of", lambda shards, *more: losses(10 * shards, *more))
        accounting._step.cache_clear()
        path = of_shards()
        certificates._doubt.cache_clear()
        with pytest.raises(PrivsetError, match="not between its bounds"):
            certificates.verify(path)
    accounting._step.cache_clear()
    with monkeypatch.context() as patch:

        def thinner(event, *orders):
            fewer = accounting.gaussian_event(noise_multiplier=event.event.noise_multiplier, shards=150)
            return renyi(fewer, *orders)

        patch.setattr(accounting, "_rdp", thinner)
        path = of_shards()
        certificates._doubt.cache_clear()
        with pytest.raises(PrivsetError, match=r"disagree|not between its bounds"):
            certificates.verify(path)
    certificates._doubt.cache_clear()

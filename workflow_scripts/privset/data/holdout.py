"""Records of the training half put aside, to choose hyper-parameters by: never by the test images.

`NAME_validation` is a dataset of its own: its training half is NAME's without `HELD_OUT` records, which are its test half. A
choice made so is still a use of private data that no ledger counts; who publishes results of it says so.

Of the datasets known here these are the last records, as in all that was published. A user's own may lie sorted by class, so of
these each class gives its share, drawn by public random numbers of a fixed seed. Which ones are drawn depends on everybody's
labels: the certificate of a set speaks of its training half as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from privset import PrivsetError
from privset.data.datasets import DESCRIPTION, FILES, describe
from privset.data.idx import read_idx, write_idx
from privset.sets.files import read_json, write_atomically, write_json

HELD_OUT = 5000
SEED = 0


def stratified(labels: np.ndarray, records: int) -> np.ndarray:
    """(N,) mask of `records` of them: of a class of n records n * `records` / N, rounded up or down, wherever they lie."""
    order = np.lexsort((np.random.default_rng(SEED).random(len(labels)), labels))
    reached = np.arange(len(labels) + 1) * records // len(labels)
    mask = np.empty(len(labels), dtype=bool)
    mask[order] = np.diff(reached) > 0  # at equal distances along the classes
    return mask


def hold_out(source: Path, target: Path, *, records: int = HELD_OUT) -> None:
    """Split the training half of a fetched dataset in `source` (a folder) into the two halves of `target`, in order.

    Raises PrivsetError if no more than `records` training records are there, or a class of a user's own would miss in a half.
    """
    images, labels = (read_idx((source / name).read_bytes()) for name in FILES[:2])
    known = describe(source)
    remedy = "; put records aside yourself, as `test` of another block of datasets" if known.format else ""
    if len(images) <= records:
        raise PrivsetError(f"{source}: {len(images)} training records, and {records} of them are to be held out{remedy}")
    if known.format is None:
        held = np.arange(len(labels)) >= len(labels) - records
    else:
        held = stratified(labels, records)
        for label in np.unique(labels):
            count, out = int((labels == label).sum()), int(held[labels == label].sum())
            if out in (0, count):
                raise PrivsetError(
                    f"{source}: of the {count} training records of class {known.class_names[label]!r} {out} would be held out "
                    f"({records} of all {len(labels)}), and each half needs one{remedy}"
                )
    for name, array in zip(FILES, (images[~held], labels[~held], images[held], labels[held]), strict=True):
        write_atomically(target / name, lambda stream, array=array: stream.write(write_idx(array)), mode="wb")
    description = read_json(source / DESCRIPTION)
    write_json(target / DESCRIPTION, {**description, "title": f"{known.title} (held out)", "sha256": {}})

"""Records of the training half put aside, to choose hyper-parameters by: never by the test images.

`NAME_validation` is a dataset of its own: its training half is NAME's without the last `HELD_OUT` records, which are its test
half. A choice made so is still a use of private data that no ledger counts; who publishes results of it says so.
"""

from __future__ import annotations

from pathlib import Path

from privset import PrivsetError
from privset.data.datasets import DESCRIPTION, FILES
from privset.data.idx import read_idx, write_idx
from privset.sets.files import read_json, write_atomically, write_json

HELD_OUT = 5000


def hold_out(source: Path, target: Path, *, records: int = HELD_OUT) -> None:
    """Split the training half of a fetched dataset in `source` (a folder) into the two halves of `target`.

    Raises PrivsetError if no more than `records` training records are there.
    """
    images, labels = (read_idx((source / name).read_bytes()) for name in FILES[:2])
    if len(images) <= records:
        raise PrivsetError(f"{source}: {len(images)} training records, and {records} of them are to be held out")
    kept = len(images) - records
    for name, array in zip(FILES, (images[:kept], labels[:kept], images[kept:], labels[kept:]), strict=True):
        write_atomically(target / name, lambda stream, array=array: stream.write(write_idx(array)), mode="wb")
    known = read_json(source / DESCRIPTION)
    write_json(target / DESCRIPTION, {**known, "title": f"{known['title']} (held out)", "sha256": {}})

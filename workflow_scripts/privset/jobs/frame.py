"""The frame around every thin script: its log, its threads, and errors that end in one line."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from privset import PrivsetError
from privset.jobs.allocator import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def job(smk) -> Iterator[TextIO]:
    """Opens the rule's log, sets the threads and the allocator; a PrivsetError ends in one clear line.

    A library that is not the one beside the script is refused: the result would carry the digest of code that did not make it.
    """
    if "torch" in sys.modules:  # reporting scripts do without
        keep_freed_memory()
        sys.modules["torch"].set_num_threads(max(1, smk.threads))
    path = Path(smk.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as log:
        logging.basicConfig(stream=log, format="%(message)s", force=True)
        try:
            if Path(smk.scriptdir).resolve() != ROOT:
                raise PrivsetError(f"the library in {ROOT} runs here, and not the one in {smk.scriptdir}; uninstall or move one")
            yield log
        except PrivsetError as error:
            for stream in (log, sys.stderr):
                print(f"error: {error}", file=stream)
            sys.exit(1)
        except Exception:
            traceback.print_exc(file=log)
            raise

"""Freed memory stays: a large block that is freed and asked for again is not faulted in a second time."""

import ctypes
import resource

import pytest
import torch

from privset.jobs.allocator import keep_freed_memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_tensors_are_used_again_without_page_faults():
    assert keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)  # 64 MB: 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for _ in range(20):  # alignment leaves gaps, so the first few blocks lie elsewhere
        faults()
    assert faults() < 1000

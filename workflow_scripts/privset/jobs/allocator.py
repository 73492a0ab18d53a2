"""Keep freed memory in the process.

Every layer of a network allocates and frees tensors of megabytes. glibc hands such blocks back to the kernel at once, and the
next layer has them mapped, zeroed and faulted in again, page by page: half of the time of a forward pass on some machines.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER, _GIBIBYTE = -1, 2**30


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to give nothing back, single blocks of a gibibyte excepted; False where it is not glibc's.

    The process's memory stays at its peak. Results are the same to the bit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_TRIM_THRESHOLD, _NEVER) == mallopt(_M_MMAP_THRESHOLD, _GIBIBYTE) == 1

"""LeCun's IDX format: two zero bytes, the element type, the number of dimensions, big-endian sizes, unsigned bytes."""

from __future__ import annotations

import gzip
import struct

import numpy as np


def read_idx(data: bytes) -> np.ndarray:
    """An IDX file's bytes as a uint8 array. Raises ValueError for anything that is not a whole unsigned-byte IDX file."""
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError("not an IDX file (it does not begin with two zero bytes)")
    if data[2] != 0x08:
        raise ValueError(f"IDX element type 0x{data[2]:02x} is not unsigned byte (0x08)")
    dimensions = data[3]
    if len(data) < 4 + 4 * dimensions:
        raise ValueError("truncated IDX header")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    body = data[4 + 4 * dimensions :]
    expected = int(np.prod(shape, dtype=np.int64))
    if len(body) != expected:
        raise ValueError(f"IDX header announces {expected} bytes of shape {shape}, the file has {len(body)}")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def write_idx(array: np.ndarray) -> bytes:
    """A uint8 array as IDX bytes; the inverse of `read_idx`."""
    if array.dtype != np.uint8:
        raise ValueError(f"IDX files hold unsigned bytes, not {array.dtype}")
    header = bytes((0, 0, 0x08, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


def inflate(data: bytes) -> bytes:
    """The bytes of a file that may be gzip'd."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data

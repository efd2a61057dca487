"""Names for rows that come without one: UUIDv7 (RFC 9562), sorted by time, made many at once."""

import os
import random
import time

import numpy as np
import pyarrow as pa

_HEX_PAIRS = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)  # two letters as one number
_GROUPS = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))  # where the hexadecimal digits stand between hyphens


def uuid7() -> str:
    """Return one UUIDv7: 48 bits of milliseconds, 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7_array(n: int) -> pa.Array:
    """Return n UUIDv7 as an Arrow string array, without a Python object each."""
    raw = np.frombuffer(os.urandom(16 * n), np.uint8).reshape(n, 16).copy()
    raw[:, :6] = np.frombuffer((time.time_ns() // 1_000_000).to_bytes(6), np.uint8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = _HEX_PAIRS[raw].view(np.uint8)  # (n, 32)
    text = np.full((n, 36), ord("-"), np.uint8)
    start = 0
    for begin, end in _GROUPS:
        text[:, begin:end] = digits[:, start : start + end - begin]
        start += end - begin
    offsets = np.arange(0, 36 * (n + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))

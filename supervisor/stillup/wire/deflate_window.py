"""The window of a live ``zlib.decompressobj``: what it put out last, which is what the next worker's has to know.

zlib can say it (inflateGetDictionary), Python's module does not. But a copy of the decompressor can be made to put it
out, by a block of nothing but matches that look back (RFC 1951, 3.2.6). So nothing is kept of what passes while nobody
moves, and a connection costs nothing for being able to.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any, Final

_LONGEST: Final = 258
"""Bytes of the longest match."""
_BASES: Final = [1, 2, 3, 4, *(2**k + 1 + half * 2 ** (k - 1) for k in range(2, 15) for half in (0, 1))]
"""The least distance of each of the 30 codes (RFC 1951, 3.2.5)."""
_FIXED_CODES: Final = "010"
"""A block that is not the last, with fixed codes; bits in their order on the wire."""
_MATCH: Final = "11000101"
"""The fixed code of length 258."""
_END_OF_BLOCK: Final = "0000000"
_STORED: Final = "000"
_EMPTY: Final = b"\x00\x00\xff\xff"
"""The rest of an empty stored block, which ends at a byte."""


def window(decompressor: Any, bits: int) -> bytes:
    """The last 2**bits bytes that it put out, or all, if those are fewer.

    It has to stand between two blocks, as it does at a message's end.
    """
    size = 1 << bits
    if not _reaches(decompressor, size):
        low, high = 0, size
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _reaches(decompressor, middle) else (low, middle)
        size = low
    if not size:
        return b""
    put_out: bytes = decompressor.copy().decompress(_looking_back(size, -(-size // _LONGEST)))
    return put_out[:size]


def _reaches(decompressor: Any, distance: int) -> bool:
    try:
        return len(decompressor.copy().decompress(_looking_back(distance, 1))) == _LONGEST
    except zlib.error:  # invalid distance too far back
        return False


@lru_cache(64)
def _looking_back(distance: int, matches: int) -> bytes:
    """So many matches of the greatest length, all at this distance."""
    code = max(place for place, base in enumerate(_BASES) if base <= distance)
    extra = max(0, code // 2 - 1)
    match = f"{_MATCH}{code:05b}"
    if extra:
        match += f"{distance - _BASES[code]:0{extra}b}"[::-1]
    bits = _FIXED_CODES + match * matches + _END_OF_BLOCK + _STORED
    bits += "0" * (-len(bits) % 8)
    return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little") + _EMPTY

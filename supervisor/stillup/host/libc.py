"""The C library, for what Python has no function for.

It is loaded once: each ``ctypes.CDLL`` makes a class of its own, which a forked process would make anew.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """See that a function of the C library has not failed, which it says by a negative number.

    Raises:
        OSError: it has.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def prctl(option: int, *values: int) -> None:
    """Operate on this process or thread (prctl(2)); values that are not given are 0.

    Raises:
        OSError: the kernel cannot, or does not let us.
    """
    four = [ctypes.c_ulong(value) for value in (*values, *[0] * (4 - len(values)))]
    check(LIBC.prctl(ctypes.c_int(option), *four))

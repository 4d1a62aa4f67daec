"""Room for signals that come at the same instant (sigaltstack(2))."""

from __future__ import annotations

import ctypes
from typing import Final

from stillup.host.libc import LIBC, check

SIZE: Final = 256 * 1024
"""Bytes. A signal's frame has the processor's registers, 11 KiB where they are most (AMX), and a dozen may nest."""


class _Stack(ctypes.Structure):
    """``stack_t``."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def widen() -> None:
    """Give this thread an alternate stack on which all our signals fit. To be called after ``faulthandler``.

    faulthandler makes one too, for itself, of 8 KiB and a frame. But Python's own handlers use whatever there is
    (SA_ONSTACK, since Python 3.10), and signals that wait are delivered nested: some five of them, or two where frames
    are large, run over its end, and over whatever lies there. It is never freed: a signal may come to the very end.

    Raises:
        OSError: there is no memory.
    """
    LIBC.malloc.restype, LIBC.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    start = LIBC.malloc(SIZE)
    check(-1 if start is None else LIBC.sigaltstack(ctypes.byref(_Stack(start, 0, SIZE)), None))

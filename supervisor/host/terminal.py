"""Whether the terminal that we were started from is still there (tty(4))."""

from __future__ import annotations

import os


def is_there() -> bool:
    """Whether this process has a controlling terminal that has not hung up."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True

"""How our programs end: as one does that returns, without what the interpreter does after that.

It takes every object apart: a twentieth of what a short command takes, and a tenth of a second of the processors that
others have need of when a supervisor or a worker leaves.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, NoReturn


def leave(code: int) -> NoReturn:
    """Wait for threads that are no daemons, run what is registered (atexit), and end; nothing is flushed but by that.

    As Py_FinalizeEx begins. Threads cannot have been started where ``threading`` is not imported.
    """
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()  # noqa: SLF001 - what Py_FinalizeEx calls
    atexit._run_exitfuncs()  # noqa: SLF001 - likewise
    os._exit(code)

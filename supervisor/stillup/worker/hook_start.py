"""``python -P -m stillup.worker.hook_start``: becomes the program of a hook; started by the supervisor, by nobody else.

It is the release's interpreter and the workers' user from its first instruction on, as a worker is. So whatever of the
release is used here, its directory, its PATH and its programs, is used without the supervisor's rights.

It waits for a byte on its stdin, and then for nothing: by that byte its pid is on record. If the end of the file comes
instead, the supervisor has ended before that was so, and nothing is run that no other supervisor could know of.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence

LOOK = "--look"
"""Before the directory: say what is missing, and run nothing."""
PYTHON = "python"
"""As the first word it is this interpreter (``core.hook_settings``, which is not imported here for its imports)."""
CANNOT, MISSING = 126, 127
"""Exit codes, as a shell has them."""


def main(words: Sequence[str]) -> int:
    """Become the program that follows the directory; an exit code if that cannot be."""
    looks = words[0] == LOOK
    directory, *argv = words[1:] if looks else words
    if not looks and not os.read(0, 1):
        return CANNOT
    try:
        os.chdir(directory)
    except OSError as error:
        return _say(f"{directory}: {error.strerror}", CANNOT)
    if argv[0] == PYTHON:
        argv[0] = sys.executable
    if missing := what_is_missing(argv):
        return _say(missing, MISSING)
    if looks:
        return 0
    _be_like_a_shells()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        return _say(f"{argv[0]}: {error.strerror}", CANNOT)


def what_is_missing(argv: Sequence[str]) -> str:
    """What of a program is not there, from the directory in which it is to run; empty if nothing is."""
    program, *rest = argv
    if shutil.which(program) is None:
        where = "" if "/" in program else f" in PATH ({os.environ.get('PATH', os.defpath)})"
        return f"there is no program {program}{where}"
    if program == sys.executable and rest and not rest[0].startswith("-") and not os.path.exists(rest[0]):
        return f"there is no {rest[0]} in {os.getcwd()}"
    return ""


def _be_like_a_shells() -> None:
    """Give the program what it expects: nothing on stdin, no signal blocked, and none ignored.

    The supervisor blocks what it handles, and Python ignores two for itself; both would be passed on (execve(2)).
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _say(why: str, code: int) -> int:
    sys.stderr.write(f"{why}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

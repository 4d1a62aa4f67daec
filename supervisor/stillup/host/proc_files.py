"""Files of /proc that have a process's number in their names.

They are opened by their names as they are, not by a ``pathlib.Path``: that interns each part of a path, and in Python
3.12 what is interned stays for good. A supervisor that is asked once a second, by a new process each time, kept 7 MB a
day of numbers.
"""

from __future__ import annotations


def read(process: int | str, name: str) -> str:
    """The text of a file below ``/proc/PROCESS``, also of "self" or of "123/task/456"; what is no UTF-8 is replaced.

    Raises:
        OSError: there is no such process, or it may not be read.
    """
    with open(f"/proc/{process}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def stat_fields(process: int | str) -> list[str]:
    """The fields of a process's ``stat`` (proc_pid_stat(5)) from the third one on, its state.

    The second is the program's name in parentheses, and may hold anything.

    Raises:
        OSError: as ``read``.
    """
    return read(process, "stat").rpartition(")")[2].split()

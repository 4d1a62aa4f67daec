"""``python -P -m stillup.host.env_file_reader``: reads an environment file as another user (``env_file_access``).

Started as root, since that user may have no way to our interpreter; everything that it imports is imported before the
rights are dropped. What to read comes in JSON on stdin, the variables or a refusal go in JSON to stdout.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from typing import Final

import dotenv.main  # from where root may read
import dotenv.variables  # noqa: F401

from stillup.errors import Refused
from stillup.host import env_file

MOST_MEMORY: Final = 512 * 1024 * 1024
"""Bytes of address space: a file may ask for more than there is."""


def main() -> int:
    """Read it; the exit code."""
    told = json.load(sys.stdin.buffer)
    path = told["path"]
    logging.disable()  # of lines that mean nothing there may be a hundred thousand
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups(told["groups"])
    os.setresgid(*[told["gid"]] * 3)
    os.setresuid(*[told["uid"]] * 3)
    try:
        found = env_file.variables(env_file.open_file(path), path, told["environment"])
        answer: dict[str, object] = {"variables": found}
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())

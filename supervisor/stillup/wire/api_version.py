"""The version of the control API, and the check of the one that a client says it speaks.

Every answer carries ``Stillup-API: MAJOR.MINOR``. A client may send the same header: one that is newer than the
supervisor is told so, with both versions, as is one that asks for a path of another major version.
"""

from __future__ import annotations

import re
from typing import Final

from stillup.errors import Refused, UsageError

API: Final = (1, 0)
"""Major and minor version. The minor one grows with every addition, the major one never without a new path."""
API_HEADER: Final = "Stillup-API"


def version(api: tuple[int, int] = API) -> str:
    """How a version is written: ``1.0``."""
    return f"{api[0]}.{api[1]}"


def check_version(said: str, supervisor: str) -> None:
    """See that a caller's version of the API is one that is spoken here.

    Args:
        said: its ``Stillup-API`` header.
        supervisor: the version of stillup that answers.

    Raises:
        UsageError: it is no version.
        Refused: ``client-too-new``.
    """
    match = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", said)
    if match is None:
        raise UsageError(f"{API_HEADER}: '{said}' is no version; it is such as {version()}")
    if (int(match[1]), int(match[2])) > API:
        raise _too_new(f"API {said}", supervisor)


def check_path(path: str, supervisor: str) -> None:
    """See that a path is not of a later major version.

    Raises:
        Refused: ``client-too-new``.
    """
    match = re.match(r"/v([0-9]{1,6})(/|$)", path)
    if match is not None and int(match[1]) > API[0]:
        raise _too_new(f"API {match[1]}", supervisor)


def _too_new(client: str, supervisor: str) -> Refused:
    message = f"the client speaks {client}, this supervisor (stillup {supervisor}) API {version()} at most"
    return Refused(f"{message}; 'stillup supervisor reexec' runs the one that is installed now", code="client-too-new")

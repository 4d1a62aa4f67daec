"""The state of a session as apps of Starlette leave it: JSON, with the version of its shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def packed(state: object, version: int) -> bytes:
    """What travels.

    Raises:
        TypeError: the state is no JSON.
    """
    try:
        return json.dumps({"version": version, "state": state}, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the state of a session has to be JSON: {error}") from error


def unpacked(left: bytes) -> Mapping[str, Any]:
    """What an app has left: ``version`` and ``state``; nothing if that is not ours, as of one that had its own form."""
    try:
        found = json.loads(left)
    except (ValueError, RecursionError):  # nested more deeply than Python goes
        return {}
    return found if isinstance(found, dict) else {}

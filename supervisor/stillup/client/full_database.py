"""Whether a release was rejected since its database has no room for the pools of two generations."""

from __future__ import annotations

import re
from typing import Final

from stillup.wire.api_shapes import FailureView

_FULL: Final = re.compile(
    "too many clients already|remaining connection slots are reserved|too many connections"  # PostgreSQL, MySQL
    "|max_user_connections|no more connections allowed",  # MySQL, PgBouncer
    re.IGNORECASE,
)
"""How databases refuse a connection for want of room."""


def refusal(failure: FailureView) -> str:
    """The database's own words, in what was said of a worker or what it wrote; empty if there are none."""
    found = _FULL.search(f"{failure.message}\n{failure.output}")
    return found[0] if found else ""

"""What an answer to the health probe most often means, and which option helps."""

from __future__ import annotations

from typing import Final

_BY_STATUS: Final = {
    400: "does the app check the Host header? --health-host NAME",
    401: "it wants authentication: --health-header 'Authorization: ...', or a path that everybody may ask for",
    403: "it wants authentication: --health-header 'Authorization: ...', or a path that everybody may ask for",
    404: "is the path right? --health-path",
    405: "the probe is a GET: a path that answers one? --health-path",
    421: "does the app check the Host header? --health-host NAME",
}
WSGI: Final = "the app takes (environ, start_response), so it looks like WSGI: --interface wsgi"
_REDIRECTS: Final = range(300, 400)
LONGEST_LOCATION: Final = 200
"""Characters of a redirect's target that are told."""


def hint(status: int, location: str = "") -> str:
    """What to do about an app that answers like that; empty if there is nothing to say.

    Args:
        status: 0 for an app that returns without an answer.
        location: where a redirect leads.
    """
    if status in _REDIRECTS:
        where = f"it leads to {location[:LONGEST_LOCATION]}, and a redirect is not healthy: " if location else ""
        if location.startswith("https://"):
            return f"{where}--health-header 'X-Forwarded-Proto: https' has it answer as behind a proxy"
        return f"{where}--health-path where it leads, or --health-status 200-399"
    return _BY_STATUS.get(status, "")

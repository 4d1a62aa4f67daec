"""What is kept of a worker's own words on the hand-off channel, which may be any: what there is, and not too long."""

from __future__ import annotations

import re
from typing import Final

from stillup.wire.handoff_messages import REASON_LIMIT, BootFailed

STAGES: Final = frozenset({"listeners", "options", "import", "lifespan", "probe"})
"""What a worker may name as the stage at which its boot failed."""
UNKNOWN_STAGE: Final = "worker"
"""What a failure is called at any other stage of a worker's own naming."""
_REASON: Final = (
    r"[0-9]{1,16} requests \(--limit-max-requests\)|age [0-9]{1,16} s \(--max-worker-age\)"
    r"|rss [0-9]{1,16} (?:GB|MB|KB|bytes) \(--max-worker-rss\)|SIGTERM|"
)
"""Why a worker may ask to be replaced, as it says it (``worker.recycling``)."""
UNKNOWN_REASON: Final = "it asks for that"
"""What any other reason is called."""
_NAMED: Final = r"(unknown field|Invalid value) .*"
"""Where a decoder's error names what was said (msgspec)."""


def in_short(said: BootFailed) -> tuple[str, str]:
    """Stage and message of what a worker says, which may be anything: a stage that there is, a message not too long.

    The other stages of a failure are the supervisor's to name, whose messages are its own.
    """
    most = REASON_LIMIT + len(" ...")
    return said.stage if said.stage in STAGES else UNKNOWN_STAGE, said.message[:most]


def reason_of(said: str) -> str:
    """Why a worker asks to be replaced, by what it says, which may be anything: a reason that there is.

    Viewers read it, and what an app says is not for them.
    """
    return said if re.fullmatch(_REASON, said) else UNKNOWN_REASON


def without_words(error: str) -> str:
    """Why something is no message, as viewers may read it: without the words that were said."""
    return re.sub(_NAMED, r"\1", error, flags=re.DOTALL)

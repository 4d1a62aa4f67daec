"""What the load counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FAILURES_KEPT = 200


@dataclass
class Tally:
    """Requests that ended, those of them that failed, connections closed while idle, clients that reconnected."""

    requests: int = 0
    failed: int = 0
    closed: int = 0
    reconnected: int = 0


@dataclass(frozen=True)
class Failure:
    """One failed request; `at` is in seconds since the load started."""

    kind: str
    phase: str
    reason: str
    at: float


@dataclass(frozen=True)
class Loss:
    """A connection that came to a bad end: by a failed request, or because the server ended it between two.

    `port` is the client's, 0 if the connection never came to be, and `since` is when it began (time.monotonic): the two
    say which connection it was. `at` is when the loss was seen.
    """

    kind: str
    port: int
    since: float
    at: float
    how: str


@dataclass
class Report:
    """What the clients saw. `longest_gap` is the longest time without a correct answer.

    `crossed` counts how often one connection was answered by another generation than before.
    """

    kinds: dict[str, Tally]
    failures: list[Failure] = field(default_factory=list)  # the first FAILURES_KEPT
    reasons: Counter[str] = field(default_factory=Counter)  # of all, as "phase: reason"
    generations: Counter[str] = field(default_factory=Counter)  # answers by `x-gen`
    crossed: int = 0
    longest_gap: float = 0.0
    duration: float = 0.0

    @property
    def requests(self) -> int:
        return sum(tally.requests for tally in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(tally.failed for tally in self.kinds.values())

    @property
    def closed(self) -> int:
        return sum(tally.closed for tally in self.kinds.values())

    @property
    def reconnected(self) -> int:
        return sum(tally.reconnected for tally in self.kinds.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "closed": self.closed,
            "reconnected": self.reconnected,
            "crossed": self.crossed,
            "longest_gap": round(self.longest_gap, 4),
            "duration": round(self.duration, 3),
            "kinds": {name: vars(tally) for name, tally in self.kinds.items()},
            "reasons": dict(self.reasons),
            "generations": dict(self.generations),
            "failures": [vars(failure) for failure in self.failures],
        }

    def __str__(self) -> str:
        text = f"{self.failed} of {self.requests} requests failed, {self.closed} closed, {self.reconnected} reconnected"
        reasons = (f"{count} x {reason}" for reason, count in self.reasons.most_common(5))
        return f"{text} ({', '.join(reasons)})" if self.reasons else text

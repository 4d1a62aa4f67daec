"""What a call to a supervisor may come to, beside ``PeerError``: an answer that makes no sense."""

from __future__ import annotations

from typing import Final

from stillup.errors import StillupError, UsageError
from stillup.wire.api_shapes import Problem
from stillup.wire.problem_types import PROBLEM_TYPES

NOT_RUNNING: Final = 3
"""The exit code of a command that finds no supervisor."""


class NotRunningError(StillupError):
    """No supervisor answers in that runtime directory, or in any where a service may be."""

    def __init__(self, message: str, directory: str = "") -> None:
        super().__init__(message)
        self.directory = directory


class HungUpError(NotRunningError):
    """One was there, and hung up before it had answered."""


class TimedOutError(StillupError):
    """The supervisor is there and did not answer in time. What was asked for may happen all the same."""


class UnreachableError(StillupError):
    """Another host was not reached, so that nothing is known of a supervisor there."""


class ProblemError(StillupError):
    """The supervisor said no, or the thing did not happen; ``problem`` says why.

    Of a rollout that failed, ``problem.rollout`` is how it ended, with the failed worker's own output.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable last word of its type."""
        return self.problem.type.rpartition(":")[2]


def not_permitted(detail: str) -> ProblemError:
    """That the control socket is not open to us, as a supervisor would say it."""
    kind = PROBLEM_TYPES["not-permitted"]
    return ProblemError(Problem(kind.urn, kind.title, kind.status, detail, help=kind.help))


def problem_of(error: StillupError) -> Problem:
    """The problem document (RFC 9457) of an error: the supervisor's own, or one without a type of its own."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, UsageError):
        kind = PROBLEM_TYPES["usage"]
        return Problem(kind.urn, kind.title, kind.status, str(error), help=kind.help)
    title, status = ("no supervisor answers", 503) if isinstance(error, NotRunningError) else ("no answer", 504)
    return Problem("about:blank", title, status, str(error))

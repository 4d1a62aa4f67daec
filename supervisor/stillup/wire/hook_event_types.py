"""The kinds of events of programs that are run around a rollout; the others are in ``event_types``."""

from __future__ import annotations

from collections.abc import Mapping

from stillup.wire.event_envelope import Envelope, filled
from stillup.wire.event_types import BLAMELESS


class HookBegun(Envelope, frozen=True, tag="hook.begun"):
    """A hook is run; of one that is run before a rollout, no worker of that was started yet."""

    line = "hook {command} is run {hook} gen {generation}; it has {seconds:.0f} s"

    rollout: int
    generation: int
    """The one that comes, or has come."""
    hook: str
    """``before`` or ``after``."""
    command: str
    """The program's name and the plain words behind it: no option, address or path."""
    seconds: float
    """That it may take."""


class HookWaiting(Envelope, frozen=True, tag="hook.waiting"):
    """A hook is to be run, and another one is still there: one runs at a time."""

    line = "hook {command} waits until {until} has ended"

    rollout: int
    generation: int
    hook: str
    command: str
    until: str
    """The ``command`` of the other one."""


class HookDone(Envelope, frozen=True, tag="hook.done"):
    """A hook has exited with 0."""

    line = "hook {command} is done, after {seconds:.1f} s"

    rollout: int
    generation: int
    hook: str
    command: str
    seconds: float
    """That it took."""


class HookFailed(Envelope, frozen=True, tag="hook.failed"):
    """A hook has not done what it was to; one that is run before a rollout has that rejected, if it is not off already.

    After a rollout nothing else comes of it.
    """

    level = "ERROR"
    line = "hook failed, after {seconds:.1f} s: {why}"

    rollout: int
    generation: int
    hook: str
    command: str
    seconds: float
    """That it took; 0 if it was not run."""
    reason: str
    """``failed``; ``timeout``; or what its rollout was aborted for, or the service ended."""
    why: str
    """How it ended, without a word of what it wrote."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        off = data["reason"] in BLAMELESS
        return filled("hook {command} is off: {reason}" if off else cls.line, data)

    def loudness(self) -> str:
        return "INFO" if self.reason in BLAMELESS else self.level

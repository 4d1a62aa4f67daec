"""The kinds of events of the service as a whole, and of its supervisor; the others are in ``event_types``."""

from __future__ import annotations

from collections.abc import Mapping

from stillup.wire.event_envelope import Envelope, filled


class ServiceTakenOver(Envelope, frozen=True, tag="service.taken-over"):
    """A supervisor goes on where another one has ended, or where its own program was replaced."""

    level = "WARNING"
    line = "taken over: {workers:worker lives|workers live} on, {died:has|have} died meanwhile"

    generation: int | None
    """The one that serves, if one does."""
    workers: int
    died: int


class SupervisorReexec(Envelope, frozen=True, tag="supervisor.reexec"):
    """The supervisor replaces its own program; ``service.taken-over`` says that the new one goes on."""

    line = "replacing our own program; the workers serve on"


class ServiceScaled(Envelope, frozen=True, tag="service.scaled"):
    """Another number of workers is wanted."""

    line = "{workers:worker} wanted"

    generation: int
    """The one that serves."""
    workers: int


class ServiceStopDelayed(Envelope, frozen=True, tag="service.stop-delayed"):
    """The service was told to stop, and is announced to: no new clients are to be sent, and what comes is served."""

    line = "stopping in {seconds:.0f} s ({why}): /readyz fails, and everything is served on until then"

    why: str
    """Who asked."""
    seconds: float


class ServiceStopping(Envelope, frozen=True, tag="service.stopping"):
    """The service was told to stop, or could not start."""

    line = "stopping ({why})"

    why: str
    """Who asked, or what is wrong."""


class ServiceCordoned(Envelope, frozen=True, tag="service.cordoned"):
    """No new clients are to be sent; what comes is served."""

    level = "WARNING"
    line = "cordoned ({why}): /readyz fails, and everything is served on"

    why: str
    """Who asked."""


class ServiceUncordoned(Envelope, frozen=True, tag="service.uncordoned"):
    """Clients are to be sent again."""

    line = "not cordoned any more ({why})"

    why: str


class ServiceHurried(Envelope, frozen=True, tag="service.hurried"):
    """A second order to stop: what still drains is ended."""

    level = "WARNING"
    line = "asked again to stop ({why}): not waiting any longer"

    why: str


class ServiceStopped(Envelope, frozen=True, tag="service.stopped"):
    """No worker is left, and the supervisor ends; its history ends with it."""

    line = "stopped"

    code: int
    """The supervisor's exit code."""


class ConfigurationRead(Envelope, frozen=True, tag="configuration.read"):
    """A reload has read a configuration file again that was changed: its keys, by what each has come to."""

    line = "configuration read again; {keys}"

    rollout: int
    applied: list[str]
    overridden: list[str]
    """Each with the flag or the variable that wins."""
    needs_reexec: list[str]
    needs_restart: list[str]
    file_gone: list[str]
    """The path of the file, if it is not there any more: what it said last stays in force."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        what = {"applied": "applied", "overridden": "overridden", "needs_reexec": "needs a re-exec"}
        what |= {"needs_restart": "needs a restart", "file_gone": "gone, and in force as it was"}
        keys = {name: data[name] for name in what}
        parts = (
            f"{text}: {', '.join(map(str, one))}"
            for name, text in what.items()
            if isinstance(one := keys[name], list) and one
        )
        return filled(cls.line, {"keys": "; ".join(parts)})


class ListenerAdded(Envelope, frozen=True, tag="listener.added"):
    """A listener was bound that a reload brings: who connects waits for its cut-over."""

    line = "listening on {address}, too; it is served from the cut-over on"

    name: str
    address: str


class ListenerClosed(Envelope, frozen=True, tag="listener.closed"):
    """A listener was closed that no generation listens on any more, and none could come back to."""

    line = "not listening on {address} any more"

    name: str
    address: str

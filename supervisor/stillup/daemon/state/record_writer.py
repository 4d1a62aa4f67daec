"""Writing the record, before anything is done that it tells of."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Sequence

from stillup.core.model import Fleet
from stillup.core.values import replace
from stillup.daemon.state.writer_thread import SLOW, Writer
from stillup.errors import PeerError, Refused
from stillup.host.processes import boot_id
from stillup.host.runtime_directory import RuntimeDirectory
from stillup.wire import record_format
from stillup.wire.record_format import ListenerRecord, Record, TooOldError
from stillup.wire.runtime_paths import RECORD

logger = logging.getLogger("stillup")


class RecordWriter:
    """Keeps ``record.json`` in step with the fleet."""

    def __init__(
        self,
        runtime: RuntimeDirectory,
        workers_wanted: int,
        known: Record | None = None,
        *,
        drain_timeout: float = 30.0,
    ) -> None:
        """Go on with the record of another supervisor, or begin one."""
        self._runtime = runtime
        self._workers_at_start = workers_wanted
        key = known.key if known is not None else secrets.token_hex(record_format.KEY)
        nonces = known.nonces if known is not None else {}
        reexecs = known.reexecs if known is not None else 0
        self.latest = Record(
            record_format.SCHEMA,
            boot_id(),
            key,
            workers_wanted,
            Fleet(),
            nonces=nonces,
            made_directory=runtime.created,
            drain_timeout=drain_timeout,
            reexecs=reexecs,
        )
        """What is, or is to be, on the disk."""
        self._written: Record | None = None
        self._trouble = ""
        """Why what happened last could not be written down."""
        self._writer = Writer("record")

    def nonce(self, serial: int) -> str:
        """What the worker of that serial says to be let in: known before it is started, since the key is on record."""
        known = self.latest.nonces.get(serial)
        return known or hashlib.blake2b(b"%d" % serial, key=bytes.fromhex(self.latest.key), digest_size=16).hexdigest()

    def holds(self, listeners: Sequence[ListenerRecord], queue: tuple[int, int]) -> None:
        """Put on record what is in custody; written with the next fleet."""
        self.latest = replace(self.latest, listeners=tuple(listeners), queue=queue)

    def claimed(self, nonces: dict[int, str]) -> None:
        """Put on record by which nonces workers of another key are known."""
        self.latest = replace(self.latest, nonces=nonces)

    async def save(self, fleet: Fleet, *, asked: bool) -> str:
        """Write the fleet down; why that cannot be, or nothing.

        It is on the disk when this returns, or cannot be had there, or the writer's PATIENCE is over.

        Args:
            fleet: what is to be.
            asked: whether it can be refused, if it cannot be written down: what is on the disk is true then. What
                happens all the same makes that wrong: without a record the next supervisor asks the workers.
        """
        self.latest = replace(
            self.latest,
            fleet=record_format.lasting(fleet),
            drain_timeout=fleet.policy.stop_timeout,
            workers_wanted=_configured(fleet) or self._workers_at_start,
        )
        if self.latest == self._written:
            return ""
        if self._writer.busy:
            return SLOW
        trouble = await self._writer.write(self._write, self.latest, asked)
        if trouble == SLOW:
            logger.warning("the disk under %s takes long: the record is behind", self._runtime.path)
            return SLOW
        if trouble != self._trouble and not asked:
            if trouble:
                logger.error("the record cannot be written: %s", trouble)
            else:
                logger.info("the record is written again")
            self._trouble = trouble
        return trouble

    async def caught_up(self, patience: float) -> bool:
        """Whether a disk that did not answer in time has done so within ``patience`` seconds from now."""
        return await self._writer.settled(patience)

    def _write(self, wanted: Record, asked: bool) -> None:  # noqa: FBT001 - for a thread
        content = record_format.encode(wanted)
        try:
            self._runtime.replace(RECORD, content)
        except OSError:
            if asked:
                raise
            self._written = None
            with contextlib.suppress(OSError):
                self._runtime.remove(RECORD)
            # There may be room for one, though not for two.
            self._runtime.replace(RECORD, content)
        self._written = wanted

    def close(self) -> None:
        self._writer.close()


def _configured(fleet: Fleet) -> int:
    """The number of workers that a reload has brought and that stays; 0 if none has.

    That of a rollout before its cut-over is taken back when it is aborted, as it is when the supervisor dies.
    """
    pending = fleet.pending
    return pending.before.configured if pending is not None and pending.before is not None else fleet.configured


def read(runtime: RuntimeDirectory) -> Record | None:
    """The record that another supervisor left here; None if there is none, or none that could be true now.

    Raises:
        Refused: it is of an older stillup, whose workers may live and cannot be taken over.
    """
    try:
        text = runtime.read(RECORD)
    except OSError as error:
        logger.error("the record in %s cannot be read: %s", runtime.path, error.strerror)  # noqa: TRY400 - no bug
        return None
    if text is None:
        return None
    try:
        found = record_format.decode(text)
    except TooOldError as error:
        if error.boot != boot_id():
            return None
        raise Refused(
            f"an older stillup has ended here, and this one cannot go on from its {runtime.file(RECORD)} ({error}): "
            f"end its workers that are left, remove {runtime.path}, and start again",
            code="unavailable",
        ) from error
    except PeerError as error:
        logger.error("the record in %s is of no use: %s", runtime.path, error)  # noqa: TRY400 - no bug
        return None
    return found if found.boot == boot_id() else None

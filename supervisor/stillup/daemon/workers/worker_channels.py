"""The channels of workers that were let in: what they say becomes events, and what they are told is sent.

A worker speaks here from when it has its listeners until its process or its channel ends. What it says is read by its
own task (``listen``), a few messages a turn of the loop, and by ``catch_up``, before anybody's silence is judged. One
that says more than ``core.message_allowance`` gives it is cut off, and so is one that reads nothing of what it is told:
nobody is waited for, and nothing is kept that one of them could make grow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from stillup.core.events import BecameReady, BeganServing, ChannelLost, Event, ProbeAnswered, Reported, WorkerBootFailed
from stillup.core.message_allowance import COMING_BACK, Allowance, cost_of
from stillup.errors import PeerError
from stillup.host.blocking_close import close_in_thread
from stillup.host.channel import Channel
from stillup.wire import handoff_messages, protocol_versions, worker_words
from stillup.wire.handoff_messages import REASON_LIMIT, FromSupervisor, Reopened, Report, Serving

logger = logging.getLogger("stillup")

MOST_A_TURN: Final = 2
"""Messages that are read of one worker in one turn of the loop."""
MOST_CAUGHT_UP: Final = 16
"""The same before silence is judged: more than lies there of one that means well, unless we were stopped. Then what is
left is read, and counts as heard, in the turns after that."""


class WorkerChannels:
    """One channel a worker, by its serial. Owns them until ``close``, ``forget`` or ``cut_off``."""

    def __init__(self, submit: Callable[[Event], None]) -> None:
        """Submit what workers say."""
        self._submit = submit
        self._channels: dict[int, Channel] = {}
        self._protocols: dict[int, int] = {}
        """What each of them speaks."""
        self._speaking: dict[int, Channel] = {}
        """The channels of those that have their listeners."""
        self._allowances: dict[int, Allowance] = {}
        """What each may still say, on whichever channel."""
        self._catching_up = False
        self._output = 0
        """How many times stdout and stderr have become others."""
        self._has_output: dict[int, int] = {}
        """By serial, which of them each worker has."""

    def open(self, serial: int, channel: Channel, protocol: int, *, comes_back: bool = False) -> None:
        """A worker is known on this channel; one that it had before is closed.

        Args:
            serial: the worker's.
            channel: ours from here on.
            protocol: what it speaks, by its first word; None: as before, or ours.
            comes_back: whether it was another supervisor's, perhaps: what it writes to may be that one's, or a file
                that was renamed since, so it is given ours.
        """
        before = self._channels.get(serial)
        if before is not None:
            before.close()
        self._channels[serial] = channel
        self._has_output[serial] = self._output - comes_back
        self._protocols[serial] = protocol

    def withdraw(self, serial: int, channel: Channel) -> None:
        """What ``open`` said is not so; the channel stays the caller's."""
        if self._channels.get(serial) is channel:
            del self._channels[serial]

    def reopened(self) -> None:
        """Stdout and stderr are others now: give them to every worker, to those that are being handed to, soon."""
        self._output += 1
        for serial in tuple(self._speaking):
            self._give_output(serial)

    def _give_output(self, serial: int) -> None:
        self._has_output[serial] = self._output
        self.tell(serial, Reopened(), (1, 2))

    def tell(self, serial: int, message: FromSupervisor, fds: Sequence[int] = ()) -> bool:
        """Send a worker a message, in the protocol that it speaks; False when it cannot be reached. Never waits."""
        channel = self._channels.get(serial)
        if channel is None:
            return False
        try:
            spoken = self._protocols.get(serial, handoff_messages.PROTOCOL)
            if not protocol_versions.is_known(message, spoken):
                return False
            channel.send_now(handoff_messages.encode(protocol_versions.for_version(message, spoken)), fds)
        except BlockingIOError:
            self.cut_off(serial, channel, PeerError("it reads nothing of what it is told"))
            return False
        except OSError as error:
            logger.debug("worker %s cannot be told: %s", serial, error)
            return False
        return True

    async def listen(self, serial: int, channel: Channel) -> None:
        """Pass on what a worker says that has its listeners, until it hangs up.

        Raises:
            PeerError: it broke the protocol.
            OSError: the connection broke, or was closed here.
        """
        self._speaking[serial] = channel
        if self._has_output.get(serial) != self._output:
            self._give_output(serial)
        while True:
            for _ in range(MOST_A_TURN):
                packet, fds = await channel.receive()
                if not self._understand(serial, packet, fds):
                    return
            await asyncio.sleep(0)  # what lies unread is received without a wait

    def may_come_back(self, serial: int) -> bool:
        """Whether a worker may come back by another channel now; else it has said too much, and may later."""
        return self._spend(serial, COMING_BACK)

    def _spend(self, serial: int, cost: float) -> bool:
        now = time.monotonic()
        allowance = self._allowances.get(serial)
        if allowance is None:
            self._allowances[serial] = allowance = Allowance(now)
        return allowance.spend(cost, now)

    def stopped(self, serial: int, channel: Channel) -> None:
        """Nobody listens to this channel any more."""
        if self._speaking.get(serial) is channel:  # it may have come back by another
            del self._speaking[serial]

    def catch_up(self, besides: int | None = None) -> None:
        """Pass on what workers have said and lies unread, MOST_CAUGHT_UP of each, so that nobody's silence is our own.

        Args:
            besides: the serial of a worker whose messages wait, since one of them is being passed on.
        """
        if self._catching_up:
            return
        self._catching_up = True
        try:
            for serial, channel in tuple(self._speaking.items()):
                if serial != besides:
                    self._read_out(serial, channel)
        finally:
            self._catching_up = False

    def _read_out(self, serial: int, channel: Channel) -> None:
        try:
            for _ in range(MOST_CAUGHT_UP):
                if not self._understand(serial, *channel.receive_now()):
                    break
        except PeerError as error:
            self.cut_off(serial, channel, error)
        except OSError as error:  # most often BlockingIOError: that was all
            logger.debug("nothing more of worker %s: %s", serial, error)

    def cut_off(self, serial: int, channel: Channel, error: PeerError | TimeoutError) -> None:
        """A worker broke the protocol: close its channel, and submit that it is lost."""
        message = f"broke the hand-off protocol: {error or 'no answer in time'}"
        logger.debug("worker %s %s", serial, message)  # a worker that serves is told of by an event
        self._submit(ChannelLost(serial, worker_words.without_words(message)))
        self._speaking.pop(serial, None)
        channel.close()

    def forget(self, serial: int) -> None:
        """The worker's process has ended. What it said last is passed on: its end may be seen before that was read."""
        self._speaking.pop(serial, None)
        self._protocols.pop(serial, None)
        self._has_output.pop(serial, None)
        channel = self._channels.pop(serial, None)
        if channel is not None:
            while self._has_last_word(serial, channel):
                pass
            channel.close()
        self._allowances.pop(serial, None)

    def _has_last_word(self, serial: int, channel: Channel) -> bool:
        """Pass on the next thing that a worker has said; whether there may be more."""
        try:
            return self._understand(serial, *channel.receive_now())
        except PeerError as error:  # as what belongs to its hand-off, which ended before that was read
            logger.debug("last words of worker %s: %s", serial, error)
            return True
        except OSError as error:  # no more of it
            logger.debug("last words of worker %s: %s", serial, error)
            return False

    def close(self) -> None:
        """Hang up on everybody."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _understand(self, serial: int, packet: bytes, fds: list[int]) -> bool:
        """Submit what a worker said; False when it has hung up.

        Raises:
            PeerError: it is not what a worker says that has its listeners.
        """
        close_in_thread(fds)
        if fds:
            raise PeerError("it sent descriptors")
        if not packet:
            return False
        if not self._spend(serial, cost_of(len(packet))):
            raise PeerError("it says more than a worker has to say")
        match handoff_messages.decode_from_worker(packet):
            case handoff_messages.BootFailed() as failed:
                self._submit(WorkerBootFailed(serial, *worker_words.in_short(failed)))
            case handoff_messages.Ready(probe):
                self._submit(BecameReady(serial, probe[:REASON_LIMIT]))
            case handoff_messages.ProbeAnswer(status):
                self._submit(ProbeAnswered(serial, status))
            case Serving():
                # It may take the place of one that hangs. What that one has said meanwhile counts, and comes first.
                self.catch_up(besides=serial)
                self._submit(BeganServing(serial))
            case Report(figures, recycle):
                self._submit(Reported(serial, figures, worker_words.reason_of(recycle)))
            case message:
                raise PeerError(f"it said {type(message).__name__} out of turn")
        return True

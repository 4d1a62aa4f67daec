"""Whatever comes to the supervisor's door, in whatever order: it is answered or cut off, and nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.commands import Spawn
from supervisor.core.events import Event
from supervisor.core.model import Fleet, Release
from supervisor.daemon.handoff import Claimant, HandoffDoor
from supervisor.daemon.holder import Holder
from supervisor.errors import Refused
from supervisor.host import descriptors
from supervisor.host.processes import hold
from supervisor.wire import handoff
from supervisor.wire.address import parse_bind
from supervisor.wire.handoff import Batch, BootFailed, Drain, Hello, Ready, Report, Resume, Serving, Taken, Welcome
from tests.asgi.running import run, until
from tests.host.conftest import open_descriptors
from tests.wire.talking import ANYTHING, Said, Things, said, things

FRESH, BACK, UNKNOWN = "a fresh worker's", "of one that comes back", "nobody's"
WELCOME = Welcome(handoff.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
RELEASE = Release("app:app", "/usr/bin/python3", "/")


@dataclass
class Supervisor:
    """The door of a supervisor that does nothing but listen; this process is every worker that it knows."""

    open: bool
    """Whether it has its listeners, or waits for them to come back."""
    claims: bool
    """Whether it takes in workers that it does not know."""
    admits: bool
    refuses: bool
    """Whether the fleet refuses whoever says hello."""
    events: list[Event] = field(default_factory=list)
    claimants: list[Claimant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.path = str(Path(folder, "handoff.sock"))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        sock.bind(self.path)
        sock.listen()
        self.holder = Holder()
        self.stack.callback(self.holder.close)
        if self.open:
            self.holder.open([parse_bind("web=127.0.0.1:0")], 16)
        self.door = HandoffDoor(sock, self.holder, self.events.append, self.ask)
        self.stack.callback(self.door.close)
        self.process = hold(os.getpid())
        self.stack.callback(self.process.close)
        spawned = asyncio.get_running_loop().create_future()
        spawned.set_result(self.process)
        self.door.expect(FRESH, Spawn(1, 1, 1, RELEASE, 1.0, 1.0), spawned, lambda: WELCOME)
        self.door.know(BACK, 2, self.process)
        if self.claims:
            self.door.claim = self.claimants.append
        if self.admits:
            self.door.admits.set()

    def ask(self, event: Event) -> Awaitable[Fleet]:
        self.events.append(event)
        answer: asyncio.Future[Fleet] = asyncio.get_running_loop().create_future()
        if self.refuses:
            answer.set_exception(Refused("out of order"))
        else:
            answer.set_result(Fleet())
        return answer

    async def close(self) -> None:
        self.stack.close()
        for claimant in self.claimants:
            claimant.process.close()
        await asyncio.sleep(0)
        await until(lambda: not self.door._tasks)


def resume(have: Things, nonce: str = BACK, *, draining: bool = False) -> Said:
    nothing = draining
    return said(
        Resume(
            handoff.PROTOCOL,
            nonce,
            draining,
            WELCOME,
            [] if nothing else have.infos,
            None if nothing else have.cookies,
        )
    )


async def test_a_worker_of_the_version_before_is_told_in_its_words() -> None:
    """Each of its orders is one that it knows: welcomed as of version 1, it is never told to park."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as worker:
        worker.connect(supervisor.path)
        worker.send(handoff.encode(Hello(1, FRESH)))
        await until(lambda: 1 in supervisor.door._channels)
        assert supervisor.door.tell(1, Drain(5.0, final=False, packet=64, park=True))
        packets: list[bytes] = []

        def two() -> bool:
            with suppress(BlockingIOError):
                packets.append(worker.recv(65536))
            return len(packets) == 2

        await until(two)
        assert any(handoff.decode_from_supervisor(packet) == Drain(5.0, final=True) for packet in packets)
        assert not any(b"park" in packet for packet in packets)
    await supervisor.close()


OPENINGS = (
    "nothing",
    "hello",
    "hello-as-nobody",
    "hello-taken",
    "hello-offered",
    "hello-all",
    "resume",
    "resume-draining",
    "resume-as-nobody",
    "resume-all",
    "claim-all",
)


def opening(name: str, have: Things) -> list[Said]:
    """The first words of a worker that knows its part."""
    taken, everything = said(Taken(0)), said(Batch(3), *have.right)
    hello = [said(Hello(handoff.PROTOCOL, FRESH)), taken, taken, said(Taken(3)), said(Ready()), said(Serving())]
    return {
        "nothing": [],
        "hello": hello[:1],
        "hello-as-nobody": [said(Hello(handoff.PROTOCOL, UNKNOWN))],
        "hello-taken": hello[:2],
        "hello-offered": hello[:3],
        "hello-all": hello,
        "resume": [resume(have)],
        "resume-draining": [resume(have, draining=True)],
        "resume-as-nobody": [resume(have, UNKNOWN)],
        "resume-all": [resume(have), everything],
        "claim-all": [resume(have, UNKNOWN), everything, said(Report({}, 3))],
    }[name]


async def talk(supervisor: Supervisor, have: Things, words: Sequence[Said]) -> list[str]:
    """Say it all, one packet after the other, and hang up; the kinds of the answers."""
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.setblocking(False)
        worker.connect(supervisor.path)
        for word in words:
            with suppress(OSError):  # it has hung up on us
                have.send(worker, word)
            for _ in range(8):
                await asyncio.sleep(0)
        with suppress(BlockingIOError, ConnectionError):
            while True:
                packet, fds = descriptors.receive(worker, handoff.MESSAGE_LIMIT, handoff.BATCH_LIMIT)
                descriptors.close(fds)
                if not packet:
                    break
                heard.append(type(handoff.decode_from_supervisor(packet)).__name__)
    if supervisor.admits:
        await until(lambda: not supervisor.door._strangers)
    return heard


@pytest.mark.usefixtures("first_loop")
@settings(max_examples=250, deadline=2000)
@given(
    opened=st.sampled_from(OPENINGS),
    rest=ANYTHING,
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_anything_is_said(opened: str, rest: list[Said], flags: tuple[bool, bool, bool, bool]) -> None:
    """Any words in any order with any descriptors: no crash, no wait without an end, no descriptor left open."""

    async def story() -> None:
        with things() as have:
            before = open_descriptors()
            supervisor = Supervisor(*flags)
            await talk(supervisor, have, [*opening(opened, have), *rest])
            if not supervisor.admits:
                supervisor.door.admits.set()  # who waits for that is told
            await until(lambda: not supervisor.door._tasks)
            await supervisor.close()
            assert open_descriptors() == before

    run(story())


@pytest.mark.usefixtures("first_loop")
@settings(max_examples=60, deadline=2000)
@given(opened=st.sampled_from(OPENINGS), rest=ANYTHING, turns=st.integers(0, 12), admits=st.booleans())
def test_closed_in_the_middle(opened: str, rest: list[Said], turns: int, admits: bool) -> None:
    """A supervisor that ends in the middle of any conversation leaves no descriptor open, and no task behind."""

    async def story() -> None:
        with things() as have:
            before = open_descriptors()
            worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            supervisor = Supervisor(open=True, claims=True, admits=admits, refuses=False)
            worker.setblocking(False)
            worker.connect(supervisor.path)
            for word in [*opening(opened, have), *rest]:
                with suppress(OSError):
                    have.send(worker, word)
            for _ in range(turns):
                await asyncio.sleep(0)
            await supervisor.close()
            worker.close()
            assert open_descriptors() == before

    run(story())


@pytest.mark.usefixtures("first_loop")
async def test_the_openings_are_true() -> None:
    """The same words without the noise come to their end: what is tried above is tried where it matters."""
    ends = {}
    for name in OPENINGS:
        with things() as have:
            supervisor = Supervisor(
                open=name.startswith("hello"), claims=name.startswith("claim"), admits=True, refuses=False
            )
            ends[name] = await talk(supervisor, have, opening(name, have))
            await supervisor.close()
    give = ["Welcome", "Offer", "Batch"]
    take = ["Return", "Taken", "Resumed"]
    assert ends == {
        "nothing": [],
        "hello": give[:1],
        "hello-as-nobody": ["Refusal"],
        "hello-taken": give[:2],
        "hello-offered": give,
        "hello-all": give,
        "resume": take[:1],
        "resume-draining": ["Return", "Resumed"],
        "resume-as-nobody": ["Refusal"],
        "resume-all": take,
        "claim-all": [*take, "Refusal"],
    }


async def test_last_words() -> None:
    """A worker that fails at its listeners is heard, with its reason."""
    with things() as have:
        supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
        words = [*opening("hello", have), said(BootFailed("listeners", "no"))]
        await talk(supervisor, have, words)
        assert "BootFailed" in {type(event).__name__ for event in supervisor.events}
        await supervisor.close()

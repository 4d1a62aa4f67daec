"""Whatever comes to handoff.sock, in whatever order: it is answered or cut off, and nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tempfile
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup import __version__
from stillup.core import message_allowance
from stillup.core.commands import Spawn
from stillup.core.events import ChannelLost, Event
from stillup.core.model import Fleet, Release
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.state.custody import Custody
from stillup.daemon.workers.admission import Admission, Claimant
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.errors import Refused
from stillup.host import descriptors, sockets
from stillup.host.processes import hold
from stillup.wire import handoff_messages, protocol_versions
from stillup.wire.address import parse_bind
from stillup.wire.handoff_messages import (
    Batch,
    BootFailed,
    Hello,
    Ready,
    Refusal,
    Report,
    Resume,
    Serving,
    Taken,
    Welcome,
)
from tests.asgi.event_loops import run, until
from tests.host.conftest import open_descriptors
from tests.wire.wire_messages import ANYTHING, Said, Things, said, things


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


FRESH, BACK, UNKNOWN = "a fresh worker's", "of one that comes back", "nobody's"
WELCOME = Welcome(handoff_messages.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
RELEASE = Release("app:app", "/usr/bin/python3", "/")


@dataclass
class Supervisor:
    """A supervisor that does nothing but listen; this process is every worker that it knows."""

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
        self.custody = Custody()
        self.stack.callback(self.custody.close)
        if self.open:
            self.custody.open([parse_bind("web=127.0.0.1:0")], 16)
        self.channels = WorkerChannels(self.events.append)
        self.admission = Admission(sock, self.custody, self.channels, self.events.append, self.ask)
        self.stack.callback(self.admission.close)
        self.process = hold(os.getpid())
        self.stack.callback(self.process.close)
        spawned = asyncio.get_running_loop().create_future()
        spawned.set_result(self.process)
        self.admission.expect(FRESH, Spawn(1, 1, 1, RELEASE, 1.0, 1.0), spawned, lambda: WELCOME)
        self.admission.know(BACK, 2, self.process)
        if self.claims:
            self.admission.claim = self.claimants.append
        if self.admits:
            self.admission.admits.set()

    def ask(self, event: Event) -> Awaitable[Fleet]:
        self.events.append(event)
        answer: asyncio.Future[Fleet] = asyncio.get_running_loop().create_future()
        if self.refuses:
            answer.set_exception(Refused("out of order", code="out-of-order"))
        else:
            answer.set_result(Fleet())
        return answer

    async def close(self) -> None:
        self.stack.close()
        for claimant in self.claimants:
            claimant.process.close()
        await asyncio.sleep(0)
        await until(lambda: not self.admission._tasks)


def resume(
    have: Things, nonce: str = BACK, *, draining: bool = False, protocol: int = handoff_messages.PROTOCOL
) -> Said:
    nothing = draining
    return said(
        Resume(
            protocol,
            nonce,
            draining,
            WELCOME,
            [] if nothing else have.infos,
            None if nothing else have.cookies,
        )
    )


async def test_a_worker_of_another_version_is_turned_away() -> None:
    """A worker that speaks a protocol which is not spoken here hears which is, and its hello never happened."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as worker:
        worker.connect(supervisor.path)
        worker.send(handoff_messages.encode(Hello(1, FRESH)))
        packets: list[bytes] = []

        def heard() -> bool:
            with suppress(BlockingIOError):
                packets.append(worker.recv(65536))
            return bool(packets)

        await until(heard)
        refusal = Refusal(
            f"it speaks protocol 1, this supervisor {handoff_messages.PROTOCOL}: "
            f"its environment needs stillup {__version__}"
        )
        assert handoff_messages.decode_from_supervisor(packets[0]) == refusal
        assert supervisor.events == []
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
    hello = [
        said(Hello(handoff_messages.PROTOCOL, FRESH)),
        taken,
        taken,
        said(Taken(3)),
        said(Ready()),
        said(Serving()),
    ]
    return {
        "nothing": [],
        "hello": hello[:1],
        "hello-as-nobody": [said(Hello(handoff_messages.PROTOCOL, UNKNOWN))],
        "hello-taken": hello[:2],
        "hello-offered": hello[:3],
        "hello-all": hello,
        "resume": [resume(have)],
        "resume-draining": [resume(have, draining=True)],
        "resume-as-nobody": [resume(have, UNKNOWN)],
        "resume-all": [resume(have), everything],
        "claim-all": [resume(have, UNKNOWN), everything, said(Report(WorkerFigures({}, 3)))],
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
                packet, fds = descriptors.receive(worker, handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT)
                descriptors.close(fds)
                if not packet:
                    break
                heard.append(type(handoff_messages.decode_from_supervisor(packet)).__name__)
    if supervisor.admits:
        await until(lambda: not supervisor.admission._unidentified)
    return heard


@pytest.mark.usefixtures("first_loop")
@settings(deadline=8000)  # ms: less than a step of a conversation may take, and more than a busy machine does
@given(
    opened=st.sampled_from(OPENINGS),
    rest=ANYTHING,
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_anything_that_is_said_leaves_nothing_open(
    opened: str, rest: list[Said], flags: tuple[bool, bool, bool, bool]
) -> None:
    """Any words in any order with any descriptors: no crash, no wait without an end, no descriptor left open."""

    async def story() -> None:
        with things() as have:
            before = open_descriptors()
            supervisor = Supervisor(*flags)
            await talk(supervisor, have, [*opening(opened, have), *rest])
            if not supervisor.admits:
                supervisor.admission.admits.set()  # who waits for that is told
            await until(lambda: not supervisor.admission._tasks)
            await supervisor.close()
            await until(lambda: open_descriptors() == before)

    run(story())


@pytest.mark.usefixtures("first_loop")
@settings(deadline=8000)  # ms: less than a step of a conversation may take, and more than a busy machine does
@given(opened=st.sampled_from(OPENINGS), rest=ANYTHING, turns=st.integers(0, 12), admits=st.booleans())
def test_a_supervisor_that_ends_in_the_middle_leaves_nothing_open(
    opened: str, rest: list[Said], turns: int, admits: bool
) -> None:
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
            await until(lambda: open_descriptors() == before)

    run(story())


@pytest.mark.usefixtures("first_loop")
async def test_the_openings_come_to_their_ends() -> None:
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
        "resume-draining": ["Return", "Resumed", "Reopened"],
        "resume-as-nobody": ["Refusal"],
        "resume-all": [*take, "Reopened"],
        "claim-all": [*take, "Refusal"],
    }


async def test_a_worker_that_fails_at_its_listeners_is_heard() -> None:
    """A worker that fails at its listeners is heard, with its reason."""
    with things() as have:
        supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
        words = [*opening("hello", have), said(BootFailed("listeners", "no"))]
        await talk(supervisor, have, words)
        assert "WorkerBootFailed" in {type(event).__name__ for event in supervisor.events}
        await supervisor.close()


async def test_who_comes_back_twice_has_lost_the_first(stack: ExitStack) -> None:
    """A worker that says on one connection after the other that it comes back holds one of them; the rest is closed."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    have = stack.enter_context(things())
    workers = []
    for _ in range(int(message_allowance.AT_START // message_allowance.COMING_BACK)):
        worker = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        worker.connect(supervisor.path)
        have.send(worker, resume(have))
        for _ in range(8):
            await asyncio.sleep(0)
        workers.append(worker)
    assert len(supervisor.admission._tasks) == 1
    await supervisor.close()


@pytest.mark.parametrize("protocol", sorted(protocol_versions.SPOKEN))
async def test_who_comes_back_is_given_the_log(protocol: int, stack: ExitStack) -> None:
    """Also one whose app has a log of its own, which prints all the same; not one that takes the word for a fault."""
    assert not WELCOME.settings.log_form
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    have = stack.enter_context(things())
    heard = await talk(supervisor, have, [resume(have, protocol=protocol), said(Batch(3), *have.right)])
    assert heard == ["Return", "Taken", "Resumed", *(["Reopened"] if protocol > 3 else [])]
    await supervisor.close()


async def test_who_has_said_too_much_comes_back_later(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coming back costs: one that does nothing else is turned away until some time has passed."""
    monkeypatch.setattr(message_allowance, "PER_SECOND", 0.0)  # no time passes
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    have = stack.enter_context(things())
    answers = [await talk(supervisor, have, opening("resume-all", have)) for _ in range(20)]
    whole = ["Return", "Taken", "Resumed", "Reopened"]
    assert (answers[0], answers[-1]) == (whole, ["Refusal"])
    assert answers.count(whole) == message_allowance.AT_START // message_allowance.COMING_BACK
    monkeypatch.setattr(message_allowance, "PER_SECOND", 1e9)
    assert await talk(supervisor, have, opening("resume-all", have)) == whole
    await supervisor.close()


def raises(*_: object) -> NoReturn:
    """What nobody has thought of."""
    raise ZeroDivisionError


async def test_what_nobody_has_thought_of(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever finds a fault of ours is cut off each time, the log has it once, and nothing is left open."""
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    monkeypatch.setattr(sockets, "describe", raises)
    have = stack.enter_context(things())
    before = open_descriptors()
    for _ in range(3):
        assert await talk(supervisor, have, opening("resume-all", have)) == ["Return"]
    await until(lambda: not supervisor.admission._tasks and open_descriptors() == before)
    gc.collect()  # asyncio tells of what a task has raised when nobody can ask for it any more
    assert faults == []
    (line,) = [record for record in caplog.records if "by a fault of ours" in record.message]
    assert "ZeroDivisionError" in str(line.exc_text)
    await supervisor.close()


async def test_what_nobody_has_thought_of_later(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was let in before is one that is lost."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    monkeypatch.setattr(supervisor.channels, "listen", raises)
    have = stack.enter_context(things())
    await talk(supervisor, have, opening("hello-all", have))
    await until(lambda: not supervisor.admission._tasks)
    assert supervisor.events[-1] == ChannelLost(1, "broke the hand-off protocol: what it said is not understood")
    await supervisor.close()

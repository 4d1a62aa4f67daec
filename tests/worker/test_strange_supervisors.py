"""Whatever a supervisor says to a worker, in whatever order: the worker takes it or hangs up, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.channel import Channel
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Batch, Offer, Refusal, Resumed, Return, Taken, Welcome
from stillup.worker import supervisor_channel as module
from stillup.worker.supervisor_channel import SupervisorChannel, take_over
from tests.asgi.event_loops import run
from tests.host.conftest import are_open_soon, open_descriptors
from tests.wire.wire_messages import ANYTHING, Said, Things, said, things

pytestmark = pytest.mark.usefixtures("first_loop")

WELCOME = Welcome(handoff_messages.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
PATIENCE = 15.0
"""Seconds that each side waits for the other: longer than an example may take."""
GREETINGS = ("nothing", "refused", "welcome", "offer", "all")
ANSWERS = ("nothing", "refused", "return", "taken", "all")


def greeting(name: str, have: Things) -> list[Said]:
    """The first words of a supervisor to a worker that says hello."""
    welcome = said(WELCOME, "file", "file")
    offer = said(Offer(have.infos, have.cookies))
    everything = said(Batch(3), *have.right)
    return {
        "nothing": [],
        "refused": [said(Refusal("no"))],
        "welcome": [welcome],
        "offer": [welcome, offer],
        "all": [welcome, offer, everything],
    }[name]


def answer(name: str) -> list[Said]:
    """The first words of a supervisor to a worker that comes back with a listener and a queue."""
    return {
        "nothing": [],
        "refused": [said(Refusal("no"))],
        "return": [said(Return())],
        "taken": [said(Return()), said(Taken(3))],
        "all": [said(Return()), said(Taken(3)), said(Resumed())],
    }[name]


def speak(handoff: socket.socket, have: Things, words: Sequence[Said]) -> None:
    """Let one worker in, say it all whether it answers or not, and no more; hang up when it does."""
    connection, _ = handoff.accept()
    with connection:
        connection.settimeout(PATIENCE)
        for word in words:
            with suppress(OSError):  # it has hung up on us, and says no more
                have.send(connection, word)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(handoff_messages.MESSAGE_LIMIT):
                pass


def listening(folder: str) -> tuple[socket.socket, str]:
    path = str(Path(folder, "handoff.sock"))
    handoff = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handoff.settimeout(PATIENCE)
    handoff.bind(path)
    handoff.listen()
    return handoff, path


def taken_over(have: Things, words: Sequence[Said]) -> bool:
    """Whether a worker that hears these words comes to have its listeners; what it holds is closed again."""
    with tempfile.TemporaryDirectory() as folder:
        handoff, path = listening(folder)
        with handoff:
            thread = threading.Thread(target=speak, args=(handoff, have, words))
            thread.start()
            ours = None
            with suppress(PeerError, OSError):
                ours = take_over(path, "nonce")
            if ours is not None:
                assert [name for name, _ in ours.listeners] == ["web"]
                ours.close()
                descriptors.close([ours.stdout, ours.stderr])
            thread.join()
    return ours is not None


@settings(deadline=10_000)
@given(name=st.sampled_from(GREETINGS), rest=ANYTHING)
def test_anything_is_said_to_a_fresh_worker(name: str, rest: list[Said]) -> None:
    """It has everything that it was promised, or nothing at all; no descriptor is left open, and it does not wait."""
    with mock.patch.object(module, "HELLO_DEADLINE", PATIENCE), things() as have:
        before = open_descriptors()
        words = [*greeting(name, have), *rest]
        taken = taken_over(have, words)
        assert are_open_soon(before)
        assert taken or name != "all"


async def come_back(have: Things, words: Sequence[Said], *, draining: bool) -> bool:
    """Whether a worker that hears these words is taken back; what it held it holds still."""
    with tempfile.TemporaryDirectory() as folder:
        handoff, path = listening(folder)
        with handoff:
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            there.close()
            channel = Channel(here, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
            held = socket.socket(fileno=os.dup(have.fds["listener"]))
            queue = AdoptionQueue.receive([os.dup(have.fds[name]) for name in ("reader", "writer")], have.cookies)
            if draining:
                held.close()
                queue.reader.close()
            ours = SupervisorChannel(path, "nonce", channel, WELCOME, -1, -1, [("web", held)], queue)
            thread = threading.Thread(target=speak, args=(handoff, have, words))
            thread.start()
            back = await ours.resume(draining=draining)
            if back:
                with suppress(PeerError):
                    while await ours.hear() is not None:
                        pass
            assert draining or ours.listeners[0][1].fileno() >= 0
            assert queue.writer.fileno() >= 0
            ours.close()
            await asyncio.to_thread(thread.join)
    return back


@settings(deadline=10_000)
@given(name=st.sampled_from(ANSWERS), rest=ANYTHING, draining=st.booleans())
def test_anything_is_said_to_one_that_comes_back(name: str, rest: list[Said], draining: bool) -> None:
    """It has a supervisor or has none, and still holds what it held; no descriptor is left open."""

    async def story() -> None:
        await asyncio.to_thread(open_descriptors)  # have the loop's thread
        with things() as have:
            before = open_descriptors()
            await come_back(have, [*answer(name), *rest], draining=draining)
            assert are_open_soon(before)

    run(story())


def test_the_greetings_are_true() -> None:
    """Without the noise a fresh worker takes over only what is whole."""
    with things() as have:
        taken = {name: taken_over(have, greeting(name, have)) for name in GREETINGS}
    assert taken == dict.fromkeys(GREETINGS, False) | {"all": True}


async def test_the_answers_are_true() -> None:
    """Without the noise one that comes back has a supervisor only when that has said so."""
    with things() as have:
        back = {name: await come_back(have, answer(name), draining=False) for name in ANSWERS}
        assert back == dict.fromkeys(ANSWERS, False) | {"all": True}
        assert await come_back(have, [said(Return()), said(Resumed())], draining=True)

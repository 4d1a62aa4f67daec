"""Callers without a right at the control server: they get little, and cost nobody else a place."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillup.core.access import ANYBODY, Principal
from stillup.core.caller_limits import Limits
from stillup.daemon.control import request_limits
from stillup.daemon.control.peer_identities import Identity
from stillup.host import peer
from tests.asgi.event_loops import until
from tests.daemon.control.served_control import GET, WAIT, serving


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("over_tcp", [False, True])
async def test_a_body_of_theirs_is_not_read(tmp_path: Path, framing: bytes, over_tcp: bool) -> None:
    """Of chunks of one byte it takes seconds to parse: they are denied at its head, and hung up on.

    Over TCP nobody is known, and all may ask.
    """
    who = ANYBODY if over_tcp else Principal(7, 7, 7)
    async with serving(tmp_path, meet=lambda _: Identity(who), has_right=lambda _: over_tcp) as served:
        for begin in (b"", b"1\r\na\r\n" * 50):
            client = await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + begin)
            status, body = await client.answer()
            assert (status, b"problem:not-permitted" in body, served.app.asked) == (403, True, 0)
            client.writer.write_eof()
            assert await client.end() == b""
            await client.close()


async def test_they_may_say_that_there_is_none(tmp_path: Path) -> None:
    """A body of no bytes is none."""
    async with serving(tmp_path, has_right=lambda _: False) as served:
        client = await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer())[0] == 200
        await client.close()


async def test_who_has_no_right_asks_once(tmp_path: Path) -> None:
    """A connection of such a caller is for one request, whatever is pipelined behind it."""
    async with serving(tmp_path, has_right=lambda _: False) as served:
        answers = [await (await served.connect(GET * 50)).end() for _ in range(2)]
        assert [answer.count(b"HTTP/1.1 200") for answer in answers] == [1, 1]
        assert all(b"connection: close" in answer.lower() for answer in answers)
        assert served.app.asked == 2


class OwnTime:
    """A clock that stands still until those who wait are let go on, after as long as the first of them wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self._now = 100.0
        self._over = asyncio.Event()
        own = SimpleNamespace(get_running_loop=lambda: self, sleep=self._sleep)
        monkeypatch.setattr(request_limits, "asyncio", own)

    def time(self) -> float:
        return self._now

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self._over.wait()

    def pass_by(self) -> None:
        self._now += self.waits[0]
        self._over.set()


async def test_so_often_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five at once two are answered, two a second later, and one is told that there are too many."""
    monkeypatch.setattr(request_limits, "WITHOUT_RIGHT", 2)
    clock = OwnTime(monkeypatch)
    async with serving(tmp_path, has_right=lambda _: False) as served:
        clients = [await served.connect(GET) for _ in range(5)]
        await until(lambda: sum(bool(client.reader._buffer) for client in clients) == 3)  # type: ignore[attr-defined]
        assert (clock.waits, served.app.asked) == ([1, 1], 2)
        clock.pass_by()
        answers = [await client.end() for client in clients]
        assert Counter(answer.split()[1] for answer in answers) == {b"200": 4, b"503": 1}
        assert any(b"busy: too many callers without a role ask" in answer for answer in answers)


async def test_they_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share few places, and one that is being answered goes for somebody with a right."""
    uid = 0

    def principal(_: socket.socket) -> Principal:
        return Principal(uid, uid, 7)

    monkeypatch.setattr(peer, "principal", principal)
    limits = Limits(most=3, per_uid=9, reserved=0, without_right=2)
    async with serving(
        tmp_path, limits, meet=lambda sock: Identity(principal(sock)), has_right=lambda who: who.uid == 0
    ) as served:
        kept = await served.connect(WAIT)
        await until(lambda: served.app.asked == 1)
        uid = 20001
        busy = []
        for number in (2, 3):
            busy.append(await served.connect(WAIT))
            await until(lambda: served.app.asked == number)  # noqa: B023
        turned_away = await served.connect(GET)
        assert b"connections of callers without a role are open" in await turned_away.end()
        uid = 0
        newcomer = await served.connect(GET)
        assert (await newcomer.answer())[0] == 200
        assert await busy[0].end() == b""
        served.app.go.set()
        assert [(await client.answer())[0] for client in (kept, busy[1])] == [200, 200]

"""What the load counts, and that it can be shown a loss of each sort."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from benchmarks.load import KINDS, Load, Mix, Pace
from tests.benchmarks.fake_server import Answering, serving_benchmarks_app

QUICK = Pace(slow=0.02, upload=0.05, stream=0.05, early=0.03, silence=0.05)
TWO_OF_EACH = Mix(**dict.fromkeys(KINDS, 2), pace=QUICK)
SILENT = Mix(keepalive=2, idle=3, pace=replace(QUICK, silence=600))


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("think", [0.0, 0.005])
async def test_every_kind_is_served_on_the_connection_it_began_with(
    http: str, think: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is reloaded, nothing of any kind is failed, closed or reconnected, with and without think time."""
    monkeypatch.setenv("STILLUP_GENERATION", "7")
    mix = replace(TWO_OF_EACH, think=think)
    async with serving_benchmarks_app(http) as target, Load(target, mix) as load:
        await load.wait_every_client(2)
        await load.every_kept_connection_answers("7")
        report = await load.stop()
    assert (report.failed, report.closed, report.reconnected) == (0, 0, 0), (str(report), report.failures)
    assert all(report.kinds[name].requests for name in KINDS)
    assert set(report.generations) == {"7"}
    assert report.crossed == 0


async def test_a_client_that_was_told_to_close_is_reconnected_once() -> None:
    """Every goodbye is a connection closed; who connected again counts once, however often."""
    server = Answering(lambda _: server.ok(b"ok\n", "connection: close"))
    async with server.serving() as target, Load(target, Mix(keepalive=2, fresh=1)) as load:
        await load.wait_every_client(5)
        report = await load.stop()
    assert report.failed == 0
    assert report.closed == report.kinds["keepalive"].requests >= 10
    assert (report.reconnected, report.kinds["fresh"].reconnected) == (2, 0)


async def test_silent_connections_are_woken_to_answer() -> None:
    """Who would be silent for minutes is asked at once, and each connection counts as crossed."""
    server = Answering(lambda _: server.ok())
    async with server.serving() as target, Load(target, SILENT) as load:
        await load.wait_every_client()
        server.generation = "2"
        await load.every_kept_connection_answers("2", deadline=20)
        report = await load.stop()
    assert (report.crossed, report.failed, report.closed, report.reconnected) == (5, 0, 0, 0)


async def test_who_is_not_answered_by_the_generation_is_named() -> None:
    server = Answering(lambda _: server.ok())
    async with server.serving() as target, Load(target, SILENT) as load:
        await load.wait_every_client()
        with pytest.raises(TimeoutError, match=r"answered last: 2 keepalive by 1, 3 idle by 1$"):
            await load.every_kept_connection_answers("2", deadline=0.2)


async def test_it_goes_on_asking_until_the_generation_answers() -> None:
    """A silent client that the old generation answers once more does not fall silent again."""
    server = Answering(lambda _: server.ok())
    async with server.serving() as target, Load(target, SILENT) as load:
        await load.wait_every_client()
        check = asyncio.create_task(load.every_kept_connection_answers("2", deadline=20))
        await load.wait_requests(50)
        assert load.report.kinds["idle"].requests > 6
        server.generation = "2"
        await check


async def test_pipelined_answers_in_the_wrong_order_are_failures() -> None:
    server = Answering(lambda _: server.ok(b"1"))
    async with server.serving() as target, Load(target, Mix(pipelined=1)) as load:
        await load.wait_every_client()
        report = await load.stop()
    assert report.failed == report.requests > 0
    assert "wrong body: b'1'" in report.failures[0].reason


async def test_a_close_in_the_middle_of_a_body_that_was_answered_early_fails_nothing() -> None:
    """The request has its answer; what is lost is the connection."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(server.ok())
        await reader.readexactly(10_000)
        writer.close()

    server = Answering(lambda _: b"")
    server.serve = hang_up  # type: ignore[method-assign]
    async with server.serving() as target, Load(target, Mix(early=1, pace=QUICK)) as load:
        await load.wait_every_client(2)
        report = await load.stop()
    assert report.failed == 0, report.failures
    assert report.closed == report.requests >= 2
    assert report.reconnected == 1

"""HTTP/2, which uvicorn serves with zttp: its connections stay where they are, and no request is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.harness import DEADLINE, Service, eventually

pytest.importorskip("zttp", reason="zttp has no wheel for this Python")
pytest.importorskip("uvicorn.protocols.http.auto_zttp_impl", reason="this uvicorn has no HTTP/2")

APP = """
    import asyncio, os, pathlib

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("nothing but http")
        if scope["path"] == "/slow":
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = f"{os.environ['STILLUP_GENERATION']} {scope['http_version']}".encode()
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "main:app", "--http", "zttp", "--http2", "--no-access-log")
    service.write(APP)
    with service:
        yield service


def test_requests_in_progress_are_finished(service: Service) -> None:
    """What its client asks for beside them is served there, too; then it is told that this connection is over."""
    asyncio.run(_reload_beside_a_request(service))


async def _reload_beside_a_request(service: Service) -> None:
    answers: Counter[tuple[int, str]] = Counter()
    async with _connected(service) as client:
        slow = asyncio.create_task(client.get("/slow"))
        await _ask(client, answers, 50)
        rollout = await asyncio.to_thread(service.client.reload, wait="cut-over")
        assert rollout.generation == 2
        await _ask(client, answers, 200)
        assert set(answers) == {(200, "1 2")}, "the connection is there until its requests are done"
        (service.folder / "go").touch()
        answer = await slow
        assert (answer.status_code, answer.text) == (200, "1 2")
        await asyncio.to_thread(eventually, lambda: service.generations() == [2], "the old one has left")
        await _ask(client, answers, 50)
    assert answers == {(200, "1 2"): 250, (200, "2 2"): 50}
    print(f"0 failed of {answers.total() + 1}")


def test_an_idle_connection_is_told_to_close(service: Service) -> None:
    """At once: the old worker waits for nothing."""
    asyncio.run(_reload_while_idle(service))


async def _reload_while_idle(service: Service) -> None:
    answers: Counter[tuple[int, str]] = Counter()
    async with _connected(service) as client:
        for generation in (1, 2, 3):
            await _ask(client, answers, 1)
            rollout = await asyncio.to_thread(service.client.reload, wait="drained")
            assert rollout.generation == generation + 1
    assert answers == {(200, f"{generation} 2"): 1 for generation in (1, 2, 3)}


def _connected(service: Service) -> httpx.AsyncClient:
    base = f"http://{service.address()}"
    return httpx.AsyncClient(http1=False, http2=True, base_url=base, timeout=DEADLINE)


async def _ask(client: httpx.AsyncClient, answers: Counter[tuple[int, str]], times: int) -> None:
    for _ in range(times):
        answer = await client.get("/")
        answers[answer.status_code, answer.text] += 1

"""The contract with uvicorn: the facts that ``asgi.borrowed`` lists; the classes (fact 4) are in ``test_classes``."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import uvloop
from uvicorn.config import Config
from uvicorn.main import main as uvicorn_command

from supervisor.asgi.borrowed import Site, make_config, watch_filter
from supervisor.core.drain import ConnectionClass
from supervisor.daemon import config as daemon_config
from supervisor.host.sources import Arrival
from tests.asgi.conftest import Certificate
from tests.asgi.running import until
from tests.asgi.serving import App, Client, serving

# 1. The command line


def test_every_parameter_of_the_command_is_an_argument_of_config() -> None:
    """What uvicorn's command takes and the supervisor does not act on, Config takes under the same name."""
    parameters = {parameter.name for parameter in uvicorn_command.params}
    ours = daemon_config._SUPERVISOR | daemon_config._LEFT_OUT
    assert parameters - ours <= set(inspect.signature(Config.__init__).parameters)


def test_the_parameters_that_are_treated_by_name_exist() -> None:
    """The parameters of uvicorn's command that our own treats specially are all there."""
    parameters = {parameter.name for parameter in uvicorn_command.params}
    assert {"app", "log_config", "headers", "use_colors", "factory", *daemon_config._SUPERVISOR} <= parameters


@pytest.mark.parametrize("line", [[], ["--header", "x-a:b:c", "--http", "h11", "--proxy-headers", "--no-access-log"]])
def test_the_options_of_a_command_line_make_a_site(line: list[str], tmp_path: Path) -> None:
    """What a command line leaves for the workers survives the trip there as JSON and makes a Config that loads."""
    command = click.Command("run", params=daemon_config.parameters())
    (tmp_path / "stillup.toml").write_text("")
    context = command.make_context("run", ["app:app", "--config", str(tmp_path / "stillup.toml"), *line])
    options = daemon_config._worker_options(context.params)
    carried = msgspec.json.decode(msgspec.json.encode(options))
    site = Site(make_config(App(), {**carried, "log_config": None}))
    site.load()
    assert ((b"x-a", b"b:c") in site.state.default_headers) == bool(line)


# 2. Config


@pytest.mark.parametrize(
    ("name", "kind"), [("asyncio", asyncio.SelectorEventLoop), ("uvloop", uvloop.Loop), ("auto", uvloop.Loop)]
)
def test_loop_factory(name: str, kind: type[asyncio.AbstractEventLoop]) -> None:
    """``get_loop_factory()`` gives what makes the loop that the option names."""
    factory = make_config(App(), {"loop": name, "log_config": None}).get_loop_factory()
    assert factory is not None
    loop = factory()
    try:
        assert isinstance(loop, kind)
    finally:
        loop.close()


def test_no_loop_factory() -> None:
    """``loop=none`` gives no factory, which asyncio.Runner takes for its own choice."""
    assert make_config(App(), {"loop": "none", "log_config": None}).get_loop_factory() is None


def test_no_app_no_site() -> None:
    """An app that cannot be found ends ``load`` with SystemExit, as uvicorn has it."""
    with pytest.raises(SystemExit):
        Site(make_config("tests.asgi.nowhere:app", {"log_config": None})).load()


def test_an_error_of_the_app_is_its_own() -> None:
    """What the app's own code raises on import comes out of ``load`` as it is."""
    with pytest.raises(ZeroDivisionError):
        Site(make_config(lambda: 1 // 0, {"factory": True, "log_config": None})).load()


def test_ssl(certificate: Certificate) -> None:
    """``ssl`` is None without a certificate and a server's context with one."""
    plain = Site(make_config(App(), {"log_config": None}))
    plain.load()
    assert plain.config.ssl is None
    options = {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key, "log_config": None}
    secure = Site(make_config(App(), options))
    secure.load()
    assert isinstance(secure.config.ssl, ssl.SSLContext)


@pytest.mark.usefixtures("loop_factory")
async def test_lifespan_state_reaches_requests(http: str) -> None:
    """What the lifespan leaves in its state every request finds, each in a copy of its own."""
    async with serving(http=http, lifespan="on") as served:
        assert not served.site.lifespan.should_exit
        client = await served.connect()
        for _ in range(2):
            await client.ask("/scope")
            assert json.loads((await client.answer()).body)["state"] == ["seen"]


@pytest.mark.usefixtures("loop_factory")
async def test_failed_lifespan() -> None:
    """``lifespan.should_exit`` says that the app's startup failed."""

    async def app(_: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    site = Site(make_config(app, {"log_config": None}))
    site.load()
    await site.lifespan.startup()
    assert site.lifespan.should_exit


# 3. The state that the protocols share


@pytest.mark.usefixtures("loop_factory")
async def test_connections_say_when_one_leaves(http: str) -> None:
    """``connections`` and ``tasks`` hold what is open; once ``connections`` are watched, each end of one is told."""
    calls: list[tuple[int, int]] = []

    def left(_: Any) -> None:
        calls.append((len(served.site.state.connections), len(served.site.state.tasks)))

    async with serving(http=http) as served:
        state = served.site.state
        first = await served.connect()
        first.close()
        await until(lambda: not state.connections)
        served.site.connections.watch(left)
        client = await served.connect()
        await client.ask("/held")
        await served.waits()
        assert (len(state.connections), len(state.tasks), calls) == (1, 1, [])
        served.app.go.set()
        await until(lambda: not state.tasks)
        assert calls == []
        client.close()
        await until(lambda: calls)
        assert (calls, len(state.connections)) == ([(0, 0)], 0)


@pytest.mark.usefixtures("loop_factory")
async def test_task_outlives_its_connection(http: str) -> None:
    """A request whose answer is out stays in ``tasks`` until it has ended, though its connection has gone."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/background")
        await client.answer()
        client.close()
        await until(lambda: not served.site.state.connections)
        assert len(served.site.state.tasks) == 1
        served.app.go.set()
        await until(lambda: not served.site.state.tasks)


@pytest.mark.usefixtures("loop_factory")
async def test_default_headers_reach_a_request_under_way(http: str) -> None:
    """A header added in place to the list is in an answer that begins later, of a request that began before."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/held")
        await served.waits()
        served.site.state.default_headers.append((b"x-late", b"yes"))
        served.app.go.set()
        assert (await client.answer()).all("x-late") == ["yes"]


async def ends_after_its_answer(client: Client) -> bool:
    return (await client.answer()).says_close and await client.rest() == b""


@pytest.mark.usefixtures("loop_factory")
async def test_announce_close_under_way(http: str) -> None:
    """After announce_close the answer to a request that was under way says ``close``, comes whole, and is the last."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/held")
        await served.waits()
        served.site.announce_close()
        served.app.go.set()
        assert await ends_after_its_answer(client)


@pytest.mark.usefixtures("loop_factory")
async def test_announce_close_idle(http: str) -> None:
    """After announce_close an idle connection still answers its next request, and that answer is the last."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/")
        assert not (await client.answer()).says_close
        served.site.announce_close()
        served.site.announce_close()
        assert served.site.state.default_headers.count((b"connection", b"close")) == 1
        await client.ask("/")
        assert await ends_after_its_answer(client)


@pytest.mark.usefixtures("loop_factory")
async def test_announce_close_too_late_for_an_answer(http: str) -> None:
    """An answer that began before announce_close promised to go on, and so the one after it is the last."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        served.site.announce_close()
        served.app.go.set()
        await client.read_to(b"half")
        await served.becomes(ConnectionClass.IDLE)
        await client.ask("/")
        assert await ends_after_its_answer(client)


@pytest.mark.usefixtures("loop_factory")
async def test_date(http: str) -> None:
    """Every answer has one Date, and refresh_headers makes it the present one, also after announce_close."""
    async with serving(http=http, headers=[("x-own", "1")]) as served:
        headers = served.site.state.default_headers
        headers[0] = (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")
        served.site.announce_close()
        served.site.refresh_headers()
        assert len({name for name, _ in headers}) == len(headers) == 4
        client = await served.connect()
        await client.ask("/")
        answer = await client.answer()
        (date,) = answer.all("date")
        assert parsedate_to_datetime(date).year > 2000
        assert (answer.all("server"), answer.all("x-own"), answer.says_close) == (["uvicorn"], ["1"], True)


@pytest.mark.usefixtures("loop_factory")
async def test_no_date(http: str) -> None:
    """Without uvicorn's own headers refresh_headers adds none, however often it is called."""
    async with serving(http=http, date_header=False, server_header=False) as served:
        served.site.refresh_headers()
        assert served.site.state.default_headers == []


# 5. Trusted proxies

CHAIN = "X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.0.0.1"


async def client_seen(*headers: str, unix: bool, **options: Any) -> tuple[str | None, str]:
    """The client's address and the scheme that the app sees in a request with these headers."""
    async with serving(unix=unix, **options) as served:
        client = await served.connect()
        await client.ask("/scope", *headers)
        seen = json.loads((await client.answer()).body)
    return (seen["client"] or [None])[0], seen["scheme"]


@pytest.mark.usefixtures("loop_factory")
@pytest.mark.parametrize(
    ("allowed", "client"),
    [
        (None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9"),
        ("10.0.0.0/8, 203.0.113.9", "198.51.100.7"),
        ("*", "198.51.100.7"),
    ],
)
async def test_unix_peer_is_trusted(
    http: str, allowed: str | None, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket's peer is believed, and of its chain the last address that is no trusted proxy is the client."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    seen = await client_seen(CHAIN, "X-Forwarded-Proto: https", unix=True, http=http, forwarded_allow_ips=allowed)
    assert seen == (client, "https")


@pytest.mark.usefixtures("loop_factory")
async def test_tcp_peer_is_trusted_by_its_address(http: str) -> None:
    """A TCP peer is believed if ``forwarded_allow_ips`` has its address, and otherwise not."""
    seen = await client_seen(CHAIN, unix=False, http=http, forwarded_allow_ips="127.0.0.1,10.0.0.1")
    assert seen == ("203.0.113.9", "http")
    seen = await client_seen(CHAIN, unix=False, http=http, forwarded_allow_ips="10.0.0.1")
    assert seen == ("127.0.0.1", "http")


@pytest.mark.usefixtures("loop_factory")
async def test_unix_peer_without_proxy_headers(http: str) -> None:
    """With ``--no-proxy-headers`` nobody is believed; a Unix peer without the header is a client without address."""
    assert await client_seen(CHAIN, unix=True, http=http, proxy_headers=False) == (None, "http")
    assert await client_seen(unix=True, http=http) == (None, "http")


@pytest.mark.usefixtures("loop_factory")
async def test_unix_listener_that_no_proxy_uses() -> None:
    """A connection that was not said to be of a Unix listener gets no trust for having no address."""
    async with serving(unix=True) as served:
        site = served.site
        ours, theirs = socket.socketpair()
        with theirs:
            client = Client(theirs)
            ours.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: site.protocol({}, Arrival(ours, "web", unix=False)), ours
            )
            await client.ask("/scope", CHAIN)
            assert json.loads((await client.answer()).body)["client"] is None


# 6. Hot reload


def test_watch_filter_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the working directory is watched, and in it *.py, but nothing hidden."""
    monkeypatch.chdir(tmp_path)
    directories, counts = watch_filter({"reload_dirs": None, "reload_includes": None, "reload_excludes": None})
    assert directories == [tmp_path]
    seen = [name for name in ("a.py", "b/c.py", "a.txt", ".a.py", "~a.py", "a.pyc") if counts(tmp_path / name)]
    assert seen == ["a.py", "b/c.py"]


def test_watch_filter_by_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories, included patterns and excluded patterns and directories are as uvicorn's options say."""
    (tmp_path / "app" / "skip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    excludes = ["test_*.py", str(tmp_path / "app" / "skip")]
    directories, counts = watch_filter(
        {"reload_dirs": ["app"], "reload_includes": ["*.html"], "reload_excludes": excludes}
    )
    assert directories == [tmp_path / "app"]
    names = ("a.py", "a.html", "a.css", "test_a.py", "skip/a.py", "skip/a.html")
    assert [name for name in names if counts(tmp_path / "app" / name)] == ["a.py", "a.html"]

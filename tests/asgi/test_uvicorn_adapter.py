"""The contract with uvicorn, as ``asgi.uvicorn_adapter`` lists it; what its classes do is in ``test_classes``."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
import ssl
import warnings
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

from stillup.asgi.connection import Connection
from stillup.asgi.movable_connection import MovableConnection
from stillup.asgi.site import Site
from stillup.asgi.uvicorn_adapter import PARSERS, WEBSOCKETS, connection_class, websocket_class
from stillup.asgi.uvicorn_config import loop_factory, make_config
from stillup.core.drain import ConnectionClass
from stillup.daemon.settings import config as daemon_config
from stillup.daemon.settings import options as daemon_options
from stillup.daemon.settings.log_settings import LogSettings
from tests.asgi.conftest import Certificate
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client, serving

# 1. The command line


def test_every_parameter_of_the_command_is_an_argument_of_config() -> None:
    """What uvicorn's command takes and the supervisor does not act on, Config takes under the same name."""
    parameters = {parameter.name for parameter in uvicorn_command.params}
    ours = daemon_options.OF_SUPERVISOR | daemon_options.NOT_TAKEN
    assert parameters - ours <= set(inspect.signature(Config.__init__).parameters)


def test_the_parameters_that_are_treated_by_name_exist() -> None:
    """The parameters of uvicorn's command that our own treats specially are all there."""
    parameters = {parameter.name for parameter in uvicorn_command.params}
    assert {"app", "log_config", "headers", "use_colors", "factory", *daemon_options.OF_SUPERVISOR} <= parameters


@pytest.mark.parametrize("line", [[], ["--header", "x-a:b:c", "--http", "h11", "--proxy-headers", "--no-access-log"]])
def test_the_options_of_a_command_line_make_a_site(line: list[str], tmp_path: Path) -> None:
    """What a command line leaves for the workers survives the trip there as JSON and makes a Config that loads."""
    command = click.Command("run", params=daemon_options.parameters())
    (tmp_path / "stillup.toml").write_text("")
    context = command.make_context("run", ["app:app", "--config", str(tmp_path / "stillup.toml"), *line])
    options = daemon_config._worker_options(context.params, LogSettings())
    carried = msgspec.json.decode(msgspec.json.encode(options))
    site = Site(make_config(App(), {**carried, "log_config": None}))
    site.load()
    assert ((b"x-a", b"b:c") in site.state.default_headers) == bool(line)


# 2. Config


@pytest.mark.parametrize(
    ("name", "kind"), [("asyncio", asyncio.SelectorEventLoop), ("uvloop", uvloop.Loop), ("auto", uvloop.Loop)]
)
def test_loop_factory(name: str, kind: type[asyncio.AbstractEventLoop]) -> None:
    """What makes the loop that the option names."""
    factory = loop_factory(make_config(App(), {"loop": name, "log_config": None}))
    assert factory is not None
    loop = factory()
    try:
        assert isinstance(loop, kind)
    finally:
        loop.close()


def test_no_loop_factory() -> None:
    """``loop=none`` gives no factory, which asyncio.Runner takes for its own choice."""
    assert loop_factory(make_config(App(), {"loop": "none", "log_config": None})) is None


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
        calls.append((len(served.site.connections), len(served.site.state.tasks)))

    async with serving(http=http) as served:
        state = served.site.state
        first = await served.connect()
        first.close()
        await until(lambda: not state.connections)
        served.site.connections.observe(left)
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
        await until(lambda: not served.site.connections)
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


# 4. The classes that ours are made of


def uvicorns(name: str) -> Any:
    """The class of that module and name; skips where what it needs is not installed."""
    module, _, attribute = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of websockets' older implementation
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            pytest.skip(f"not here: {error}")


def names_of(protocol: type) -> set[str]:
    """Every attribute of a class of uvicorn's, also those that it sets on itself as it goes."""
    own = [base for base in protocol.__mro__ if not base.__module__.startswith(("asyncio", "builtins", "_asyncio"))]
    source = "".join(inspect.getsource(base) for base in own)
    return set(dir(protocol)) - set(dir(asyncio.Protocol)) | set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", source))


@pytest.mark.parametrize("name", [*PARSERS, *WEBSOCKETS])
def test_no_name_of_ours_is_one_of_uvicorns(name: str) -> None:
    """What is mixed into a class of uvicorn's hides nothing of it but what it is meant to replace."""
    protocol = uvicorns(name)
    ours = connection_class(protocol) if name in PARSERS else websocket_class(protocol)
    mixed_in = {
        attribute
        for base in ours.__mro__
        if base.__module__.startswith("stillup") and base is not ours
        for attribute in vars(base)
        if not attribute.startswith("__")
    }
    replaced = {"connection_lost", "connection_made", "on_response_complete", "send_400_response"}
    replaced |= {"_unsupported_upgrade_warning", "_should_upgrade_to_ws"}
    of_websockets = {"shutdown"}
    if getattr(ours, "takes_sessions", False):
        of_websockets |= {"handle_connect", "receive", "run_asgi", "send"}
    assert mixed_in & names_of(protocol) <= (replaced if name in PARSERS else of_websockets)


@pytest.mark.usefixtures("loop_factory")
async def test_no_connection_has_a_table_of_names_of_its_own(http: str) -> None:
    """Instances of a class share one for up to 30 attributes (CPython); there are no more of uvicorn's and ours."""
    async with serving(http=http) as served:
        client = await served.connect()
        for path in ("/scope", "/background"):
            await client.ask(path)
            await client.answer()
        assert len(vars(served.connection)) <= 30, sorted(vars(served.connection))
        served.app.go.set()
        await until(lambda: not served.site.state.tasks)


@pytest.mark.parametrize("name", [*PARSERS, *WEBSOCKETS])
def test_our_class_is_made_once(name: str) -> None:
    """A class of uvicorn's has one of ours, which is a connection; ours has itself, however often a site is loaded."""
    protocol = uvicorns(name)
    make = connection_class if name in PARSERS else websocket_class
    ours = make(protocol)
    assert issubclass(ours, Connection)
    assert issubclass(ours, protocol)
    assert make(protocol) is ours
    assert websocket_class(ours) is ours


def test_a_class_that_we_dont_know_is_served() -> None:
    """An operator's own class becomes a connection that never moves; without WebSockets there is no class of them."""

    class Own(asyncio.Protocol):
        pass

    for ours in (connection_class(Own), websocket_class(Own)):
        assert issubclass(ours, Connection)
        assert issubclass(ours, Own)
        assert not issubclass(ours, MovableConnection)
    assert websocket_class(None) is None

"""The contract with uvicorn on trusted proxies and hot reload: facts 5 and 6 of ``asgi.uvicorn_adapter``."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.middleware import proxy_headers

from stillup.asgi.proxy_trust import is_proxy
from stillup.asgi.uvicorn_config import make_config, make_tls, takes_wsgi, watch_filter
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import UsageError
from stillup.host.sources import Arrival
from tests.asgi.conftest import Certificate
from tests.asgi.served_app import Client, serving

# What another uvicorn's command line knows


@pytest.mark.parametrize("off", [None, False, 0, "", (), []])
def test_what_is_off_is_left_out(off: object) -> None:
    """A supervisor with a newer uvicorn sends all its options; what this one lacks does not matter while it is off."""
    assert make_config("a:b", {"of_the_future": off, "log_config": None}).app == "a:b"


def test_a_word_of_ours_for_how_many_workers_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is one, and so is the supervisor, whatever the environment says of how many there are."""
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    assert make_config("main:app", {}).workers == 1


def test_what_is_asked_for_is_not() -> None:
    """It is named, with the version that lacks it."""
    with pytest.raises(UsageError, match=rf"uvicorn {uvicorn.__version__}, .* has no --of-the-future"):
        make_config("a:b", {"of_the_future": True})


# 2. Its context for TLS


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app."""


def test_a_context_like_the_one_that_it_loads(certificate: Certificate) -> None:
    """Made of the same files and options: what connections to come are made with when they have changed."""
    options = {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key, "ssl_ciphers": "HIGH"}
    config = make_config("tests.asgi.test_uvicorn_config:nothing", {**options, "log_config": None})
    config.load()
    assert config.ssl is not None
    made = make_tls(config)
    assert made is not config.ssl
    for what in ("protocol", "options", "verify_mode", "minimum_version", "maximum_version"):
        assert getattr(made, what) == getattr(config.ssl, what)
    assert made.get_ciphers() == config.ssl.get_ciphers()
    config.ssl_keyfile = certificate.certificate
    with pytest.raises(OSError, match=r"."):
        make_tls(config)


# 5. Trusted proxies

CHAIN = "X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.0.0.1"


async def client_seen(
    *headers: str, unix: bool, settings: WorkerSettings | None = None, **options: Any
) -> tuple[str | None, str]:
    """The client's address and the scheme that the app sees in a request with these headers."""
    async with serving(unix=unix, **options) as served:
        served.site.is_proxy = partial(is_proxy, settings or WorkerSettings(proxy_uids=(os.geteuid(),)))
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
async def test_a_proxy_on_a_unix_socket_is_believed(
    http: str, allowed: str | None, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a user who is trusted, and of its chain the last address that is no trusted proxy is the client."""
    if "/" in (allowed or "") and not hasattr(proxy_headers, "_TrustedHosts"):
        pytest.skip("before 0.31 uvicorn trusts no networks")
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    seen = await client_seen(CHAIN, "X-Forwarded-Proto: https", unix=True, http=http, forwarded_allow_ips=allowed)
    assert seen == (client, "https")


@pytest.mark.usefixtures("loop_factory")
@pytest.mark.parametrize(("allowed", "client"), [(None, None), ("10.0.0.1", None), ("*", "198.51.100.7")])
async def test_anybody_else_on_a_unix_socket_is_not(
    http: str, allowed: str | None, client: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless ``forwarded_allow_ips`` has everybody: whoever may connect could say to be any client."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    others = WorkerSettings(proxy_uids=(os.geteuid() + 1,), proxy_gids={"web": os.getegid() + 1})
    seen = await client_seen(CHAIN, unix=True, http=http, settings=others, forwarded_allow_ips=allowed)
    assert seen == (client, "http")


@pytest.mark.usefixtures("loop_factory")
async def test_the_group_that_a_bind_names_is_believed_there(http: str) -> None:
    """By its members' connections to that listener, and not to another."""
    for listener, client in (("web", "10.0.0.1"), ("admin", None)):
        settings = WorkerSettings(proxy_uids=(), proxy_gids={listener: os.getegid()})
        assert (await client_seen(CHAIN, unix=True, http=http, settings=settings))[0] == client


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


@pytest.mark.parametrize("exclude", ["app/made", "./app/made", "app/m*de", "../{folder}/app/made"])
def test_a_relative_directory_is_excluded(exclude: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever way it is named from the working directory, also by a pattern; and nothing else is."""
    (tmp_path / "app" / "made" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    excludes = [exclude.format(folder=tmp_path.name)]
    _, counts = watch_filter({"reload_dirs": ["app"], "reload_includes": None, "reload_excludes": excludes})
    names = ("a.py", "made.py", "made/a.py", "made/inner/a.py")
    assert [name for name in names if counts(tmp_path / "app" / name)] == ["a.py", "made.py"]


class _Hides:
    """An app that does not let itself be looked at."""

    @property
    def __signature__(self) -> object:
        raise RuntimeError

    async def __call__(self, scope: object, *_: object) -> None:
        """Serve."""


class _Asgi2:
    def __init__(self, scope: object) -> None:
        """Be made for each request."""


class _Flask:
    def __call__(self, environ: object, start_response: object) -> list[bytes]:
        return []


async def _asgi3(scope: object, receive: object, send: object) -> None:
    """Serve."""


async def _decorated(scope: object, *args: object, **extra: object) -> None:
    """Serve, as what a decorator has made of an app."""


@pytest.mark.parametrize(
    ("app", "interface", "is_wsgi"),
    [
        (_Flask(), "auto", True),
        (lambda environ, start_response: [], "auto", True),
        (_Flask(), "asgi3", True),
        (_Flask(), "wsgi", False),
        (_asgi3, "auto", False),
        (_decorated, "auto", False),
        (_Asgi2, "auto", False),
        (_Hides(), "auto", False),
    ],
)
@pytest.mark.parametrize("behind_proxy", [True, False])
@pytest.mark.filterwarnings("ignore:Uvicorn's native WSGI:DeprecationWarning")
def test_an_app_of_wsgi_is_told_apart(app: Any, interface: Any, is_wsgi: bool, behind_proxy: bool) -> None:
    """By its two arguments, whatever uvicorn has wrapped it in; an app of ASGI never is taken for one."""
    config = make_config(app, {"interface": interface, "proxy_headers": behind_proxy, "log_level": "trace"})
    config.load()
    assert takes_wsgi(config) is is_wsgi

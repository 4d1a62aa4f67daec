"""uvicorn's configuration of an app: made of its options, and what is asked of it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import ssl
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.config import Config, create_ssl_context
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from stillup.errors import UsageError

logger = logging.getLogger("uvicorn.error")


def make_config(app: Any, options: Mapping[str, Any], log_config: dict[str, Any] | None = None) -> Config:
    """Uvicorn's configuration of one app, which configures logging, too.

    Args:
        app: the app, or where it is.
        options: by the names of Config's own arguments.
        log_config: takes the place of uvicorn's own; it sees to colors itself.

    Raises:
        UsageError: this uvicorn has no such option. The supervisor's may be newer, and knows more of them: one that is
            off (None, False, 0, empty) is left out where it is not known.
    """
    known = inspect.signature(Config).parameters
    if missing := next((name for name, value in options.items() if name not in known and value), None):
        option = missing.replace("_", "-")
        raise UsageError(f"uvicorn {uvicorn.__version__}, which is in this environment, has no --{option}")
    # How many workers there are is nothing to it, and not to be read off WEB_CONCURRENCY, which may be a word of ours.
    taken = {"workers": 1, **{name: value for name, value in options.items() if name in known}}
    if log_config is None:
        return Config(app, **taken)
    return Config(app, **{**taken, "log_config": log_config, "use_colors": None})


def make_tls(config: Config) -> ssl.SSLContext:
    """The context for TLS that ``load()`` would make of the files as they are now.

    Raises:
        OSError: they cannot be read, or make no certificate (ssl.SSLError).
        ValueError: an option of TLS makes no sense.
    """
    known = inspect.signature(create_ssl_context).parameters
    protocols = getattr(config.http_protocol_class, "alpn_protocols", None)
    return create_ssl_context(
        str(config.ssl_certfile),
        config.ssl_keyfile,
        config.ssl_keyfile_password,
        config.ssl_version,
        config.ssl_cert_reqs,
        config.ssl_ca_certs,
        config.ssl_ciphers,
        **({"alpn_protocols": protocols} if "alpn_protocols" in known else {}),
    )


def import_app(config: Config) -> None:
    """Import the app as ``load()`` does, which finds it imported then; nothing is called, a factory neither.

    Raises:
        SystemExit: there is no such app, as uvicorn's log says.
        Exception: whatever the app's own code raised.
    """
    try:
        import_from_string(config.app)
    except ImportFromStringError as error:
        logger.error("Error loading ASGI app. %s", error)  # noqa: TRY400 - uvicorn's words, and it shows no traceback
        sys.exit(1)


def loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that ``--loop`` names; None is for asyncio's own choice.

    Raises:
        ImportError: its library is not here.
    """
    if hasattr(config, "get_loop_factory"):
        made: Callable[[], asyncio.AbstractEventLoop] | None = config.get_loop_factory()
        return made
    # Before 0.36 uvicorn set an event loop policy, which would be for good.
    if config.loop == "none":
        return None
    if config.loop == "asyncio" or (config.loop == "auto" and find_spec("uvloop") is None):
        return asyncio.SelectorEventLoop
    import uvloop  # noqa: PLC0415 - not every worker has it

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def requests_jitter(config: Config) -> int:
    """What may come on top of ``limit_max_requests``; the oldest versions have no such option."""
    return int(getattr(config, "limit_max_requests_jitter", 0))


class _PeerTrusted:
    """Trusted proxies, where the peer itself, who has no address, is one of them."""

    def __init__(self, hosts: Any) -> None:
        self._hosts = hosts

    def __contains__(self, host: str | None) -> bool:
        return host is None or host in self._hosts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hosts, name)


def trusting_its_peer(app: Any) -> Any:
    """The app as it is served on a Unix socket, where the peer is the local proxy, and has no address."""
    if isinstance(app, ProxyHeadersMiddleware):
        app = copy.copy(app)
        app.trusted_hosts = _PeerTrusted(app.trusted_hosts)
    return app


_ARGUMENTS: Final = {"asgi2": 1, "asgi3": 3}
"""Arguments of an app, by the interface that uvicorn takes it for."""
_OF_WSGI: Final = 2


def takes_wsgi(config: Config) -> bool:
    """Whether the app that was loaded takes ``environ`` and ``start_response``, and nothing that ASGI has."""
    app, arguments = config.loaded_app, _ARGUMENTS.get(config.interface)
    # uvicorn's wrappers are of its middleware, and keep what they wrap as ``app``.
    while type(app).__module__.startswith("uvicorn."):
        app = getattr(app, "app", None)
    return arguments is not None and not _can_take(app, arguments) and _can_take(app, _OF_WSGI)


def _can_take(app: Any, arguments: int) -> bool:
    """Whether it can be called with so many; where that cannot be seen, it can with those of ASGI alone."""
    try:
        signature = inspect.signature(app)
    except Exception:  # noqa: BLE001 - an app may raise anything when it is looked at
        return arguments != _OF_WSGI
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True


def watch_filter(options: Mapping[str, Any]) -> tuple[list[Path], Callable[[Path], bool]]:
    """The directories to watch for hot reload, and which of the files in them count, as uvicorn has it."""
    from uvicorn.supervisors.watchfilesreload import FileFilter  # noqa: PLC0415 - needs watchfiles

    config = Config("none:none", reload=True, log_config=None, **options)
    counts = FileFilter(config)
    # By itself it compares relative ones with absolute paths, and leaves out those that a pattern names.
    counts.exclude_dirs.extend(config.reload_dirs_excludes)
    return list(config.reload_dirs), counts

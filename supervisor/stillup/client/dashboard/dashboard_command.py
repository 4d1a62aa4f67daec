"""``stillup dashboard``: the page's server, from its address on a terminal to Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType
from typing import Final

import click
import uvicorn

from stillup.client.command_base import FAILED, addressed, leave
from stillup.client.control_client import Client
from stillup.client.dashboard.dashboard_app import dashboard_app
from stillup.client.dashboard.dashboard_feed import DashboardFeed
from stillup.client.dashboard.dashboard_guard import HEADERS, HOST, DashboardGuard
from stillup.client.dashboard.dashboard_keys import DashboardKeys
from stillup.client.plain_output import echo

_LAST: Final = 2
"""Seconds that answers have to end at Ctrl-C."""


@click.command
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of 127.0.0.1.  [default: any that is free]")
@click.option("--open", "opens", is_flag=True, help="Open the page in your browser.")
@addressed
def dashboard(client: Client, *, port: int, opens: bool) -> None:
    """Show the service in a browser: rollouts as they go, workers, figures of 15 minutes, events.

    The page is served by this command, on 127.0.0.1, to processes of your own user, until Ctrl-C (exit 0). What can be
    done from it is what you may do by your role: the supervisor decides, as for every command. The address that is
    printed is good once, for a minute; Enter prints another.
    """
    name, me = client.status().name, client.whoami()
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        leave(f"{HOST}:{port}: {os.strerror(error.errno or 0)}", FAILED)
    keys, feed = DashboardKeys(), DashboardFeed(client, me, name)
    with listener, contextlib.suppress(KeyboardInterrupt):
        at = listener.getsockname()[1]
        config = uvicorn.Config(
            DashboardGuard(dashboard_app(client, feed, keys), at, keys),
            http="httptools",  # h11 would answer to what is no HTTP without our headers
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # what goes wrong may be told in words of others, and stands in the answer
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=list(HEADERS),
            timeout_graceful_shutdown=_LAST,
        )
        asyncio.run(_serve(_DashboardServer(config, feed), feed, listener, lambda: _tell(keys, at, opens=opens)))


class _DashboardServer(uvicorn.Server):
    """Ends the streams, which have no end of their own, at a signal."""

    def __init__(self, config: uvicorn.Config, feed: DashboardFeed) -> None:
        super().__init__(config)
        self._feed = feed

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._feed.end()


async def _serve(
    server: uvicorn.Server, feed: DashboardFeed, listener: socket.socket, tell: Callable[[], None]
) -> None:
    asking = asyncio.create_task(feed.run())
    try:
        tell()  # from here on Ctrl-C ends the loop, and nothing in the midst of its start
        await server.serve([listener])
    finally:
        asking.cancel()


def _tell(keys: DashboardKeys, port: int, *, opens: bool) -> None:
    """Print the address, and another at each Enter at a terminal."""

    def tell() -> str:
        address = f"http://{HOST}:{port}/#{keys.issue()}"
        echo(address)
        return address

    def listen() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.readline():
                tell()

    address = tell()
    echo("Ctrl-C ends it", err=True)
    if opens:  # a browser of the terminal's own would not return
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    if sys.stdin is not None and sys.stdin.isatty():
        # Who reads a terminal in the background would be stopped.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        threading.Thread(target=listen, daemon=True).start()

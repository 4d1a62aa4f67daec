"""``stillup top``: a service live in the terminal, with keys for what an operator does most."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import click
import msgspec

from stillup.client import events_command
from stillup.client.client_errors import NOT_RUNNING
from stillup.client.command_base import addressed
from stillup.client.control_client import Client
from stillup.client.live_service import EVENTS, LiveService, Moment
from stillup.client.plain_output import echo, is_terminal
from stillup.client.top.top_frame import Page, TopView, frame
from stillup.client.top.top_keys import TopRequest, ask, keys_line, offered, request
from stillup.client.top.top_lines import Styled, plain
from stillup.client.top.top_rates import RateMeter, averages
from stillup.client.top.top_rollout import is_under_way
from stillup.errors import StillupError
from stillup.wire.api_shapes import Status

_WIDTH: Final = 80
"""Columns of a frame that goes nowhere in particular."""
_NARROWEST: Final = 20
_QUICK: Final = 0.25
"""Seconds between two frames while something is under way."""
_SAID_FOR: Final = 8.0
"""Seconds for which it is shown what came of a request."""


@click.command
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two frames; while a rollout is under way at most a quarter of a second.",
)
@click.option("--once", is_flag=True, help="Print one frame as plain text, and end.")
@addressed
def top(client: Client, *, interval: float, once: bool) -> None:
    """Show the service live: its supervisor, the rollout under way step by step, its workers, what has happened.

    Of each worker (* leads): cpu % of a core; mem in memory; req/s answered; busy, its requests in progress; lag ms, by
    which its newest heartbeat came late, for so long the event loop was held up; and its connections: how many, and a
    bar in which each class has a mark of its own. In place of the bar stands what is wrong with it, or of one that
    drains for how long it has had what. cpu % and req/s are those of the last 3 seconds, or of the last --interval if
    that is longer: a worker that answers tells its counts once a second. Wide terminals have pid and age, narrow ones
    fewer columns.

    \b
    Keys, as far as your role allows ('stillup whoami'); those that change anything ask first:
      r  reload               b  roll back to the release before
      +  one worker more      -  one fewer
      a  abort the rollout    p  promote the canary that is watched
      e  events, or workers   q  quit

    A supervisor that is killed, or replaces its program, is waited for. Ctrl-Z suspends. NO_COLOR is obeyed.

    With --once, on a terminal that is dumb (TERM=dumb), and where stdout is none, it is one frame of plain text, all
    workers in it, as wide as COLUMNS says (else 80); cpu % and req/s are averages since each process was started then.

    Exit 0 after q and Ctrl-C, and after a plain frame while a worker serves; 3 if none does, or no supervisor answers
    to begin with.
    """  # noqa: D301 - to click it is the character
    try:
        seen = client.status()
        if once or not is_terminal() or os.environ.get("TERM", "dumb") == "dumb":
            _print_frame(client, seen)
        else:
            _TopLoop(client, seen, interval).run()
    except KeyboardInterrupt:
        return


def _print_frame(client: Client, seen: Status) -> None:
    """Print one frame, and exit as ``status`` does."""
    at = time.monotonic()
    events = deque((event for event, _ in events_command.lines(client, None, follow=False, gone=_nothing)), EVENTS)
    width = max(_NARROWEST, shutil.get_terminal_size((_WIDTH, 0)).columns if "COLUMNS" in os.environ else _WIDTH)
    for one in frame(Moment(seen, at, "", tuple(events)), averages(seen), TopView(width, None), at):
        echo(plain(one))
    serving = (generation.workers for generation in seen.generations if generation.state == "serving")
    if not any(worker.state == "serving" for workers in serving for worker in workers):
        sys.exit(NOT_RUNNING)


def _nothing() -> None:
    """What there is to do about a supervisor that is gone, where none is waited for."""


class _TopLoop:
    """Draws a frame when one is due, and does what keys ask for."""

    def __init__(self, client: Client, seen: Status, interval: float) -> None:
        from stillup.client.top.top_screen import Screen  # noqa: PLC0415 - for a terminal alone

        self._client = client
        self._interval = interval
        self._screen = Screen(colours=not os.environ.get("NO_COLOR"))
        self._live = LiveService(client, self._screen.wake)
        self._first = Moment(seen, time.monotonic())
        self._meter = RateMeter(interval)
        self._page: Page = "workers"
        self._asked: TopRequest | None = None
        """What waits for a y."""
        self._said: Styled = ("", "")
        self._said_until = 0.0
        self._may = frozenset(client.whoami().may)
        """The operations that the role allows."""
        self._known: int | None = seen.pid
        """The pid of the supervisor that has said so."""

    def run(self) -> None:
        """Go on until a key or a signal ends it; one that ends others ends this process, too."""
        drawn = 0.0
        typed = ""
        with self._screen as screen:
            self._live.start()
            while not screen.is_over and "q" not in typed.lower():
                self._type(typed)
                moment, now = self._moment(), time.monotonic()
                if typed or screen.is_unknown or now >= drawn + self._period(moment):
                    self._draw(moment, now)
                    drawn = now
                typed = screen.wait(drawn + self._period(moment) - time.monotonic())
        self._live.end()
        if screen.ended_by not in (None, signal.SIGINT):
            signal.raise_signal(screen.ended_by)

    def _moment(self) -> Moment:
        moment = self._live.moment()
        if moment.status is None:  # as long as it has not been asked again
            return msgspec.structs.replace(moment, status=self._first.status, at=self._first.at)
        return moment

    def _period(self, moment: Moment) -> float:
        """Seconds from one frame to the next."""
        if moment.trouble:
            return min(self._interval, 1.0)
        moves = moment.status is not None and is_under_way(moment.status)
        return min(self._interval, _QUICK) if moves else self._interval

    def _draw(self, moment: Moment, now: float) -> None:
        status = moment.status
        assert status is not None  # noqa: S101 - see _moment
        if not moment.trouble and status.pid != self._known:  # another one may have been told other roles
            self._known = status.pid
            self._apart(self._learn)
        width, height = self._screen.size()
        keys = " Ctrl-C quits"
        if self._screen.has_keys:
            keys = keys_line(offered(status, self._may), events=self._page == "events")
        question = self._asked.question if self._asked is not None else ""
        said = self._said if now < self._said_until else ("", "")
        view = TopView(width, height, self._page, keys, question, said)
        self._screen.draw(frame(moment, self._meter.rates(status, moment.at), view, now))

    def _type(self, typed: str) -> None:
        """Do what keys ask for. What was typed before a question was shown is no answer to it."""
        for key in typed:
            if self._asked is not None:
                asked, self._asked = self._asked, None
                if key in "yY":
                    self._say("..", f"{asked.operation} is asked for", "dim")
                    self._apart(partial(self._ask, asked))
                continue
            if key in "eE":
                self._page = "workers" if self._page == "events" else "events"
            status = self._moment().status
            if status is not None and key.lower() in offered(status, self._may):
                self._asked = request(key.lower(), status)
                return

    def _apart(self, work: Callable[[], None]) -> None:
        """Do what may take its time in a thread, and draw again when it is done."""

        def do() -> None:
            work()
            self._screen.wake()

        threading.Thread(target=do, daemon=True).start()

    def _learn(self) -> None:
        """Ask what our role allows."""
        try:
            self._may = frozenset(self._client.whoami().may)
        except StillupError:
            self._known = None  # the next frame asks again, if there is a supervisor then

    def _ask(self, asked: TopRequest) -> None:
        try:
            self._say("ok", ask(self._client, asked), "green")
        except StillupError as error:
            self._say("no", " ".join(str(error).split()), "red")
        self._live.look_soon()

    def _say(self, verdict: str, text: str, style: str) -> None:
        self._said = (f" {verdict}  {text}", style)
        self._said_until = time.monotonic() + _SAID_FOR

"""The terminal while it is ours: its modes, its keys, its size, and the signals by which it is taken and given back.

Modes: no echo and no line that is waited for (``cbreak``: Ctrl-C and Ctrl-Z are signals as ever), the alternate screen,
no cursor, no line that wraps. All of it is as it was whenever this process does not have the terminal: at its end,
whatever that comes from, and while it is suspended.

A signal is noted, and acted on where the keys are waited for.
"""

from __future__ import annotations

import contextlib
import locale
import os
import re
import select
import signal
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

from stillup.client.top.top_lines import Line, painted, plain

STDIN, STDOUT = 0, 1
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
"""The alternate screen, no cursor, no wrapping, nothing on it (xterm's ctlseqs: DECSET 1049, 25, 7; ED)."""
_LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
"""What a key sends that is no character: an arrow, a function key, Alt with a letter."""
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_OTHERS: Final = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_FALLBACK: Final = (80, 24)
"""Columns and lines of a terminal that does not know its size."""


class Screen:
    """Use it in ``with``: within, the terminal of stdout is ours, and the keys of stdin, if that is a terminal, too."""

    ended_by: signal.Signals | None = None
    """The signal that says that it is over; None as long as none has come."""
    is_gone = False
    """Whether nobody types any more, or sees what is drawn."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._encoding = locale.getencoding()
        self.has_keys = os.isatty(STDIN)
        """Whether anybody can type."""
        self._modes: list[Any] | None = None
        """Those that the terminal had before."""
        self._drawn: list[str] = []
        """The lines that are on the screen, as they were painted; what is not known is drawn anew."""
        self._is_ours = False
        self._noted: set[int] = set()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._was_waking = signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        for number in (*_ENDS, *_OTHERS):
            self._handlers[number] = signal.signal(number, self._note)
        try:
            self._take()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    @property
    def is_unknown(self) -> bool:
        """Whether nothing that was drawn is there any more: it is to be drawn anew."""
        return not self._drawn

    @property
    def is_over(self) -> bool:
        """Whether there is to be no more of it."""
        return self.ended_by is not None or self.is_gone

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(STDOUT)
        except OSError:
            return _FALLBACK
        return columns or _FALLBACK[0], lines or _FALLBACK[1]

    def draw(self, lines: Sequence[Line]) -> None:
        """Have these lines on the screen, from its top: those that differ from what is there are written, at once."""
        width, height = self.size()
        made = []
        drawn = [painted(one, colours=self._colours) for one in lines[:height]]
        for place, new in enumerate(drawn):
            if place < len(self._drawn) and self._drawn[place] == new:
                continue
            rest = "\x1b[K" if len(plain(lines[place])) < width else ""
            made.append(f"\x1b[{place + 1};1H{new}{rest}")
        if len(drawn) < len(self._drawn):
            made.append(f"\x1b[{len(drawn) + 1};1H\x1b[J")
        self._drawn = drawn
        if made:
            self._write("".join(made))

    def wake(self) -> None:
        """End the wait for keys; from any thread."""
        with contextlib.suppress(OSError):  # it is full, and will end it; or the screen has ended
            os.write(self._waking, b"\0")

    def wait(self, seconds: float) -> str:
        """Wait for keys, a signal or a wake, at most so long: the characters that were typed."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self.has_keys:
            poll.register(STDIN, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)}
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        self._heed()
        return self._typed() if STDIN in ready and not self.is_over else ""

    def _typed(self) -> str:
        try:
            typed = os.read(STDIN, 1024)
        except OSError:
            typed = b""
        self.is_gone = self.is_gone or not typed
        return _SEQUENCE.sub("", typed.decode("ascii", "ignore"))

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.add(number)

    def _heed(self) -> None:
        """Act on the signals that came."""
        while self._noted:
            number = self._noted.pop()
            if number in _ENDS:
                self.ended_by = signal.Signals(number)
            elif number == signal.SIGTSTP:
                self._suspend()
            elif number == signal.SIGCONT:
                self._take()
            else:
                self._forget()

    def _suspend(self) -> None:
        """Give the terminal back and stop; and have it again when this process is continued."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # to this thread: if another one took it, this one would go on for a while
        signal.signal(signal.SIGTSTP, self._note)
        self._noted.discard(signal.SIGCONT)
        self._take()

    def _take(self) -> None:
        """Have the terminal in our modes, also if somebody else had it meanwhile; nothing on it is known."""
        if self.has_keys:
            if self._modes is None:
                self._modes = termios.tcgetattr(STDIN)
            tty.setcbreak(STDIN)  # in the background this stops us, until we are not
        self._is_ours = True
        self._drawn = []
        self._write(_ENTER)

    def _forget(self) -> None:
        """The terminal has another size: what is on it is not known."""
        self._drawn = []
        self._write("\x1b[H\x1b[2J")

    def _give_back(self) -> None:
        if not self._is_ours:
            return
        self._is_ours = False
        self._write(_LEAVE)
        if self._modes is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(STDIN, termios.TCSADRAIN, self._modes)

    def _end(self) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._was_waking)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        waking, self._waking = self._waking, -1
        os.close(waking)
        os.close(self._woken)

    def _write(self, text: str) -> None:
        """Write all of it; a terminal that is gone ends us."""
        rest = text.encode(self._encoding, "backslashreplace")
        while rest and not self.is_gone:
            try:
                rest = rest[os.write(STDOUT, rest) :]
            except BlockingIOError:  # whoever shares it has made it so
                poll = select.poll()
                poll.register(STDOUT, select.POLLOUT)
                poll.poll()
            except OSError:
                self.is_gone = True

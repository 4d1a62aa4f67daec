"""What uvicorn and an app log in a worker, in the log's one form (``wire.log_lines``).

uvicorn's loggers, levels and options stay what they are: only its handlers and formatters are ours. Its access records
are known by their logger and their arguments, ``(client, method, path, http_version, status)``.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from stillup.host import log_time
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine

ACCESS: Final = "uvicorn.access"
_ARGUMENTS: Final = 5
_STATUS: Final = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}
_RED, _GREEN, _YELLOW, _BLUE, _CYAN, _WHITE, _BRIGHT_RED = (f"\x1b[{n}m" for n in (31, 32, 33, 34, 36, 97, 91))
_PLAIN: Final = "\x1b[0m"
_LEVEL_COLORS: Final = {
    "TRACE": _BLUE,
    "DEBUG": _CYAN,
    "INFO": _GREEN,
    "WARNING": _YELLOW,
    "ERROR": _RED,
    "CRITICAL": _BRIGHT_RED,
}
_STATUS_COLORS: Final = {1: _WHITE, 2: _GREEN, 3: _YELLOW, 4: _RED, 5: _BRIGHT_RED}
"""uvicorn's, by the first digit."""


def log_config(make_handler: Callable[[], logging.Handler]) -> dict[str, Any]:
    """A configuration for uvicorn with one handler for all that it logs."""
    handled = {"handlers": ["stillup"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stillup": {"()": make_handler}},
        "loggers": {"uvicorn": handled, "uvicorn.error": {"level": "INFO"}, ACCESS: handled},
    }


def line_of(record: logging.LogRecord) -> LogLine:
    """What a record says."""
    fields: dict[str, Any] = {}
    if record.name == ACCESS and (access := _access(record)) is not None:
        client, method, path, version, status = access
        fields = {"client": client, "method": method, "path": path, "http_version": version, "status": status}
        message = f'{client} - "{method} {path} HTTP/{version}" {_phrase(status)}'
    else:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        elif record.exc_text:
            message += "\n" + record.exc_text
        if record.stack_info:
            message += "\n" + record.stack_info
    level = record.levelname if record.levelname in log_lines.LEVELS else _level(record.levelno)
    return LogLine(message, level, record.name, fields)


def _access(record: logging.LogRecord) -> tuple[str, str, str, str, int] | None:
    args = record.args
    if isinstance(args, tuple) and len(args) == _ARGUMENTS and isinstance(args[4], int):
        return args  # type: ignore[return-value]
    return None


def _phrase(status: int) -> str:
    return _STATUS.get(status) or f"{status} "


def _level(number: int) -> str:
    """The name of the highest level that is not above this one; an app may have levels of its own."""
    below = [name for name, value in log_lines.LEVELS.items() if value <= number]
    return below[-1] if below else "TRACE"


class TextFormatter(logging.Formatter):
    """Lines for people; an access record, of which there is one a request, by the shortest way."""

    def __init__(self, worker: str, *, color: bool) -> None:
        super().__init__()
        self._worker = worker
        self._named = f"{worker:<5} "
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        if record.name != ACCESS or self._color or (access := _access(record)) is None:
            text = log_lines.text(line_of(record), log_time.local(record.created), self._worker)
            return self._colored(text, record) if self._color else text
        client, method, path, version, status = access
        message = f'{client} - "{method} {path} HTTP/{version}" {_phrase(status)}'
        if message.isprintable():
            return f"{log_time.local(record.created)} {record.levelname:<7} {self._named}{message}"
        return log_lines.text(line_of(record), log_time.local(record.created), self._worker)

    def _colored(self, text: str, record: logging.LogRecord) -> str:
        """With the level, and an answer's status, in uvicorn's colors."""
        level = line_of(record).level
        text = text.replace(f" {level}", f" {_LEVEL_COLORS[level]}{level}{_PLAIN}", 1)
        if record.name == ACCESS and (access := _access(record)) is not None:
            color, phrase = _STATUS_COLORS.get(access[4] // 100, ""), _phrase(access[4])
            if color and text.endswith(phrase):
                text = f"{text[: -len(phrase)]}{color}{phrase}{_PLAIN}"
        return text


class JsonFormatter(logging.Formatter):
    """Lines for programs."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        return log_lines.json(line_of(record), log_time.utc(record.created), self._worker)


class PackedFormatter(logging.Formatter):
    """Lines for the supervisor, which gives them their form."""

    def format(self, record: logging.LogRecord) -> str:
        return log_lines.packed(line_of(record))


def take_unhandled(handler: logging.Handler) -> None:
    """Let what an app logs and no handler takes go there, from WARNING on as Python has it."""
    handler.setLevel(logging.WARNING)
    logging.lastResort = handler

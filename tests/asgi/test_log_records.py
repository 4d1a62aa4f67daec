"""What a worker logs, in the log's form: uvicorn's records, the access log and an app's."""

from __future__ import annotations

import json
import logging
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import pytest
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import AccessFormatter

from stillup.asgi import log_records
from stillup.asgi.log_records import ACCESS, JsonFormatter, PackedFormatter, TextFormatter
from stillup.asgi.uvicorn_config import make_config
from stillup.wire import log_lines

REQUEST = ("127.0.0.1:50000", "GET", "/items/1?q=a%20b", "1.1", 200)
UVICORNS = '%s - "%s %s HTTP/%s" %d'


def access(*arguments: object) -> logging.LogRecord:
    """A record as uvicorn makes one a request."""
    return logging.LogRecord(ACCESS, logging.INFO, __file__, 1, UVICORNS, arguments, None)


def other(message: str, name: str = "uvicorn.error", level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, (), None)


@pytest.mark.parametrize("status", [200, 404, 599])
@pytest.mark.parametrize("color", [True, False])
def test_a_request(status: int, color: bool) -> None:
    """It says what uvicorn's own line says, behind time, level and worker."""
    record = access(*REQUEST[:4], status)
    line = TextFormatter("1.2", color=color).format(record)
    theirs = AccessFormatter('%(client_addr)s - "%(request_line)s" %(status_code)s', use_colors=False).format(record)
    plain = line
    for number in (31, 32, 33, 34, 36, 97, 91, 0):
        plain = plain.replace(f"\x1b[{number}m", "")
    assert plain.endswith(f" INFO    1.2   {theirs}")
    assert (plain != line) == color


def test_a_request_in_json() -> None:
    """With a field for each of its parts."""
    said = json.loads(JsonFormatter("1.2").format(access(*REQUEST)))
    assert (said["client"], said["method"], said["path"], said["status"]) == (*REQUEST[:3], 200)
    assert (said["worker"], said["level"], said["logger"]) == ("1.2", "info", ACCESS)
    assert said["message"].endswith('"GET /items/1?q=a%20b HTTP/1.1" 200 OK')


def test_a_client_sends_the_terminal_nothing() -> None:
    """Whatever the parser lets through, controls are shown."""
    line = TextFormatter("1.2", color=False).format(access(REQUEST[0], "GET", "/\x1b]0;x\x07\x9b\n", "1.1", 200))
    assert all(one.isprintable() for one in line.split("\n"))


@pytest.mark.parametrize("form", [TextFormatter("1.2", color=False), JsonFormatter("1.2"), PackedFormatter()])
def test_other_records(form: logging.Formatter) -> None:
    """An app's use of the access logger, its own levels, and errors with their traceback and stack are lines, too."""
    try:
        raise ValueError("lost")
    except ValueError:
        failed = logging.LogRecord("app", logging.ERROR, __file__, 1, "no %s", ("way",), sys.exc_info(), sinfo="Stack")
    cached = other("again")
    cached.exc_text = "Traceback of before"
    expected = {
        "plain": other("plain", ACCESS),
        "notice": other("notice", "app", 25),
        "ValueError: lost": failed,
        "no way": failed,
        "Stack": failed,
        "Traceback of before": cached,
        "low": other("low", "app", 1),
    }
    for text, record in expected.items():
        assert text in form.format(record)


def test_colors_are_uvicorns() -> None:
    """The level has one, and nothing else of a message."""
    lines = [TextFormatter("1.2", color=True).format(other("x", level=level)) for level in (20, 30, 40, 50)]
    assert [line[line.index("\x1b") :][:5] for line in lines] == ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[91m"]


def test_uvicorns_options_keep_their_meaning(tmp_path: Path) -> None:
    """Level and access log are what they were; a configuration of the operator's own takes the place of ours."""
    handler = logging.NullHandler()
    ours = log_records.log_config(lambda: handler)
    make_config("a:b", {"log_level": "warning", "access_log": False, "use_colors": True}, ours)
    assert logging.getLogger("uvicorn").handlers == [handler]
    assert logging.getLogger(ACCESS).handlers == []
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.WARNING
    own = tmp_path / "log.json"
    own.write_text(json.dumps(LOGGING_CONFIG))
    make_config("a:b", {"log_config": str(own)})
    (theirs,) = logging.getLogger("uvicorn").handlers
    assert type(theirs.formatter).__module__ == "uvicorn.logging"


def test_what_no_handler_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that has configured no logging has its warnings in the log's form, and nothing below them, as before."""
    monkeypatch.setattr(logging, "lastResort", None)
    handler = logging.Handler()
    log_records.take_unhandled(handler)
    assert logging.lastResort is handler
    assert handler.level == logging.WARNING


def test_levels_are_pythons() -> None:
    """Each has the number that logging gives it; uvicorn's TRACE its own."""
    for name, number in log_lines.LEVELS.items():
        assert name == "TRACE" or logging.getLevelNamesMapping()[name] == number


def took(function: Callable[[], object]) -> float:
    return min(timeit.repeat(function, number=200, repeat=20))


def test_it_costs_no_more_than_uvicorns() -> None:
    """A line a request: it takes at most as long to make as uvicorn's own (a third of it, most of the time)."""
    theirs, ours = (
        AccessFormatter(LOGGING_CONFIG["formatters"]["access"]["fmt"], use_colors=False),
        TextFormatter("1.2", color=False),
    )
    record = access(*REQUEST)
    assert took(lambda: ours.format(record)) <= took(lambda: theirs.format(record))
    assert took(lambda: JsonFormatter("1.2").format(record)) <= 2 * took(lambda: theirs.format(record))

"""The log's one form: whoever speaks and whatever is said, a line is a line, as text and as JSON."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine

ANY = st.text(st.characters(exclude_categories=()))
LINES = st.builds(LogLine, ANY, st.sampled_from(sorted(log_lines.LEVELS)), st.just("an.app"))
HALF = LogLine("half \udcff", "INFO", "an.app")
"""Half a surrogate, which no UTF-8 can say."""
AT = "2026-11-28 15:50:21.351"
FORM = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ +(-|\d+\.\d+) +\S.*")
UTC = "2026-11-28T15:50:21.351+00:00"


def test_text() -> None:
    """Time, level, who speaks, message; columns that stand below each other."""
    assert log_lines.text(LogLine("gen 1 serves"), AT) == f"{AT} INFO    -     gen 1 serves"
    assert log_lines.text(LogLine("no", "ERROR"), AT, "12.3") == f"{AT} ERROR   12.3  no"


@given(LINES)
def test_no_text_begins_a_line(line: LogLine) -> None:
    """Of a message with several lines only the first looks like one of ours; none has a control."""
    first, *more = log_lines.text(line, AT, "1.2").split("\n")
    assert first.startswith(f"{AT} {line.level}")
    assert all(one.startswith("  | ") for one in more)
    assert all(one.isprintable() for one in (first, *more))


@given(LINES, st.sampled_from(["", "1.2"]))
@example(HALF, "1.2")
def test_json(line: LogLine, worker: str) -> None:
    """One object a line, whatever is said; a program reads what was said, but for what UTF-8 cannot say."""
    text = log_lines.json(line, UTC, worker)
    assert text.isprintable()
    said = json.loads(text)
    assert (said["at"], said["level"], said["logger"]) == (UTC, line.level.lower(), "an.app")
    assert said.get("worker", "") == worker
    if line.message.encode(errors="ignore").decode() == line.message:
        assert said["message"] == line.message


def test_what_it_is_about_has_fields() -> None:
    """A worker's line has its generation, too; fields come beside the message."""
    said = json.loads(log_lines.json(LogLine("x", fields={"status": 200}), UTC, "3.1"))
    assert (said["generation"], said["worker"], said["status"]) == (3, "3.1", 200)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ('{"event": "paid", "level": "warning"}', {"event": "paid", "level": "warning", "worker": "1.2", "at": UTC}),
        ('{"worker": "-", "at": 1}', {"worker": "1.2", "generation": 1, "at": 1, "level": "info"}),
        ("{nothing of the kind}", {"message": "{nothing of the kind}", "worker": "1.2"}),
        ("{" + '"a":[' * 5000 + "}", {"level": "info"}),
        ('{"\udcff": 1}', {"message": r'{"\udcff": 1}'}),
    ],
)
def test_an_app_that_prints_json(printed: str, said: dict[str, object]) -> None:
    """Its object stays one, and lacks nothing: which worker it is of is ours to say."""
    line = log_lines.captured(printed)
    assert line is not None
    found = json.loads(log_lines.json(line, UTC, "1.2"))
    assert {name: found.get(name) for name in said} == said
    assert isinstance(json.loads(log_lines.json(LogLine("[1]"), UTC, "1.2"))["message"], str)
    assert isinstance(json.loads(log_lines.json(LogLine("{1}"), UTC, "1.2"))["message"], str)


@pytest.mark.parametrize(("whose", "ours"), [("1.2", {"generation": 1, "worker": "1.2"}), ("hook", {"source": "hook"})])
def test_whose_line_json_is(whose: str, ours: dict[str, object]) -> None:
    """What is printed may be a client's words: it is no other worker's line, no hook's, and of no rollout."""
    printed = {"generation": 9, "worker": "9.9", "source": "hook", "rollout": 9, "event": "rollout.aborted"}
    found = json.loads(log_lines.json(LogLine(json.dumps(printed)), UTC, whose))
    assert found == {"at": UTC, "level": "info", "event": "rollout.aborted", **ours}


@given(LINES)
@example(HALF)
def test_what_is_packed_arrives(line: LogLine) -> None:
    """A worker's own line comes through its pipe as it is, in one line of it."""
    packet = log_lines.packed(line)
    assert "\n" not in packet
    assert log_lines.is_packed(packet.encode())
    arrived = log_lines.from_pipe(packet)
    assert arrived is not None
    assert (arrived.level, arrived.logger) == (line.level, line.logger)
    if line.message.encode(errors="ignore").decode() == line.message:
        assert arrived.message == line.message


OURS = ["at", "level", "logger", "message", "generation", "worker"]
FORGED = "A=\\nSYSLOG_IDENTIFIER=sshd\\nMESSAGE"


@pytest.mark.parametrize("name", [*OURS, "event", "pid", FORGED, "Worker", "_x", "1", "", "a" * 42, "\u00e4", "a-b"])
def test_a_name_of_a_field_that_a_worker_may_not_use(name: str) -> None:
    """Ours are not for a packed line to say, and a name of the journal's must not come of another."""
    line = log_lines.from_pipe(f'\x1e{{"message": "x", "fields": {{"{name}": "y", "status": 200}}}}')
    assert line == LogLine("x", fields={"status": 200})


def test_what_a_field_may_hold() -> None:
    """Texts are cut, numbers are those that every reader of JSON knows, and there are few of them."""
    fields = {"path": "/" * 2 * log_lines.LONGEST, "status": 2**60, "size": -(2**53), "method": "GET"}
    line = log_lines.from_pipe(log_lines.packed(LogLine("x", "ERROR", "l" * 10_000, fields)))
    assert line is not None
    assert line.fields == {"path": "/" * log_lines.LONGEST, "size": -(2**53), "method": "GET"}
    assert len(line.logger) == log_lines.LONGEST_NAME
    many = log_lines.from_pipe(log_lines.packed(LogLine("x", fields={f"f{n}": n for n in range(1000)})))
    assert many is not None
    assert many.fields == {f"f{n}": n for n in range(log_lines.MOST_FIELDS)}


@pytest.mark.parametrize("worker", ["", "1.2"])
def test_what_is_ours_wins(worker: str) -> None:
    """Whatever a line is about: its time, its level, who says it and what."""
    about: dict[str, object] = dict.fromkeys(OURS, "forged")
    said = json.loads(log_lines.json(LogLine("x", "ERROR", "an.app", {**about, "status": 200}), UTC, worker))
    ours = {"at": UTC, "level": "error", "logger": "an.app", "message": "x", "status": 200}
    who = {"generation": 1, "worker": worker} if worker else {"generation": "forged", "worker": "forged"}
    assert said == {**ours, **who}


def test_what_is_printed_is_never_unpacked() -> None:
    """It may be what a client has sent."""
    packet = log_lines.packed(LogLine("gen 9 serves", "ERROR", "stillup", {"at": "never"}))
    assert log_lines.captured(packet) == LogLine(packet)
    assert log_lines.text(LogLine(packet), AT, "1.2").startswith(f"{AT} INFO    1.2   \n  | {{")
    assert log_lines.from_pipe(log_lines.unmarked(f"{packet}\n{packet}")) == LogLine(
        f"{packet}\n{packet}".replace("\x1e", r"\x1e")
    )


@given(ANY)
@example("no JSON")
def test_whatever_is_printed(printed: str) -> None:
    """A line of output is logged as it is, or nothing is; also where it only looks like a packed one."""
    for output in (printed, f"\x1e{printed}"):
        line = log_lines.from_pipe(output)
        if line is not None:
            assert len(line.message) <= log_lines.LONGEST
            assert "\n" in output or "\n" not in log_lines.text(line, AT, "1.2").partition("\n")[0]


@pytest.mark.parametrize(
    ("printed", "logged"),
    [("hello  ", "hello"), (" 10 %\r 20 %\r", " 20 %"), ("done\r", "done"), ("", None), (" \t", None)],
)
def test_progress(printed: str, logged: str | None) -> None:
    """Who writes over a line is logged by the last that stood there; an empty line is none."""
    line = log_lines.captured(printed)
    assert (line and line.message) == logged


def test_a_line_has_its_form() -> None:
    """What the pages say of it."""
    assert FORM.fullmatch(log_lines.text(LogLine("x"), AT))
    assert FORM.fullmatch(log_lines.text(LogLine("x", "CRITICAL"), AT, "10.11"))

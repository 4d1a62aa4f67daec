"""What happened, told to whoever asks: in order, each event once, over kills and replacements of the supervisor."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from stillup.client import events_command
from stillup.wire.event_types import RolloutCutOver
from tests.children import spawned
from tests.system.harness import DEADLINE, STILLUP, Service, eventually, lines
from tests.system.killable_service import KillableService
from tests.system.mutations import KEEPS_20_EVENTS, LARGE_EVENTS, mutated
from tests.system.other_user import NOBODY, being, let_through, open_folder

pytestmark = pytest.mark.xdist_group("events")


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Service]:
    """A service that has just begun to serve."""
    service = Service(tmp_path)
    service.write()
    with service:
        yield service


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that some tests share."""
    service = Service(tmp_path_factory.mktemp("service"))
    service.write()
    with service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    """That one at rest: nothing is told of it any more."""
    eventually(lambda: kinds(told(shared)).count("rollout.begun") == kinds(told(shared)).count("rollout.done"), "done")
    return shared


def curl(service: Service, query: str = "", *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
    url = f"http://localhost/v1/events{query}"
    argv = ["curl", "-sN", "--fail-with-body", *options, "--unix-socket", f"{service.runtime}/control.sock", url]
    return spawned(argv, stdout=subprocess.PIPE, text=True)


def told(service: Service, query: str = "") -> list[dict[str, Any]]:
    with curl(service, query) as process:
        said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return [json.loads(line) for line in said.splitlines()]


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in told]


def until(process: subprocess.Popen[str], what: str) -> list[str]:
    """Read lines up to one with that in it."""
    assert process.stdout is not None
    said: list[str] = []
    while not said or what not in said[-1]:
        line = process.stdout.readline()
        assert line, said
        said.append(line)
    return said


# The story


def test_the_story_of_two_reloads(new_service: Service) -> None:
    """One that succeeds and one that fails are told in order, numbered from 1, and without a worker's own words."""
    service = new_service
    assert service.reload().returncode == 0
    eventually(lambda: service.generations() == [2], "the old generation has left")
    service.tracebacks_expected = True
    service.write('print("a secret", flush=True)\nimport nosuch\n')
    assert service.reload().returncode == 1
    story = eventually(lambda: seen if kinds(seen := told(service)).count("generation.gone") == 2 else None, "all left")
    assert service.generations() == [2]
    assert [event["seq"] for event in story] == list(range(1, len(story) + 1))
    assert [kind for kind in kinds(story) if kind != "worker.serving"] == [
        *("rollout.begun", "rollout.cut-over", "rollout.done"),
        *("rollout.begun", "request.audited", "rollout.cut-over", "generation.gone", "rollout.done"),
        *("rollout.begun", "request.audited", "rollout.aborted", "generation.gone"),
    ]
    assert [event["monotonic"] for event in story] == sorted(event["monotonic"] for event in story)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", event["at"]) for event in story)
    aborted = next(event for event in story if event["kind"] == "rollout.aborted")
    assert (aborted["rollout"], aborted["reason"]) == (3, "import")
    assert aborted["why"].endswith("failed (import)")
    assert "nosuch" not in json.dumps(story)
    service.logged("No module named 'nosuch'")
    service.logged("a secret")
    assert "secret" not in json.dumps(story)
    assert "output" not in {name for event in story for name in event}
    assert told(service, "?since=4") == story[4:]
    assert told(service, f"?since={len(story)}") == []
    typed = list(service.client.events(since=1))
    assert isinstance(typed[0], RolloutCutOver)
    assert [event.seq for event in typed] == list(range(2, len(story) + 1))


def test_followers(new_service: Service) -> None:
    """Who follows hears each event as it happens, as lines or as an event stream, the last one, and then the end.

    So does whoever follows by the command.
    """
    service = new_service
    with (
        curl(service, "?follow=true") as plain,
        curl(service, "", "-H", "Accept: text/event-stream") as stream,
        _following(service) as watching,
    ):
        begun = until(plain, "rollout.done")
        until(stream, '"rollout.done"')
        until(watching, "is done")
        service.client.reload()
        begun += until(plain, "rollout.cut-over")
        number, kind, data = until(stream, '"rollout.cut-over"')[-3:]
        assert (number, kind, data) == (f"id: {len(begun)}\n", "event: rollout.cut-over\n", f"data: {begun[-1]}")
        with curl(service, "?since=1", "-H", "Accept: text/event-stream", "-H", "Last-Event-ID: 2") as again:
            assert until(again, "id: ") == ["id: 3\n"]
            again.kill()
        service.process.terminate()
        last = begun + until(plain, "service.stopped")
        assert plain.stdout is not None
        assert plain.stdout.read() == ""
        assert stream.communicate(timeout=DEADLINE)[0].count("event: service.stopped\n") == 1
        assert (plain.wait(DEADLINE), stream.wait(DEADLINE)) == (0, 0)
        said, error = watching.communicate(timeout=DEADLINE)
        assert said.splitlines()[-1].endswith("  stopped")
        assert (error, watching.returncode) == ("the service has stopped\n", 0)
    assert [json.loads(line)["seq"] for line in last] == list(range(1, len(last) + 1))
    assert service.process.wait(DEADLINE) == 0
    assert service.cli("events").returncode == 3
    assert service.cli("events", "--follow").returncode == 3


def test_what_is_asked_for(service: Service) -> None:
    """A number or a word that is none is refused; a HEAD has no body, and ends."""
    refused = [(query, ()) for query in ("?since=-1", "?since=1e3", "?since=x", "?follow=perhaps", "?until=3")]
    headers = [("", ("-H", f"Last-Event-ID: {last}")) for last in ("x", "-1", "9" * 40)]
    for query, options in [*refused, *headers]:
        with curl(service, query, *options) as process:
            assert json.loads(process.communicate(timeout=DEADLINE)[0])["type"] == "urn:stillup:problem:usage"
            assert process.returncode == 22
    accept = "Accept: text/html, text/event-stream;q=0.9, application/x-ndjson"
    with curl(service, "", "--head", "-H", accept) as process:
        said, _ = process.communicate(timeout=DEADLINE)
    assert "content-type: text/event-stream" in said
    assert process.returncode == 0


# From one supervisor to the next


def replace_program(service: Service) -> None:
    before = service.status().reexecs
    service.client.reexec()
    service.reexecuted(before + 1)


def test_each_event_once_whatever_becomes_of_the_supervisor(tmp_path: Path) -> None:
    """A reader that comes again after a kill, a replacement and a kill has seen 1, 2, 3 ..., each once."""
    heard: list[int] = []
    before: list[int] = []
    with KillableService(tmp_path) as service:

        def read() -> None:
            for event, _ in events_command.lines(service.client, None, follow=True, gone=lambda: None):
                heard.append(event.seq)

        reader = threading.Thread(target=read)
        ends = (service.die, None, service.die)
        with curl(service, "?follow=true") as first:
            reader.start()
            for number, end in enumerate(ends, 1):
                scaling = service.client.scale(1 + number % 2).id
                eventually(lambda: service.client.scaling(scaling).outcome, "as many serve")  # noqa: B023
                if end is not None:
                    end()
                    service.start()
                else:
                    replace_program(service)
                if number == 1:
                    assert first.stdout is not None
                    before += [json.loads(line)["seq"] for line in first.stdout]
        # Who asks a supervisor right after its start may be answered before it has told of that.
        eventually(lambda: kinds(told(service)).count("service.taken-over") == 3, "all have told that they took over")
        story = told(service)
        since = told(service, f"?since={before[-1]}")
        assert since[: len(story) - before[-1]] == story[before[-1] :]
        # Who has not come again when it stops is never told that it did, and waits for the next one.
        eventually(lambda: len(heard) >= len(story), "the reader has come again")
        service.process.terminate()
        reader.join(30)
    assert not reader.is_alive()
    assert heard == list(range(1, len(heard) + 1))
    assert before == list(range(1, len(before) + 1))
    assert kinds(story).count("supervisor.reexec") == 1
    assert kinds(story).count("service.scaled") == 3
    assert [event["seq"] for event in story] == list(range(1, len(story) + 1))


# Readers that cost nothing


def test_a_reader_that_does_not_read(tmp_path: Path) -> None:
    """However much happens, it slows nobody; when it reads again it is told what it missed, and gets what is kept."""
    environment = mutated(tmp_path, KEEPS_20_EVENTS, LARGE_EVENTS)
    service = Service(tmp_path, environment=environment)
    service.write()
    with service, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(f"{service.runtime}/control.sock")
        slow.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
        with socket.socket(socket.AF_UNIX) as busy:
            busy.connect(f"{service.runtime}/control.sock")
            busy.settimeout(30)
            for _ in range(10):
                busy.sendall(b"POST /v1/abort HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
                answers = b""
                while answers.count(b"HTTP/1.1 409") < 40:
                    answers += busy.recv(65536)
        assert service.cli("reload").returncode == 0
        story = eventually(lambda: seen if kinds(seen := told(service))[-1] == "rollout.done" else None, "it is done")
        assert len(story) == 20
        slow.settimeout(30)
        said = b""
        while f'"seq":{story[-1]["seq"]},'.encode() not in said or not said.endswith(b"\n"):
            said += slow.recv(65536)
        found = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    assert found[-20:] == story
    missed = 0
    for before, event, after in zip(found, found[1:], found[2:], strict=False):
        if event["kind"] == "feed.gap":
            assert (event["since"], event["next"]) == (before["seq"], after["seq"])
            missed = max(missed, event["next"] - event["since"] - 1)
        elif before["kind"] != "feed.gap":
            assert event["seq"] == before["seq"] + 1
    assert missed > 50


def test_a_follower_that_leaves_is_gone(service: Service) -> None:
    """Followers that hang up while nothing happens leave no connection behind."""
    before = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    for _ in range(20):
        with curl(service, "?follow=true") as follower:
            until(follower, "rollout.done")
            follower.kill()
    eventually(lambda: len(os.listdir(f"/proc/{service.process.pid}/fd")) <= before + 1, "their connections are closed")


# The audit


def test_the_audit(service: Service) -> None:
    """Each request for a change is one event and one line of the log: who, what, and what came of it; no other is."""
    asked = []
    newest = told(service)[-1]["seq"]
    at = len(service.log())
    control = f"{service.runtime}/control.sock"
    for method, path in (
        ("POST", "/v1/reload?wait=true"),
        ("POST", "/v1/scale"),
        ("POST", "/v1/scale?workers=1"),
        ("POST", "/v1/abort"),
        ("POST", "/v1/nothing"),
        ("DELETE", "/v1/status"),
        ("GET", "/v1/reload"),
    ):
        argv = ["curl", "-s", "-H", "Host: [::1", "-X", method, "--unix-socket", control, f"http://localhost{path}"]
        with spawned(argv, stdout=subprocess.DEVNULL) as process:
            process.wait(30)
        asked.append(process.pid)

    def told_of() -> list[dict[str, Any]]:
        return [event for event in told(service, f"?since={newest}") if event["kind"] == "request.audited"]

    audited = eventually(lambda: seen if len(seen := told_of()) >= 4 else None, "the last is told, too")
    found = [(one["method"], one["path"], one["outcome"], one["status"]) for one in audited]
    assert found == [
        ("POST", "/v1/reload", "accepted", 202),
        ("POST", "/v1/scale", "usage", 400),
        ("POST", "/v1/scale", "accepted", 202),
        ("POST", "/v1/abort", "out-of-order", 409),
    ]
    assert [one["principal"]["pid"] for one in audited] == asked[:4]
    assert {(one["principal"]["uid"], one["principal"]["gid"]) for one in audited} == {(os.geteuid(), os.getegid())}
    assert {one["role"] for one in audited} == {"admin"}
    rollout = audited[0]["rollout"]
    assert service.client.rollout(rollout).outcome == "succeeded"
    assert [(one["rollout"], one["scaling"]) for one in audited[:3]] == [(rollout, None), (None, None), (None, 1)]
    assert {frozenset(one["principal"]) for one in audited} == {frozenset({"uid", "gid", "pid", "login_uid", "exe"})}
    assert {os.path.realpath(one["principal"]["exe"]) for one in audited} == {os.path.realpath(str(which("curl")))}

    def said() -> list[str]:
        return list(lines(service.log()[at:], "asked by uid", " gid "))

    written = eventually(lambda: seen if len(seen := said()) >= 4 else None, "the last is logged, too")
    for line, one in zip(written, audited, strict=True):
        assert line.endswith(one["text"])


def test_a_denied_request() -> None:
    """Somebody without the right is told of by the kernel's word, with a warning; what they look at is not."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with open_folder() as folder:
        service = Service(folder)
        service.write()
        with service:
            let_through(service)
            for method in ("POST", "GET"):
                with socket.socket(socket.AF_UNIX) as sock:
                    with being(NOBODY):
                        sock.connect(f"{service.runtime}/control.sock")
                    sock.settimeout(30)
                    path = "/v1/stop" if method == "POST" else "/v1/status"
                    sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert sock.recv(65536).startswith(b"HTTP/1.1 403 ")
            (audited,) = eventually(
                lambda: [event for event in told(service) if event["kind"] == "request.audited"], "it is told"
            )
            assert (audited["path"], audited["outcome"], audited["status"]) == ("/v1/stop", "denied", 403)
            assert (audited["principal"]["uid"], audited["role"]) == (NOBODY, "none")
            service.logged("WARNING", audited["text"])
            assert len(list(lines(service.log(), "WARNING", audited["text"]))) == 1


# The command


def _following(service: Service) -> AbstractContextManager[subprocess.Popen[str]]:
    argv = [STILLUP, "events", "--follow", "--runtime-dir", str(service.runtime)]
    return spawned(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command(service: Service) -> None:
    """It shows the history, or its lines as they came; with --follow until Ctrl-C, or until the service has stopped."""
    shown = service.cli("events").stdout.splitlines()
    assert re.fullmatch(r" +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  gen 1 boots from .* \(start\)", shown[0])
    assert [json.loads(line) for line in service.cli("events", "--json").stdout.splitlines()] == told(service)
    assert service.cli("events", "--since", "1").stdout.splitlines() == shown[1:]
    assert service.cli("events", "--since", "-1").returncode == 2
    with _following(service) as detaching:
        assert detaching.stdout is not None
        assert [detaching.stdout.readline().rstrip("\n") for _ in shown] == shown
        detaching.send_signal(signal.SIGINT)
        assert detaching.wait(DEADLINE) == 130
        more, errors = detaching.communicate()
        assert errors == ""
        assert set(more.splitlines()) <= set(service.cli("events").stdout.splitlines())  # what came meanwhile


def test_the_command_waits_for_the_next_supervisor(tmp_path: Path) -> None:
    """A supervisor that is killed is missed once, and the next one's events follow."""
    with KillableService(tmp_path) as service:
        newest = max(event.seq for event in service.client.events())
        argv = [STILLUP, "events", "-f", "--json", "--since", str(newest), "--runtime-dir", str(service.runtime)]
        with spawned(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            assert service.cli("scale", "2").returncode == 0
            until(watching, "scaling.done")
            service.die()
            assert watching.stderr is not None
            assert "waiting for the next one" in watching.stderr.readline()
            service.start()
            until(watching, "service.taken-over")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(DEADLINE) == 130

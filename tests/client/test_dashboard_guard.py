"""Who is let in by a dashboard: its own page, once, and nobody else; asked of a real process over real connections."""

from __future__ import annotations

import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stillup.client.dashboard.dashboard_guard import HEADERS, MOST_BODY
from stillup.client.dashboard.dashboard_keys import GOOD_FOR, MOST, DashboardKeys
from tests.children import spawned
from tests.client.hostile_supervisor import hostile_supervisor
from tests.system.command_line import stillup
from tests.system.dashboard.dashboard_page import Dashboard, dashboard
from tests.system.harness import DEADLINE, STILLUP
from tests.system.other_user import as_nobody

pytestmark = pytest.mark.xdist_group("dashboard-guard")

KINDS = ("GET", "POST")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("service")
    with hostile_supervisor(folder), dashboard(folder) as page:
        yield page


@pytest.fixture(scope="module")
def token(page: Dashboard) -> str:
    status, body = ask(page, "POST", "/session", body=page.key)
    assert status == 200
    return str(json.loads(body)["token"])


def ask(page: Dashboard, method: str, path: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    """Status and body of the answer, which has each header that every answer is to have."""
    with closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        said = {name.lower(): value for name, value in answer.getheaders()}
        assert {name.lower(): said.get(name.lower()) for name, _ in HEADERS} == {
            name.lower(): value for name, value in HEADERS
        }, (method, path, said)
        assert "server" not in said
        # A stream has no end.
        return answer.status, answer.read1(65536) if path == "/api/stream" else answer.read()


def test_the_page(page: Dashboard) -> None:
    """It is served to who has no token yet: there is nothing of the service in it."""
    for path in ("/", "/main.js", "/style.css"):
        status, body = ask(page, "GET", path)
        assert (status, bool(body)) == (200, True)
    for path in ("/docs", "/openapi.json", "/redoc", "/__init__.py", "/page/index.html", "/..%2f__init__.py", "/x.js"):
        assert ask(page, "GET", path)[0] == 404, path
    assert page.address == f"http://127.0.0.1:{page.port}/#{page.key}"


def test_no_inline_code(page: Dashboard) -> None:
    """The page asks no other host for anything, and runs what its files say and nothing else."""
    html = ask(page, "GET", "/")[1].decode()
    assert "<script>" not in html
    assert "style=" not in html
    assert "//" not in html.replace("<!doctype", "")
    for word in (" onload", " onclick", " onerror", "javascript:"):
        assert word not in html


def test_a_key_is_good_once(page: Dashboard, token: str) -> None:
    """Used again it is none, as is what never was."""
    assert ask(page, "GET", "/api/stream", Authorization=f"Bearer {token}")[0] == 200
    for key in (page.key, "", "x", token, "\u00fc", "x" * MOST_BODY):
        assert ask(page, "POST", "/session", body=key)[0] in (401, 413)
    assert ask(page, "GET", "/session")[0] == 404


def test_a_key_is_good_for_a_minute() -> None:
    """And nothing else is taken for one; many that were not used push the oldest out."""
    now = [0.0]
    keys = DashboardKeys(lambda: now[0])
    early, late = keys.issue(), keys.issue()
    now[0] = GOOD_FOR - 0.001
    token = keys.redeem(early)
    assert token is not None
    assert keys.redeem(early) is None
    now[0] = GOOD_FOR
    assert keys.redeem(late) is None
    assert keys.knows(token)
    assert not any(keys.knows(other) for other in ("", early, token[:-1], f"{token}x"))
    first, *_ = [keys.issue() for _ in range(MOST + 1)]
    assert keys.redeem(first) is None


@pytest.mark.parametrize("path", ["/api/stream", "/api/reload", "/api", "/api/", "/api/status", "/%61pi/reload"])
@pytest.mark.parametrize("said", ["", "Bearer", "Bearer x", "Basic x", "KEY", "{token}", "bearer  {token}"])
def test_no_token(page: Dashboard, token: str, path: str, said: str) -> None:
    """Nothing below /api is answered without it, be it there or not."""
    words = said.replace("KEY", f"Bearer {page.key}").format(token=token)
    for method in KINDS:
        assert ask(page, method, path, **({"Authorization": words} if said else {}))[0] == 401


def test_nothing_else_is_passed_on(page: Dashboard, token: str) -> None:
    """There are five orders, and the stream."""
    auth = f"Bearer {token}"
    for name in ("stop", "cordon", "trace", "status", "v1/stop", "supervisor/reexec", "stream"):
        assert ask(page, "POST", f"/api/{name}", Authorization=auth)[0] in (404, 405), name
    for name in ("reload", "rollback", "abort", "promote", "scale?workers=3"):
        status, body = ask(page, "POST", f"/api/{name}", Authorization=auth)
        assert (status, json.loads(body)["id"]) == (200, 7), name
        assert ask(page, "GET", f"/api/{name}", Authorization=auth)[0] in (404, 405)
    for number in ("", "0", "-1", "x", "1001", "1e3", "9" * 5000, "0" * 5000, "00000000001", "%D9%A3"):
        status, body = ask(page, "POST", f"/api/scale?workers={number}", Authorization=auth)
        assert (status, json.loads(body)["type"]) == (400, "urn:stillup:problem:usage")


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:{port}", "127.0.0.1", "127.0.0.1:1", "localhost:{port}.evil.test", "", "[::1]:{port}"],
)
def test_other_names(page: Dashboard, token: str, host: str) -> None:
    """A name that leads here is not ours, whoever asks by it: that is how DNS rebinding is refused."""
    for path in ("/", "/api/reload", "/session"):
        for method in KINDS:
            said = {"Host": host.format(port=page.port), "Authorization": f"Bearer {token}"}
            assert ask(page, method, path, **said)[0] == 421
    assert ask(page, "GET", "/", Host=f"localhost:{page.port}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_other_sites(page: Dashboard, token: str, headers: dict[str, str]) -> None:
    """What another site's page sends is refused, with the token, too."""
    said = {name: value.format(port=page.port) for name, value in headers.items()}
    for path in ("/", "/api/reload", "/session"):
        for method in KINDS:
            assert ask(page, method, path, **said, Authorization=f"Bearer {token}")[0] == 403
    own = {"Origin": f"http://127.0.0.1:{page.port}", "Sec_Fetch_Site": "same-origin"}
    assert ask(page, "POST", "/api/abort", **own, Authorization=f"Bearer {token}")[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods(page: Dashboard, token: str, method: str) -> None:
    """There are only GET and POST, so there is no preflight that would let anybody in."""
    for path in ("/", "/api/reload"):
        if method == "CONNECT":
            path = f"127.0.0.1:{page.port}"  # noqa: PLW2901 - what it asks for
        assert ask(page, method, path, Authorization=f"Bearer {token}")[0] in (400, 405)


def test_bodies(page: Dashboard, token: str) -> None:
    """More than 4 KB is refused, whether it is said at first or not."""
    auth = f"Bearer {token}"
    assert ask(page, "POST", "/api/abort", "x" * MOST_BODY, Authorization=auth)[0] == 200
    assert ask(page, "POST", "/api/abort", "x" * (MOST_BODY + 1), Authorization=auth)[0] == 413
    with socket.create_connection(("127.0.0.1", page.port), timeout=DEADLINE) as sock:
        head = f"POST /api/abort HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nAuthorization: {auth}\r\n"
        sock.sendall(
            f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1000\r\n" + b"x" * 4096 + b"\r\n1\r\nx\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_what_is_no_http(page: Dashboard) -> None:
    """Also an answer to that has the headers."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=DEADLINE) as sock:
        sock.sendall(b"\x16\x03\x01\0\0\r\n\r\n")
        said = sock.recv(4096).lower()
    assert said.startswith(b"http/1.1 400 ")
    assert all(name.lower().encode() in said for name, _ in HEADERS)


ASK = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
for path in ("/", "/api/reload", "/session"):
    head = f"POST {path} HTTP/1.1\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n"
    sock.sendall(f"{head}Authorization: Bearer {sys.argv[2]}\\r\\n\\r\\n".encode())
    print(sock.recv(4096).split()[1].decode())
    sock.close()
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
"""


def test_another_user(page: Dashboard, token: str) -> None:
    """Somebody else of this host is refused, also with the token that another has told."""
    argv = as_nobody(sys.executable, "-IS", "-c", ASK, str(page.port), token)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    assert done.stdout.split() == ["403"] * 3


def test_without_a_supervisor(tmp_path: Path) -> None:
    """As every command: exit 3, and nothing is listened at."""
    done = stillup("dashboard", "--runtime-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"stillup: no supervisor runs in {tmp_path}\n"


def test_a_port_that_is_taken(page: Dashboard, tmp_path: Path) -> None:
    """It is said which; one that is free is taken as it was said."""
    with hostile_supervisor(tmp_path):
        done = stillup("dashboard", "--port", str(page.port), "--runtime-dir", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"stillup: 127.0.0.1:{page.port}: Address already in use\n"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with dashboard(tmp_path, "--port", str(port)) as other:
            assert other.port == port


def test_enter_prints_another_address(tmp_path: Path) -> None:
    """At a terminal, as often as somebody wants one."""
    ours, theirs = pty.openpty()
    argv = [STILLUP, "dashboard", "--runtime-dir", str(tmp_path)]
    with (
        hostile_supervisor(tmp_path),
        open(ours, "wb", buffering=0) as terminal,
        spawned(argv, stdin=theirs, stdout=subprocess.PIPE, text=True, start_new_session=True) as process,
    ):
        os.close(theirs)
        assert process.stdout is not None
        found = [process.stdout.readline()]
        for _ in range(2):
            terminal.write(b"\n")
            found.append(process.stdout.readline())
        assert len(set(found)) == 3
        assert len({line.partition("#")[0] for line in found}) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0

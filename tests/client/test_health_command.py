"""`stillup health` exits 0 or 1, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stillup.__main__ import main
from tests.client.scripted_supervisor import answer, supervisor


def _health(*words: str) -> Result:
    return CliRunner().invoke(main, ["health", *words], prog_name="stillup")


@pytest.mark.parametrize(
    "words",
    [
        ["--bogus"],
        ["--timeout", "never"],
        ["surplus"],
        ["--name", "a/b"],
        ["--config", "/nonexistent.toml"],
        ["--runtime-dir", "/nonexistent"],
    ],
    ids=" ".join,
)
def test_what_means_nothing(words: list[str]) -> None:
    """Usage errors and a service that is not there are 1, with a line that says why."""
    shown = _health(*words)
    assert shown.exit_code == 1
    assert shown.output.strip()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"ready": true}', "200 OK", 0),
        (b'{"ready": false}', "200 OK", 1),
        (b'{"type": "not-ready", "title": "", "status": 503, "detail": "it boots"}', "503 Service Unavailable", 1),
        (b'{"type": "not-permitted", "title": "", "status": 403, "detail": "no role"}', "403 Forbidden", 1),
        (b"garbage", "200 OK", 1),
        (b"garbage", "500 Internal Server Error", 1),
    ],
)
def test_answers(tmp_path: Path, body: bytes, status: str, code: int) -> None:
    """What the supervisor says to /readyz decides; anything that is no yes is 1."""
    named = [answer(b"{}", "404 Not Found")] if code == 0 else []
    with supervisor(tmp_path, answer(body, status), *named) as heard:
        shown = _health("--runtime-dir", str(tmp_path))
        assert heard.asked[0].startswith("GET /readyz ")
    assert shown.exit_code == code, shown.output


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--ready"], 1)])
@pytest.mark.parametrize("status", ["503 Service Unavailable", "404 Not Found"])
def test_cordoned(tmp_path: Path, words: list[str], code: int, status: str) -> None:
    """It serves, so nothing is to restart it; nobody is to send requests, which is what --ready is asked for."""
    number = status.partition(" ")[0]
    body = b'{"type": "urn:stillup:problem:cordoned", "title": "", "status": %s, "detail": "the service is cordoned"}'
    named = [answer(b"{}", "404 Not Found")] if code == 0 else []
    said = answer(body % number.encode(), status).replace(b"application/json", b"application/problem+json")
    with supervisor(tmp_path, said, *named):
        shown = _health("--runtime-dir", str(tmp_path), *words)
    assert shown.exit_code == code, shown.output
    assert "cordoned" in shown.output


def test_no_answer(tmp_path: Path) -> None:
    """A supervisor that is stuck is not healthy, and is not waited for longer than was said."""
    with supervisor(tmp_path, b"", hold=True):
        shown = _health("--runtime-dir", str(tmp_path), "--timeout", "0.2")
    assert shown.exit_code == 1


def test_help() -> None:
    """Help is no error."""
    shown = _health("--help")
    assert shown.exit_code == 0
    assert "HEALTHCHECK" in shown.output

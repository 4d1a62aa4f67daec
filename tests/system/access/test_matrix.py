"""Who may do what: real users at every socket, each operation of the table."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from stillup.wire.api_operation import ApiSocket
from tests.system.access.people import (
    ADMINS,
    ASKING_APP,
    CONTROL_GID,
    OBSERVE_GID,
    OPERATORS,
    PEOPLE,
    WORKERS,
    audited,
    denied,
    differences,
    mode_of,
    needs_root,
    questions,
)
from tests.system.harness import DEADLINE, Service, eventually

pytestmark = needs_root


def test_matrix(folder: Path) -> None:
    """Principal x operation x socket: what the table allows and nothing else, at files that anybody may write to.

    Each denial of a request for a change is on the feed, with the right uid.

    Workers, their children, and those that have left the line of their parents are refused though they are root. What
    is opened is as configured before that, and after a re-exec, which takes a role away; and gone after the stop that
    an admin asks for.
    """
    service = Service(
        folder,
        "main:app",
        *("--operator", f"gid:{OPERATORS}", "--admin", f"group:{ADMINS.gr_name}"),
        *("--control-group", str(CONTROL_GID), "--observe-group", str(OBSERVE_GID), "--admin-bind", "127.0.0.1:0"),
        runtime=folder / "rt",
    )
    service.write(ASKING_APP)
    settings = folder / "stillup.toml"
    settings.write_text('viewer = ["uid:20001", "uid:20009"]\n')
    with service:
        port = admin_port(service)
        asked = questions(service, port)
        _are_closed(service)
        for name in (ApiSocket.CONTROL, ApiSocket.OBSERVE):
            (service.runtime / name).chmod(0o666)
        wrong = {name: differences(asked, who.asks([what for *_, what in asked]), who) for name, who in PEOPLE.items()}
        (folder / "questions").write_text(json.dumps([what for *_, what in asked]))
        for kind in ("worker", "child", "orphan"):
            answers = json.loads(service.get(f"/{kind}"))
            if kind == "orphan":
                answers = json.loads(eventually(lambda: text_of(folder / "orphan"), "the orphan has asked"))
            wrong[kind] = differences(asked, answers, WORKERS, worker=True)
        assert not any(wrong.values()), json.dumps(wrong, indent=1)
        assert len(asked) * (len(PEOPLE) + 3) >= 13 * 3 * 17
        eventually(lambda: audited(service) == denied(asked), "each denial is told, and nothing else")

        settings.write_text('viewer = ["uid:20009"]\n')
        assert service.cli("supervisor", "reexec").returncode == 0
        _are_closed(service)  # their modes are again what they were meant to be
        assert admin_port(service) == port
        viewer, admin = PEOPLE["viewer by uid"], PEOPLE["admin by a group's name"]
        control, observe = str(service.runtime / ApiSocket.CONTROL), str(service.runtime / ApiSocket.OBSERVE)
        assert viewer.asks([(port, "GET", "/livez"), (observe, "GET", "/v1/status")]) == [200, 200]
        assert viewer.asks([(control, "GET", "/v1/status"), (control, "POST", "/v1/stop")]) == [403, 403]
        assert admin.asks([(control, "POST", "/v1/stop")]) == [202]
        assert service.process.wait(DEADLINE) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def admin_port(service: Service) -> str:
    """Where --admin-bind was bound to last."""
    return str(re.findall(r"metrics and probes: http://127\.0\.0\.1:([0-9]+)/metrics", service.log())[-1])


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _are_closed(service: Service) -> None:
    """Modes and owners; and whoever is in no group does not even get in."""
    eventually(
        lambda: mode_of(service.runtime / ApiSocket.CONTROL) == (0o660, 0, CONTROL_GID), "the control socket's mode"
    )
    assert mode_of(service.runtime) == (0o711, 0, 0)
    assert mode_of(service.runtime / ApiSocket.OBSERVE) == (0o660, 0, OBSERVE_GID)
    assert mode_of(service.runtime / "handoff.sock") == (0o600, 0, 0)
    look = [
        (str(service.runtime / api_socket), "GET", "/v1/version")
        for api_socket in (ApiSocket.CONTROL, ApiSocket.OBSERVE)
    ]
    assert PEOPLE["stranger"].asks(look) == [0, 0]
    assert PEOPLE["in the control group alone"].asks(look) == [200, 0]
    assert PEOPLE["in the observe group"].asks(look) == [0, 200]

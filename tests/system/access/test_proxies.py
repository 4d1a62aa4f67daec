"""Whose X-Forwarded-For is believed on a Unix socket: real users, at a file of mode 0666 and at one of a group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.system.access.people import ADMINS, PEOPLE, needs_root
from tests.system.harness import APP, Service

pytestmark = needs_root

ASK = r"""
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(20)
    sock.connect(sys.argv[1])
    for line in sys.stdin:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
        answer = b""
        while not answer.endswith(b"."):
            answer += sock.recv(4096)
        print(answer.rpartition(b"\n")[2].decode(), flush=True)
"""
"""Asks once a line of its input, on one connection, and says who the app takes it for, and its generation."""


def test_whose_word_is_taken(folder: Path) -> None:
    """Root's, and that of the group which the bind names; a stranger at a file of mode 0666 is nobody's proxy.

    That is so after the connection has crossed over to another worker, and said at the start.
    """
    opened, of_group = f"{folder}/open.sock", f"{folder}/group.sock"
    binds = [f"unix:{opened}", f"unix:{of_group},mode=0660,group={ADMINS.gr_name}"]
    service = Service(folder, "main:app", "--timeout-keep-alive", "60", binds=binds, runtime=folder / "rt")
    shown = APP.replace('body = f"', """body = f"{(scope['client'] or ['nobody'])[0]} """)
    service.write(shown.replace(' VERSION"', '."'))
    member = PEOPLE["admin by a group's name"]
    with service:
        asking = {
            (who, path): subprocess.Popen(
                somebody.command(sys.executable, "-IS", "-c", ASK, path),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for who, somebody, path in (
                ("root", PEOPLE["root"], opened),
                ("member", member, of_group),
                ("member", member, opened),
                ("stranger", PEOPLE["stranger"], opened),
            )
        }
        try:
            for generation in ("1", "2"):
                seen = {}
                for about, process in asking.items():
                    assert process.stdin is not None
                    assert process.stdout is not None
                    process.stdin.write("\n")
                    process.stdin.flush()
                    seen[about] = process.stdout.readline().split()[:2]
                assert seen == {
                    ("root", opened): ["192.0.2.7", generation],
                    ("member", of_group): ["192.0.2.7", generation],
                    ("member", opened): ["nobody", generation],
                    ("stranger", opened): ["nobody", generation],
                }
                if generation == "1":
                    assert service.client.reload(wait="drained").outcome == "succeeded"
        finally:
            for process in asking.values():
                process.communicate(timeout=20)
        service.logged(f"anybody can connect to unix:{opened}, and X-Forwarded")
        assert f"anybody can connect to unix:{of_group}" not in service.log()

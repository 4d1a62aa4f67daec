"""What a service manager hears, and what is left when the supervisor is killed."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psutil

from tests.system.harness import APP, Service, eventually, open_socket


def test_the_manager_hears_ready_when_it_serves_and_stopping_when_it_stops(tmp_path: Path) -> None:
    """READY comes when the first generation serves, STATUS follows each reload, STOPPING ends it; no worker sees it."""
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        service = Service(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1"})
        service.tracebacks_expected = True
        service.write()

        def hear(word: str) -> str:
            while True:
                said.append(manager.recv(4096).decode())
                if word in said[-1]:
                    return said[-1]

        with service:
            hear("READY=1")
            assert "STATUS=gen 1 serves" in said[-1]
            assert not any("READY" in word for word in said[:-1])
            for worker in service.workers():
                environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
                assert b"NOTIFY_SOCKET" not in environment
                assert b"LISTEN_FDS" not in environment
            service.client.reload(wait="cut-over")
            assert "RELOADING=1\nMONOTONIC_USEC=" in hear("RELOADING")
            assert hear("READY=1").endswith("STATUS=gen 2 serves, 1 of 1 workers; gen 1 drains")
            service.write("import nosuch\n")
            assert service.reload().returncode == 1
            assert "READY=1\nSTATUS=gen 3 rejected (import); gen 2 serves, 1 of 1 workers" in hear("rejected")
            service.process.terminate()
            hear("STOPPING=1")
            hear("EXTEND_TIMEOUT_USEC=")
            service.process.wait(15)


def test_the_manager_hears_how_long_a_hook_may_take(tmp_path: Path) -> None:
    """At a start, and at a reload: by then it has been told of that, and is told what is waited for."""
    (tmp_path / "stillup.toml").write_text('hook-timeout = 300\n[hooks]\nbefore = ["python", "-c", "pass"]\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        service = Service(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        service.write()

        def said() -> str:
            return manager.recv(4096).decode()

        def hear(*words: str) -> None:
            for word in words:
                while not (line := said()).startswith(word):
                    assert not line.startswith("READY"), f"{line} before {word}"

        with service:
            longest = f"EXTEND_TIMEOUT_USEC={(300 + 10 + 60 + 10 + 10) * 1_000_000}"
            hear(longest, "STATUS=starting; gen 1 waits for its hook, python")
            while not said().startswith("READY=1"):
                pass
            service.client.reload()
            hear("RELOADING=1", longest)
            while not said().startswith("READY=1"):
                pass


def test_without_a_supervisor_workers_finish_and_leave(tmp_path: Path) -> None:
    """Workers that may not wait for another supervisor answer what they hold and leave; the next one then starts."""
    service = Service(tmp_path, "main:app", "--orphan-timeout", "0")
    wait = '    if scope["path"] == "/wait":\n        await scope["state"]["stillup"].draining\n    body ='
    service.write(APP.replace("    body =", wait))
    with service:
        client = open_socket(service.address())
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: any(w.connections for w in service.workers()), "the request is under way")
        workers = service.family()
        service.signal(signal.SIGKILL)
        service.process.wait()
        with client:
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200")
        gone, alive = psutil.wait_procs(workers, timeout=15)
        assert (len(gone), alive) == (1, [])
        service.start()
        assert service.get()

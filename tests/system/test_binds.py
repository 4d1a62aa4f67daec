"""Every kind of bind, alone and together."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import DEADLINE, STILLUP, Service, connect

pytestmark = pytest.mark.xdist_group("binds")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """TCP v4 and v6, a Unix path, at which a dead owner's socket is, with its mode, an abstract name, and port 0."""
    folder = tmp_path_factory.mktemp("service")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "app.sock"))
    abstract = f"unix:@stillup-test-{os.getpid()}"
    binds = ["web=127.0.0.1:0", "[::1]:0", f"unix:{folder}/app.sock,mode=0640", abstract]
    service = Service(folder, "main:app", "--backlog", "77", binds=binds)
    service.write()
    with service:
        yield service
    assert not (folder / "app.sock").exists()


def test_many_binds_at_once(service: Service) -> None:
    """All of them serve together, also after a reload; a socket file whose owner is dead is replaced."""
    listeners = {listener.name: listener.address for listener in service.status().listeners}
    path = service.folder / "app.sock"
    assert list(listeners) == ["web", "[::1]:0", f"unix:{path}", f"unix:@stillup-test-{os.getpid()}"]
    assert not listeners["web"].endswith(":0"), "the port that it got is shown"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    (old,) = service.generations()
    assert [service.get(index=index).split()[0] for index in range(4)] == [f"{old}"] * 4
    service.client.reload(wait="drained")
    assert {service.get(index=index).split()[0] for index in range(4)} == {f"{old + 1}"}


def test_a_live_socket_file_is_not_taken_over(service: Service, tmp_path: Path) -> None:
    """One on which somebody listens is refused, and left alone."""
    bind = ["--bind", f"unix:{service.folder}/app.sock"]
    argv = [STILLUP, "run", "main:app", "--runtime-dir", str(tmp_path / "rt2"), *bind]
    second = subprocess.run(argv, capture_output=True, text=True, cwd=service.folder, timeout=DEADLINE, check=False)
    assert second.returncode == 1
    assert "somebody listens there" in second.stderr
    assert service.get(index=2)


def test_the_shared_backlog_is_untouched(service: Service) -> None:
    """--backlog is what the kernel has for the listener, and stays that after reloads: no worker listens again."""

    def backlog() -> str:
        port = service.address().rpartition(":")[2]
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
        return shown.stdout.split()[2]

    assert backlog() == "77"
    service.client.reload(wait="drained")
    assert backlog() == "77"


def test_an_inherited_listener(tmp_path: Path) -> None:
    """`fd:N` serves on a socket that the supervisor was started with."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        service = Service(tmp_path, binds=[f"inherited=fd:{fd}"])
        service.write()
        log = service.log_file.open("wb")
        service.process = subprocess.Popen(service.argv, stdout=log, stderr=log, cwd=tmp_path, pass_fds=[fd])
        log.close()
        service.start = lambda: None  # type: ignore[method-assign]
        with service:
            service.until_serving()
            assert service.address() == f"127.0.0.1:{port}"
            assert service.get()


def test_a_proxy_on_a_unix_socket_is_trusted(tmp_path: Path) -> None:
    """On a Unix bind X-Forwarded-For names the client, and on TCP only from a trusted address."""
    source = """
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = f"{scope['client'][0] if scope['client'] else None} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    """
    binds = [f"unix:{tmp_path}/app.sock", "127.0.0.1:0"]
    service = Service(tmp_path, "main:app", "--forwarded-allow-ips", "10.0.0.1", binds=binds)
    service.write(source)
    with service:
        seen = []
        for index in range(2):
            connection = connect(service.address(index))
            headers = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.0.0.1", "X-Forwarded-Proto": "https"}
            connection.request("GET", "/", headers=headers)
            seen.append(connection.getresponse().read().decode())
            connection.close()
        assert seen == ["192.0.2.7 https", "127.0.0.1 http"]

"""What a deployment changes beside the code: files that the app reads at its start (--reload-on), and certificates."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.host.test_path_stamp import volume
from tests.system.harness import APP, DEADLINE, Service, eventually

READS = APP.replace("VERSION", "{open('volume/settings').read()}")
OPENSSL = shutil.which("openssl")


def test_a_volume_that_changes_is_a_reload(tmp_path: Path) -> None:
    """One for each change, by its name; what is removed is waited for."""
    folder = tmp_path / "volume"
    folder.mkdir()
    volume(folder, "first", "blue")
    service = Service(tmp_path, "main:app", "--reload-on", "volume", "--reload-on", "later")
    service.write(READS)
    with service:
        assert service.get().split()[::2] == ["1", "blue"]
        volume(folder, "second", "pink")
        eventually(lambda: service.get().split()[::2] == ["2", "pink"], "what is new is read")
        service.logged("gen 2 boots", f"({folder} changed)")
        (folder / "..data").unlink()
        (tmp_path / "later").write_text("x")
        (tmp_path / "later").unlink()
        volume(folder, "third", "grey")
        eventually(lambda: service.get().split()[::2] == ["3", "grey"], "what is back is read")
        (tmp_path / "later").write_text("y")
        service.logged("gen 4 boots", f"({tmp_path}/later changed)")
        eventually(lambda: service.generations() == [4], "it is one reload more")
        (tmp_path / "later").unlink()
        volume(folder, "fourth", "blue")
        eventually(lambda: service.get().split()[::2] == ["5", "blue"], "what is missing is in nobody's way")


def _make(folder: Path, name: str, key: str = "rsa:2048") -> None:
    """A certificate, issued to that name."""
    kind = ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{key}"] if key == "P-256" else ["-newkey", key]
    words = ["req", "-x509", *kind, "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    pair = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run([str(OPENSSL), *words, *pair], check=True, capture_output=True, timeout=DEADLINE)


def _put(folder: Path, certificate: str, key: str) -> None:
    for name, target in ((f"{certificate}.pem", "tls.crt"), (f"{key}.key", "tls.key")):
        shutil.copy(folder / name, folder / "fresh")
        (folder / "fresh").rename(folder / target)


def _issued_to(address: str) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", int(address.rpartition(":")[2])))
    words = [str(OPENSSL), "x509", "-noout", "-subject"]
    said = subprocess.run(words, input=pem, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout
    return said.rpartition("=")[2].strip()


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")
def test_a_certificate_is_loaded_anew_in_place(tmp_path: Path) -> None:
    """No reload, no connection is closed; half of a pair changes nothing, and is said."""
    _make(tmp_path, "first", "P-256")  # of another type than those to come, beside which it would stay
    for name in ("second", "third"):
        _make(tmp_path, name)
    _put(tmp_path, "first", "first")
    words = ("--ssl-certfile", "tls.crt", "--ssl-keyfile", "tls.key", "--timeout-keep-alive", "120")
    service = Service(tmp_path, "main:app", *words, workers=2)
    service.write()
    with service:
        address = service.address()
        port = int(address.rpartition(":")[2])
        anybody = ssl._create_unverified_context()
        kept = http.client.HTTPSConnection("127.0.0.1", port, timeout=DEADLINE, context=anybody)
        with closing(kept):
            pids = {_served_by(kept)}
            assert _issued_to(address) == "first"
            _put(tmp_path, "second", "third")
            service.logged("the certificate stays what it was", "cannot be loaded")
            assert _issued_to(address) == "first"
            _put(tmp_path, "second", "second")
            for worker in ("1.1", "1.2"):
                service.logged(f" {worker} ", "the certificate is loaded anew from tls.crt and tls.key")
            assert {_issued_to(address) for _ in range(6)} == {"second"}
            assert pids == {_served_by(kept)}
        assert service.generations() == [1]


def _served_by(connection: http.client.HTTPSConnection) -> str:
    sock = connection.sock
    connection.request("GET", "/")
    body = connection.getresponse().read().decode()
    assert sock in (None, connection.sock), "it has connected again"
    return body.split()[1]

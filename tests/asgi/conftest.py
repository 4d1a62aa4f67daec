"""Coroutine tests, the loops and the parsers that they run on, and a certificate."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.asgi.event_loops import loop_factory, pytest_itemcollected, pytest_pyfunc_call

__all__ = ["loop_factory", "pytest_itemcollected", "pytest_pyfunc_call"]


@pytest.fixture(params=["httptools", "h11"])
def http(request: pytest.FixtureRequest) -> str:
    """Each of uvicorn's HTTP parsers, by the name that its option takes."""
    name: str = request.param
    return name


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate of localhost and its key."""

    certificate: str
    key: str

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.certificate)
        return context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate, made by the openssl command."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is not here")
    where: Path = tmp_path_factory.mktemp("tls")
    made = Certificate(str(where / "certificate.pem"), str(where / "key.pem"))
    ask = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", made.key, "-out", made.certificate]
    subprocess.run([openssl, *ask, *name, *files], check=True, capture_output=True, timeout=30)
    return made

"""The services that are drained, and a certificate for them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.gated_service import PATIENT, Start, at_rest
from tests.system.harness import Service


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the gated app with options of its own."""
    with ExitStack() as stack:

        def started(*options: str, workers: int = 1, environment: dict[str, str] | None = None) -> Service:
            service = Service(tmp_path, *PATIENT, *options, workers=workers, environment=environment)
            return stack.enter_context(service)

        yield started


@pytest.fixture(scope="module")
def _running() -> Iterator[dict[tuple[str, ...], Service]]:
    running: dict[tuple[str, ...], Service] = {}
    yield running
    with ExitStack() as stack:
        for service in running.values():
            stack.push(service.__exit__)


@pytest.fixture
def shared(_running: dict[tuple[str, ...], Service], tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Gives the gated app with some options, started once for all tests of a module, and at rest."""

    def given(*options: str) -> Service:
        service = _running.get(options)
        if service is None:
            service = Service(tmp_path_factory.mktemp("shared"), *PATIENT, *options)
            service.start()
            _running[options] = service
        at_rest(service)
        return service

    return given


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], ssl.SSLContext]:
    """The options of a server with a certificate of localhost, and a client who trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is not here")
    where = tmp_path_factory.mktemp("tls")
    certificate, key = str(where / "certificate.pem"), str(where / "key.pem")
    ask = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *ask, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return ["--ssl-certfile", certificate, "--ssl-keyfile", key], ssl.create_default_context(cafile=certificate)

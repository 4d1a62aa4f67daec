"""A service of the gated app, and how far its requests and its generations have come."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from stillup.wire.api_shapes import WorkerView
from tests.system.clients import Peer
from tests.system.harness import ROOT, Service, eventually, open_socket

GATED = ("tests.system.gated_app:app", "--app-dir", str(ROOT), "--no-access-log")
PATIENT = (*GATED, "--timeout-keep-alive", "60")
"""Where idle connections are counted: a busy machine may take longer for a test than the 5 s that they have else."""

Start = Callable[..., Service]
"""A fixture that starts one, with options of its own."""


def reload(service: Service) -> int:
    """Have a new generation serve; its number."""
    rollout = service.client.reload(wait="cut-over")
    assert rollout.outcome == "succeeded"
    assert rollout.generation is not None
    return rollout.generation


def at_rest(service: Service) -> None:
    """Wait until one generation serves, and nobody is connected; then every gate is shut again."""
    for file in service.folder.glob("*.reached"):  # whoever a test that failed has left there
        file.with_suffix("").touch()

    def quiet() -> bool:
        generations = service.status().generations
        return len(generations) == 1 and not any(worker.classes for worker in generations[0].workers)

    eventually(quiet, "what the test before began has ended")
    for file in service.folder.iterdir():
        if file.is_file() and file != service.log_file:
            file.unlink()


def gone(service: Service, generation: int = 1, deadline: float = 20) -> None:
    """Wait until a generation has left, sooner than any deadline of its classes: it has nothing to wait for."""
    eventually(lambda: generation not in service.generations(), f"generation {generation} leaves", deadline)


def reloaded(service: Service) -> None:
    """Have a new generation serve, and the one before leave."""
    reload(service)
    eventually(lambda: len(service.generations()) == 1, "the old generation leaves")


def open_gate(service: Service, gate: str) -> None:
    (service.folder / gate).touch()


def reached(service: Service, gate: str) -> None:
    """Wait until a request waits at the gate."""
    eventually((service.folder / f"{gate}.reached").exists, f"somebody is at gate {gate}")


def seen(service: Service, *kinds: str) -> None:
    """Wait until the serving workers have said that they have such connections."""
    eventually(lambda: set(kinds) <= {k for w in service.workers() for k in w.classes}, f"{kinds} at the workers")


def old_worker_with(service: Service, kind: str) -> WorkerView:
    """Wait until the draining worker says that it has one connection of that class, and nothing else."""

    def look() -> WorkerView | None:
        return next((w for w in service.workers("draining") if w.classes == {kind: 1}), None)

    return eventually(look, f"the old worker has one {kind} connection left")


def oldest(service: Service, kind: str) -> float:
    """Wait until the draining worker says since when it has a connection of that class, and of that alone; seconds."""
    found = eventually(lambda: old_worker_with(service, kind).oldest, f"how old its {kind} connection is")
    assert found.keys() == {kind}
    return found[kind]


def moved(service: Service, peer: Peer, generation: int) -> None:
    """The connection is open, the one before gone, and that generation answers, twice, and does not say close."""
    gone(service, generation - 1)
    assert peer.is_open()
    for _ in range(2):
        answer = peer.get()
        assert (answer.generation, answer.closes) == (generation, False)


def tls_peer(service: Service, context: ssl.SSLContext) -> Peer:
    return Peer("", context.wrap_socket(open_socket(service.address()), server_hostname="localhost"))

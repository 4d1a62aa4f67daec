"""How a worker's process ends: as any program of Python's, but for the interpreter's own teardown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import APP, Service, in_order

LEAVES = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

class Kept:
    def __del__(self):
        print("taken apart", flush=True)

kept = Kept()
executor = ThreadPoolExecutor()
executor.submit(lambda: (time.sleep(0.3), print("the executor is done", flush=True)))

def stay():
    threading.main_thread().join(0.1)
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print("the thread is done", flush=True)

threading.Thread(target=stay).start()
atexit.register(lambda: print("what is registered is done: " + "buffered " * 3))
"""


@pytest.mark.parametrize("template", ["--template", "--no-template"])
def test_it_ends_as_a_program_does(template: str, tmp_path: Path) -> None:
    """Threads that are no daemons are waited for, executors and what is registered run, and all output is there."""
    service = Service(tmp_path, "main:app", template)
    service.write(LEAVES + APP)
    with service:
        reloaded(service)
        in_order(
            service.log(), "1.1 .*the thread is done", "1.1 .*what is registered is done: buffered buffered buffered"
        )
        assert "the executor is done" in service.log()
        assert "taken apart" not in service.log()
        assert "1.1 (pid" not in service.log(), "it ended as it should, with 0"

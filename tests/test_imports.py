"""What each program does not import before it needs it: a start is mostly imports, and each of these costs many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stillup

SUPERVISOR = "import stillup.__main__, stillup.daemon.run_commands"
WORKER = "import stillup.worker.__main__"
CLIENT = "import stillup.client"
STATUS = (
    "import stillup.__main__, stillup.client.service_commands, stillup.client.plain_output\n"
    "stillup.client.plain_output.Printer().line('into a pipe')\n"
)
HELP = "from stillup.__main__ import main; main(['--help'], standalone_mode=False)"

UNWANTED = {
    (SUPERVISOR, "psutil"): "only names the process that holds a port",
    (SUPERVISOR, "dotenv"): "only reads --env-file",
    (SUPERVISOR, "prometheus_client"): "renders /metrics, which many never look at",
    (SUPERVISOR, "rich"): "is for the clients' terminals",
    (SUPERVISOR, "stillup.worker"): "is another program",
    (SUPERVISOR, "stillup.client"): "is another program",
    (WORKER, "psutil"): "only names the process that holds a port",
    (WORKER, "h11"): "is the parser of workers without httptools",
    (WORKER, "starlette"): "is for the app to choose",
    (WORKER, "prometheus_client"): "renders the supervisor's /metrics",
    (WORKER, "stillup.core.model"): "is what the supervisor knows of workers",
    (WORKER, "dotenv"): "reads the supervisor's --env-file",
    (WORKER, "stillup.daemon"): "is another program",
    (WORKER, "stillup.client"): "is another program",
    (CLIENT, "asyncio"): "is for servers",
    (CLIENT, "click"): "is for the command line",
    (CLIENT, "dataclasses"): "compiles the methods of each class when it is defined (core.values)",
    (CLIENT, "rich"): "is for the command line",
    (CLIENT, "psutil"): "is for the doctor",
    (CLIENT, "stillup.core.transition"): "decides, which the supervisor does",
    (CLIENT, "stillup.host.sockets"): "binds, which the supervisor does",
    (STATUS, "rich"): "is for a terminal",
    (STATUS, "stillup.client.orphans"): "is for a supervisor that has died",
    (STATUS, "stillup.host.processes"): "signals, which the supervisor does",
    (STATUS, "asyncio"): "is for servers",
    (STATUS, "psutil"): "is for the doctor",
    (HELP, "stillup.client"): "has commands that were not asked for",
    (HELP, "stillup.daemon"): "has commands that were not asked for",
    (HELP, "msgspec"): "is for what commands say",
}
"""What a program must not have imported, and why it can do without."""


def imported(program: str) -> frozenset[str]:
    """All that a fresh interpreter has imported when the program has run."""
    shown = f"{program}\nimport sys\nprint()\nprint(*sys.modules)"
    return frozenset(
        subprocess.run(
            [sys.executable, "-P", "-c", shown], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
    )


@pytest.mark.parametrize("program", [SUPERVISOR, WORKER, CLIENT, STATUS, HELP])
def test_a_start_imports_what_it_runs(program: str) -> None:
    """No program waits for what only another one needs, or an option that was not given."""
    unwanted = {module: why for (of, module), why in UNWANTED.items() if of == program}
    found = imported(program) & unwanted.keys()
    assert not found, {module: unwanted[module] for module in found}


def test_values_are_no_dataclasses() -> None:
    """No module of ours defines a dataclass: each costs as much as forty Structs (``core.values``)."""
    found = [path.name for path in Path(stillup.__file__).parent.rglob("*.py") if "\n@dataclass" in path.read_text()]
    assert found == []


COLLECTOR = """
import gc, sys
sys.argv = ["stillup", "run", "app:app"]
import stillup.__main__
was = gc.isenabled()
from stillup.daemon import preflight

def look() -> None:
    print(was, gc.isenabled(), gc.get_freeze_count())
    sys.exit(0)

preflight.check_platform = look
stillup.__main__.main()
"""


WORKERS_COLLECTOR = """
import atexit, gc, runpy
passes = []
gc.callbacks.append(lambda phase, _: passes.append(phase))
atexit.register(lambda: print(len(passes), gc.isenabled(), flush=True))
runpy.run_module("stillup.worker", run_name="__main__")
"""


def test_a_worker_is_imported_without_the_collector() -> None:
    """Nearly no pass until it runs; here that ends at once, since no supervisor has started it."""
    command = [sys.executable, "-P", "-c", WORKERS_COLLECTOR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    passes, enabled = done.stdout.split()
    assert (done.returncode, enabled) == (2, "True"), done.stderr
    assert int(passes) < 10  # a twelfth of what it takes otherwise; runpy has one of its own


def test_the_collector_passes_over_what_was_imported() -> None:
    """While the supervisor is imported its collector is off; from then on it is on, and no pass goes through that."""
    command = [sys.executable, "-P", "-c", COLLECTOR]
    before, after, frozen = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert (before, after) == ("False", "True")
    assert int(frozen) > 20_000

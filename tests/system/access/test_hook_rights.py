"""Hooks of another user: what a worker of that user is, they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.system.access.open_interpreter import for_anybody
from tests.system.access.people import needs_root
from tests.system.harness import APP, Service

pytestmark = needs_root

WORKER = 20_030
TELLS = """
import json, os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
control = os.path.dirname(os.environ["STILLUP_HANDOFF"]) + "/control.sock"
try:
    socket.socket(socket.AF_UNIX).connect(control)
    connects = True
except OSError:
    connects = False
print("rights", json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "connects": connects,
    "secret": os.environ.get("AWS_SECRET"),
}))
"""


def test_a_hook_has_the_workers_rights_and_no_others(folder: Path) -> None:
    """That user's ids, no capability, nothing of root's environment; a directory that this user may not enter is none.

    So is what only root could run: it is looked for with that user's rights, by ``check``, too.
    """
    words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER + 1))
    service = Service(folder, "main:app", *words, runtime=folder / "rt", environment={"AWS_SECRET": "x"})
    words_of_run = service.argv
    service.argv = [*for_anybody(folder), *words_of_run]
    service.write(APP)
    (folder / "tells.py").write_text(TELLS)
    (folder / "stillup.toml").write_text('[hooks]\nbefore = ["python", "tells.py"]\n')
    with service:
        said = service.logged(" hook  rights ").partition(" rights ")[2]
        assert json.loads(said) == {
            "ids": [[WORKER] * 3, [WORKER + 1] * 3, [WORKER + 1]],
            "caps": [0] * 5,
            "no_new_privileges": "1",
            "connects": False,
            "secret": None,
        }
        (folder / "roots").write_text("#!/bin/sh\n")
        (folder / "roots").chmod(0o700)
        (folder / "stillup.toml").write_text('[hooks]\nbefore = ["./roots"]\n')
        done = service.reload()
        assert done.returncode == 1
        assert "there is no program ./roots" in done.stdout
        assert service.generations() == [1]
        (folder / "again").mkdir()
        argv = [*for_anybody(folder / "again"), *("check" if word == "run" else word for word in words_of_run)]
        checked = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert checked.returncode == 1
        assert "[hooks] before: there is no program ./roots" in checked.stderr

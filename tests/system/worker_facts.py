"""What a worker finds out about itself, and the template that it may be of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.system.harness import APP, Service, pids

APP_WITH_FACTS = """
import __main__, gc, json, os, resource, signal, stat, sys, threading
def files():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            file = os.readlink(f"/proc/self/fd/{name}").rstrip("0123456789[]")
            found[name] = [file, os.get_inheritable(int(name))]
        except OSError:
            pass
    return found
FILES = {}
def facts():
    with open("/proc/self/status") as file:
        status = dict(line.rstrip().split(":", 1) for line in file)
    kept = ("Umask", "Uid", "Gid", "Groups", "Threads", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff")
    kept += ("CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed", "TracerPid")
    words = lambda name: open(f"/proc/self/{name}", "rb").read().decode().split("\\0")
    own = ("STILLUP_NONCE=", "STILLUP_HANDOFF=", "LC_CTYPE=")
    return {
        "status": {name: status[name].strip() for name in kept},
        "files": FILES,
        "argv": [sys.argv, sys.orig_argv, words("cmdline")],
        "environ": sorted(one for one in words("environ") if not one.startswith(own)),
        "os.environ": {k: v for k, v in os.environ.items() if k != "STILLUP_HANDOFF"},
        "handoff": os.environ["STILLUP_HANDOFF"] in "".join(words("environ")),
        "path": sys.path,
        "flags": str(sys.flags),
        "main": [__main__.__name__, __main__.__spec__.name, __main__.__file__],
        "thread": threading.current_thread() is threading.main_thread(),
        "limits": [resource.getrlimit(n) for n in range(16)],
        "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "terminal": open("/proc/self/stat").read().rpartition(")")[2].split()[4],
        "nice": [os.nice(0), os.sched_getscheduler(0)],
        "oom": open("/proc/self/oom_score_adj").read(),
        "cgroup": open("/proc/self/cgroup").read(),
        "cwd": os.getcwd(),
        "gc": [gc.isenabled(), gc.get_threshold()],
        "stdin": [os.readlink("/proc/self/fd/0"), sys.stdin.encoding],
        "stdout": [sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.stderr.line_buffering],
        "dumpable": os.stat("/proc/self").st_uid,
        "comm": open("/proc/self/comm").read(),
        "exe": os.readlink("/proc/self/exe"),
    }
""" + APP.replace("    if scope", "    FILES.update(FILES or files())\n    if scope").replace(
    "    body =", '    body = json.dumps(facts()).encode() if scope["path"] == "/facts" else'
)


def facts(folder: Path, *options: str, before: Sequence[str] = ()) -> dict[str, Any]:
    """What a worker finds out about itself, in a service with these options."""
    folder.mkdir(exist_ok=True)
    service = Service(folder, "main:app", *options, "--name", "shop", runtime=folder / "rt")
    service.argv = [*before, *service.argv]
    service.write(APP_WITH_FACTS)
    service.popen["cwd"] = folder
    with service:
        found: dict[str, Any] = json.loads(service.get("/facts"))
        forks = next(iter(service.templates()), None)
        found["memory of the template"] = forks and Path(f"/proc/{forks.pid}/mem").stat().st_uid
        found["parent is the supervisor"] = psutil.Process(pids(service)["1.1"]).ppid() == service.process.pid
    return found

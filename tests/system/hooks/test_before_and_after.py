"""Programs that are run around a rollout: what they are given, and what comes of their end."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.system.harness import connect, eventually, in_order
from tests.system.hooks.hooked_service import Hooked, is_gone, program
from tests.system.steady_load import Traffic

TELLS = """
import json, os, signal, sys
print("said", "\\x1b[31m", "\\x1e{\\"message\\": \\"packed\\", \\"level\\": \\"ERROR\\"}")
json.dump({
    "argv": sys.argv,
    "python": sys.executable,
    "cwd": os.getcwd(),
    "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) < 3},
    "more": [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 3],
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "variable": os.environ.get("FROM_FILE"),
    "generation": os.environ["STILLUP_GENERATION"],
    "nonce": os.environ.get("STILLUP_NONCE"),
    "notify": os.environ.get("NOTIFY_SOCKET"),
    "ids": [os.getresuid(), os.getresgid()],
    "limit": __import__("resource").getrlimit(7),
}, open(sys.argv[1], "w"))
"""


def test_a_release_is_prepared_then_serves_then_is_told_of(hooked: Hooked) -> None:
    """One is run before the first worker of a rollout, the start's too, and one when it serves: in this order.

    Who reloads sees each with how long it took; so do events, the rollout, and the log, which has what they write.
    """
    service = hooked(before=program("migrate"), after=program("tell"), wait=False)
    first = service.until_begun(1)
    status = service.status()
    assert (status.state, status.hook and status.hook.pid) == ("starting", first)
    service.let_end("migrate")
    service.until_serving()
    service.until_begun(2)
    service.let_end("tell")
    eventually(lambda: service.status().hook is None, "the first one is over")
    done = service.cli("reload", "--wait", "drained")
    assert done.returncode == 0, done.stdout
    in_order(
        done.stdout, r"gen 1 -> 2", r"  hook      program.py migrate \.\.\. ok +\d+\.\d s", r"  boot ", r"  cut over "
    )
    eventually(lambda: [one.state for one in service.hooks(2)] == ["done", "done"], "both are done")
    assert [(word, generation) for word, _, generation in service.begun()] == [
        ("migrate", 1),
        ("tell", 1),
        ("migrate", 2),
        ("tell", 2),
    ]
    told = ("hook.begun", "hook.done", "rollout.begun", "rollout.cut-over")
    assert [event["kind"] for event in service.events() if event.get("rollout") == 2 and event["kind"] in told] == [
        "hook.begun",
        "hook.done",
        "rollout.begun",
        "rollout.cut-over",
        "hook.begun",
        "hook.done",
    ]
    service.logged(" hook ", "migrate has begun")


def test_what_it_is_given(hooked: Hooked, tmp_path: Path) -> None:
    """The release's directory, interpreter and environment, nothing to read, and nothing of the supervisor's own.

    What it writes stands in the log line by line, whatever is in it.
    """
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "vars").write_text("FROM_FILE=yes\n")
    service = hooked("--env-file", "vars", before=("python", "tells.py", "told"))
    told = json.loads((tmp_path / "told").read_text())
    assert told["argv"] == ["tells.py", "told"]
    assert told["cwd"] == str(tmp_path.resolve())
    assert (told["variable"], told["generation"], told["nonce"], told["notify"]) == ("yes", "1", None, None)
    assert told["fds"]["0"] == os.devnull
    assert told["fds"]["1"] == told["fds"]["2"]
    assert told["fds"]["1"].startswith("pipe:")
    assert told["more"] == []
    assert told["leads"] == [True, True]
    assert told["blocked"] == []
    (pid,) = [worker.pid for worker in service.workers()]
    worker = psutil.Process(pid)
    assert told["python"] == worker.cmdline()[0]
    assert told["ids"] == [list(worker.uids()), list(worker.gids())]
    assert told["limit"] == list(worker.rlimit(psutil.RLIMIT_NOFILE))
    service.logged('{"message": "packed"')
    in_order(service.log(), r" INFO    hook  said \\x1b\[31m", r"\n  \| \{\"message\": \"packed\"")


def test_a_release_whose_migration_fails_is_rejected(hooked: Hooked) -> None:
    """With the tail of what it wrote, under load that notices nothing; the next one is tried again."""
    service = hooked()
    service.configure(before=program("migrate"))
    service.let_end("migrate", 3)
    with Traffic(service.address()) as traffic:
        done = service.reload()
        assert done.returncode == 1
        in_order(
            done.stdout,
            r"\n  hook      program.py migrate exited 3\n",
            r"  \| migrate has begun\n",
            r"  \| migrate ends\n",
            r"no  gen 2 rejected \(hook\)\. gen 1 never stopped serving\.\n",
        )
        traffic.goes_on()
        assert service.generations() == [1]
        service.let_end("migrate")
        assert service.reload().returncode == 0
        traffic.moves_to({worker.pid for worker in service.workers() if worker.pid is not None})
    rollout = service.client.rollout(2)
    assert (rollout.reason, rollout.failure and rollout.failure.stage) == ("hook", "hook")
    assert "gen 2 rejected (hook): program.py migrate exited 3" in service.cli("status").stdout
    assert [(word, generation) for word, _, generation in service.begun()] == [("migrate", 2), ("migrate", 3)]


def test_a_first_start_whose_migration_fails(hooked: Hooked) -> None:
    """It ends with 1, and leaves nothing."""
    service = hooked(before=program("migrate"), wait=False)
    service.until_begun(1)
    service.let_end("migrate", 1)
    assert service.process.wait(20) == 1
    in_order(
        service.log(), r"hook failed, after .*: program.py migrate exited 1", r"gen 1 rejected \(hook\)", r"stopped"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "there is no program nosuch in PATH"),
        (("./nosuch", "x"), "there is no program ./nosuch"),
        (("python", "nosuch.py"), "there is no nosuch.py in "),
    ],
    ids=["program", "path", "script"],
)
def test_a_program_that_is_missing(hooked: Hooked, words: tuple[str, ...], said: str) -> None:
    """The rollout is rejected, and says what is missing; so does ``check``, which runs nothing."""
    service = hooked()
    service.configure(before=words)
    done = service.reload()
    assert done.returncode == 1
    assert said in done.stdout
    assert service.generations() == [1]
    checked = service.command("check")
    assert (checked.returncode, service.begun()) == (1, [])
    assert f"[hooks] before: {said}" in checked.stderr


HANGS = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
    "print('waits', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
open("group", "w").write(f"{os.getpid()} {child.pid}")
print("waiting for a lock", flush=True)
time.sleep(600)
"""


def test_one_that_hangs_is_ended_with_all_that_it_has_started(hooked: Hooked, tmp_path: Path) -> None:
    """By --hook-timeout, under load; also what ignores SIGTERM in its process group."""
    (tmp_path / "hangs.py").write_text(HANGS)
    service = hooked()
    service.configure(before=("python", "hangs.py"), hook_timeout=6)
    with Traffic(service.address()) as traffic:
        done = service.reload()
        traffic.goes_on()
    assert done.returncode == 1
    in_order(
        done.stdout,
        r"  hook      hangs.py had not ended after 6 s \(--hook-timeout\), and was ended",
        r"  \| waiting for a lock",
        r"rejected \(hook\)",
    )
    group = [int(pid) for pid in (tmp_path / "group").read_text().split()]
    eventually(lambda: all(map(is_gone, group)), "they have gone")
    (failed,) = eventually(lambda: service.events_of("hook.failed"), "it is told")
    assert (failed["reason"], failed["hook"]) == ("timeout", "before")


WRITES = """
import sys
for number in range(int(sys.argv[1])):
    print(f"{number:06} {'x' * 93}")
sys.exit(int(sys.argv[2]))
"""


def test_one_that_writes_ten_megabytes(hooked: Hooked, tmp_path: Path) -> None:
    """It costs the supervisor no more memory than the end of it, which is what is told; and nobody waits meanwhile."""
    (tmp_path / "writes.py").write_text(WRITES)
    service = hooked()
    service.configure(before=("python", "writes.py", "1000", "0"))  # what is needed for the first time is no leak
    supervisor = psutil.Process(service.process.pid)
    with Traffic(service.address()) as traffic:
        assert service.reload().returncode == 0
        before = supervisor.memory_info().rss
        service.configure(before=("python", "writes.py", "100_000", "1"))
        done = service.reload()
        grown = supervisor.memory_info().rss - before
        traffic.goes_on()
    assert done.returncode == 1
    assert re.search(r"^  \| 099999 x+$", done.stdout, re.MULTILINE)
    assert 20 <= done.stdout.count("  | ") <= 60
    assert grown < 4 * 2**20, f"{grown / 2**20:.1f} MiB"


def test_what_it_leaves_behind(hooked: Hooked, tmp_path: Path) -> None:
    """What is in its process group goes with it; what has taken another session is none of it any more."""
    (tmp_path / "leaves.py").write_text(
        "import subprocess\n"
        "one = subprocess.Popen(['sleep', '600'])\n"
        "other = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open('left', 'w').write(f'{one.pid} {other.pid}')\n"
    )
    service = hooked(before=("python", "leaves.py"))
    one, other = map(int, (tmp_path / "left").read_text().split())
    try:
        eventually(lambda: is_gone(one), "it has gone")
        assert not is_gone(other)
        assert service.generations() == [1]
    finally:
        os.kill(other, signal.SIGKILL)


def test_what_has_no_hook(hooked: Hooked) -> None:
    """A rollback, a respawn and a scaling."""
    service = hooked()
    service.let_end("migrate")
    service.let_end("tell")
    service.configure(before=program("migrate"), after=program("tell"))
    assert service.reload().returncode == 0
    eventually(lambda: [one.state for one in service.hooks(2)] == ["done", "done"], "both are done")
    runs = service.begun()
    assert len(runs) == 2
    service.client.scale(2, wait=True)
    (victim, _) = [worker.pid for worker in service.workers()]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in (p := [w.pid for w in service.workers()]) and len(p) == 2, "a respawn serves")
    assert service.begun() == runs


def test_a_rolling_rollout(hooked: Hooked) -> None:
    """Before the first of its workers, and when the last has taken the place of an old one."""
    service = hooked("--strategy", "rolling", workers=2)
    service.configure(before=program("migrate"), after=program("tell"))
    with Traffic(service.address()) as traffic:
        rollout = service.client.reload()
        service.until_begun(1)
        assert service.generations() == [1]
        service.let_end("migrate")
        service.until_begun(2)
        assert service.client.rollout(rollout.id).outcome == "succeeded"
        service.let_end("tell")
        traffic.moves_to({worker.pid for worker in service.workers() if worker.pid is not None})
    assert [(word, generation) for word, _, generation in service.begun()] == [("migrate", 2), ("tell", 2)]


def test_a_failure_after_the_cut_over_is_told_and_nothing_else(hooked: Hooked) -> None:
    """The reload has succeeded, and what it has brought serves."""
    service = hooked()
    service.configure(after=program("tell"))
    service.let_end("tell", 4)
    done = service.cli("reload", "--wait", "drained")
    assert done.returncode == 0
    eventually(lambda: service.events_of("hook.failed"), "it is told")
    assert service.generations() == [2]
    (hook,) = service.hooks(2)
    assert (hook.state, hook.reason, hook.hook) == ("failed", "failed", "after")
    service.logged("ERROR", "program.py tell exited 4")


def test_nobody_but_the_file_names_a_program(hooked: Hooked) -> None:
    """No flag, and no parameter of a request; a variable is none that anything reads."""
    service = hooked()
    assert "No such option '--hooks'" in service.command("check", "--hooks", "touch x").stderr
    with closing(connect(f"unix:{service.runtime}/control.sock")) as connection:
        connection.request("POST", "/v1/reload?hooks=x")
        assert connection.getresponse().status == 400
    assert service.generations() == [1]


def test_the_control_socket_is_not_for_hooks(hooked: Hooked, tmp_path: Path) -> None:
    """Neither for one, nor for what it has started, be that in a session of its own, and its parent gone."""
    (tmp_path / "asks.py").write_text(
        "import os, subprocess, sys, time\n"
        "words = [sys.executable, '-m', 'stillup', 'scale', '1', '--runtime-dir', sys.argv[1]]\n"
        "done = subprocess.run(words, capture_output=True, text=True)\n"
        "print('asked', done.returncode, done.stderr)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while os.getppid() == os.getsid(os.getppid()): time.sleep(0.01)\n"
        "    done = subprocess.run(words, capture_output=True, text=True)\n"
        "    open('daemon', 'w').write(f'{done.returncode} {done.stderr}')\n"
        "    os._exit(0)\n"
    )
    service = hooked()
    service.configure(before=("python", "asks.py", str(service.runtime)))
    assert service.reload().returncode == 0
    line = service.logged("asked 4")
    assert "worker of this service" in line
    said = eventually(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text(), "it has asked")
    assert str(said).startswith("4 ")

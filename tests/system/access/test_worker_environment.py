"""What of the supervisor reaches workers of another user, and what of theirs reaches the supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.access.open_interpreter import for_anybody, no_mounts
from tests.system.access.people import needs_root
from tests.system.harness import APP, Service
from tests.system.mutations import READS_FOR_6_S, mutated

pytestmark = needs_root

WORKER = 20_021

WHO_LOADS = """
import os
with open(os.environ["WHO_LOADS"], "a") as file:
    print(*os.getresuid(), *os.getresgid(), file=file)
"""
"""Says who runs it."""

APP_WITH_ENVIRONMENT = """
import json, os
""" + APP.replace("    body =", '    body = json.dumps(dict(os.environ)).encode() if scope["path"] == "/environ" else')


@pytest.fixture
def service(folder: Path) -> Service:
    """A service whose workers are another user's, not started; what it runs is that user's."""
    words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER), "--env-file", "app.env")
    release = folder / "release"
    release.mkdir()
    os.chown(release, WORKER, WORKER)
    service = Service(release, "main:app", *words, workers=1, runtime=folder / "rt")
    service.argv = [*for_anybody(folder), *service.argv]
    service.write(APP_WITH_ENVIRONMENT)
    return service


def _acts_before_main(folder: Path) -> None:
    """An environment that acts in every program that is started with it, and writes down who that was."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WHO_LOADS)
    (folder / "seen").mkdir()
    os.chown(folder / "seen", WORKER, WORKER)
    (folder / "seen").chmod(0o777)
    lines = {
        "LD_DEBUG": "libs",
        "LD_DEBUG_OUTPUT": f"{folder}/seen/loader",
        "PYTHONPATH": f"{folder}/site",
        "WHO_LOADS": f"{folder}/seen/python",
    }
    (folder / "app.env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


def _who_loaded(folder: Path) -> set[int]:
    """The users of the processes in which that environment has acted."""
    seen = list((folder / "seen").iterdir())
    assert any(path.name.startswith("loader.") for path in seen), "the loader has seen it"
    ran = {int(word) for word in (folder / "seen" / "python").read_text().split()}
    return ran | {uid for path in seen for uid in (path.stat().st_uid, path.stat().st_gid)}


def test_the_releases_environment_acts_in_no_process_of_root(service: Service) -> None:
    """The loader and the interpreter see the environment file's variables when they are the workers' user's."""
    _acts_before_main(service.folder)
    with service:
        service.client.reload(wait="drained")
        assert service.get()
    assert _who_loaded(service.folder) == {WORKER}


def test_check_loads_the_app_as_the_workers_user(service: Service) -> None:
    """Neither the app nor the environment file acts in a process of root's."""
    _acts_before_main(service.folder)
    service.write(WHO_LOADS + "async def app(scope, receive, send):\n    pass\n")
    argv = [*service.argv[: service.argv.index("run")], "check", *service.argv[service.argv.index("run") + 1 :]]
    done = subprocess.run(argv, cwd=service.folder, capture_output=True, text=True, timeout=60, check=False)
    no_mounts(service.folder.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert _who_loaded(service.folder) == {WORKER}


def test_the_supervisors_environment_is_not_theirs(service: Service) -> None:
    """They have what a service manager would give that user, the environment file's variables and those named."""
    theirs = {
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "JOURNAL_STREAM": "1:2",
        "PASSED": "1",
        "PATH": os.defpath,
    }
    secret = ("AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "USER", "LOGNAME", "HOME", "SHELL", "LD_X")
    service.popen["env"] = {"NOT_THERE": "", **theirs, **dict.fromkeys(secret, "of-root")}
    service.argv += ["--pass-env", "PASSED", "--pass-env", "MISSING"]
    lines = ["OWN=1", "PATH=/elsewhere", "SEEN=${AWS_SECRET_ACCESS_KEY}/${TZ}"]
    (service.folder / "app.env").write_text("\n".join(lines))
    with service:
        found = json.loads(service.get("/environ"))
        service.client.reload(wait="drained")
        again = json.loads(service.get("/environ"))
    ours = {name for name in found if name.startswith("STILLUP_")}
    assert ours == {"STILLUP_GENERATION", "STILLUP_WORKER", "STILLUP_HANDOFF"}
    assert {name: value for name, value in found.items() if name not in ours} == {
        **theirs,
        "HOME": "/",
        "OWN": "1",
        "SEEN": "/UTC",
    }
    assert {**again, "STILLUP_GENERATION": "1"} == found


@pytest.fixture
def secret_file() -> Iterator[Path]:
    """A file that root alone can read."""
    with tempfile.TemporaryDirectory(prefix="stillup-secret-") as name:
        path = Path(name, "secret.env")
        path.write_text("SECRET=of-root\n")
        path.chmod(0o600)
        yield path


def _place(kind: str, path: Path, secret: Path) -> None:
    match kind:
        case "link":
            path.symlink_to(secret)
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "sparse":
            path.touch()
            os.truncate(path, 300_000_000)
        case "slow":  # every line is another copy of what there was before it, twice
            path.write_text("A0=0123456789\n" + "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(40)))
        case "slower":
            path.write_text("A=" + "${" * 500_000)
        case _:
            path.mkdir()


WRONG = {
    "link": "Permission denied",
    "fifo": "no regular file",
    "device": "no regular file",
    "sparse": "larger than 1 MiB",
    "slow": "--env-file",
    "slower": "is not read within 6 s",
    "directory": "no regular file",
}


def test_environment_files_that_are_none(service: Service, secret_file: Path) -> None:
    """Whatever the workers' user puts in its place is not read with root's rights, and costs a refusal."""
    path = service.folder / "app.env"
    path.write_text("FINE=1\n")
    service.popen["env"] = {**os.environ, **mutated(service.folder.parent, READS_FOR_6_S)}
    with service:
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        for kind, why in WRONG.items():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            _place(kind, path, secret_file)
            done = service.reload()
            assert done.returncode != 0
            assert why in done.stderr + done.stdout, kind
            assert "app.env" in done.stderr + done.stdout
            assert service.status().state == "serving"
        assert process.memory_info().rss < before + 20_000_000
        assert "FINE" in json.loads(service.get("/environ"))
        path.rmdir()
        path.write_text("BETTER=1\n")
        service.client.reload(wait="drained")
        assert "BETTER" in json.loads(service.get("/environ"))


def test_a_file_of_roots_is_read_as_root(service: Service, secret_file: Path) -> None:
    """A file that only root can read is read, if on the way to it nobody else could have exchanged anything."""
    secret_file.parent.chmod(0o700)
    service.argv += ["--env-file", str(secret_file)]
    with service:
        assert json.loads(service.get("/environ"))["SECRET"] == "of-root"

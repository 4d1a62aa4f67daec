"""The image of deploy/container, without an engine: what its Dockerfile says, done by hand.

There is none of the tools here that build or run one. What `FROM` has is this machine's /usr and the Python that runs
the tests; what its RUN installs is what is installed here; and it is run as an engine would: in namespaces of its own,
below a root that is read-only (pivot_root(2)), as another user without capabilities, with the words and the environment
of the Dockerfile and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import stillup
from tests.system.fleet.network import Network
from tests.system.harness import DEADLINE, ROOT, eventually

CONTEXT = ROOT / "deploy" / "container"
CONTAINER = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
RUN = Path(__file__).with_name("run_image.sh")


class Image:
    """What the last stage of the Dockerfile says."""

    def __init__(self) -> None:
        text = re.sub(r"^#.*\n", "", (CONTEXT / "Dockerfile").read_text(), flags=re.MULTILINE)
        stages = re.split(r"^FROM .*\n", text, flags=re.MULTILINE)
        words = [line.partition(" ") for line in stages[-1].splitlines() if line]
        self.environment = dict(rest.split("=", 1) for word, _, rest in words if word == "ENV")
        self.copies = [rest.split() for word, _, rest in words if word == "COPY" and not rest.startswith("--from")]
        single = {word: rest for word, _, rest in words if word not in ("ENV", "COPY")}
        self.directory, self.user = single["WORKDIR"], single["USER"]
        self.command: list[str] = json.loads(single["ENTRYPOINT"]) + json.loads(single["CMD"])
        self.health: list[str] = json.loads(single["HEALTHCHECK"].partition("CMD ")[2])

    def build(self, folder: Path) -> None:
        """Put what it adds to its base into a folder."""
        for *files, target in self.copies:
            for file in files:
                (folder / target[1:]).parent.mkdir(parents=True, exist_ok=True)
                (folder / target[1:]).write_bytes((CONTEXT / file).read_bytes())
        venv = folder / "opt" / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=DEADLINE)
        library = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        here = [str(Path(stillup.__file__).parents[1]), sysconfig.get_path("purelib")]
        (library / "here.pth").write_text("\n".join(here) + "\n")
        script = venv / "bin" / "stillup"
        script.write_text("#!/opt/venv/bin/python\nfrom stillup.__main__ import main\nmain()\n")
        script.chmod(0o755)


class Container:
    """One that runs, at an address of its own. ``log``: what it writes to its standard streams."""

    def __init__(self, image: Image, process: subprocess.Popen[bytes], log: Path, become: Sequence[str]) -> None:
        self.process = process
        self.log = log
        self._health = image.health
        self._become = become

    @property
    def pid(self) -> int:
        """Of its PID 1, as seen from here; of what makes its namespaces, before there is one."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def stop(self) -> int:
        """Tell it to stop as an engine does, by SIGTERM to its PID 1; its exit code is awaited by the caller."""
        pid = self.pid
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        return pid

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as ``docker exec`` does."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "--root", "--wdns=/srv/app", "--"]
        argv = [*enter, *self._become, *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def health(self) -> int:
        """The exit code of its HEALTHCHECK."""
        return self.run(*self._health).returncode


@contextlib.contextmanager
def container(
    image: Image,
    network: Network,
    folder: Path,
    address: str,
    *,
    environment: Mapping[str, str] | None = None,
    user: str = "",
    arguments: Sequence[str] = (),
) -> Iterator[Container]:
    """Run the image in that network until it is stopped; what it says is in ``folder``.

    ``arguments``: in place of its CMD.
    """
    folder.mkdir()
    image.build(folder / "image")
    told = {**image.environment, **(environment or {})}
    uid, _, gid = (user or image.user).partition(":")
    seen = sorted({str(ROOT), sys.prefix, sys.base_prefix}, key=len)
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    command = [image.command[0], *arguments] if arguments else image.command
    become += ["--inh-caps=-all", "--", "env", "-i", *(f"{name}={value}" for name, value in told.items())]
    argv = [*CONTAINER, "bash", str(RUN), str(folder), ":".join(seen), image.directory, *become, *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    running = Container(image, process, folder / "log", become)
    try:
        eventually((folder / "log").exists, "it begins")
        eventually(lambda: process.poll() is not None or _has_child(process), "it has namespaces")
        assert process.poll() is None, (folder / "log").read_text()
        network.connect(running.pid, address)
        (folder / "go").touch()
        eventually(lambda: process.poll() is not None or running.health() == 0, "it is healthy")
        assert process.poll() is None, (folder / "log").read_text()
        yield running
    finally:
        # Not by --kill-child: who becomes another user forgets what its parent's death is to send it (prctl(2)).
        if process.poll() is None and _has_child(process):
            os.kill(running.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
        process.wait(DEADLINE)


def _has_child(process: subprocess.Popen[bytes]) -> bool:
    return bool(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())

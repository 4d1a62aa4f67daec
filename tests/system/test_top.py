"""``stillup top`` on a real terminal, and where there is none: what it shows, its keys, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.system.clients import Peer, request
from tests.system.gated_service import PATIENT, at_rest, open_gate, reached
from tests.system.harness import APP, STILLUP, Service, eventually
from tests.system.killable_service import KillableService
from tests.system.other_user import NOBODY, as_nobody, let_through, open_folder
from tests.system.tmux_terminal import PROMPT, Terminal, needs_tmux

pytestmark = pytest.mark.xdist_group("top")
BLOCKS = """
import pathlib, time
while pathlib.Path("nobody-boots").exists():
    time.sleep(0.02)

def holds_everything_up():
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
""" + APP.replace("    body =", '    if scope["path"] == "/block":\n        holds_everything_up()\n    body =')
KEYS = "q quit  e events"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One of two workers that most tests look at."""
    with Service(tmp_path_factory.mktemp("service"), *PATIENT, workers=2) as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    at_rest(shared)
    return shared


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(tmp_path) as terminal:
        yield terminal


def look_at(terminal: Terminal, service: Service, *options: str) -> None:
    """Run the command there, until its first frame with keys."""
    terminal.run(STILLUP, "top", "--runtime-dir", str(service.runtime), *options)
    terminal.until(KEYS)


def left(terminal: Terminal, exit_code: int = 0) -> None:
    """The shell has its terminal back, as it was."""
    terminal.until(f"exit={exit_code}\n{PROMPT}", unless=KEYS)
    assert terminal.flags() == {"alternate_on": "0", "cursor_flag": "1", "wrap_flag": "1"}
    terminal.type("clear; stty -a", "Enter")
    modes = " ".join(terminal.until("icanon", "echoke")).split()
    assert {"icanon", "echo", "isig", "icrnl"} <= set(modes)


# What is shown


@needs_tmux
def test_a_reload_by_its_key(service: Service, terminal: Terminal) -> None:
    """It is asked for twice; then each step is seen, what drains and until when, and that it has left."""
    generation = service.generations()[0]
    look_at(terminal, service)
    assert terminal.flags() == {"alternate_on": "1", "cursor_flag": "0", "wrap_flag": "0"}
    name = terminal.screen()[0].split()[0]
    with Peer(service.address()) as peer:
        peer.send(request("/wait?gate=g"))
        reached(service, "g")
        assert re.search(r"serving +[\d.]+ +\d+M +[\d.]+ +1 +\d+ +1 #+$", terminal.line(f"{generation}.", " 1 #"))
        terminal.until("# in-progress 1")
        terminal.type("r")
        terminal.until(f"reload {name}? y/n", unless=KEYS)
        terminal.type("n")
        terminal.until(KEYS, unless="y/n")
        assert service.generations() == [generation]
        terminal.type("r")
        terminal.until(f"reload {name}? y/n")
        terminal.type("y")
        terminal.until(f"gen {generation} -> {generation + 1}  draining", "  boot  ", "  cut over  ", "is accepted")
        first = terminal.line(f"  gen {generation}  draining for", "at most")
        eventually(lambda: terminal.line(f"  gen {generation}  draining for", "at most") != first, "it counts down")
        terminal.until(f"drain     gen {generation}: 1 in-progress; at most ")
        open_gate(service, "g")
        assert peer.answer().status == 200
        terminal.until(f"gen {generation + 1}  serving", unless=f"  gen {generation}  draining")
        terminal.until(f"gen {generation} has left")
    terminal.type("q")
    left(terminal)


@needs_tmux
def test_workers_by_keys(service: Service, terminal: Terminal) -> None:
    """One more, and one fewer; ``e`` shows that in the events, and goes back."""
    look_at(terminal, service)
    generation = service.generations()[0]
    for key, before, after in (("+", 2, 3), ("-", 3, 2)):
        terminal.type(key)
        terminal.until(f"from {before} to {after}? y/n")
        terminal.type("y")
        terminal.until(f"{after} workers are wanted", f"gen {generation}  serving", f"   {after} workers\n")
    terminal.type("e")
    terminal.until("3 of 3 workers serve", "q quit  e workers", unless="connections")
    terminal.type("e")
    terminal.until("connections", KEYS)
    terminal.type("b", "y")  # the y that came before the question was shown is no answer
    terminal.until("y/n")
    terminal.type("x")
    assert service.generations() == [generation]
    terminal.until(KEYS, unless="y/n")
    terminal.type("C-c")
    left(terminal)


@needs_tmux
def test_what_the_supervisor_says_no_to(tmp_path: Path, terminal: Terminal) -> None:
    """Its words are shown below the frame."""
    with Service(tmp_path, *PATIENT) as service:
        look_at(terminal, service)
        terminal.type("b")
        terminal.until("roll ", "y/n")
        terminal.type("y")
        assert terminal.line(" no  ").startswith(" no  no release is known that served before")
        terminal.type("q")
        left(terminal)


@needs_tmux
def test_sizes(service: Service, terminal: Terminal) -> None:
    """Another size is drawn at once, however long the interval is; nothing wraps, and the keys are in the last line."""
    look_at(terminal, service, "--interval", "60")
    for width, height, title in ((60, 15, "req/s"), (120, 40, "age"), (80, 24, "lag ms"), (40, 10, "cpu %")):
        terminal.resize(width, height)

        def drawn(width: int = width, height: int = height, title: str = title) -> bool:
            lines = terminal.screen()
            fits = len(lines) == height and max(map(len, lines)) <= width
            return fits and lines[-1].startswith(f" {KEYS}") and any(title in line for line in lines)

        eventually(drawn, f"a frame of {width}x{height}")
    terminal.type("q")
    left(terminal)


@needs_tmux
def test_a_boot_a_kill_and_a_stop(tmp_path: Path, terminal: Terminal) -> None:
    """From a service that has yet to serve to one that has stopped; meanwhile its supervisor dies, another comes."""
    service = KillableService(tmp_path, wait=False)
    (tmp_path / "hold-1.1").touch()
    with service, ExitStack() as stack:
        eventually((tmp_path / "held-1.1").exists, "it boots")
        look_at(terminal, service)
        terminal.until("starting", "gen 1  booting", "0/1 ready")
        (tmp_path / "hold-1.1").unlink()
        terminal.until("gen 1  serving", unless="starting")
        service.die()
        terminal.until("no supervisor answers for", "below\n", "gen 1  serving")
        service.start()
        service.until_serving()
        terminal.until("gen 1  serving", "taken over", unless="no supervisor answers")
        peer = stack.enter_context(Peer(service.address()))
        peer.send(request("/wait?gate=g"))
        reached(service, "g")
        service.process.terminate()
        terminal.until("stopping", "gen 1  draining for")
        open_gate(service, "g")
        terminal.until("no supervisor answers for", "stopped")
        terminal.type("q")
        left(terminal)


@needs_tmux
def test_a_hang(tmp_path: Path, terminal: Terminal) -> None:
    """A worker whose loop is held up is said to hang, for how long, until it is replaced."""
    service = Service(tmp_path, "main:app", "--hang-timeout", "3")
    service.write(BLOCKS)
    with service, Peer(service.address()) as peer:
        look_at(terminal, service)
        (tmp_path / "nobody-boots").touch()
        peer.send(request("/block"))
        first = terminal.line("1.1 ", "hangs for")
        eventually(lambda: terminal.line("1.1 ", "hangs for") != first, "it hangs for longer")
        (tmp_path / "go").touch()
        (tmp_path / "nobody-boots").unlink()
        terminal.until("1.1 ", unless="hangs for")
        terminal.type("q")
        left(terminal)


# Who may do what


@needs_tmux
def test_a_viewer_has_no_keys_that_change_anything(terminal: Terminal) -> None:
    """They are not shown, and do nothing."""
    with open_folder() as folder:
        service = Service(folder, "main:app", "--viewer", f"uid:{NOBODY}")
        service.write()
        with service:
            let_through(service)
            terminal.run(*as_nobody(STILLUP, "top", "--runtime-dir", str(service.runtime)))
            terminal.until(KEYS)
            assert service.client.status().generations[0].id == 1
            terminal.type("r")
            terminal.type("e")
            lines = terminal.until("q quit  e workers")
            assert lines[-1].strip() == "q quit  e workers"
            terminal.type("y")
            terminal.type("q")
            left(terminal)
            assert service.generations() == [1]


# Terminals


@needs_tmux
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours(service: Service, tmp_path: Path, no_color: str) -> None:
    """NO_COLOR is obeyed; bars have a mark for each class all the same."""
    with Terminal(tmp_path, {"NO_COLOR": no_color}) as terminal, Peer(service.address()) as peer:
        look_at(terminal, service)
        peer.get()
        terminal.until(". idle 1")
        codes = {int(code) for code in re.findall(r"\x1b\[(\d+)", "".join(terminal.screen("-e")))}
        assert bool(codes & set(range(30, 38))) != bool(no_color), codes
        terminal.type("q")
        left(terminal)


@needs_tmux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(service: Service, terminal: Terminal, number: signal.Signals) -> None:
    """As it ends others, and the terminal is as it was."""
    look_at(terminal, service)
    _process(service).send_signal(number)
    left(terminal, 128 + number)


def _process(service: Service) -> psutil.Process:
    """The one that shows it."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "top" in words and str(service.runtime) in words:
            return process
    raise AssertionError("nobody shows it")


@needs_tmux
def test_it_is_suspended(service: Service, terminal: Terminal) -> None:
    """Ctrl-Z gives the terminal back as it was, ``fg`` has it again; keys mean the same then."""
    look_at(terminal, service)
    for _ in range(2):
        terminal.type("C-z")
        terminal.until("Stopped", PROMPT, unless=KEYS)
        assert terminal.flags() == {"alternate_on": "0", "cursor_flag": "1", "wrap_flag": "1"}
        terminal.type("clear; stty -a", "Enter")
        assert {"icanon", "echo"} <= set(" ".join(terminal.until("icanon", "echoke")).split())
        terminal.type("clear; fg; echo exit=$?", "Enter")
        terminal.until(KEYS, "gen ")
        assert terminal.flags() == {"alternate_on": "1", "cursor_flag": "0", "wrap_flag": "0"}
    terminal.type("q")
    left(terminal)


@needs_tmux
def test_an_error_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    """Whatever it is."""
    program = "from stillup.client.top.top_screen import Screen\nwith Screen(colours=True) as screen: screen.draw(1)"
    terminal.run(sys.executable, "-c", program)
    terminal.until("TypeError")
    left(terminal, 1)


@needs_tmux
@pytest.mark.parametrize("how", [("--once",), ("TERM=dumb",)])
def test_one_frame_on_a_terminal(service: Service, terminal: Terminal, how: tuple[str]) -> None:
    """Where it was asked for, and where a terminal can do no more, it is printed as on a pipe."""
    options = [word for word in how if word.startswith("--")]
    settings = [word for word in how if "=" in word]
    terminal.run("env", *settings, STILLUP, "top", "--runtime-dir", str(service.runtime), *options)
    assert "serving" in "\n".join(terminal.until("exit=0", PROMPT))
    assert terminal.flags()["alternate_on"] == "0"


def test_one_frame_on_a_pipe(service: Service) -> None:
    """All workers, the last events; no control but the ends of lines, none of which is longer than COLUMNS says."""
    eventually(lambda: all(worker.memory for worker in service.workers()), "both have reported")
    argv = [STILLUP, "top", "--runtime-dir", str(service.runtime)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.isprintable() for line in done.stdout.split("\n"))
    assert len(re.findall(r"^  \d+\.\d+ +serving +[\d.]+ +\d+M +[\d.]+ +0 +\d+ ", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^  \d\d:\d\d:\d\d  gen \d+ ", done.stdout, re.MULTILINE)
    narrow = service.cli("top")
    assert narrow.returncode == 0
    assert max(map(len, narrow.stdout.splitlines())) <= 80


def test_nothing_runs(tmp_path: Path) -> None:
    """As ``status`` has it: exit 3, and why."""
    service = Service(tmp_path, *PATIENT)
    for words in (("top",), ("top", "--once")):
        done, status = service.cli(*words), service.cli("status")
        assert (done.returncode, done.stdout, done.stderr) == (3, "", status.stderr)

"""Every change of stillup's own code that a test makes: to show that a proof can fail, or to reach what is rare.

1. A mutation names the function (or the module's constant) that it changes, not the file: it may move to another one.
2. The name is looked up in the syntax trees of the whole package. It has to be there once, and the text once in it.
3. The text is written as if the function stood at the left margin: it may become a method, or stop being one.
4. ``test_mutations.py`` applies each of them, so what no longer fits is found in a second.
"""

from __future__ import annotations

import ast
import py_compile
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import stillup

PACKAGE = Path(stillup.__file__).parent


@dataclass(frozen=True)
class Mutation:
    """In the function or constant ``name``, ``old`` becomes ``new``.

    The name is the end of the full dotted one, as far as it is needed to be unique in the package: ``may_move``,
    ``Boot.run``, ``history.MOST``.
    """

    name: str
    old: str
    new: str


class Stale(Exception):
    """The package has no such function, or not this text in it, or more than one."""


def mutated(folder: Path, *mutations: Mutation) -> dict[str, str]:
    """Put a copy of stillup with these changes into a new directory of ``folder``; an environment that runs it.

    Raises:
        Stale: one of them does not fit.
    """
    copy = folder / "mutated"
    shutil.copytree(PACKAGE, copy / "stillup")
    for mutation in mutations:
        mutate(copy / "stillup", mutation)
    return {"PYTHONPATH": str(copy)}


def mutate(package: Path, mutation: Mutation) -> Path:
    """Change a source file below ``package`` in place; that file.

    Raises:
        Stale: it does not fit.
    """
    word = mutation.name.rpartition(".")[2]
    found = []
    for file in sorted(package.rglob("*.py")):
        # Most files need no syntax tree: they don't have the word.
        if word in (text := file.read_text(encoding="utf-8")):
            definitions = _definitions(text, _module(package, file))
            found += [(file, node) for name, node in definitions if f".{name}".endswith(f".{mutation.name}")]
    if len(found) != 1:
        places = ", ".join(f"{file.relative_to(package)}:{node.lineno}" for file, node in found)
        raise Stale(f"{mutation.name} is there {len(found)} times ({places}), not once")
    ((file, node),) = found
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    # Each text that begins with blanks begins a line.
    text, old, new = "\n" + "".join(lines[first:last]), mutation.old, mutation.new
    if old[0].isspace():
        old, new = f"\n{old}", f"\n{new}"
    old, new = _indented(old, node.col_offset), _indented(new, node.col_offset)
    if text.count(old) != 1:
        raise Stale(f"{mutation.name} has this {text.count(old)} times, not once: {mutation.old!r}")
    lines[first:last] = [text.replace(old, new)[1:]]
    file.write_text("".join(lines), encoding="utf-8")
    py_compile.compile(str(file), doraise=True)  # once, not by each process that is started
    return file


def _module(package: Path, file: Path) -> str:
    """A source file's dotted name."""
    return ".".join([package.name, *file.relative_to(package).with_suffix("").parts])


@cache
def _definitions(text: str, module: str) -> Sequence[tuple[str, ast.stmt]]:
    """The functions, methods and constants of a module, by full dotted name; a text is parsed once a process."""
    return tuple(_defined(ast.parse(text), module))


def _defined(tree: ast.Module | ast.ClassDef, above: str) -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        match node:
            case ast.ClassDef():
                yield from _defined(node, f"{above}.{node.name}")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield f"{above}.{node.name}", node
            case ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]):
                yield f"{above}.{name}", node


def _indented(text: str, columns: int) -> str:
    """Move the lines that begin with blanks so far to the right; what begins without is the middle of a line."""
    return "".join(f"{' ' * columns}{line}" if line[0] == " " else line for line in text.splitlines(keepends=True))


# rolling: each of these leaves a bound of the plan, or has connections cross more often.

STARTS_ONE_TOO_MANY = Mutation("plan.next_step", "goes.live + sides.others", "goes.live + sides.others - 1")
"""Red: the kernel finds a worker alive that is one too many."""
RETIRES_TOO_SOON = Mutation("plan.next_step", "without >= max(1, size - strategy.max_unavailable)", "without >= 0")
"""Red: the kernel finds too few workers that accept."""
ADOPTS_WHOEVER_SERVES = Mutation("SupervisorConversation._obey", "self._intake.adopt(on=on)", "pass")
"""Red: connections go from one old worker to another, and from there to a new one."""

# test_drop: each of these loses something, and is found out.

DRAINS_BEFORE_READY = Mutation(
    "rollout.boot",
    "    number = prepared.generation or 0\n",
    "    number = prepared.generation or 0\n"
    "    if transition.fleet.serving: retire(transition, transition.fleet.serving)\n",
)
"""Red at the release that is rejected: nobody is left to serve. Red in chaos: the new ones die, the old are leaving."""
RUNS_HOOKS_BESIDE_EACH_OTHER = (
    Mutation("hooks.begin_next", "if hook is None or fleet.hook_under_way is not None:", "if hook is None:"),
    Mutation(
        "hooks.under_way",
        "hook = transition.fleet.hook_under_way\n",
        "hook = next((one for one in transition.fleet.hooks if one.id == number and one.state.under_way), None)\n",
    ),
)
"""Seen by the hook itself, in tests/system/hooks."""
CLOSES_INSTEAD_OF_SENDING = Mutation(
    "ConnectionSender._send_packet",
    "adoption_queue.send(self._writer, packet, itertools.chain.from_iterable(fds[:count]))",
    "pass",
)
"""Red at once: every idle client finds its connection closed, some of them with a request on its way."""
SENDS_THE_BUSY = (
    Mutation("ConnectionSender._next_packet", "if found is None or not may_move(found):", "if found is None:"),
    Mutation(
        "ConnectionSender._send_soon",
        "listening:\n        self._next_send = self._loop.call_soon(",
        "listening:\n        self._next_send = self._loop.call_later(0.05, ",
    ),
)
"""What was idle when it was offered, some moments ago, has a request by the time it is sent without another look; the
request is gone with the old copy."""
DROPS_THE_HEAD = Mutation("ConnectionSender._next_packet", 'head = found.head or b""', 'head = b""')
"""Red at once: the second half of a request head is none, and is answered 400."""
FORGETS_THE_BODY = Mutation("may_move", "        or standing.arriving\n", "")
"""Red at once: the rest of a body whose answer came early is taken for a request by the next worker."""
SAYS_CLOSE = Mutation("Retirement.begin", "if final or not self._site.can_move:", "if True:")
"""Red at once: what the old generation answers in its drain says that its connection closes."""
LOOKS_ONCE = Mutation("ConnectionDrain._look", "    connection.follow(self._site.changed)\n", "")
"""Red after 2 s: whoever had a request in progress at the cut-over never moves, so the old processes don't leave."""

# test_crossing: workers that die at a chosen instant, and a queue that is left too early.

_COUNTS_HELD = """    import os, signal
    held = 0
    for name in os.listdir("/proc/self/fd") if os.path.exists("kill") else ():
        try:
            known = socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            known.getpeername()
            held += known.family == socket.AF_INET
        except OSError:
            pass
        known.detach()
"""
"""If the file `kill` is there: how many connections of clients this process has."""
DIES_ADOPTING = Mutation(
    "Adoptions.take",
    "    return self._understand(received)\n",
    _COUNTS_HELD
    + """    if held >= 40:
        os.rename("kill", "killed")
        with open("held", "w") as file:
            file.write(f"{os.getpid()} {held}")
        os.kill(os.getpid(), signal.SIGKILL)
    return self._understand(received)
""",
)
"""Whoever holds 40 connections, those just received included, and finds the file `kill`, dies with them."""
DIES_SENDING = Mutation(
    "ConnectionSender._send_packet",
    "    self.given += count\n",
    _COUNTS_HELD
    + """    try:
        os.rename("kill", "killed")
    except FileNotFoundError:
        pass
    else:
        with open("given", "w") as file:
            file.write(f"{os.getpid()} {count} {held}")
        os.kill(os.getpid(), signal.SIGKILL)
    self.given += count
""",
)
"""Whoever finds the file `kill` dies when it has sent connections, and before it has let go of them."""
DIES_ADMITTING = Mutation(
    "SupervisorConversation._obey",
    "                    self._intake.accept()\n",
    """                    if self._supervisor.welcome.generation == 3 and self._supervisor.welcome.worker == 2:
                        import os, signal
                        while not os.path.exists("die"):
                            await asyncio.sleep(0.01)
                        os.kill(os.getpid(), signal.SIGKILL)
                    self._intake.accept()
""",
)
"""Worker 3.2 is told to accept, and dies of it when the file `die` exists."""
READER_FIRST = Mutation(
    "Retirement.run",
    "            if not drain.final or self._was_paused or not intake.accepts:\n",
    "            if 1:\n",
)
"""The queue is not read to its end in a final drain."""

# canary: each of these keeps it from being judged.

PASSES_WHATEVER = Mutation("gates.worse", "return tuple(reason for reason, is_worse in found if is_worse)", "return ()")
"""Red: a release that answers with 500 is told by its figures as a whole, when its time is over, and not before."""
GIVES_NO_SHARE = Mutation(
    "LiveEffects.perform",
    "            self._channels.tell(serial, handoff_messages.Give(share))",
    "            pass",
)
"""Red: the connections that are kept stay where they are, and the canary gets too little to be judged by."""

# test_standby

ACCEPTS_PAUSED = Mutation("ConnectionIntake.pause", "        source.pause()\n", "        pass\n")
"""A paused worker takes what comes, beside those that took its place."""

# test_hang: each of these judges a worker that is not to blame, or does not end one that is.

LATE = Mutation("watch_heartbeats", "late = due is None or at - due > STALL", "late = False")
"""The supervisor does not notice that it was late itself."""
DEAF = Mutation("watch_heartbeats", "late=late or not can_write()", "late=late")
"""The supervisor does not look whether anybody reads its log."""
UNSHOWN = Mutation("LiveEffects.perform", "            self._children.dump_stacks(serial)", "            pass")
"""The stacks are not asked for."""
HASTY = Mutation(
    "hang._hangs",
    "    transition.order(DumpStacks(worker.serial))",
    "    slots.orders.kill(transition, transition.worker(worker.serial))",
)
"""Who hangs is killed before it is replaced."""
FORGOTTEN = Mutation("give_way", "        kill(transition, worker)\n    else:", "        pass\n    else:")
"""Who hangs is replaced, and not killed."""

# Other proofs that have to turn red.

COUNTS_NO_DEATH = Mutation("count_death", "deaths=rollout.deaths + 1", "deaths=0")
"""The probation sees nobody die."""
COUNTS_IN_THE_WORKER = Mutation(
    "_share_figures", "cells = shared_cells.cells(fd)", "shared_cells.cells(fd); cells = [0] * CELLS"
)
"""The figures end with their worker."""
BINDS_ANEW = Mutation(
    "open_service",
    "    elif not left_behind:\n",
    "    else:\n        left_behind = False\n",
)
"""Those who live listen where the next supervisor does not, and it knows nobody of them."""

# Limits that nobody waits for in a test.

HEAD_OF_5_S = Mutation("drain._HEAD", "10.0", "5.0")
HEAD_OF_1_5_S = Mutation("drain._HEAD", "10.0", "1.5")
IDLE_FOR_4_S = (
    Mutation("drain.LAME_DUCK", "0.25", "4.0"),
    Mutation("drain.RULES", "_C.UNREAD: Rule(handover=_HEAD, final=2.0", "_C.UNREAD: Rule(handover=_HEAD, final=4.0"),
)
ADMITS_FOR_60_S = Mutation("Policy.admit_timeout", "10.0", "60.0")
"""How long a worker may take from the order to accept until it does."""
SILENT_AT_1_S = Mutation("takeover.PATIENCE", "30.0", "1.0")
"""How long a worker that was taken over may say nothing."""
KEEPS_20_EVENTS = Mutation("history.MOST", "1_000", "20")
LARGE_EVENTS = Mutation("Audited._tell", '"path": self._path,', '"path": self._path + "x" * 900,')
READS_FOR_6_S = Mutation("env_file_access.DEADLINE", "10.0", "6.0")
"""How long an environment file of somebody else's may take."""
STARTS_6_S_LATER = Mutation(
    "reexec.received",
    "    if not number:\n        return None\n",
    '    if not number:\n        return None\n    __import__("time").sleep(6.0)\n',
)
"""How long a program that takes the place of another, or is tried, takes until it goes on."""
SPEAKS_API_1_9 = Mutation("api_version.API", "(1, 0)", "(1, 9)")

# benchmarks/counting.py: workers that count no request.

COUNTS_NOTHING = tuple(
    Mutation("counting_cycle", old, new)
    for old, new in (
        ("            self.began = perf_counter_ns()\n", "            self.began = 1\n"),
        ("            took = perf_counter_ns() - began\n", ""),
        ("            cells = transport.cells\n", ""),
        ('            first, total = _of_status(message["status"], _OF_ERRORS)\n', ""),
        ("            cells[first if took <= _LEAST else first + bisect_left(_BOUNDS, took)] += 1\n", ""),
        ("            cells[total] += took\n", ""),
        (
            "                if self.began:\n                    self.transport.cells[SENT] += len(body)\n",
            "                pass\n",
        ),
    )
)
"""What is left notes of each answer whether it is a stream, which a drain has to know."""


# leader: the next one is told at once, and takes no lock.

TOLD_TOO_SOON = Mutation(
    "leader.settle",
    "leader.figures.leadership.let_go == term.number:",
    "leader.figures.leadership.let_go == term.number or leader.state.retiring:",
)
WITHOUT_LOCK = Mutation("leader_lock.take", "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")


# chaos: where a process can be made to stand still.


def _stands_still(name: str, before: str, call: str) -> Mutation:
    """Before that text one of its functions is called (chaos/stop_points.py)."""
    blanks = before[: len(before) - len(before.lstrip())]
    return Mutation(name, before, f'{blanks}__import__("chaos_stop_points").{call}\n{before}')


_DECIDED = _stands_still(
    "Engine.run", "        for command in self._due(decision.commands", "decided(decision.commands)"
)
STANDS_STILL: Mapping[str, Mutation] = {
    "asked": _DECIDED,
    "spawning": _stands_still("ChildProcesses.start", "    output.started()\n", 'reached("spawning")'),
    "spawned": _stands_still("worker.__main__.main", "    try:\n        supervisor =", 'reached("spawned")'),
    "hello": _stands_still(
        "Admission._greet", "    self._channels.open(serial, channel, hello.protocol)", 'reached("hello")'
    ),
    "listeners": _stands_still("supervisor_channel.take_over", "    return SupervisorChannel(", 'reached("listeners")'),
    "booting": _stands_still("Boot.run", "        await lifespan.startup()\n", 'reached("booting")'),
    "ready": _stands_still("Boot.run", "    await self._supervisor.tell(Ready(seen))\n", 'reached("ready")'),
    "admitting": _DECIDED,
    "accepting": _stands_still(
        "SupervisorConversation._obey",
        "                await self._supervisor.tell(Serving())\n",
        'reached("accepting")',
    ),
    "cutting-over": _DECIDED,
    "draining": _stands_still(
        "Retirement.run", "            # In a final drain the queue is read on: to its end,", 'reached("draining")'
    ),
    "crossing": _stands_still(
        "ConnectionSender._send_packet", "    self.given += count\n", 'reached("crossing", given=fds)'
    ),
    "leaving": _stands_still(
        "Server.run", "        self._supervisor.say_now(await self._reporter.report())\n", 'reached("leaving")'
    ),
}
"""By the phase of a rollout."""
STANDS_STILL_EVERYWHERE = tuple(dict.fromkeys(STANDS_STILL.values()))
"""All of them, for one copy."""


def every() -> dict[str, tuple[Mutation, ...]]:
    """What is here, by name: what is changed together in a copy is one entry."""
    found: dict[str, tuple[Mutation, ...]] = {}
    for name, value in globals().items():
        if isinstance(value, Mutation):
            found[name] = (value,)
        elif isinstance(value, tuple) and all(isinstance(part, Mutation) for part in value):
            found[name] = value
    return found

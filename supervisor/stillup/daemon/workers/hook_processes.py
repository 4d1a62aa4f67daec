"""The processes of hooks: each waits until it is let run, is heard until it ends, and ends with all of its group.

They are started as workers are: by the release's interpreter, as the workers' user, at the head of a session, with
nothing of ours open but the pipe of their output (``worker.hook_start``). What the supervisor knows of one when it ends
it tells as an event; until then it does nothing for it but log what it writes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from stillup.core.events import Event, HookEnded, HookStarted
from stillup.core.model import Hook, Release
from stillup.daemon.state.console import Console
from stillup.daemon.workers.child_processes import ChildProcesses
from stillup.daemon.workers.process_starter import ProcessStarter
from stillup.daemon.workers.program import Program
from stillup.daemon.workers.worker_program import why_no_module
from stillup.host.accounts import Account
from stillup.host.processes import Process, start_trouble
from stillup.host.start_gate import StartGate
from stillup.wire.log_lines import HOOK

MODULE: Final = "stillup.worker.hook_start"
"""What becomes the program."""
LOOK: Final = "--look"
"""Its first word, for who wants to know whether the program is there."""


class HookProcesses:
    """Each by the hook's number. Owns the pipes by which they are let run."""

    def __init__(
        self, submit: Callable[[Event], None], console: Console, account: Account | None, handoff_path: str
    ) -> None:
        """Begin with none.

        Args:
            submit: takes the events that come of them.
            console: gets what they write, line by line.
            account: whose they are; None for our own user's.
            handoff_path: of ``handoff.sock``: by this variable the control socket knows whom workers have started.
        """
        self._submit = submit
        self._account = account
        self._handoff_path = handoff_path
        self._starter = ProcessStarter()
        self._children = ChildProcesses(console, self._ended, self._starter, with_group=True)
        self._python: dict[int, str] = {}
        """The interpreter of those that were started here."""
        self._gates: dict[int, StartGate] = {}
        """What is opened for one to be let run; what has not been when it is closed does not run."""
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, hook: Hook, release: Release) -> None:
        """Start the process of a hook."""
        try:
            self._gates[hook.id] = StartGate()
            self._children.prepare(hook.id, HOOK, captured=True, packed=False)
        except OSError as error:
            self._close_gate(hook.id)
            self._submit(HookEnded(hook.id, f"could not be started: {error.strerror}"))
            return
        task = asyncio.get_running_loop().create_task(self._start(hook, release, self._gates[hook.id]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def let_run(self, number: int) -> None:
        """Let it become its program. Nothing happens if it has ended."""
        if (gate := self._gates.get(number)) is not None:
            gate.open()

    def end(self, number: int, *, kill: bool) -> None:
        """Have it end, and its group. Nothing happens if it has, or is not there yet."""
        if (gate := self._gates.get(number)) is not None:
            gate.shut()
        self._children.signal_all(number, signal.SIGKILL if kill else signal.SIGTERM)

    def adopt(self, number: int, process: Process) -> None:
        """Take over one that another supervisor started; the process is ours from here on."""
        self._children.adopt(number, process)

    def close(self) -> None:
        """Let go of everything."""
        for task in self._tasks:
            task.cancel()
        for number in tuple(self._gates):
            self._close_gate(number)
        self._children.close()
        self._starter.close()

    async def _start(self, hook: Hook, release: Release, gate: StartGate) -> None:
        self._python[hook.id] = release.python
        try:
            process, _ = await self._children.start(hook.id, self._program(hook, release), gate.stdin)
        except Exception as error:  # noqa: BLE001 - whatever it was, the fleet must hear of this hook's end
            self._children.forget(hook.id)
            self._forget(hook.id)
            self._submit(HookEnded(hook.id, f"could not be started: {release.python}: {start_trouble(error)}"))
            return
        gate.started()
        self._submit(HookStarted(hook.id, process.pid, process.started))

    def _program(self, hook: Hook, release: Release) -> Program:
        return Program(
            argv=(release.python, "-P", "-m", MODULE, release.directory, *hook.words),
            environment={
                **release.environment,
                "STILLUP_GENERATION": str(hook.generation),
                "STILLUP_HANDOFF": self._handoff_path,
            },
            account=self._account,
        )

    def _ended(self, number: int, how: str, output: str) -> None:
        python = self._python.get(number)
        self._forget(number)
        why = why_no_module(python, MODULE, output) if python is not None else ""
        self._submit(HookEnded(number, f"could not be started: {why}" if why else how, output))

    def _forget(self, number: int) -> None:
        self._python.pop(number, None)
        self._close_gate(number)

    def _close_gate(self, number: int) -> None:
        if (gate := self._gates.pop(number, None)) is not None:
            gate.close()

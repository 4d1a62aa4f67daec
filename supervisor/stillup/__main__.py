"""The ``stillup`` command."""

from __future__ import annotations

import gc
import os
import signal
import sys

# 'python -m stillup' has modules looked for in the working directory first. That may be a release's, and what is
# imported later, by a reload for instance, would run with our rights.
if __name__ == "__main__" and os.path.isdir(".") and sys.path[0] == os.getcwd():
    del sys.path[0]

# Before anything slow: until the supervisor's handlers are in place, a signal is kept rather than fatal; and the
# collector does not go through what is imported again and again (``daemon.main.run`` puts that out of its sight).
if sys.argv[1:2] == ["run"]:
    gc.disable()
    signal.pthread_sigmask(
        signal.SIG_BLOCK,
        {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2},
    )

import atexit
import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import click

from stillup import __version__
from stillup.host import process_end, standard_streams

_COMMANDS = {
    "run": ("stillup.daemon.run_commands:run", "Serve an app, and reload it without losing a request."),
    "check": ("stillup.daemon.run_commands:check", "Say whether 'run' with the same words could start."),
    "init": ("stillup.daemon.init_command:init", "Write a stillup.toml for the app that is here."),
    "migrate": ("stillup.daemon.migrate_command:migrate", "Write a stillup.toml of what gunicorn is told."),
    "status": ("stillup.client.service_commands:status", "Show what runs."),
    "top": (
        "stillup.client.top.top_command:top",
        "Show what runs as it goes on, with keys to reload, scale and roll back.",
    ),
    "health": ("stillup.client.health_command:health", "Exit 0 if the service serves, else 1; for containers."),
    "reload": ("stillup.client.rollout_commands:reload", "Put a new generation into service."),
    "rollback": ("stillup.client.rollout_commands:rollback", "Put the release before back into service."),
    "history": ("stillup.client.rollout_commands:history", "List what ran, and what came of it."),
    "promote": ("stillup.client.rollout_commands:promote", "Pass the canary that is watched."),
    "abort": ("stillup.client.rollout_commands:abort", "Call off the rollout that is under way."),
    "scale": ("stillup.client.service_commands:scale", "Have more or fewer workers."),
    "events": ("stillup.client.events_command:events", "Show what has happened."),
    "dashboard": ("stillup.client.dashboard.dashboard_command:dashboard", "Show the service in a browser."),
    "ls": ("stillup.client.service_commands:ls", "List the services here."),
    "whoami": ("stillup.client.service_commands:whoami", "Say who you are to the supervisor, and what you may do."),
    "trace": ("stillup.client.trace_command:trace", "Show every message on the sockets, as it comes."),
    "doctor": ("stillup.client.doctor_command:doctor", "Look at what goes wrong in practice, and say what to do."),
    "supervisor": ("stillup.client.service_commands:supervisor", "The supervisor's own program."),
    "cordon": ("stillup.client.stop_commands:cordon", "Have no new clients sent, and serve on."),
    "uncordon": ("stillup.client.stop_commands:uncordon", "Have clients sent again."),
    "stop": ("stillup.client.stop_commands:stop", "Stop the service."),
    "dial-stdio": ("stillup.client.dial_stdio_command:dial_stdio", "What --remote runs on the other host."),
    "systemd": ("stillup.client.systemd_units:systemd", "Units for a service of your own."),
    "completion": ("stillup.client.completion_command:completion", "Print what makes a shell complete these words."),
}
"""Where each is, and what it does. Each is imported when it is asked for: 'status' does not wait for what only 'run'
needs, and '--help' for none of them."""


_OTHER_WORDS = {
    "serve": "run",
    "start": "run",
    "dev": "run --reload",
    "restart": "reload",
    "deploy": "reload",
    "logs": "events",
    "log": "events",
    "ps": "ls",
    "list": "ls",
    "info": "status",
    "kill": "stop",
    "shutdown": "stop",
    "undo": "rollback",
    "revisions": "history",
    "reexec": "supervisor reexec",
    "upgrade": "supervisor reexec",
    "install": "systemd install",
}
"""What other tools call these."""


class _ShownError(click.ClickException):
    """What click says of words that mean nothing: it names them, and they may hold anything."""

    def __init__(self, error: click.ClickException, hint: str) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code  # type: ignore[misc]
        self._error = error
        self._hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        from stillup.wire.plain_text import escaped_lines  # noqa: PLC0415 - needed when something is wrong

        said = io.StringIO()
        self._error.show(said)
        click.echo(escaped_lines(said.getvalue().rstrip("\n") + self._hint + "\n"), file=file, err=True, nl=False)


@contextlib.contextmanager
def _showing_errors() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        raise _ShownError(error, _meant(error)) from error


def _meant(error: click.ClickException) -> str:
    """What is likely meant by a word that is no command, for the end of the message; empty if that is unclear."""
    unknown = re.match(r"No such command ['\"](.*)['\"]\.", error.message)
    context = getattr(error, "ctx", None)
    if unknown is None or context is None or "Did you mean" in error.format_message():
        return ""
    word = unknown[1]
    if isinstance(context.command, _Commands):
        if ":" in word or word.endswith(".py"):
            return f" 'stillup run {word}' serves an app."
        if word in _OTHER_WORDS:
            return f" Did you mean '{_OTHER_WORDS[word]}'?"
    import difflib  # noqa: PLC0415 - 3 ms, for a word that is wrong

    near = difflib.get_close_matches(word, context.command.list_commands(context), 1)
    return f" Did you mean '{near[0]}'?" if near else ""


class _Commands(click.Group):
    def main(self, *args: Any, **extra: Any) -> Any:
        standard_streams.make_lenient()
        try:
            return super().main(*args, **extra)
        finally:
            standard_streams.tell_unwritten()

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _showing_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _showing_errors():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, does) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stillup")
def main() -> None:
    """Keep an ASGI service up while its code is replaced.

    'stillup run APP' in one terminal, 'stillup reload' in another.
    """


def program() -> NoReturn:
    """The command as a program of its own."""
    atexit.register(standard_streams.flush)  # first of all, so that it comes last
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):  # which the interpreter prints
            raise
        process_end.leave(end.code or 0)
    process_end.leave(0)


if __name__ == "__main__":
    program()

"""The ``stillup`` command."""

from __future__ import annotations

import signal
import sys

# Before anything slow: until the supervisor's handlers are in place, a signal is kept rather than fatal.
if sys.argv[1:2] == ["run"]:
    signal.pthread_sigmask(
        signal.SIG_BLOCK,
        {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2},
    )

import importlib

import click

from supervisor import __version__

_COMMANDS = {
    "run": "supervisor.daemon.commands:run",
    "check": "supervisor.daemon.commands:check",
    "status": "supervisor.client.cli:status",
    "reload": "supervisor.client.rollouts:reload",
    "rollback": "supervisor.client.rollouts:rollback",
    "abort": "supervisor.client.rollouts:abort",
    "scale": "supervisor.client.cli:scale",
    "events": "supervisor.client.events:events",
    "ls": "supervisor.client.cli:ls",
    "whoami": "supervisor.client.cli:whoami",
    "trace": "supervisor.client.tracing:trace",
    "doctor": "supervisor.client.doctor.command:doctor",
    "supervisor": "supervisor.client.cli:supervisor",
    "stop": "supervisor.client.cli:stop",
    "systemd": "supervisor.client.systemd:systemd",
}
"""Each is imported when it is asked for: 'status' does not wait for what only 'run' needs."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="stillup")
def main() -> None:
    """Keep an ASGI service up while its code is replaced.

    'stillup run APP' in one terminal, 'stillup reload' in another.
    """


if __name__ == "__main__":
    main()

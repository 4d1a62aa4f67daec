"""``stillup completion``: what a shell is to be told so that it completes our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from stillup.client.plain_output import echo_lines

_SET_UP = {
    "bash": 'eval "$(stillup completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(stillup completion zsh)" in ~/.zshrc, after compinit',
    "fish": "stillup completion fish > ~/.config/fish/completions/stillup.fish",
}


@click.command(epilog="; ".join(f"{shell}: {how}" for shell, how in _SET_UP.items()))
@click.argument("shell", type=click.Choice(list(_SET_UP)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a SHELL complete commands, options, their values, files and the names of services."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.ClickException(f"this click knows no {shell}")
    root = context.find_root().command
    echo_lines(complete(root, {}, "stillup", "_STILLUP_COMPLETE").source())

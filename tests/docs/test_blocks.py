"""What stands on the pages and is not run: that it could be, and that what it names is there."""

from __future__ import annotations

import re
import subprocess
import tomllib

import click
import pytest

from stillup.__main__ import main
from stillup.daemon.settings import options
from tests.docs.pages import PAGES, ROOT, Block, Example, blocks

BLOCKS = [block for page in PAGES for block in blocks(page)]
LANGUAGES = {"console", "console figures", "text", "toml", "python", "nginx", "haproxy", "json", "ini", "logrotate"} | {
    "dockerfile"
}
NOT_RUN = re.compile(r"^ *(\$|#|>)? *(stillup|make|pip|curl|systemctl|python3?|kill|uvicorn|gunicorn) ", re.MULTILINE)
FOREIGN = {
    "uvicorn, gunicorn": "--access-logfile --backlog --bind --certfile --chdir --daemon --env --graceful-timeout "
    "--group --keep-alive --keyfile --max-requests --max-requests-jitter --pid --preload --statsd-host --threads "
    "--timeout --timeout-worker-healthcheck --umask --user --worker-connections",
    "curl": "--fail-with-body --max-time --retry --retry-all-errors --unix-socket",
    "systemctl, useradd, pip, grep": "--kill-whom --max-count --no-create-home --no-deps --now --quiet --shell "
    "--signal --system --upgrade",
    "Django's manage.py": "--noinput",
    "docker": "--start-period --interval --read-only --tmpfs",
    "what make starts": "--connections --minutes --reexec --reloads --rounds --seconds",
}
"""Options of other programs that the pages speak of."""


def test_what_is_said_of_a_long_wait_is_on_no_page() -> None:
    """A machine that stands still or is busy makes a command say more; nothing else is passed over."""
    example = Example("stillup stop", "shop  stopped\n", figures=False, where="")
    waits = "  waiting for 1.1, 1.2 to shut the app down; 'stillup stop --now' hurries\n"
    assert example.agrees(f"  boot      0/2 ready                      3 s ...\n{waits}{waits}shop  stopped\n")
    assert not example.agrees(f"{waits}shop  stopped\n  gen 1 drains: 3 in-progress; at most 29 s\n")
    assert not example.agrees("shop  stopped after 3 s ...\n")


def test_what_has_yet_to_move_is_on_no_page() -> None:
    """A rollout is summed up half a second after its cut-over, with all that its old workers have then."""
    example = Example("stillup reload", "  gen 1 drains: 3 in-progress; at most 29 s\n", figures=False, where="")
    assert example.agrees("  gen 1 drains: 12 idle, 3 in-progress; at most 29 s\n")
    assert example.agrees("  gen 1 drains: 3 in-progress, 12 idle; at most 29 s\n")
    assert not example.agrees("  gen 1 drains: 12 idle; at most 29 s\n")


def test_every_block_says_what_it_is() -> None:
    """So that no command escapes: only what is marked ``console`` is run."""
    assert {block.language for block in BLOCKS} <= LANGUAGES, [
        block.where for block in BLOCKS if block.language not in LANGUAGES
    ]
    for block in BLOCKS:
        # logrotate's is run by tests/cases/test_rotating_a_log.py
        if not block.language.startswith(("console", "logrotate")):
            assert not NOT_RUN.search(block.text), f"{block.where}: a command that no test runs"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=lambda block: block.where)
def test_settings_have_keys_that_mean_something(block: Block) -> None:
    """Those of ``stillup.toml``."""
    known = {option for parameter in options.parameters() for option in parameter.opts}
    table = tomllib.loads(block.text)
    for key in table.get("tool", {}).get("stillup", table):
        assert key == "app" or f"--{key}" in known, f"{block.where}: {key}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.where)
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.where, "exec")


def test_every_option_that_a_page_names_is_there() -> None:
    """Of stillup's commands, or of another program's that the table has."""
    known = {option for command in _commands(main) for parameter in command.params for option in parameter.opts}
    known |= {
        option for command in _commands(main) for parameter in command.params for option in parameter.secondary_opts
    }
    known |= {option for options in FOREIGN.values() for option in options.split()} | {"--help", "--version"}
    for page in PAGES:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()):
            assert option in known, f"{page.name}: {option}"


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    """And what it is given are options of what it runs."""
    makefile = (ROOT / "Makefile").read_text()
    named = [found for page in PAGES for found in re.findall(r"`make ([a-z-]+)(.*?)`", page.read_text(), re.DOTALL)]
    named += [found for block in BLOCKS for found in re.findall(r"^\$ make ([a-z-]+)(.*)$", block.text, re.MULTILINE)]
    assert named
    for target, words in named:
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
        assert recipe, f"make {target}"
        for option in re.findall(r"--[a-z]+", words):
            module = re.search(r"python -m ([a-z._]+) .*\$\(OPTIONS\)", recipe[1])
            assert module, f"make {target} {words}"
            source = ROOT / module[1].replace(".", "/")
            path = source.with_suffix(".py") if source.with_suffix(".py").exists() else source / "__main__.py"
            assert f'"{option}"' in path.read_text(), f"make {target} {words}"


def test_make_help_has_every_target_and_what_it_does() -> None:
    """Those that somebody types; a file's name is none."""
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for target in re.findall(r"^([a-z-]+):", makefile, re.MULTILINE):
        assert re.search(rf"^  make {target} +\S", shown.stdout, re.MULTILINE), target


def _commands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    found = [command.get_command(context, name) for name in command.list_commands(context)]
    return [command, *(inner for one in found if one is not None for inner in _commands(one))]

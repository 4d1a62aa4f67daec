"""``stillup completion``: the shells' own word for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillup.__main__ import main
from tests.system.harness import FULL

BASH = """
eval "$(stillup completion bash)"
at_tab() {
  COMP_WORDS=(stillup "$@") COMP_CWORD=$# COMPREPLY=()
  _stillup_completion stillup
  echo "${COMPREPLY[*]}"
}
at_tab rel
at_tab run --max-worker-a
"""
"""What bash does at Tab: it sets these variables and calls the function that was registered."""


def typed(shell: str, script: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = subprocess.run(
        [shell, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": path},
    )
    assert (shown.returncode, shown.stderr) == (0, ""), shown
    return shown.stdout


def test_bash(tmp_path: Path) -> None:
    """Commands and options are completed; also where the configuration file here is broken."""
    (tmp_path / "stillup.toml").write_text("broken")
    assert typed("bash", BASH, tmp_path) == "reload\n--max-worker-age\n"


@pytest.mark.skipif(not FULL, reason="bash is tried always; PROVE=full tries the others, where they are")
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells(tmp_path: Path, shell: str) -> None:
    """Each reads its script without a complaint, and knows the command then."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    if shell == "zsh":
        script = 'autoload -Uz compinit; compinit -D -u; eval "$(stillup completion zsh)"; print -r -- $_comps[stillup]'
    else:
        script = "eval (stillup completion fish | string collect); complete --do-complete 'stillup relo'"
    assert ("_stillup_completion" if shell == "zsh" else "reload") in typed(shell, script, tmp_path)


def test_a_shell_that_is_none() -> None:
    """Which there are is said."""
    shown = CliRunner().invoke(main, ["completion", "csh"])
    assert (shown.exit_code, "bash" in shown.output, "zsh" in shown.output) == (2, True, True)

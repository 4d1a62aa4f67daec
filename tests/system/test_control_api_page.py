"""docs/control-api.md: what it says is so, since every example on it is run here, in order, against a real service."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from supervisor.wire.operations import OPERATIONS, PROBLEMS, Door
from tests.system.harness import APP, ROOT, Service

PAGE = (ROOT / "docs" / "control-api.md").read_text()
FLAGS = doctest.ELLIPSIS
PLACES = ("/srv/shop", "/run/stillup/shop")


def examples() -> Iterator[tuple[str, str]]:
    """Every command of the page's console blocks, and what it is said to print."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


def test_every_operation_and_problem_is_on_the_page() -> None:
    """With its role, and where it can be asked for; and every operation is asked for in an example."""
    asked = "\n".join(command for command, _ in examples())
    for one in OPERATIONS:
        doors = ", ".join(f"`{door}`" for door in Door if door in one.doors)
        assert f"| `{one.method} {one.path}` | {one.role} | {doors} | {one.what} |" in PAGE
        assert re.search(rf"localhost{re.sub(r'{id}', '[0-9]', one.path)}(['? ]|$)", asked, re.MULTILINE), one.path
    for code, status in PROBLEMS.items():
        assert f"| `{code}` | {status} |" in PAGE


def test_the_examples_are_true(tmp_path: Path) -> None:
    """Each prints what the page says, `...` standing for anything."""
    shop = tmp_path / "shop"
    service = Service(
        tmp_path,
        "main:app",
        *("--name", "shop", "--directory", str(shop / "current"), "--health-path", "/healthz"),
        workers=2,
    )
    for number, source in ((41, APP), (42, APP), (43, "import nosuch\n")):
        (shop / "releases" / str(number)).mkdir(parents=True)
        service.write(source, f"v{number}", f"shop/releases/{number}/main.py")
    (shop / "current").symlink_to("releases/41")
    service.tracebacks_expected = True
    here = dict(zip(PLACES, (str(shop), str(service.runtime)), strict=True))
    checker = doctest.OutputChecker()
    before = ""
    with service:
        for command, output in examples():
            if re.fullmatch(r"\w+=\S+", command):
                before += f"{command}\n"
                continue
            printed = run(before + command, here)
            same = checker.check_output(output, printed, FLAGS)
            assert same, f"$ {command}\n{printed}\ninstead of\n{output}\n{service.log()}"
        assert service.process.wait(30) == 0


def run(script: str, here: dict[str, str]) -> str:
    """What a script prints, in a place of its own instead of the page's."""
    for place, instead in here.items():
        script = script.replace(place, instead)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )
    for place, instead in here.items():
        done.stdout = done.stdout.replace(instead, place)
    return done.stdout

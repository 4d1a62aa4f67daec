"""Every command of the documentation is run, in order, on a machine of its own: what a page says is so."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks
from tests.docs.terminals import Terminals, why_not
from tests.system.wheels import build_wheels, put_python3, shared_folder

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=f"no namespaces: {why_not()}"),
    pytest.mark.timeout(300),  # a page is many commands: a minute, on a machine that others share
]

ELSEWHERE = {
    "fleet.md": "before real balancers, by make prove-fleet: tests/system/fleet",
    "deploy.md": "in a booted systemd: tests/system/manager/test_deploy_page.py",
    "benchmarks.md": "each takes minutes: test_blocks.py sees that there are such targets, with such options",
    "CONTRIBUTING.md": "it is what runs this: test_blocks.py",
}
"""Pages whose commands are not run here, and why."""
RUN = [page for page in PAGES if page.name not in ELSEWHERE]
SETTINGS: dict[tuple[str, str], str] = {
    ("control-api.md", ""): """
        mkdir -p /srv/shop/releases/{41,42,43} && ln -s releases/41 /srv/shop/current
        cat > /srv/shop/releases/41/main.py <<'END'
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        app = Starlette(routes=[Route("/healthz", lambda request: PlainTextResponse("ok\\n"))])
        END
        cp /srv/shop/releases/41/main.py /srv/shop/releases/42
        echo 'import nosuch' > /srv/shop/releases/43/main.py
        """,
}
"""What is there before a section of a page is followed."""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip finds what it would have from PyPI."""
    folder = shared_folder(tmp_path_factory.getbasetemp())
    if reason := build_wheels(folder):
        pytest.skip(reason)
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_command_does_what_its_page_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In the order of the page; each prints what stands there, but for what is left open."""
    pip = {}
    if any("pip install" in block.text for block in blocks(page)):
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(request.getfixturevalue("wheels"))}
        put_python3(tmp_path / "python", Path(sys.executable))
    section = None
    with Terminals(tmp_path, pip) as terminals:
        terminals.run(f"PATH={tmp_path}/python:$PATH")
        for block in blocks(page):
            if block.section != section:
                section = block.section
                terminals.run(textwrap.dedent(SETTINGS.get((page.name, section), "")))
            for example in block.examples():
                terminals.follow(example)
        assert not any(terminals.exit_codes())


def test_make_run_says_what_to_try(tmp_path: Path) -> None:
    """And each of that works: beside the tree, so that nothing is installed and no ``run`` is left in it."""
    with Terminals(tmp_path, {}) as terminals:
        terminals.run(
            f"ln -s {ROOT}/{{Makefile,app_example,pyproject.toml}} . && mkdir .venv && "
            f"ln -s {sys.prefix}/{{bin,lib,pyvenv.cfg}} .venv && touch .venv/installed"
        )
        said = re.findall(r"^  (\S*(?:curl|stillup) .*?)(?: +#.*)?$", terminals.start("make run"), re.MULTILINE)
        printed = [terminals.run(command) for command in said]
        assert "hello from worker 1." in printed[0]
        assert "ok  gen 2 serving, 0 connections closed" in printed[1]
        assert '"outcome": "succeeded"' in printed[2]
        assert "gen 3     serving" in printed[3]

"""What a release's own environment needs: that what a worker imports is there, and no more."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import stillup
from tests.system.harness import Service, check, eventually

APP = """
    import sys

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("nothing but http")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"VERSION in {sys.prefix}".encode()})
"""


def _distributions(*names: str) -> Iterator[metadata.Distribution]:
    """Those, and what they need in turn, without extras."""
    todo, seen = list(names), set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        yield (found := metadata.distribution(name))
        wanted = map(Requirement, found.requires or ())
        todo += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def test_a_release_needs_only_what_a_worker_imports(tmp_path: Path) -> None:
    """With uvicorn (which needs h11 and click), msgspec and stillup an app boots, is probed, serves and is reloaded."""
    environment = tmp_path / "venv"
    venv.create(environment)
    packages = environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for one in _distributions("uvicorn", "msgspec"):
        for top in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(str(one.locate_file(top)))
    (packages / "stillup").symlink_to(Path(stillup.__file__).parent)
    modules = {path.name for path in packages.iterdir() if "-" not in path.name and not path.name.startswith("_")}
    assert modules == {"click", "h11", "msgspec", "stillup", "uvicorn"}
    python = str(environment / "bin" / "python")
    service = Service(tmp_path, "main:app", "--python", python, "--health-path", "/", environment={"PYTHONPATH": ""})
    service.write("import nosuch")
    assert "No module named 'nosuch'" in check(tmp_path, python).stderr
    service.write(APP)
    checked = check(tmp_path, python)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.endswith("    / is healthy\n")
    with service:
        assert service.get() == f"v1 in {environment}"
        service.write(APP, version="v2")
        done = service.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        eventually(lambda: service.get() == f"v2 in {environment}", "it answers, a moment after the cut-over")

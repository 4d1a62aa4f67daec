"""What a page's pip has instead of PyPI, and what its ``python3 -m venv`` makes.

The wheel of stillup, as it is installed here, is installed by the real pip. All that it needs is in the virtual
environment already, as links to what is installed here, and so is pip: making anew what is not ours takes 10 s of a
CPU. With ``PROVE=full`` everything is: a bare environment with a pip of its own, and wheels of all.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement

from tests.system.harness import FULL

_PYTHON3 = """\
#!/bin/bash
# python3; but an environment that it makes has links to what is in {packages}.
[[ "$1 $2" == '-m venv' ]] || exec {python} "$@"
{python} -m venv --without-pip "${{@:3}}" || exit
made=${{@: -1}}
for link in {packages}/*; do
    [[ -e $made/{library}/${{link##*/}} ]] || cp -d "$link" "$made/{library}/"
done
printf '#!/bin/sh\\nexec "$(dirname "$0")/python" -m pip "$@"\\n' > "$made/bin/pip"
chmod +x "$made/bin/pip"
"""


def build_wheels(folder: Path) -> str:
    """Build them into a folder, unless another process has; why that cannot be, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return "" if list(folder.glob("stillup-*.whl")) else _build(folder)


def _build(folder: Path) -> str:
    # What is installed here: a wheel, or the tree that it was installed from.
    source = json.loads(metadata.distribution("stillup").read_text("direct_url.json") or "")["url"]
    source = unquote(source.removeprefix("file://"))
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder), source]
    if not FULL:
        argv.append("--no-deps")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    return f"the packages are not to be had: {done.stderr}" if done.returncode != 0 else ""


def put_python3(folder: Path, python: Path, seen_as: str = "") -> None:
    """Put a ``python3`` into a new folder that is that one, but for the environments that it makes.

    ``seen_as``: where the folder is for those who run it, if not there.
    """
    folder.mkdir()
    (folder / "packages").mkdir()
    for path in sorted(set(_files_of_dependencies())):
        (folder / "packages" / path.name).symlink_to(path)
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    script = _PYTHON3.format(packages=f"{seen_as or folder}/packages", python=python, library=library)
    (folder / "python3").write_text(script if not FULL else f'#!/bin/sh\nexec {python} "$@"\n')
    (folder / "python3").chmod(0o755)


def _files_of_dependencies() -> Iterator[Path]:
    """What lies in site-packages of pip, and of all that stillup's metadata asks for."""
    todo, seen = [("pip", ""), ("stillup", "")], set()
    while todo:
        name, extra = one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        found = metadata.distribution(name)
        for wanted in map(Requirement, found.requires or ()):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                todo += [(wanted.name, extra) for extra in ("", *wanted.extras)]
        if name != "stillup":
            tops = {file.parts[0] for file in found.files or ()}
            yield from (Path(str(found.locate_file(top))) for top in tops - {"..", "__pycache__"})


def shared_folder(base: Path) -> Path:
    """A folder that all processes of this test session know, in the directory of one of them."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    return base.parent / f"wheels-{run}" if run else base / "wheels"

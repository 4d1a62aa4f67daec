"""Convert Autobahn's fuzzer from Python 2: ``python -m tests.autobahn.suite_conversion SOURCE TARGET``.

It runs where fissix is installed, which is lib2to3 for any Python. Four things are beyond it:

1. Octet strings. A source is read as if each octet were a character, so that each literal is the ``str`` that has the
   octets of Python 2's; ``octets`` has the rest.
2. ``/`` of two integers, and classes with ``object`` before another base.
3. Pickles were compared, where equal values in Python 3 may have different ones.
4. What is left out, as no case needs it: reports in HTML, TLS, and a case that the suite itself does not run.
"""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path

REPLACED = (
    (r"^#.*coding[:=].*$", ""),
    (r"\b(binascii|hashlib|pkg_resources)\b", "octets"),
    (r"v\.validate\((vss\[:i\])\)", r"v.validate(octets.encoded(\1))"),
    (r"msg = msg\.decode\(", "msg = octets.encoded(msg).decode("),
    (r"pickle\.dumps\((obj\d)\)", r"\1"),
    (r"\(object, Case, \)", "(Case, )"),
    (r"len\(self\.payload\) / ", "len(self.payload) // "),
    (r"from report import .*(\n +[A-Z]+_.*)*", ""),
    (r"from twisted\.internet import reactor, ssl", "from twisted.internet import reactor"),
    (r"json\.dumps\(case, ", "json.dumps(case, default = octets.decoded, "),
    (r"ssl\.ClientContextFactory\(\)", "None"),
    (r"from case9_9_1 import \*", ""),
)
"""In each source, before fissix sees it."""
INIT = "from ._version import __version__ as version\n"
"""The package's own imports all its servers."""


def converted(source: Path, target: Path) -> None:
    """Write what the fuzzing client needs of the package ``source`` as a package of Python 3."""
    refactor = importlib.import_module("fissix.refactor")
    tool = refactor.RefactoringTool(refactor.get_fixers_from_package("fissix.fixes"))
    shutil.copytree(source / "testdata", target / "testdata")
    (target / "case").mkdir()
    files = [source / name for name in ("fuzzing.py", "caseset.py", "_version.py")]
    for file in [*files, *(source / "case").glob("*.py")]:
        if file.stem != "case9_9_1":
            text = file.read_text(encoding="latin-1") + "\n"
            for pattern, replacement in REPLACED:
                text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
            tree = tool.refactor_string(text, str(file))  # beside that file are those that it imports
            (target / file.relative_to(source)).write_text(str(tree), encoding="utf-8")
    (target / "__init__.py").write_text(INIT, encoding="utf-8")


if __name__ == "__main__":
    converted(Path(sys.argv[1]), Path(sys.argv[2]))

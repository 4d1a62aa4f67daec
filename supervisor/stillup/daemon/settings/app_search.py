"""Finds the app of a project by reading its sources: nothing of it is imported or run."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

FRAMEWORKS: Final = {
    "FastAPI": "asgi",
    "Starlette": "asgi",
    "Quart": "asgi",
    "Litestar": "asgi",
    "BlackSheep": "asgi",
    "Application": "asgi",
    "Sanic": "asgi",
    "Falcon": "asgi",
    "Esmerald": "asgi",
    "Robyn": "asgi",
    "get_asgi_application": "asgi",
    "ProtocolTypeRouter": "asgi",
    "Flask": "wsgi",
    "Bottle": "wsgi",
    "get_wsgi_application": "wsgi",
}
"""What makes an app, by the last part of its name, and what the app speaks."""
_FACTORIES: Final = ("create_app", "make_app", "get_app", "build_app", "create_application")
_HEALTH: Final = ("/healthz", "/health", "/livez", "/health/", "/healthcheck", "/ping", "/up")
"""Paths that are there to be probed, the likeliest first."""
_FIRST: Final = ("main", "app", "asgi", "application", "server", "api")
"""What the module is called most often, in this order."""
_SKIPPED: Final = frozenset({"node_modules", "venv", "env", "site-packages", "build", "dist", "tests", "test", "docs"})
_DEPTH: Final = 3
"""Levels of folders that are looked through."""
_MOST_FILES: Final = 2000
_MOST_BYTES: Final = 1 << 20


class FoundApp(msgspec.Struct, frozen=True):
    """An app that a source has."""

    name: str
    """``MODULE:ATTRIBUTE``."""
    what: str
    """What it is made by: ``FastAPI``."""
    path: str
    line: int
    app_dir: str = ""
    """Where its module is looked for, if not in the project's folder."""
    is_wsgi: bool = False
    is_factory: bool = False
    health_path: str = ""
    """A path in the same source that looks as if it were there to be probed."""

    @property
    def rank(self) -> tuple[bool, bool, int, int, str]:
        """The likelier one is less: an ASGI app before one that is not, an app before what makes one."""
        module, _, attribute = self.name.partition(":")
        last = module.rpartition(".")[2]
        known = _FIRST.index(last) if last in _FIRST else len(_FIRST)
        return self.is_wsgi, self.is_factory, known, module.count("."), f"{attribute != 'app'}{self.name}"


def search(folder: str) -> list[FoundApp]:
    """The apps below a folder, the likeliest first."""
    found = [app for path in _sources(folder) for app in _apps(folder, path)]
    return sorted(found, key=lambda app: app.rank)


def _sources(folder: str) -> Iterator[str]:
    count = 0
    for place, folders, files in os.walk(folder):
        depth = os.path.relpath(place, folder).count(os.sep) + (place != folder)
        folders[:] = sorted(
            one for one in folders if not one.startswith((".", "_")) and one not in _SKIPPED and depth < _DEPTH
        )
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("test_") and name != "gunicorn.conf.py":
                count += 1
                if count > _MOST_FILES:
                    return
                yield os.path.join(place, name)


def _apps(folder: str, path: str) -> Iterator[FoundApp]:
    """Those that one source has at its top level."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _MOST_BYTES:
            return
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    module, app_dir = _module(folder, path)
    health = _health_path(tree)
    for node in tree.body:
        for name, what in _made(node):
            yield FoundApp(
                name=f"{module}:{name}",
                what=what,
                path=os.path.relpath(path, folder),
                line=node.lineno,
                app_dir=app_dir,
                is_wsgi=_speaks(node, what) == "wsgi",
                is_factory=what == "a factory",
                health_path=health,
            )


def _speaks(node: ast.stmt, what: str) -> str:
    """What an app speaks; one that a factory makes by what is called in that."""
    called = (_called(call) for call in ast.walk(node) if isinstance(call, ast.Call))
    return FRAMEWORKS.get(what) or next((FRAMEWORKS[name] for name in called if name in FRAMEWORKS), "asgi")


def _made(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names that a statement gives to apps, and what each is made by."""
    match node:
        case ast.Assign(targets=[ast.Name(name)], value=ast.Call() as call):
            if (what := _called(call)) in FRAMEWORKS:
                yield name, what
        case ast.AnnAssign(target=ast.Name(name), value=ast.Call() as call):
            if (what := _called(call)) in FRAMEWORKS:
                yield name, what
        case ast.AsyncFunctionDef(name=name, args=arguments):
            if [one.arg for one in arguments.args] == ["scope", "receive", "send"]:
                yield name, "ASGI"
        case ast.FunctionDef(name=name, args=arguments) if name in _FACTORIES:
            if len(arguments.args) == len(arguments.defaults):
                yield name, "a factory"


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(name):
            return name
        case ast.Attribute(attr=name):
            return name
    return ""


def _health_path(tree: ast.Module) -> str:
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return next((path for path in _HEALTH if path in texts), "")


def _module(folder: str, path: str) -> tuple[str, str]:
    """The module's name, and the folder that it is found from where that is not the project's: ``src``, most often."""
    parts: Sequence[str] = os.path.relpath(path, folder).removesuffix(".py").split(os.sep)
    parts = parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts
    if parts[0] == "src" and len(parts) > 1 and not os.path.exists(os.path.join(folder, "src", "__init__.py")):
        return ".".join(parts[1:]), "src"
    return ".".join(parts), ""

"""A debugger in a worker that has the terminal as its stdin: ``breakpoint()``, and whatever else is made of ``pdb``.

While it has the terminal no save reloads, no other worker's debugger asks, and what it prints is not kept back in the
pipe of a boot. It is known when it asks for a command (``pdb.Pdb.interaction``), not when ``breakpoint()`` is called,
which only says where to stop.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

from stillup.host import descriptors, terminal

_MODULE: Final = "pdb"
Outputs = Callable[[], tuple[int, int] | None]
"""Where stdout and stderr lead in the end, while they are a pipe."""


def install(outputs: Outputs) -> None:
    """Let ``pdb`` take the terminal when it is imported, or now, if it was."""
    if _MODULE in sys.modules:
        _take_terminal(sys.modules[_MODULE], outputs)
    else:
        sys.meta_path.insert(0, _Finder(outputs))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``pdb``, once."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = self._executing(loader.exec_module)
        return spec

    def _executing(self, execute: Callable[[types.ModuleType], None]) -> Callable[[types.ModuleType], None]:
        def executed(module: types.ModuleType) -> None:
            execute(module)
            _take_terminal(module, self._outputs)

        return executed


def _take_terminal(module: Any, outputs: Outputs) -> None:
    interact = module.Pdb.interaction
    depth = 0

    @functools.wraps(interact)
    def interaction(*args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        with contextlib.ExitStack() as stack:
            if not depth:  # its own 'debug' command begins another inside
                stack.enter_context(terminal.read_alone())
                stack.enter_context(_shown(outputs()))
            depth += 1
            try:
                return interact(*args, **kwargs)
            finally:
                depth -= 1

    module.Pdb.interaction = interaction


@contextlib.contextmanager
def _shown(outputs: tuple[int, int] | None) -> Iterator[None]:
    """Let stdout and stderr lead where they will, while it lasts."""
    if outputs is None:
        yield
        return
    _flush()
    before = [descriptors.duplicate(fd) for fd in (1, 2)]
    for fd, target in zip(outputs, (1, 2), strict=True):
        os.dup2(fd, target)
    try:
        yield
    finally:
        _flush()
        for fd, target in zip(before, (1, 2), strict=True):
            descriptors.put_in_place(fd, target)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()

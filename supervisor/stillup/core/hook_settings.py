"""What an operator has run around each rollout: programs, each as a list of words, without a shell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

PYTHON: Final = "python"
"""As the first word it is the release's interpreter."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,31}")
"""A word that is shown: no option, no address and no path."""


class HookKind(StrEnum):
    """When a hook is run."""

    BEFORE = "before"
    """Before the first worker of a rollout; the rollout waits for it, and is rejected if it fails."""
    AFTER = "after"
    """Once the rollout has cut over; nothing waits for it."""


class Hooks(msgspec.Struct, frozen=True):
    """The programs; none is run where there are no words."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def of(self, kind: HookKind) -> tuple[str, ...]:
        """The words of one of them."""
        return self.before if kind is HookKind.BEFORE else self.after


def shown(words: Sequence[str]) -> str:
    """How people call a program: ``manage.py migrate`` for ``python manage.py migrate --noinput``.

    Its name, and the plain words right behind it: whoever may look at the service reads this, and an option or an
    address may hold a secret.
    """
    program, *rest = words
    if program == PYTHON and rest[:1] == ["-m"] and len(rest) > 1:
        _, program, *rest = rest
    elif program == PYTHON and rest and not rest[0].startswith("-"):
        program, *rest = rest
    name = program.rpartition("/")[2]
    plain: list[str] = []
    for word in rest:
        if _PLAIN.fullmatch(word) is None:
            break
        plain.append(word)
    return " ".join([name, *plain[:3]])

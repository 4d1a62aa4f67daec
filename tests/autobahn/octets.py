"""What the converted fuzzer takes for Python 2's ``binascii``, ``hashlib`` and ``pkg_resources``.

In it an octet string is what it was in Python 2, a ``str`` with a character for each octet. It becomes ``bytes``, and
comes from them, where the fuzzer meets the network (``fuzzing_client``) and here.
"""

from __future__ import annotations

import binascii
import hashlib
import importlib
import os
from typing import Any


def encoded(value: Any) -> Any:
    """Text as the octets that it stands for; anything else as it is."""
    return value.encode("latin-1") if isinstance(value, str) else value


def decoded(value: Any) -> Any:
    """Octets as text; anything else as it is."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def b2a_hex(value: Any) -> str:
    """Of either kind, as text."""
    return binascii.b2a_hex(encoded(value)).decode()


hexlify = b2a_hex


class Hash:
    """A hash that takes either kind."""

    def __init__(self) -> None:
        self._hash = hashlib.sha1(usedforsecurity=False)

    def update(self, value: Any) -> None:
        self._hash.update(encoded(value))

    def digest(self) -> bytes:
        return self._hash.digest()


sha1 = Hash


def resource_filename(package: str, name: str) -> str:
    """Where a file of a package is."""
    return os.path.join(importlib.import_module(package).__path__[0], name)

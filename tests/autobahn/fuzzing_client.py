"""Run cases of the converted suite against a server: ``python -m tests.autobahn.fuzzing_client SPEC``.

``SPEC`` is the file that `wstest -m fuzzingclient -s` takes, with two words more. ``"share"``, ``[1, 4]`` for example,
is the second of four parts of the cases. ``"reloads"`` is a file in which is how many reloads have begun, and how many
have ended: a case begins only when its open connection has seen a whole one.

It runs where Twisted and autobahn 0.10.9 are installed, the last one with the interface that the suite uses.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.autobahn import octets

SENDS = ("sendFrame", "sendMessage", "sendMessageFrameData", "sendCloseFrame")
"""Methods that cases call with octet strings, which are ``bytes`` from there on."""
RECEIVES = ("onMessage", "onPong", "logRxOctets", "logRxFrame", "logTxOctets", "logTxFrame")
"""And that are called with ``bytes``, which are octet strings from there on."""
PAUSE = 0.05
"""Seconds between two looks at the reloads."""

Method = Callable[..., Any]


def repeated(payload: bytes, length: int | None) -> bytes:
    """The payload, over and over up to that length."""
    return payload if length is None else (payload * (length // len(payload) + 1))[:length]


def _sending(method: Method) -> Method:
    @functools.wraps(method)
    def send(protocol: Any, *given: Any, **named: Any) -> Any:
        named = {name: octets.encoded(value) for name, value in named.items()}
        if "payload_len" in named:  # autobahn's own way of doing this is Python 2's
            named["payload"] = repeated(named["payload"], named.pop("payload_len"))
        return method(protocol, *map(octets.encoded, given), **named)

    return send


def _receiving(method: Method) -> Method:
    def decoded(value: Any) -> Any:
        return [octets.decoded(part) for part in value] if isinstance(value, list) else octets.decoded(value)

    @functools.wraps(method)
    def receive(protocol: Any, *given: Any, **named: Any) -> Any:
        return method(protocol, *map(decoded, given), **{name: decoded(value) for name, value in named.items()})

    return receive


def _after_a_reload(method: Method, reloads: Path, reactor: Any) -> Method:
    """Call it when one has begun and ended; not at all if the connection is closed by then, which fails the case."""

    def counts() -> list[int]:
        return [int(word) for word in reloads.read_text().split()]

    @functools.wraps(method)
    def on_open(protocol: Any) -> None:
        begun = counts()[0]

        def look() -> None:
            if protocol.state != protocol.STATE_OPEN:
                return
            if counts()[1] > begun:
                method(protocol)
            else:
                reactor.callLater(PAUSE, look)

        look()

    return on_open


def main(file: str) -> None:
    """Run the cases, and write the reports."""
    sys.modules["octets"] = octets
    fuzzing = importlib.import_module("autobahntestsuite.fuzzing")
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    importlib.import_module("twisted.python.log").startLogging(sys.stderr)
    protocol = fuzzing.FuzzingClientProtocol
    for names, change in ((SENDS, _sending), (RECEIVES, _receiving)):
        for name in names:
            setattr(protocol, name, change(getattr(protocol, name)))
    factory = fuzzing.FuzzingClientFactory
    factory.createReports = functools.partialmethod(factory.createReports, produceHtml=False)
    spec = json.loads(Path(file).read_text(encoding="utf-8"))
    if "reloads" in spec:
        protocol.onOpen = _after_a_reload(protocol.onOpen, Path(spec["reloads"]), reactor)
    words = fuzzing.CaseSetname, fuzzing.CaseBasename
    cases = fuzzing.CaseSet(*words, fuzzing.Cases, fuzzing.CaseCategories, fuzzing.CaseSubCategories)
    first, step = spec["share"]
    spec["cases"] = cases.parseSpecCases(spec)[first::step]
    if not spec["cases"]:
        return
    fuzzing.startClient(spec)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])

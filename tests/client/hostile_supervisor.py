"""A supervisor that says everything it can say in a terminal's own language: each text of each answer is an attack.

The answers are made from the shapes in the table of operations, so what is added there is said, too.
"""

from __future__ import annotations

import http.server
import os
import re
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

from stillup.wire.api_operation import JSON, NDJSON, Operation
from stillup.wire.api_shapes import Problem
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.event_feed import Event
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import PROBLEM
from stillup.wire.runtime_paths import CONTROL
from stillup.wire.trace_messages import TraceLine

ATTACK = "\x1b]52;c;aGk=\x07\x1b[35m\x1b[2J\x9b31m\x85\r\nok  gen 9 serving\x7f\u202e\u2066\u2028\u200b\x08\0\U000e0041"
"""The clipboard (OSC 52), colours, a screen that is cleared, C1, a false line, marks of direction, a tag."""


def hostile(shape: Any) -> Any:
    """A value of that shape, each text of which is ATTACK."""
    return msgspec.convert(_value(inspect.type_info(shape)), shape)


def _value(info: inspect.Type) -> Any:
    match info:
        case inspect.StrType(pattern=str()):
            return "worker.dances"
        case inspect.StrType():
            return ATTACK
        case inspect.IntType(ge=least):
            return max(7, least or 0)
        case inspect.FloatType():
            return 1.5
        case inspect.BoolType():
            return True
        case inspect.AnyType():
            return ATTACK
        case inspect.NoneType():
            return None
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.DateTimeType():
            return datetime.now(UTC)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [_value(item)]
        case inspect.DictType(key_type=key, value_type=value):
            return {_value(key): _value(value)}
        case inspect.UnionType(types=types):
            return _value(next(one for one in types if not isinstance(one, inspect.NoneType)))
        case inspect.StructType() | inspect.DataclassType():
            tag, named = getattr(info, "tag", None), getattr(info, "tag_field", None)
            said = {field.encode_name: _value(field.type) for field in info.fields}
            return {**said, **({named: tag} if named else {})}
        case _:
            raise AssertionError(f"no attack for {info}")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: _Answers


class _Answers:
    """What is said; ``replaced`` counts the supervisor's programs."""

    def __init__(self, rollout: Mapping[str, Any], refuses: str, status: Mapping[str, Any]) -> None:
        self.rollout = rollout
        self.status = status
        self.refuses = refuses
        self.replaced = 0

    def of(self, operation: Operation) -> tuple[int, str, bytes]:
        """Status, media type and body."""
        if self.refuses == operation.name:
            return 409, PROBLEM, msgspec.json.encode(hostile(Problem))
        if operation.name == "events":
            kinds = [hostile(kind) for kind in (*get_args(Event), AnyEvent)]
            return 200, NDJSON, b"".join(msgspec.json.encode(event) + b"\n" for event in kinds)
        if operation.name == "trace":
            lines = [hostile(line) for line in get_args(TraceLine)]
            lines += [msgspec.structs.replace(line, socket="control") for line in lines if hasattr(line, "socket")]
            return 200, NDJSON, b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        status, answer = next(iter(operation.answers.items()))
        said = hostile(answer.shape[JSON])
        if operation.name == "reexec":
            self.replaced += 1
        if operation.name == "status":
            said = msgspec.structs.replace(said, **{"reexecs": 7 + self.replaced, **self.status})
        for name, value in self.rollout.items():
            if operation.name in ("reload", "rollback", "promote", "abort", "rollout", "scale", "scaling"):
                said = msgspec.structs.replace(said, **({name: value} if name in said.__struct_fields__ else {}))
        return status, JSON, msgspec.json.encode(said)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        operation = next(
            one
            for one in OPERATIONS
            if one.method == self.command and re.fullmatch(re.sub(r"\{\w+\}", r"[0-9]+", one.path), path)
        )
        status, media_type, body = self.server.answers.of(operation)
        if operation.name == "stop":
            with suppress(FileNotFoundError):
                os.unlink(str(self.server.server_address))
        self.send_response(status, "So")
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return ""


@contextmanager
def hostile_supervisor(
    directory: Path,
    rollout: Mapping[str, Any] | None = None,
    refuses: str = "",
    status: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Serve there.

    ``rollout`` and ``status``: what rollouts and scalings, and the status, say after all; ``refuses``: the operation
    that it refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _Server(str(directory / CONTROL), _Handler) as server:
        server.answers = _Answers(rollout or {}, refuses, status or {})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(10)

"""HTTP over the control socket: one request a connection, answers as msgspec structs."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Literal, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from supervisor.errors import PeerError, StillupError
from supervisor.wire import entry, trace
from supervisor.wire.control import (
    PROBLEM,
    PROBLEM_TYPE,
    GenerationView,
    ListenerView,
    Problem,
    Replacing,
    RolloutView,
    ScalingView,
    Status,
    Versions,
    Whoami,
    WorkerView,
)
from supervisor.wire.entry import AnyEvent
from supervisor.wire.events import Event
from supervisor.wire.operations import API_HEADER, OPERATIONS, version
from supervisor.wire.places import CONTROL
from supervisor.wire.trace import TraceLine

T = TypeVar("T")

Wait = Literal["cut-over", "drained"]
"""How far a rollout is waited for: until the new generation serves, or until the old one has left, too."""

TIMEOUT: Final = 30.0
"""Seconds for an answer to what needs no waiting for."""
PAUSE: Final = 0.1
"""Seconds between two looks whether a supervisor that was told to stop is still there."""
_WAITS: Final = {"cut-over": "true", "drained": "drained"}
_TABLE: Final = {operation.name: operation for operation in OPERATIONS}
_WITH_ANY: Final = frozenset({"status", "livez", "version", "stop", "reexec"})
"""Asked without our version: with these an operator gets from an older supervisor to one that is new enough."""


class NotRunningError(StillupError):
    """Nobody answers in that runtime directory, or in any of those where a service may be."""

    def __init__(self, message: str, directory: str = "") -> None:
        super().__init__(message)
        self.directory = directory


class TimedOutError(StillupError):
    """The supervisor is there and did not answer in time. What was asked for may happen all the same."""


class ProblemError(StillupError):
    """The supervisor said no, or the thing did not happen; ``problem`` says why.

    Of a rollout that failed, ``problem.rollout`` is how it ended, with the failed worker's own output.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable last word of its type."""
        return self.problem.type.rpartition(":")[2]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not settimeout(), which makes it non-blocking: a queue that is full would be EAGAIN at once (unix(7)).
            if self._seconds is not None:
                whole, part = divmod(max(self._seconds, 1e-6), 1)
                limit = struct.pack("ll", int(whole), int(part * 1e6))
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self.sock.connect(self._path)
            self.sock.settimeout(self._seconds)
        except OSError:
            self.sock.close()
            raise

    def listener(self) -> int:
        """The pid of whoever listens there, by the kernel's word (SO_PEERCRED, unix(7)); 0 if he is not in sight."""
        told = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", told)[0])

    def wait_for_its_end(self) -> None:
        """Wait until the other end hangs up, however long that takes."""
        self.sock.settimeout(None)
        with contextlib.suppress(ConnectionResetError):
            self.sock.recv(1)


class Stream(Iterator[T], Generic[T]):
    """What a supervisor says until it ends, or until this is closed: use it in ``with``.

    Raises NotRunningError when the supervisor has gone without ending it, PeerError for a line that makes no sense.
    """

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        decode: Callable[[bytes], T],
    ) -> None:
        """Take the connection over; each line of the response is to be decoded."""
        self._connection = connection
        self._response = response
        self._decode = decode
        self._rest = b""

    def __next__(self) -> T:
        # Not readline(), to which a stream that was cut off between two chunks is one that has ended.
        while b"\n" not in self._rest:
            try:
                piece = self._response.read1()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                raise NotRunningError(f"the supervisor has hung up ({type(error).__name__})") from error
            if not piece:
                self.close()
                raise StopIteration
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return self._decode(line)

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Client:
    """The supervisor whose control socket is in ``directory``; ``timeout``: the seconds that it may take to answer.

    Every method raises NotRunningError when nobody answers there, TimedOutError when it takes too long, ProblemError
    when the supervisor says no, and PeerError when what it says makes no sense. A supervisor that is older than this
    client says so: ProblemError, ``client-too-new``, with both versions.

    Where there is ``wait``, the call returns when the thing has happened; when it did not, that is a ProblemError.
    Such a call has no limit of time but its own ``timeout``.
    """

    directory: str
    timeout: float = TIMEOUT

    def status(self) -> Status:
        """The whole service."""
        return self._call("status", Status)

    def generations(self) -> list[GenerationView]:
        """Every generation with its workers, the oldest first."""
        return self._call("generations", list[GenerationView])

    def workers(self) -> list[WorkerView]:
        """Every worker."""
        return self._call("workers", list[WorkerView])

    def listeners(self) -> list[ListenerView]:
        """The listeners, with the addresses that they got."""
        return self._call("listeners", list[ListenerView])

    def version(self) -> Versions:
        """The supervisor's version, and those of what it speaks."""
        return self._call("version", Versions)

    def whoami(self) -> Whoami:
        """Who we are by the kernel's word, and what we may do."""
        return self._call("whoami", Whoami)

    def reload(self, *, wait: Wait | None = None, timeout: float | None = None) -> RolloutView:
        """Put a new generation into service: the rollout as it begins, or as far as was waited for.

        Raises:
            ProblemError: with ``wait``: ``rollout-aborted``, ``rolled-back`` or ``superseded``; the old one serves on.
        """
        return self._roll_out("reload", wait, timeout)

    def rollback(self, *, wait: Wait | None = None, timeout: float | None = None) -> RolloutView:
        """Put the release before the one that serves back into service, as a rollout; as ``reload``.

        Raises:
            ProblemError: also ``no-previous-release``, or ``release-overwritten``: it was changed in place.
        """
        return self._roll_out("rollback", wait, timeout)

    def _roll_out(self, name: str, wait: Wait | None, timeout: float | None) -> RolloutView:
        query = {"wait": _WAITS[wait]} if wait is not None else {}
        return self._call(name, RolloutView, query, waits=wait is not None, timeout=timeout)

    def abort(self) -> RolloutView:
        """Call off the rollout that is before its cut-over: how it ended.

        Raises:
            ProblemError: ``out-of-order``: there is none.
        """
        return self._call("abort", RolloutView)

    def rollout(self, number: int) -> RolloutView:
        """A rollout, under way or ended."""
        return self._call("rollout", RolloutView, id=number)

    def scale(self, workers: int, *, wait: bool = False, timeout: float | None = None) -> ScalingView:
        """Ask for that many workers: the request as it begins, or when so many serve.

        Raises:
            ProblemError: with ``wait``: ``scaling-aborted`` or ``superseded``.
        """
        query = {"workers": workers, **({"wait": "true"} if wait else {})}
        return self._call("scale", ScalingView, query, waits=wait, timeout=timeout)

    def scaling(self, number: int) -> ScalingView:
        """A request for more or fewer workers, under way or ended."""
        return self._call("scaling", ScalingView, id=number)

    def reexec(self) -> None:
        """Replace the supervisor's own program; returns when its trial has succeeded and it is about to be."""
        self._call("reexec", Replacing, waits=True)

    def trace(self) -> Stream[TraceLine]:
        """Every message on the service's two sockets from now on, until this is closed or the supervisor ends."""
        return self._stream("trace", trace.decode)

    def events(self, since: int | None = None, *, follow: bool = False) -> Stream[Event | AnyEvent]:
        """What has happened after event number ``since``, or all that is known; with ``follow`` what happens, too.

        An event of a kind that this version does not know is an AnyEvent; a FeedGap says which are missing. Ends when
        the supervisor ends or replaces its program: whoever asks again with the last ``seq`` misses nothing.
        """
        return self._stream("events", entry.decode, _events(since, follow=follow))

    def event_lines(self, since: int | None = None, *, follow: bool = False) -> Stream[bytes]:
        """The same as lines of JSON, as they came."""
        return self._stream("events", bytes, _events(since, follow=follow))

    def _stream(self, name: str, decode: Callable[[bytes], T], query: Mapping[str, object] | None = None) -> Stream[T]:
        connection = self._request(name, self.timeout, query)
        try:
            response = self._response(connection)
            if response.status != http.client.OK:
                self._decoded(response, dict)
                raise self._senseless()
            connection.sock.settimeout(None)  # it may have nothing to say for long
        except BaseException:
            connection.close()
            raise
        return Stream(connection, response, decode)

    def stop(self) -> None:
        """Stop the service, and wait until the supervisor has ended: it removes its socket, then hangs up."""
        connection = self._request("stop", self.timeout)
        try:
            supervisor = connection.listener()
            self._decoded(self._response(connection), dict)
            connection.wait_for_its_end()
        finally:
            connection.close()
        # A supervisor also hangs up on those who are silent for long; then it is still there to be asked.
        while self._is_there(supervisor):
            time.sleep(PAUSE)

    def _is_there(self, supervisor: int) -> bool:
        """Whether the supervisor of that pid still was there a moment ago; if it answers, once it has hung up."""
        try:
            connection = self._request("livez", self.timeout)
        except (NotRunningError, ProblemError):
            return False  # nobody, or another one, whose socket is not for us
        try:
            if connection.listener() != supervisor:
                return False  # a service manager has started another
            self._decoded(self._response(connection), dict)
            connection.wait_for_its_end()
        except (NotRunningError, ProblemError):
            pass  # it has ended, or has no place for us
        finally:
            connection.close()
        return True

    def _call(
        self,
        name: str,
        shape: type[T],
        query: Mapping[str, object] | None = None,
        *,
        waits: bool = False,
        timeout: float | None = None,
        **path: object,
    ) -> T:
        limit = timeout if waits or timeout is not None else self.timeout
        connection = self._request(name, limit, query, **path)
        try:
            return self._decoded(self._response(connection), shape)
        finally:
            connection.close()

    def _request(
        self, name: str, timeout: float | None, query: Mapping[str, object] | None = None, **path: object
    ) -> _Connection:
        operation = _TABLE[name]
        target = operation.path.format(**path) + (f"?{urlencode(query)}" if query else "")
        connection = _Connection(os.path.join(self.directory, CONTROL), timeout)
        headers = {} if name in _WITH_ANY else {API_HEADER: version()}
        try:
            connection.request(operation.method, target, headers=headers)
        except PermissionError as error:
            connection.close()
            detail = f"{self.directory} is not open to uid {os.geteuid()}; '{name}' needs '{operation.role}'"
            raise ProblemError(Problem(f"{PROBLEM_TYPE}not-permitted", "not permitted", 403, detail)) from error
        except (TimeoutError, BlockingIOError) as error:
            connection.close()
            raise self._timed_out() from error
        except OSError as error:
            connection.close()
            why = "" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else f" ({error})"
            raise NotRunningError(f"no supervisor runs in {self.directory}{why}", self.directory) from error
        return connection

    def _response(self, connection: _Connection) -> http.client.HTTPResponse:
        try:
            return connection.getresponse()
        except TimeoutError as error:
            raise self._timed_out() from error
        except http.client.RemoteDisconnected as error:
            raise self._ended() from error
        except http.client.HTTPException as error:
            raise self._senseless() from error
        except OSError as error:
            raise self._ended() from error

    def _decoded(self, response: http.client.HTTPResponse, shape: type[T]) -> T:
        try:
            body = response.read()
        except TimeoutError as error:
            raise self._timed_out() from error
        except (http.client.HTTPException, OSError) as error:
            raise self._ended() from error
        try:
            if response.getheader("content-type") == PROBLEM:
                raise ProblemError(msgspec.json.decode(body, type=Problem))
            if response.status >= http.client.BAD_REQUEST:
                raise self._senseless()
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._senseless() from error

    def _timed_out(self) -> TimedOutError:
        return TimedOutError(
            f"the supervisor in {self.directory} did not answer in time; 'stillup doctor' looks at why"
        )

    def _ended(self) -> NotRunningError:
        return NotRunningError(f"the supervisor in {self.directory} ended before it answered", self.directory)

    def _senseless(self) -> PeerError:
        return PeerError(f"the supervisor in {self.directory} gave an answer that makes no sense here")


def _events(since: int | None, *, follow: bool) -> dict[str, object]:
    return {"follow": str(follow).lower(), **({"since": since} if since is not None else {})}

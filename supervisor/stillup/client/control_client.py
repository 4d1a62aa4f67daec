"""The client of the control API: one request a connection, answers as msgspec structs."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from stillup.client.client_errors import HungUpError, NotRunningError, ProblemError, TimedOutError
from stillup.client.control_connection import connect, timed_out, where
from stillup.client.line_stream import Stream
from stillup.client.unix_http import MOST_ANSWER, ControlConnection, EndlessError
from stillup.core.strategy import StrategyName
from stillup.errors import PeerError
from stillup.wire import event_encoding, trace_messages
from stillup.wire.api_shapes import (
    Cordoned,
    GenerationView,
    ListenerView,
    Problem,
    ReadyView,
    Replacing,
    RolloutView,
    ScalingView,
    Status,
    Versions,
    Whoami,
    WorkerView,
)
from stillup.wire.api_version import API_HEADER, version
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.event_feed import Event
from stillup.wire.history_view import RevisionView
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import PROBLEM
from stillup.wire.series_view import SeriesView
from stillup.wire.trace_messages import TraceLine

if TYPE_CHECKING:
    from stillup.client.remote_host import RemoteHost  # 10 ms that are for other hosts

T = TypeVar("T")

Wait = Literal["cut-over", "probation", "drained"]
"""How far a rollout is waited for: until the new generation serves, until that has come through its probation, or until
the old one has left."""

TIMEOUT: Final = 30.0
"""Seconds for an answer to what needs no waiting for."""
_PIECE: Final = 64 * 1024
"""Bytes of a body that are read at a time: its length is the other end's word, and room would be made for all of it."""
PAUSE: Final = 0.1
"""Seconds between two looks whether a supervisor that was told to stop is still there."""
_WAITS: Final = {"cut-over": "true", "probation": "probation", "drained": "drained"}
_TABLE: Final = {operation.name: operation for operation in OPERATIONS}
_WITH_ANY: Final = frozenset({"status", "livez", "version", "stop", "reexec"})
"""Asked without our version: with these an operator gets from an older supervisor to one that is new enough."""


class Client(msgspec.Struct, frozen=True):
    """The supervisor whose control socket is in ``directory``; ``timeout``: the seconds that it may take to answer.

    With ``remote`` it is the one that is meant on that host (UnreachableError: ssh does not lead there); ``directory``
    says nothing then.

    Every method raises NotRunningError when none answers there, TimedOutError when it takes too long, ProblemError
    when the supervisor says no, and PeerError when what it says makes no sense. A supervisor that is older than this
    client says so: ProblemError, ``client-too-new``, with both versions.

    Nobody but the owner of ``directory`` is asked anything there, and none where somebody else than that owner, root or
    the caller could have put another in its place: that is a NotRunningError, too, which says why.

    Where there is ``wait``, the call returns when the thing has happened; when it did not, that is a ProblemError.
    Such a call has no limit of time but its own ``timeout``.
    """

    directory: str
    timeout: float = TIMEOUT
    remote: RemoteHost | None = None

    @property
    def where(self) -> str:
        """For people."""
        return where(self.directory, self.remote)

    def within(self, seconds: float) -> Client:
        """The same; it may take so many seconds to answer."""
        return msgspec.structs.replace(self, timeout=seconds)

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

    def ready(self) -> ReadyView:
        """Whether the service serves.

        Raises:
            ProblemError: ``not-ready``: it does not; the detail says why.
        """
        return self._call("readyz", ReadyView)

    def version(self) -> Versions:
        """The supervisor's version, and those of what it speaks."""
        return self._call("version", Versions)

    def whoami(self) -> Whoami:
        """Who we are by the kernel's word, and what we may do."""
        return self._call("whoami", Whoami)

    def reload(
        self,
        *,
        wait: Wait | None = None,
        timeout: float | None = None,
        force: bool = False,
        hurry: bool = False,
        if_changed: bool = False,
        strategy: StrategyName | None = None,
        **words: float | None,
    ) -> RolloutView:
        """Put a new generation into service: the rollout as it begins, or as far as was waited for.

        With ``hurry`` older generations that drain end streaming answers and WebSockets at once. With ``if_changed``
        nothing is begun if it would bring what serves, or is being brought, already: the answer is that rollout, and
        its ``changed`` is false. What is not said of the strategy is as the service was configured; its ``words`` are
        those of ``POST /v1/reload``, such as ``max_surge=1`` or ``canary_time=60``.

        Raises:
            ProblemError: ``rolled-back-before``, unless it is to be by ``force``; ``usage``: a strategy that cannot
                move so many workers. With ``wait``: ``rollout-aborted``, ``rolled-back``, ``probation-failed``,
                ``superseded`` or ``stopping``.
        """
        flags = {"force": force, "hurry": hurry, "if_changed": if_changed}
        said: dict[str, object] = {name: True for name, flag in flags.items() if flag}
        said |= {"strategy": strategy, **words}
        given = {name: str(word).lower() if isinstance(word, bool) else word for name, word in said.items()}
        return self._roll_out("reload", wait, timeout, {name: word for name, word in given.items() if word is not None})

    def rollback(self, *, to: int | None = None, wait: Wait | None = None, timeout: float | None = None) -> RolloutView:
        """Put the release before the one that serves back into service, as a rollout; as ``reload``.

        Or that of the generation ``to``: if that serves nothing is begun, and ``changed`` of the answer is false.

        Raises:
            ProblemError: also ``no-previous-release``, or ``release-overwritten``: it was changed in place, or removed.
        """
        return self._roll_out("rollback", wait, timeout, {"to": to} if to is not None else {})

    def history(self) -> list[RevisionView]:
        """The generations that were brought, or were to be, the newest first."""
        return self._call("history", list[RevisionView])

    def series(self) -> SeriesView:
        """How the service has done in the last 15 minutes, a point for every 5 seconds."""
        return self._call("series", SeriesView)

    def _roll_out(
        self, name: str, wait: Wait | None, timeout: float | None, query: Mapping[str, object] = MappingProxyType({})
    ) -> RolloutView:
        query = {**query, **({"wait": _WAITS[wait]} if wait is not None else {})}
        return self._call(name, RolloutView, query, waits=wait is not None, timeout=timeout)

    def abort(self) -> RolloutView:
        """Call off the rollout that is before its cut-over: how it ended.

        Raises:
            ProblemError: ``out-of-order``: there is none.
        """
        return self._call("abort", RolloutView)

    def promote(self, *, wait: Wait | None = None, timeout: float | None = None) -> RolloutView:
        """Pass the canary that is watched: its rollout, which goes on, or as far as was waited for; as ``reload``.

        Raises:
            ProblemError: also ``out-of-order``: none is watched.
        """
        return self._roll_out("promote", wait, timeout)

    def rollout(self, number: int) -> RolloutView:
        """A rollout, under way or ended."""
        return self._call("rollout", RolloutView, id=number)

    def scale(
        self, workers: int, *, wait: bool | Literal["drained"] = False, timeout: float | None = None
    ) -> ScalingView:
        """Ask for that many workers: the request as it begins, or when so many serve, and those beyond have left.

        Raises:
            ProblemError: with ``wait``: ``scaling-aborted`` or ``superseded``.
        """
        query = {"workers": workers, **({"wait": "drained" if wait == "drained" else "true"} if wait else {})}
        return self._call("scale", ScalingView, query, waits=bool(wait), timeout=timeout)

    def scaling(self, number: int) -> ScalingView:
        """A request for more or fewer workers, under way or ended."""
        return self._call("scaling", ScalingView, id=number)

    def cordon(self) -> Cordoned:
        """Have no new clients sent: readiness fails, and everything is served on. Idempotent."""
        return self._call("cordon", Cordoned)

    def uncordon(self) -> Cordoned:
        """Have clients sent again. Idempotent."""
        return self._call("uncordon", Cordoned)

    def reexec(self) -> None:
        """Replace the supervisor's own program; returns when its trial has succeeded and it is about to be."""
        self._call("reexec", Replacing, waits=True)

    def trace(self) -> Stream[TraceLine]:
        """Every message on the service's two sockets from now on, until this is closed or the supervisor ends."""
        return self._stream("trace", trace_messages.decode)

    def events(self, since: int | None = None, *, follow: bool = False) -> Stream[Event | AnyEvent]:
        """What has happened after event number ``since``, or all that is known; with ``follow`` what happens, too.

        An event of a kind that this version does not know is an AnyEvent; a FeedGap says which are missing. Ends when
        the supervisor ends or replaces its program: asked again with the last ``seq``, no event is missed.
        """
        return self._stream("events", event_encoding.decode, _events(since, follow=follow), lasts=follow)

    def event_lines(self, since: int | None = None, *, follow: bool = False) -> Stream[bytes]:
        """The same as lines of JSON, as they came."""
        return self._stream("events", bytes, _events(since, follow=follow), lasts=follow)

    def _stream(
        self,
        name: str,
        decode: Callable[[bytes], T],
        query: Mapping[str, object] | None = None,
        *,
        lasts: bool = True,
    ) -> Stream[T]:
        connection = self._request(name, self.timeout, query)
        sock = connection.sock  # which it forgets if the answer is its last
        try:
            response = self._response(connection)
            if response.status != http.client.OK:
                self._decoded(response, dict)
                raise self._senseless()
            if lasts:
                sock.unlimited()  # it may have nothing to say for long
        except BaseException:
            connection.hang_up()
            raise
        return Stream(connection, response, decode)

    def stop(self, *, now: bool = False) -> None:
        """Stop the service, and wait until the supervisor has ended: it removes its socket, then hangs up.

        With ``now`` what is under way is ended; asked for a second time, the workers are killed.
        """
        supervisor = self._instance()
        connection = self._request("stop", self.timeout, {"now": "true"} if now else None)
        try:
            self._decoded(self._response(connection), dict)
            connection.wait_for_its_end()
        finally:
            connection.hang_up()
        # A supervisor also hangs up on those who are silent for long; then it is still there to be asked.
        while self._is_there(supervisor):
            time.sleep(PAUSE)

    def _instance(self) -> str:
        with contextlib.suppress(ProblemError, PeerError):  # be it told so by the stop
            return self.version().instance
        return ""

    def _is_there(self, supervisor: str) -> bool:
        """Whether that supervisor still was there a moment ago; if it answers, once it has hung up."""
        try:
            connection = self._request("version", self.timeout)
        except (NotRunningError, ProblemError):
            return False  # none, or another one, whose socket is not open to us
        try:
            if self._decoded(self._response(connection), Versions).instance != supervisor:
                return False  # a service manager has started another
            connection.wait_for_its_end()
        except HungUpError:
            return True  # it has ended, or has no place for us
        except NotRunningError:
            return False  # as above, by the word of what leads there
        except ProblemError as error:
            return error.code != "not-permitted"
        finally:
            connection.hang_up()
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
            answer = self._decoded(self._response(connection), shape)
        except BaseException:
            connection.hang_up()
            raise
        connection.release()
        return answer

    def _request(
        self, name: str, timeout: float | None, query: Mapping[str, object] | None = None, **path: object
    ) -> ControlConnection:
        operation = _TABLE[name]
        target = operation.path.format(**path) + (f"?{urlencode(query)}" if query else "")
        needs = f"'{name}' needs '{operation.role}'"
        connection = connect(self.directory, self.remote, needs, timeout, used=operation.method == "GET")
        try:
            connection.request(operation.method, target, headers={} if name in _WITH_ANY else {API_HEADER: version()})
        except TimeoutError as error:
            connection.hang_up()
            raise self._timed_out() from error
        except OSError:
            pass  # it has hung up before it had all, and may have said why
        return connection

    def connect(self, needs: str = "every command needs a role", timeout: float | None = TIMEOUT) -> ControlConnection:
        """A connection to the supervisor; ``control_connection.connect`` has its arguments."""
        return connect(self.directory, self.remote, needs, timeout)

    def _response(self, connection: ControlConnection) -> http.client.HTTPResponse:
        sock = connection.sock
        try:
            response = connection.getresponse()
        except TimeoutError as error:
            raise self._timed_out() from error
        except http.client.RemoteDisconnected as error:
            raise connection.objection() or self._ended() from error
        except http.client.HTTPException as error:
            raise self._senseless() from error
        except OSError as error:
            raise connection.objection() or self._ended() from error
        sock.bytes_left = MOST_ANSWER
        return response

    def _decoded(self, response: http.client.HTTPResponse, shape: type[T]) -> T:
        body = self._body(response)
        try:
            if response.getheader("content-type") == PROBLEM:
                raise ProblemError(msgspec.json.decode(body, type=Problem))
            if response.status >= http.client.BAD_REQUEST:
                raise self._senseless()
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._senseless() from error

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        try:
            body = b"".join(iter(lambda: response.read(_PIECE), b""))
        except TimeoutError as error:
            raise self._timed_out() from error
        except (EndlessError, ValueError) as error:  # a chunk of less than no bytes
            raise self._senseless() from error
        except (http.client.IncompleteRead, OSError) as error:
            raise self._ended() from error
        except http.client.HTTPException as error:  # too many trailers, on newer Pythons
            raise self._senseless() from error
        if response.length:  # some of it has not come
            raise self._ended()
        return body

    def _timed_out(self) -> TimedOutError:
        return timed_out(self.where)

    def _ended(self) -> HungUpError:
        return HungUpError(f"the supervisor {self.where} ended before it answered", self.directory)

    def _senseless(self) -> PeerError:
        return PeerError(f"the supervisor {self.where} gave an answer that makes no sense here")


def _events(since: int | None, *, follow: bool) -> dict[str, object]:
    return {"follow": str(follow).lower(), **({"since": since} if since is not None else {})}

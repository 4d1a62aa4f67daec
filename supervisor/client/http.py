"""HTTP over the control socket: one request a connection, answers as msgspec structs."""

from __future__ import annotations

import http.client
import os
import socket
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from supervisor.errors import PeerError, StillupError
from supervisor.wire.control import PROBLEM, Problem, RolloutView, ScalingView, Status
from supervisor.wire.places import CONTROL

T = TypeVar("T")


class NotRunningError(StillupError):
    """Nobody answers in that runtime directory, or in any of those where a service may be."""

    def __init__(self, message: str, directory: str = "") -> None:
        super().__init__(message)
        self.directory = directory


class ProblemError(StillupError):
    """The supervisor said no; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable last word of its type."""
        return self.problem.type.rpartition(":")[2]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


@dataclass(frozen=True)
class Client:
    """The supervisor whose control socket is in ``directory``.

    Every method raises NotRunningError when nobody answers there, ProblemError when the supervisor says no, and
    PeerError when what it says makes no sense.
    """

    directory: str

    def status(self) -> Status:
        return self._call("GET", "/v1/status", Status)

    def reload(self) -> RolloutView:
        """Ask for a reload; the rollout as it begins."""
        return self._call("POST", "/v1/reload", RolloutView)

    def rollout(self, number: int) -> RolloutView:
        return self._call("GET", f"/v1/rollouts/{number}", RolloutView)

    def scale(self, workers: int) -> ScalingView:
        """Ask for that many workers; the request as it begins."""
        return self._call("POST", f"/v1/scale?workers={workers}", ScalingView)

    def scaling(self, number: int) -> ScalingView:
        return self._call("GET", f"/v1/scalings/{number}", ScalingView)

    def reexec(self) -> None:
        """Ask the supervisor to replace its own program."""
        self._call("POST", "/v1/supervisor/reexec", dict)

    def stop(self) -> None:
        """Ask the service to stop, and wait until the supervisor has ended: it removes its socket, then hangs up."""
        method, path = "POST", "/v1/stop"
        while True:
            connection = self._request(method, path)
            try:
                self._answer(connection, dict)
                connection.sock.recv(1)
            except ConnectionResetError:
                pass
            finally:
                connection.close()
            # A supervisor also hangs up on those who are silent for long; then it is still there to be asked.
            method, path = "GET", "/livez"
            try:
                self._request(method, path).close()
            except NotRunningError:
                return

    def _call(self, method: str, path: str, shape: type[T]) -> T:
        connection = self._request(method, path)
        try:
            return self._answer(connection, shape)
        finally:
            connection.close()

    def _request(self, method: str, path: str) -> _Connection:
        connection = _Connection(os.path.join(self.directory, CONTROL))
        try:
            connection.request(method, path)
        except PermissionError as error:
            connection.close()
            detail = f"{self.directory} is not open to uid {os.geteuid()}"
            raise ProblemError(Problem("urn:stillup:problem:not-permitted", "not permitted", 403, detail)) from error
        except OSError as error:
            connection.close()
            why = "" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else f" ({error})"
            raise NotRunningError(f"no supervisor runs in {self.directory}{why}", self.directory) from error
        return connection

    def _answer(self, connection: _Connection, shape: type[T]) -> T:
        try:
            response = connection.getresponse()
            body = response.read()
        except (http.client.HTTPException, OSError) as error:
            message = f"the supervisor in {self.directory} ended before it answered"
            raise NotRunningError(message, self.directory) from error
        try:
            if response.getheader("content-type") == PROBLEM:
                raise ProblemError(msgspec.json.decode(body, type=Problem))
            return msgspec.json.decode(body, type=shape)
        except msgspec.DecodeError as error:
            raise PeerError(f"the supervisor in {self.directory} gave an answer that makes no sense here") from error

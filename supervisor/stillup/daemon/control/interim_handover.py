"""The supervisor's side of its interim server: started before its program is replaced, ended by the new program."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from stillup.errors import PeerError, Unavailable
from stillup.host import descriptors
from stillup.host.callers_socket import CallersSocket
from stillup.host.processes import kill_child, no_reaping
from stillup.wire import interim_messages
from stillup.wire.api_operation import ApiSocket
from stillup.wire.interim_messages import END, READY, RELEASE, InterimAnswers, InterimOrders
from stillup.wire.record_format import ReexecState

PATIENCE: Final = 10.0
"""Seconds for it to start, and to end."""
PROGRAM: Final = "stillup.daemon.control.interim_server"


class Interim(msgspec.Struct, frozen=True):
    """One that was started. Owns its end of the pair."""

    pair: socket.socket
    pid: int

    def begin(self, answers: Mapping[str, str]) -> None:
        """Have it answer probes, by path, from now on."""
        with contextlib.suppress(OSError):  # it is gone: then nobody does
            self.pair.send(interim_messages.encode(InterimAnswers(dict(answers))))

    def release(self, name: ApiSocket) -> None:
        """Have it close its copy of a socket, whose address is to be bound anew. Blocks for a moment."""
        self.pair.settimeout(PATIENCE)
        with contextlib.suppress(OSError):  # it is gone, and so is its copy
            self.pair.send(RELEASE + name.encode())
            self.pair.recv(interim_messages.PACKET_LIMIT)

    def close(self) -> None:
        """End it, if it has not ended; and reap it, once. Blocks for a moment."""
        if self.pair.fileno() < 0:
            return  # its number may be another child's by now
        self.pair.close()
        kill_child(self.pid)

    async def end(self, serve: Callable[[str, socket.socket], None]) -> None:
        """Have it end, and serve the connections that it has held for us, each by the name of its socket."""
        loop = asyncio.get_running_loop()
        self.pair.setblocking(False)
        ended = loop.create_future()

        def take() -> None:
            try:
                packet, fds = descriptors.receive(self.pair, interim_messages.PACKET_LIMIT, 1)
            except BlockingIOError:
                return
            except (OSError, PeerError):
                packet, fds = b"", []
            if not packet:
                loop.remove_reader(self.pair)
                ended.set_result(None)
            for fd in fds:
                serve(packet.decode(), CallersSocket(fileno=fd))

        loop.add_reader(self.pair, take)
        try:
            with contextlib.suppress(OSError):
                self.pair.send(END)
            with contextlib.suppress(TimeoutError):  # it hangs, and what it holds is lost
                await asyncio.wait_for(ended, PATIENCE)
        finally:
            loop.remove_reader(self.pair)
        await loop.run_in_executor(None, self.close)


def of_state(reexec_state: ReexecState | None) -> Interim | None:
    """That of the program before this one, if it has left one."""
    if reexec_state is None or reexec_state.interim is None:
        return None
    return Interim(socket.socket(fileno=reexec_state.interim), reexec_state.interim_pid)


def start(orders: InterimOrders, listeners: Sequence[socket.socket], environment: Mapping[str, str]) -> Interim:
    """Start one, which answers nobody yet. Blocks.

    Raises:
        Unavailable: it cannot be had.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        with its:
            argv = [sys.executable, "-P", "-m", PROGRAM, str(its.fileno())]
            try:
                with no_reaping():
                    process = subprocess.Popen(  # noqa: S603 - our own program
                        argv,
                        env=dict(environment),
                        pass_fds=[its.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        start_new_session=True,
                    )
            except OSError as error:
                raise Unavailable(f"no interim server: {error.strerror}") from error
        interim = Interim(ours, process.pid)
        process.returncode = 0  # it is reaped by its number, here or by the program that comes
        undo.pop_all()
        undo.callback(interim.close)
        ours.settimeout(PATIENCE)
        try:
            descriptors.send(ours, interim_messages.encode(orders), [sock.fileno() for sock in listeners])
            said, _ = descriptors.receive(ours, interim_messages.PACKET_LIMIT, 0)
        except (OSError, PeerError) as error:
            raise Unavailable(f"no interim server: {error}") from error
        if said != READY:
            raise Unavailable("no interim server: it ended at once")
        undo.pop_all()
        return interim

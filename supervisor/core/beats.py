"""Who hangs, by the beats that workers send from their event loops.

1. A worker of the generation that serves, which serves and was not heard for longer than ``hang_timeout``, hangs. Who
   does not serve yet, or drains, has deadlines of another kind.
2. It is replaced first, then ended: it is worn (``core.slots``), and killed if it still hangs when its heir serves or
   when another generation does. Until then it keeps what it holds, since it might come back.
3. One that comes back before that hangs no longer, and drains in order. It is replaced all the same: what held it up
   for so long may do so again.
4. Nobody is judged by a silence of our own. A silence ends at ``at``, by which everything said was read, and not now;
   and when we were late ourselves all clocks start anew.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.commands import DumpStacks
from supervisor.core.model import Worker, WorkerState
from supervisor.core.slots import Slots


class Beats(Slots):
    """The decisions about silent workers."""

    def judge(self, at: float, *, late: bool) -> None:
        """Find those that hang.

        Args:
            at: when the channels were read; seconds on the monotonic clock, not later than now.
            late: whether to judge nobody, and let all clocks start anew.
        """
        serving, limit = self.fleet.serving, self.fleet.policy.hang_timeout
        if serving is None or limit is None:
            return
        for worker in tuple(self.fleet.of(serving.id)):
            if worker.state is not WorkerState.SERVING or worker.hung is not None:
                continue
            if late or worker.heard is None:
                self.put(replace(worker, heard=self.now))
            elif at - worker.heard > limit:
                self.hangs(worker, worker.heard, at - worker.heard)
        # Only now: who hangs and is worn already has its turn before those who are merely worn.
        self.refill(serving.id)

    def hangs(self, worker: Worker, since: float, seconds: float) -> None:
        why = f"no word for {seconds:.0f} s (--hang-timeout)"
        worn = (worker.worn, worker.worn_at) if worker.worn else (why, self.now)
        self.put(replace(worker, hung=since, worn=worn[0], worn_at=worn[1]))
        self.announce(
            "worker.hung",
            worker=worker.name,
            pid=worker.pid,
            seconds=seconds,
            connections=dict(worker.connections),
        )
        self.commands.append(DumpStacks(worker.serial))

    def heard(self, worker: Worker) -> Worker:
        """The worker as it is now that it was heard."""
        if worker.hung is not None and worker.state is WorkerState.SERVING:
            self.announce("worker.recovered", worker=worker.name, pid=worker.pid, seconds=self.now - worker.hung)
        return replace(worker, heard=self.now, hung=None)

"""How many slots the serving generation has, and what becomes of a request to have more or fewer.

1. A request is settled once: when a worker serves in each wanted slot and whoever is beyond has been told to leave, or
   when it is aborted: a worker that was started since has died before that, a later request supersedes it, or a stop.
2. Its end is not the end of what was wanted: slots that could not be filled are tried again, with their back-off.
3. A rollout does not abort it: the generation that it brings is of the size wanted, and its cut-over may settle it.

Rule 1 lets none wait for ever: each slot is filled by a worker that was there, or by one that was started since;
and that one serves, or fails by its deadlines.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.beats import Beats
from supervisor.core.lifecycle import SCALING, Step, after
from supervisor.core.model import Failure, Scaling, ScalingState, Worker, WorkerState
from supervisor.errors import Refused

MOST_WORKERS = 1000
"""More are a slip of the finger: a number of any length would start as many processes as the machine can bear."""


class Scale(Beats):
    """The decisions about the number of slots."""

    def scale(self, size: int) -> None:
        serving = self.fleet.serving
        if size < 1:
            message = "a service needs at least 1 worker; 'stillup stop' ends it"
            raise Refused(message, code="usage")
        if size > MOST_WORKERS:
            raise Refused(f"{size} workers are too many: {MOST_WORKERS} are the most", code="usage")
        if serving is None or self.fleet.pending is not None:
            message = (
                "the number of workers can be changed only while one generation serves and no rollout is under way"
            )
            raise Refused(message, code="rollout-in-progress")
        self.abort_scaling("superseded")
        scaling = Scaling(
            self.fleet.last_scaling + 1,
            ScalingState.UNDER_WAY,
            generation=serving.id,
            size=size,
            previous=self.fleet.size,
            asked=self.now,
            last_worker=self.fleet.last_worker,
        )
        self.fleet = replace(self.fleet, size=size, last_scaling=scaling.id).with_scaling(scaling)
        vacancies = {slot: vacancy for slot, vacancy in serving.vacancies.items() if slot <= size}
        self.fleet = self.fleet.with_generation(replace(serving, size=size, vacancies=vacancies))
        self.announce("service.scaled", generation=serving.id, workers=size)
        for worker in tuple(self.fleet.of(serving.id)):
            if worker.slot > size:
                self.leave(worker)
        self.refill(serving.id)

    def settle_scaling(self) -> None:
        """End the request that is under way if what it asked for is there."""
        scaling, serving = self.fleet.scaling_under_way, self.fleet.serving
        if scaling is None or serving is None:
            return
        slots = {worker.slot for worker in self.fleet.of(serving.id) if worker.state is WorkerState.SERVING}
        if slots == set(range(1, scaling.size + 1)):
            ended = replace(scaling, state=after(SCALING, scaling.state, Step.END), ended=self.now)
            self.fleet = self.fleet.with_scaling(ended)
            self.announce("scaling.done", scaling=scaling.id, workers=scaling.size)

    def fail_scaling(self, died: Worker, failure: Failure) -> None:
        """End the request that is under way if this death keeps what it asked for from being there."""
        scaling = self.fleet.scaling_under_way
        if scaling is None or died.serial <= scaling.last_worker:
            return
        # The death of an heir costs a slot nothing while the worn worker serves.
        if not any(worker.state is WorkerState.SERVING for worker in self.inside(died.generation, died.slot)):
            self.abort_scaling(failure.stage, failure)

    def abort_scaling(self, reason: str, failure: Failure | None = None) -> None:
        scaling = self.fleet.scaling_under_way
        if scaling is None:
            return
        state = after(SCALING, scaling.state, Step.ABORT)
        self.fleet = self.fleet.with_scaling(
            replace(scaling, state=state, ended=self.now, reason=reason, failure=failure)
        )
        self.announce("scaling.aborted", scaling=scaling.id, workers=scaling.size, reason=reason)

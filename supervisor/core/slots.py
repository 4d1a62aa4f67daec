"""The slots of the generation that serves: who fills each of them.

1. A slot in which nobody serves is filled at once; one whose workers keep dying young, later each time.
2. A worn worker serves until its heir, a new worker in the same slot, serves.
3. Of all worn workers of a generation, one has an heir on its way. The next has its turn when that heir serves: a new
   worker costs memory and processor time, and workers that were started together tend to wear out together.
4. An heir that fails is tried again in its own turn, so that heirs that keep dying are as few as any that keep dying.
5. A worker that hangs is worn (``core.beats``), and the first to have its turn. If it still hangs when its heir serves,
   it is killed; a drain would be a word to somebody who hears none.
6. Who wears out young is replaced later each time as well: a limit that every worker exceeds from its start would
   otherwise have us start workers without end.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core import respawn
from supervisor.core.commands import SetTimer
from supervisor.core.events import Timer, TimerKind
from supervisor.core.model import Generation, GenerationState, Vacancy, Worker, WorkerState
from supervisor.core.turn import Turn


class Slots(Turn):
    """The decisions about single slots."""

    def refill(self, number: int, died: Worker | None = None) -> None:
        """Fill the slots of the serving generation in which nobody serves or boots; then see to the worn.

        Args:
            number: the generation; nothing happens unless it serves.
            died: who has left, as it last was. That counts as a death unless it was on its way out in order.
        """
        generation = self.fleet.generations[number]
        if generation.state is not GenerationState.SERVING:
            return
        if died is not None and died.state.retiring and died.failure is None:
            died = None
        taken = {worker.slot for worker in self.fleet.of(number) if _worn(worker) or _fills(worker)}
        for slot in range(1, generation.size + 1):
            if slot in taken:
                continue
            mine = died if died is not None and died.slot == slot else None
            if slot not in generation.vacancies:
                self.fill(number, slot, self.deaths(mine))
            elif mine is not None and mine.state is WorkerState.SERVING:
                # It was worn, and an heir was to be tried later. That could wait while it served; an empty slot cannot.
                self.spawn(self.vacate(number, slot), slot, generation.vacancies[slot].deaths)
        self.relieve(number, died)

    def relieve(self, number: int, died: Worker | None) -> None:
        """Begin to replace the worker that hangs, or else has been worn longest, unless another is being replaced."""
        worn = [worker for worker in self.fleet.of(number) if _worn(worker)]
        coming = {*self.fleet.generations[number].vacancies, *(w.slot for w in self.fleet.of(number) if _fills(w))}
        if any(worker.slot in coming for worker in worn):
            return
        # Whose heir has just died goes first. Were it another's turn, the death would be forgotten with its back-off.
        bereft = next((worker for worker in worn if died is not None and died.slot == worker.slot), None)
        if bereft is not None:
            self.fill(number, bereft.slot, self.deaths(died))
        elif worn:
            first = min(worn, key=lambda worker: (worker.hung is None, worker.worn_at))
            self.fill(number, first.slot, self.wears(first), first.worn)

    def fill(self, number: int, slot: int, deaths: int, worn: str = "") -> None:
        """Start a worker in a slot, now or after a wait.

        Args:
            number: the generation.
            slot: which of its slots.
            deaths: how many have died young there in a row, or worn out young.
            worn: why who serves there was worn; empty if the wait is for a death.
        """
        generation = self.fleet.generations[number]
        wait = respawn.delay(deaths)
        if wait == 0:
            self.spawn(generation, slot, deaths)
            return
        vacancy = Vacancy(deaths, self.now + wait, worn)
        generation = replace(generation, vacancies={**generation.vacancies, slot: vacancy})
        self.fleet = self.fleet.with_generation(generation)
        name = f"{number}.{slot}"
        if worn:
            self.announce("worker.wears-fast", worker=name, why=worn, times=deaths, seconds=wait)
        else:
            self.announce("worker.waits", worker=name, deaths=deaths, seconds=wait)
        self.commands.append(SetTimer(Timer(TimerKind.RESPAWN, number, slot), vacancy.until))

    def report(self, worker: Worker, worn: str) -> None:
        """Keep a worker's figures; it is worn from when it first says so."""
        fresh = bool(worn) and not worker.worn and not worker.state.retiring
        if fresh:
            worker = replace(worker, worn=worn, worn_at=self.now)
            self.announce("worker.worn", worker=worker.name, why=worn)
        self.put(worker)
        if fresh:
            self.refill(worker.generation)

    def take_over(self, worker: Worker) -> None:
        """Let a worker that serves now relieve the worn one of its slot, and let the next worn one have its turn."""
        self.announce("worker.serving", worker=worker.name, pid=worker.pid)
        for other in self.inside(worker.generation, worker.slot):
            if other.worn and other.serial != worker.serial:
                self.relieved(other)
        self.refill(worker.generation)

    def vacate(self, number: int, slot: int) -> Generation:
        """Let a slot wait no longer."""
        generation = self.fleet.generations[number]
        left = {waiting: vacancy for waiting, vacancy in generation.vacancies.items() if waiting != slot}
        generation = replace(generation, vacancies=left)
        self.fleet = self.fleet.with_generation(generation)
        return generation

    def deaths(self, died: Worker | None) -> int:
        """How many deaths in a row a slot has behind it with this one."""
        return respawn.deaths_in_a_row(died.deaths, self.now - died.spawned) if died is not None else 0

    def wears(self, worn: Worker) -> int:
        """How often in a row a slot's workers wore out young; what is worn in its time counts for nothing."""
        age = worn.worn_at - worn.spawned
        return respawn.deaths_in_a_row(worn.deaths, age) if age < respawn.YOUNG else 0

    def inside(self, number: int, slot: int) -> list[Worker]:
        """Everybody in a slot, those on their way out too."""
        return [worker for worker in self.fleet.of(number) if worker.slot == slot]


def _worn(worker: Worker) -> bool:
    """Whether it serves and is to be replaced. Who is worn before it serves has its turn when it does."""
    return worker.worn != "" and worker.state is WorkerState.SERVING


def _fills(worker: Worker) -> bool:
    """Whether its slot needs nobody else: it serves, or is on its way to, or has failed.

    One that failed keeps its slot until its exit, which counts the death.
    """
    if worker.failure is not None and worker.state in (WorkerState.STOPPING, WorkerState.KILLED):
        return True
    return not worker.state.retiring and not _worn(worker)

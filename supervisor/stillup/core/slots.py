"""The slots of the generation that serves: which worker fills each of them.

1. A slot in which no worker serves or boots is filled at once; one whose workers keep dying young, later each time.
2. A worker that is to be replaced serves until its replacement, a new worker in the same slot, serves.
3. Of all such workers of a generation one is being replaced. The next one's turn comes when that replacement serves: a
   new worker costs memory and processor time, and workers that were started together tend to reach a limit together.
4. A replacement that fails is tried again in its own turn, so that replacements that keep dying are as few as any
   workers that keep dying.
5. A worker that hangs is to be replaced (``core.hang``), and its turn is the first. If it still hangs when its
   replacement serves, it is killed; it would not hear the order to drain.
6. While a plan moves (``core.plan``) it alone starts workers in its generations; how long a slot has to wait is noted
   for it.
7. A worker that is to be replaced young is replaced later each time as well: a limit that every worker exceeds from its
   start would otherwise start workers without end.
"""

from __future__ import annotations

from typing import Final

from stillup.core import orders, respawn
from stillup.core.lifecycle import COMING, ENDED_BY_ORDER
from stillup.core.model import Generation, Worker
from stillup.core.policy import TimerKind
from stillup.core.states import GenerationState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.core.waiting import Vacancy
from stillup.errors import Refused

WHILE_SERVING: Final = ("channel", "leader")
"""The stages of failures of workers that served; all others are of those that came to."""


def refill(transition: Transition, number: int, died: Worker | None = None) -> None:
    """Fill the slots of a generation in which no worker serves or boots; then see to those to be replaced.

    Args:
        transition: what is changed.
        number: the generation; nothing happens unless it serves.
        died: who has left, as it last was. That counts as a death unless its exit was expected.
    """
    generation = transition.fleet.generations[number]
    if generation.state is not GenerationState.SERVING:
        return
    if died is not None and died.exit_expected:
        died = None
    if transition.fleet.plan is not None:
        if died is not None:
            have_wait(transition, generation, died)
        return
    workers = list(transition.fleet.of(number))
    taken = {worker.slot for worker in workers if _is_to_be_replaced(worker) or _fills_slot(worker)}
    for slot in range(1, generation.size + 1):
        if slot in taken:
            continue
        mine = died if died is not None and died.slot == slot else None
        if slot not in generation.vacancies:
            _fill(transition, number, slot, _deaths_with(mine, transition.now))
        elif mine is not None and mine.state is WorkerState.SERVING:
            # Its replacement was to be tried later. That could wait while it served; an empty slot cannot.
            waiting = generation.vacancies[slot]
            orders.enqueue(transition, _end_wait(transition, number, slot), slot, waiting.deaths)
    _replace_next(transition, number, died)


def recycle(transition: Transition, worker: Worker, reason: str) -> None:
    """Have a worker replaced, unless it is to be already, is leaving, or is paused: it asks again when it serves."""
    if worker.recycle or worker.state.retiring or worker.state is WorkerState.PAUSED:
        return
    transition.put(replace(worker, recycle=reason, recycle_since=transition.now))
    transition.announce("worker.worn", worker=worker.name, why=reason)
    refill(transition, worker.generation)


def serves(transition: Transition, worker: Worker) -> None:
    """A worker has come to serve in a generation that serves: the one it replaces leaves, and the next is replaced."""
    transition.announce("worker.serving", worker=worker.name, pid=worker.pid)
    if transition.fleet.plan is None:
        _let_replaced_leave(transition, worker)
        refill(transition, worker.generation)


def _let_replaced_leave(transition: Transition, worker: Worker) -> None:
    """Those leave whose replacement a worker is that serves."""
    for other in workers_in(transition, worker.generation, worker.slot):
        if other.recycle and other.serial != worker.serial:
            orders.give_way(transition, other)


def resize(transition: Transition, generation: Generation, size: int) -> None:
    """Want so many workers in a generation that serves: those of the slots beyond leave, and the others are filled."""
    vacancies = {slot: vacancy for slot, vacancy in generation.vacancies.items() if slot <= size}
    transition.put_generation(replace(generation, size=size, vacancies=vacancies))
    for worker in tuple(transition.fleet.of(generation.id)):
        if worker.slot > size:
            orders.leave(transition, worker)
    refill(transition, generation.id)


def start(transition: Transition, number: int, slot: int) -> None:
    """Start a worker in a slot, be it one that waits for its time."""
    waiting = transition.fleet.generations[number].vacancies.get(slot)
    deaths = waiting.deaths if waiting is not None else 0
    orders.enqueue(transition, _end_wait(transition, number, slot), slot, deaths)


def fill_after_plan(transition: Transition, number: int) -> None:
    """Go on where a plan is over: without those who are too many, and with the slots whose wait has ended."""
    generation = transition.fleet.generations[number]
    for worker in tuple(transition.fleet.of(number)):
        if worker.slot > generation.size:
            orders.give_way(transition, worker)
        elif worker.state is WorkerState.SERVING and not worker.recycle:
            _let_replaced_leave(transition, worker)
    for slot, vacancy in generation.vacancies.items():
        if vacancy.until <= transition.now:
            start(transition, number, slot)
    refill(transition, number)


def retry(transition: Transition, number: int, slot: int) -> None:
    """Start the worker that a slot waits for, or have the plan that moves start it.

    Raises:
        Refused: it waits for none.
    """
    generation = transition.fleet.generations.get(number)
    if generation is None or slot not in generation.vacancies:
        raise Refused(f"no vacancy {number}.{slot}", code="out-of-order")
    if transition.fleet.plan is None:
        start(transition, number, slot)
        return
    due = replace(generation.vacancies[slot], until=transition.now)
    transition.put_generation(replace(generation, vacancies={**generation.vacancies, slot: due}))


def workers_in(transition: Transition, number: int, slot: int) -> list[Worker]:
    """All workers of a slot, those that are leaving too."""
    return [worker for worker in transition.fleet.of(number) if worker.slot == slot]


def _replace_next(transition: Transition, number: int, died: Worker | None) -> None:
    """Begin to replace the worker that hangs, or else has waited for it longest, unless one is being replaced."""
    workers = list(transition.fleet.of(number))
    old = [worker for worker in workers if _is_to_be_replaced(worker)]
    being_filled = {*transition.fleet.generations[number].vacancies, *(w.slot for w in workers if _fills_slot(w))}
    if any(worker.slot in being_filled for worker in old):
        return
    # Whose replacement has just died goes first: were it another's turn, the death and its back-off would be lost.
    bereft = next((worker for worker in old if died is not None and died.slot == worker.slot), None)
    if bereft is not None:
        _fill(transition, number, bereft.slot, _deaths_with(died, transition.now))
    elif old:
        first = min(old, key=lambda worker: (worker.hung is None, worker.recycle_since))
        _fill(transition, number, first.slot, _early_replacements_with(first), first.recycle)


def _fill(transition: Transition, number: int, slot: int, deaths: int, reason: str = "") -> None:
    """Start a worker in a slot, now or after a wait.

    Args:
        transition: what is changed.
        number: the generation.
        slot: which of its slots.
        deaths: how many workers died young there in a row, or were to be replaced young.
        reason: why the worker that serves there is to be replaced; empty if the wait is for a death.
    """
    generation = transition.fleet.generations[number]
    if respawn.delay(deaths) == 0:
        orders.enqueue(transition, generation, slot, deaths)
    else:
        _wait(transition, generation, slot, deaths, reason)


def have_wait(transition: Transition, generation: Generation, died: Worker) -> None:
    """Have the plan wait before it fills a slot, if workers have died young there."""
    others = workers_in(transition, generation.id, died.slot)
    if died.slot <= generation.size and not any(_fills_slot(other) for other in others):
        _wait(transition, generation, died.slot, _deaths_with(died, transition.now))


def _wait(transition: Transition, generation: Generation, slot: int, deaths: int, reason: str = "") -> None:
    """Have a slot wait for its next worker; not at all after a first death, which is kept in mind so."""
    seconds = respawn.delay(deaths)
    vacancy = Vacancy(deaths, transition.now + seconds, reason)
    transition.put_generation(replace(generation, vacancies={**generation.vacancies, slot: vacancy}))
    name = f"{generation.id}.{slot}"
    if reason:
        transition.announce("worker.wears-fast", worker=name, why=reason, times=deaths, seconds=seconds)
    elif seconds:
        transition.announce("worker.waits", worker=name, deaths=deaths, seconds=seconds)
    transition.set_timer(TimerKind.RESPAWN, generation.id, seconds, slot=slot)


def _end_wait(transition: Transition, number: int, slot: int) -> Generation:
    generation = transition.fleet.generations[number]
    left = {waiting: vacancy for waiting, vacancy in generation.vacancies.items() if waiting != slot}
    return transition.put_generation(replace(generation, vacancies=left))


def _deaths_with(died: Worker | None, now: float) -> int:
    """How many workers of a slot have died young in a row, with this one; one that never served was young."""
    if died is None:
        return 0
    return respawn.deaths_in_a_row(died.deaths, now - died.spawned if _has_served(died) else 0.0)


def _has_served(died: Worker) -> bool:
    stage = died.failure.stage if died.failure is not None else ""
    return died.state not in COMING and stage in {"", *WHILE_SERVING}


def _early_replacements_with(worker: Worker) -> int:
    """How many workers of a slot were to be replaced young in a row, with this one; none if it was not young."""
    age = worker.recycle_since - worker.spawned
    return respawn.deaths_in_a_row(worker.deaths, age) if age < respawn.YOUNG else 0


def _is_to_be_replaced(worker: Worker) -> bool:
    """Whether it serves and is to be replaced. The turn of one that does not serve yet comes when it does."""
    return worker.recycle != "" and worker.state is WorkerState.SERVING


def _fills_slot(worker: Worker) -> bool:
    """Whether its slot needs no other worker: it serves, or is on its way to, or has failed.

    One that failed keeps its slot until its exit, which counts the death.
    """
    if worker.failure is not None and worker.state in ENDED_BY_ORDER:
        return True
    return not worker.state.retiring and not _is_to_be_replaced(worker)

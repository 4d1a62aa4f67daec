"""How every reload is asked for, whoever asks: over the control socket, by a signal, or because a file was saved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from stillup.core.events import RefusalNoted, ReloadAsked
from stillup.core.model import Fleet
from stillup.core.outcomes import REFUSALS_TO_NOTE
from stillup.core.strategy_choice import StrategyChoice
from stillup.daemon.loop.engine import Engine
from stillup.daemon.state.disk import Resolved
from stillup.errors import Refused
from stillup.wire.address import Bind


async def request_reload(
    engine: Engine,
    resolve: Callable[[], Awaitable[Resolved]],
    why: str,
    *,
    force: bool = False,
    hurry: bool = False,
    if_changed: bool = False,
    choice: StrategyChoice = StrategyChoice(),  # noqa: B008 - it is frozen
    hold: Callable[[Sequence[Bind]], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> Fleet:
    """Look at what is on the disk, and ask for a generation of it; the fleet right after that.

    Args:
        engine: which is asked.
        resolve: looks at the disk for what is to run.
        why: who asks, or what does.
        force: whether a release that was rolled back before may run.
        hurry: whether older generations that drain are to end what is endless at once.
        if_changed: whether nothing is to be done if it is what serves already.
        choice: what is said of the strategy for this one; the configuration says the rest.
        hold: has listeners for what is to run, and socket files that are gone there again, unless it is refused.

    Raises:
        Unchanged: with ``if_changed``.
        Refused: it cannot be. What is wrong with the release is remembered, for whoever looks at the service later.
    """
    try:
        resolved = await resolve()
        policy = resolved.configured.policy if resolved.configured is not None else engine.fleet.policy
        strategy = choice.with_rest_of(policy)
        async with hold(resolved.binds):
            asked = ReloadAsked(resolved.release, why, force, resolved.configured, hurry, strategy, if_changed)
            fleet = await engine.ask(asked)
    except Refused as refusal:
        if refusal.code in REFUSALS_TO_NOTE:
            engine.submit(RefusalNoted(why, refusal.code, str(refusal)))
        raise
    resolved.accepted(fleet.last_rollout)
    return fleet

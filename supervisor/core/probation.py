"""Whether a release that has just been put into service crashes, and is to be taken back.

1. A rollout is on probation for ``Policy.probation`` seconds from its cut-over. Each worker of its generation that dies
   meanwhile without having been told to leave is counted, replacements too.
2. When as many have died as the generation has workers, and at least two, the rollout is rolled back: by another
   rollout, to the release that it replaced. One death may be anything; so many are the release.
3. A rollout is rolled back once, and one that rolls back never: of two releases that both crash none is better.
4. While another rollout is under way nothing is rolled back. Whoever asked for that one knows better.
5. A release that replaced its equal, or was put into the same directory, has nothing to go back to: what was there was
   changed in place. It stays, with its back-off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor.core.lifecycle import ROLLOUT, Step, after
from supervisor.core.model import Failure, Generation, Release, Rollout
from supervisor.core.release import overwritten, same
from supervisor.core.scaling import Scale

FEWEST = 2
"""Deaths that a rollout is rolled back for at least."""


@dataclass(frozen=True, slots=True)
class Return:
    """What to put back into service, and instead of which rollout."""

    release: Release
    why: str
    rollout: int


class Probation(Scale):
    """The decisions about releases that crash."""

    def count_death(self, generation: Generation, failure: Failure) -> Return | None:
        """Note that a worker of the generation that serves has died by itself; what is to be rolled back to, if so."""
        rollout = self.on_probation(generation)
        # A process that could not be started says nothing of the release that it would have run.
        if rollout is None or failure.stage == "spawn":
            return None
        rollout = replace(rollout, deaths=rollout.deaths + 1)
        self.fleet = self.fleet.with_rollout(rollout)
        if rollout.deaths < max(FEWEST, generation.size) or self.fleet.pending is not None:
            return None
        return self.take_back(rollout, generation, failure)

    def on_probation(self, generation: Generation) -> Rollout | None:
        """The rollout that brought a generation, while it may be rolled back for what the generation does."""
        for rollout in self.fleet.rollouts:
            if rollout.generation == generation.id and rollout.cut is not None:
                over = self.now - rollout.cut >= self.fleet.policy.probation
                return None if over or rollout.rolls_back is not None or rollout.reason else rollout
        return None

    def take_back(self, rollout: Rollout, generation: Generation, failure: Failure) -> Return | None:
        release = rollout.replaced
        if release is None:
            return None
        if same(release, generation.release) or overwritten(release, generation.release):
            self.fleet = self.fleet.with_rollout(replace(rollout, reason="release-overwritten"))
            self.announce(
                "rollback.refused",
                rollout=rollout.id,
                generation=generation.id,
                release=release.label,
                reason="release-overwritten",
            )
            return None
        state = after(ROLLOUT, rollout.state, Step.ROLL_BACK)
        rollout = replace(rollout, state=state, ended=self.now, reason="crashed", failure=failure)
        self.fleet = self.fleet.with_rollout(rollout)
        seconds = self.now - (rollout.cut or 0.0)
        self.announce(
            "rollout.rolled-back",
            rollout=rollout.id,
            generation=generation.id,
            release=release.label,
            deaths=rollout.deaths,
            seconds=seconds,
        )
        why = f"gen {generation.id} crashed: {rollout.deaths} deaths within {seconds:.0f} s"
        return Return(release, why, rollout.id)

"""What the configuration says, where it is read again for a reload: in force from then on, but for an abort."""

from __future__ import annotations

from collections.abc import Sequence

from stillup.core.events import Configured
from stillup.core.model import Rollout
from stillup.core.policy import ConfiguredBefore
from stillup.core.setting_changes import Effect, SettingChange, change_text
from stillup.core.transition import Transition
from stillup.core.values import replace


def put_in_force(transition: Transition, rollout: Rollout, configured: Configured) -> Rollout:
    """Put what the configuration says now into force; the rollout knows what was before, for its abort."""
    fleet = transition.fleet
    before = ConfiguredBefore(fleet.policy, fleet.size, fleet.configured)
    # Whether there is somebody who keeps the queue is none of the configuration's.
    policy = replace(configured.policy, parks=fleet.policy.parks)
    transition.fleet = replace(fleet, policy=policy)
    if configured.size is not None:
        transition.fleet = replace(transition.fleet, size=configured.size, configured=configured.size)
    if configured.changes:
        transition.announce(
            "configuration.read",
            rollout=rollout.id,
            applied=_keys(configured.changes, Effect.APPLIED),
            overridden=_keys(configured.changes, Effect.OVERRIDDEN),
            needs_reexec=_keys(configured.changes, Effect.NEEDS_REEXEC),
            needs_restart=_keys(configured.changes, Effect.NEEDS_RESTART),
            file_gone=_keys(configured.changes, Effect.FILE_GONE),
        )
    return replace(rollout, changes=configured.changes, before=before)


def go_back(transition: Transition, rollout: Rollout) -> None:
    """Put what was in force before a rollout that is aborted into force again."""
    if rollout.before is not None:
        before, parks = rollout.before, transition.fleet.policy.parks
        policy = replace(before.policy, parks=parks)
        transition.fleet = replace(transition.fleet, policy=policy, size=before.size, configured=before.configured)


def _keys(changes: Sequence[SettingChange], effect: Effect) -> list[str]:
    """The changed keys that have come to that."""
    return [change_text(one.key, one.by, one.what) for one in changes if one.effect is effect]

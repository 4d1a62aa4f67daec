"""The groups in which ``run --help`` shows its options: what is ours first, what is uvicorn's alone last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeGuard

import click

UVICORNS: Final = "uvicorn's own (also as UVICORN_NAME)"
_GROUPS: Final = {
    "What to serve": (
        *("binds", "workers", "directory", "python", "app_dir", "factory", "env_file", "reload", "name"),
        *("runtime_dir", "config_file"),
    ),
    "Rollout and stop": (
        "health_",
        "hook_",
        "boot_",
        *("template", "warm", "preload"),
        "drain_",
        "stop_",
        "cordon_",
        "probation",
        *("strategy", "allow_strategy", "max_surge", "max_unavailable", "canary", "canary_"),
        *("min_requests", "max_error_rate", "max_latency_ratio", "no_gate"),
        "max_draining",
        "standby",
    ),
    "Limits": ("max_worker_", "limit_", "hang_timeout", "leader_timeout", "orphan_timeout"),
    "Who may, and as whom": (
        *("viewers", "operators", "admins", "control_group", "observe_group", "admin_bind", "agent_bind"),
        *("worker_user", "worker_group", "pass_env"),
    ),
    "Logs": ("log_format", "log_file"),
}
"""Which options stand where: by their name, or by its beginning, which ends in ``_``."""
OTHER: Final = "More"
HELP: Final = "Help"


def group_of(parameter: click.Parameter) -> str:
    """The heading that an option stands under."""
    name = parameter.name or ""
    if "--help" in parameter.opts:
        return HELP
    for heading, members in _GROUPS.items():
        if name in members or any(name.startswith(one) for one in members if one.endswith("_")):
            return heading
    return UVICORNS if any(variable.startswith("UVICORN_") for variable in parameter.envvar or []) else OTHER


def _is_shown(parameter: click.Parameter) -> TypeGuard[click.Option]:
    return isinstance(parameter, click.Option) and not parameter.hidden


def grouped(parameters: Sequence[click.Parameter]) -> Iterator[tuple[str, list[click.Option]]]:
    """The options under their headings, in the order of the help."""
    for heading in (*_GROUPS, OTHER, UVICORNS, HELP):
        members = [one for one in parameters if _is_shown(one) and group_of(one) == heading]
        order = _GROUPS.get(heading, ())
        members.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
        if members:
            yield heading, members

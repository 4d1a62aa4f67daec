"""Reading the configuration again: what a reload makes of a file that was changed since.

1. The file is the one that the start has read, by the same path; flags and variables are those of the start, and win.
2. It is read only where nobody but root and our own user can change it, at every level of its path; a change anywhere
   else refuses the reload.
3. Who may do what, the workers' user, our own sockets, the supervisor's own log stay as they are: a re-exec or a
   restart puts them into service, and the reload says so.
4. What was read is in force once its rollout is under way, and not any more if that is aborted. A file that means
   nothing refuses the reload. One that is gone changes nothing, and that is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
import msgspec
from click.core import ParameterSource

from stillup.core.events import Configured
from stillup.core.setting_changes import Effect, SettingChange
from stillup.core.states import RolloutState
from stillup.core.values import replace
from stillup.daemon.settings import bind_changes, config, file_values
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.options import key_of
from stillup.errors import Refused, UsageError
from stillup.host import config_file
from stillup.wire.config_text import ConfigText, parse

RESTART: Final = frozenset({"name", "runtime_dir", "worker_user", "config_file", "backlog"})
"""Parameters that take a restart."""
REEXEC: Final = frozenset(
    {"viewers", "operators", "admins", "control_group", "observe_group", "admin_bind", "worker_group", "pass_env"}
    | {"agent_bind"}
    | {"reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay"}
    | {"log_format", "log_file", "use_colors", "cordon_status", "reload_on"}
)
"""Parameters that take a re-exec; all others are put into service by a reload."""
BINDS: Final = frozenset({"bind", "host", "port", "uds", "fd"})
"""The keys that say where to listen; what comes of each bind is in ``bind_changes``."""


class Reading(msgspec.Struct, frozen=True):
    """What was read at one reload."""

    settings: Settings
    file: ConfigText
    given: Mapping[str, Any]
    """The values that are in force, by the names of the parameters."""
    changes: tuple[SettingChange, ...] = ()

    def configured(self, before: Settings) -> Configured:
        """What of it is the fleet's to know."""
        size = self.settings.workers if self.settings.workers != before.workers else None
        return Configured(self.settings.policy, size, self.changes)


class ConfigReader:
    """Reads the file of one start again."""

    def __init__(self, context: click.Context, arguments: tuple[str, ...], settings: Settings) -> None:
        """Begin with what ``context`` was made of, and what came of it.

        Args:
            context: of the command that was started.
            arguments: its words.
            settings: what it was started with.
        """
        self._command = context.command
        self._arguments = arguments
        self._here = os.getcwd()
        file = config.file_of(context)
        self._path = os.path.join(self._here, file.path) if file.path else ""
        given = {**context.params, "directory": settings.directory, "runtime_dir": settings.runtime_dir}
        given["log_file"] = settings.log.file or None
        self._in_force = Reading(settings, file, given)
        self._tried: tuple[int, Reading] | None = None

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self._in_force.settings

    def remember(self, groups: Mapping[str, int]) -> None:
        """Know whose members were believed on the Unix sockets of a supervisor before this one, by their names."""
        settings = self._in_force.settings
        worker = replace(settings.worker, proxy_gids={**groups, **settings.worker.proxy_gids})
        self._in_force = replace(self._in_force, settings=replace(settings, worker=worker))

    def settle(self, state_of: Callable[[int], RolloutState | None]) -> None:
        """Know what has become of the rollout of the last reading; while it is under way, that is not in force yet."""
        if self._tried is None:
            return
        number, reading = self._tried
        state = state_of(number)
        if state is not None and state.pending:
            return
        if state is None or not state.aborted:
            self._in_force = reading
        self._tried = None

    def accepted(self, rollout: int, reading: Reading) -> None:
        """Know that a reading was made a rollout of."""
        self._tried = rollout, reading

    def read(self) -> Reading:
        """Read the file again. Blocks.

        Raises:
            Refused: ``configuration``: it means nothing, or somebody else can write to it.
        """
        known = self._in_force
        if not self._path:
            return known
        try:
            text, hazard = config_file.read_again(self._path)
        except FileNotFoundError:
            return msgspec.structs.replace(known, changes=(SettingChange(self._path, Effect.FILE_GONE),))
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{self._path} cannot be read again: {error}", code="configuration") from error
        if text == known.file.text:
            return msgspec.structs.replace(known, changes=())
        if hazard:
            who = "somebody else could have done it"
            raise Refused(
                f"{self._path} was changed, and is not read again since {who}: {hazard}", code="configuration"
            )
        try:
            return self._parse(parse(self._path, text) or ConfigText(self._path, text))
        except UsageError as error:
            raise Refused(str(error), code="configuration") from error
        except click.ClickException as error:
            raise Refused(error.format_message(), code="configuration") from error

    def _parse(self, file: ConfigText) -> Reading:
        known = self._in_force
        context = self._command.make_context("run", list(self._arguments), obj=file)
        before = file_values.read(known.file, self._command.params)
        now = file_values.read(file, self._command.params)
        changes: list[SettingChange] = []
        given = dict(known.given)
        for parameter in self._command.params:
            name = parameter.name or ""
            if before.get(name) == now.get(name):
                continue
            change = self._change(context, parameter)
            changes.append(change)
            if change.effect is Effect.APPLIED:
                value = context.params[name]
                given[name] = os.path.join(self._here, value) if name == "directory" else value
        try:
            settings = config.make_settings(context, given, kept=known.settings)
            binds = self._binds(context, given) if any(_is_of_bind(change) for change in changes) else ()
        except UsageError as error:
            raise UsageError(config.placed(context, str(error))) from error
        if binds:
            changes = [*(change for change in changes if not _is_of_bind(change)), *binds]
        return Reading(settings, file, given, tuple(changes))

    def _binds(self, context: click.Context, given: Mapping[str, Any]) -> tuple[SettingChange, ...]:
        """What has become of each bind."""
        known = self._in_force.settings
        asked = config.binds_of(context, given)
        return bind_changes.merge(known.binds, asked, known.worker.proxy_gids).changes

    def _change(self, context: click.Context, parameter: click.Parameter) -> SettingChange:
        key, name = key_of(parameter), parameter.name or ""
        match context.get_parameter_source(name):
            case ParameterSource.COMMANDLINE:
                return SettingChange(key, Effect.OVERRIDDEN, f"--{key}" if name != "app" else "APP")
            case ParameterSource.ENVIRONMENT:
                return SettingChange(key, Effect.OVERRIDDEN, config.source_of(context, parameter))
        if name in RESTART:
            return SettingChange(key, Effect.NEEDS_RESTART)
        return SettingChange(key, Effect.NEEDS_REEXEC if name in REEXEC else Effect.APPLIED)


def _is_of_bind(change: SettingChange) -> bool:
    """Whether it says where to listen, and nothing that was said at the start overrides it."""
    return change.effect is Effect.APPLIED and change.key in BINDS

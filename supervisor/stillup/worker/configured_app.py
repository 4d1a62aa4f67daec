"""A worker's app before anything of it is imported: uvicorn's configuration, its loop, and the log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import msgspec
from uvicorn.config import Config

from stillup.asgi.uvicorn_config import loop_factory, make_config
from stillup.wire.handoff_messages import Welcome
from stillup.worker.worker_log import WorkerLog


class ConfiguredApp(msgspec.Struct):
    """What an app is imported and served with."""

    config: Config
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None
    log: WorkerLog


def make_log(welcome: Welcome, name: str) -> WorkerLog:
    """The log of what is told this, and is called ``name`` there."""
    return WorkerLog(welcome.settings, name, color=bool(welcome.options.get("use_colors")))


def configure(welcome: Welcome, log: WorkerLog) -> ConfiguredApp:
    """Be where the app is imported from, and configure uvicorn, which configures logging.

    Raises:
        Exception: uvicorn raises what it likes for an option that is wrong, SystemExit as well.
    """
    os.chdir(welcome.directory)
    sys.path.insert(0, welcome.app_dir)
    config = make_config(welcome.app, welcome.options, log.make_config())
    return ConfiguredApp(config, loop_factory(config), log)

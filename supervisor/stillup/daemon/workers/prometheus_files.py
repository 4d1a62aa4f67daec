"""What an app's ``prometheus_client`` leaves when its process ends (``PROMETHEUS_MULTIPROC_DIR``).

Each process has files of its own there, by its pid. Those of gauges of living processes are to be removed when it has
ended, as ``prometheus_client.multiprocess.mark_process_dead`` does, or it counts as living for ever: by the supervisor,
since a worker that was killed cannot. All others stay, and have to: what a dead process counted is still in the sum.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from typing import Final

import msgspec

from stillup.core.model import Release
from stillup.errors import Refused
from stillup.host import program_run
from stillup.host.accounts import Account

logger = logging.getLogger("stillup")

VARIABLES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""The first that is set counts; the second is the old one."""
MODES: Final = ("liveall", "livesum", "livemax", "livemin", "livemostrecent")
"""Of gauges that are of living processes alone."""
DEADLINE: Final = 10.0
"""Seconds that their removal may take."""


class LiveGauges(msgspec.Struct, frozen=True):
    """The files of one process."""

    directory: str
    pid: int
    account: Account | None
    """Whose it is; None for our own user's. Nobody else may say what is removed there."""

    @property
    def paths(self) -> list[str]:
        return [os.path.join(self.directory, f"gauge_{mode}_{self.pid}.db") for mode in MODES]


def live_gauges(release: Release, pid: int, account: Account | None) -> LiveGauges | None:
    """Those of a worker of that release; None if it has none."""
    for name in VARIABLES:
        if directory := release.environment.get(name):
            return LiveGauges(os.path.join(release.directory, directory), pid, account)
    return None


async def remove(gauges: LiveGauges) -> None:
    """Remove them, as the user whose they are; what is in the way is logged."""
    try:
        await asyncio.get_running_loop().run_in_executor(None, _remove, gauges)
    except (OSError, RuntimeError, TimeoutError, Refused) as error:
        logger.warning("in %s the gauges of pid %d, which has ended, stay: %s", gauges.directory, gauges.pid, error)


def _remove(gauges: LiveGauges) -> None:
    if gauges.account is None:
        for path in gauges.paths:
            if os.path.lexists(path):
                os.unlink(path)
        return
    command = shutil.which("rm") or "/bin/rm"
    argv = [command, "-f", "--", *gauges.paths]
    done = program_run.run(argv, {"PATH": os.defpath}, b"", deadline=DEADLINE, most=1024, account=gauges.account)
    if done.how != "exited 0":
        raise OSError(f"rm {done.how}: {done.stderr.decode(errors='replace').strip()}")

"""What dead workers leave in Prometheus' multiprocess directory."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest
from prometheus_client.metrics import Gauge

from stillup.core.values import replace
from stillup.daemon.workers import prometheus_files
from stillup.daemon.workers.prometheus_files import MODES, LiveGauges, live_gauges, remove
from stillup.host.accounts import Account
from tests.core.story import RELEASE

WORKER = Account(20_022, 20_022)


def test_the_modes_are_prometheus_clients() -> None:
    """Those whose names say that only the living count; the oldest client library that we support has two of them."""
    theirs = {mode for mode in Gauge._MULTIPROC_MODES if mode.startswith("live")}
    assert theirs in (set(MODES), {"liveall", "livesum"})


def test_where_they_are() -> None:
    """The variable of the release counts, relative to where its workers are; without it there is nothing to do."""
    release = replace(RELEASE, environment={"prometheus_multiproc_dir": "old", "PROMETHEUS_MULTIPROC_DIR": "m"})
    gauges = live_gauges(release, 7, None)
    assert gauges is not None
    assert gauges.paths[0] == f"{RELEASE.directory}/m/gauge_liveall_7.db"
    assert live_gauges(replace(RELEASE, environment={}), 7, None) is None


def left(folder: Path, pid: int) -> list[str]:
    """What is left when the files of a process are removed from among others."""
    for name in ("gauge_livesum_7.db", "gauge_liveall_7.db", "gauge_livesum_77.db", "gauge_sum_7.db", "counter_7.db"):
        (folder / name).touch()
    return sorted(name for name in os.listdir(folder) if name.endswith(f"_{pid}.db"))


@pytest.mark.parametrize(
    "account", [None, pytest.param(WORKER, marks=pytest.mark.skipif(os.geteuid() != 0, reason="drops rights"))]
)
async def test_of_one_process(account: Account | None) -> None:
    """Of nobody else, and no counters: what the dead have counted stays in the sum."""
    with tempfile.TemporaryDirectory() as name:  # where that user can go, too
        folder = Path(name)
        assert left(folder, 7)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        await remove(LiveGauges(str(folder), 7, account))
        assert sorted(os.listdir(folder)) == ["counter_7.db", "gauge_livesum_77.db", "gauge_sum_7.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="drops rights")
async def test_with_no_right_but_the_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that the release names and its user can't write to is not written to by root, either."""
    (tmp_path / "gauge_livesum_7.db").touch()
    with caplog.at_level(logging.WARNING, "stillup"):
        await remove(LiveGauges(str(tmp_path), 7, WORKER))
    assert os.listdir(tmp_path) == ["gauge_livesum_7.db"]


async def test_what_is_in_the_way_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And ends nothing."""
    (tmp_path / "gauge_livesum_7.db").mkdir()
    with caplog.at_level(logging.WARNING, "stillup"):
        await prometheus_files.remove(LiveGauges(str(tmp_path), 7, None))
    assert "the gauges of pid 7, which has ended, stay: " in caplog.text

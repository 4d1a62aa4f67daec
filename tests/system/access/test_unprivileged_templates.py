"""A template, and a preloader, of another user's workers."""

from __future__ import annotations

from pathlib import Path

from tests.system.access.open_interpreter import for_anybody, no_mounts
from tests.system.access.people import needs_root
from tests.system.worker_facts import facts


@needs_root
def test_a_forked_worker_is_what_a_started_one_is(folder: Path) -> None:
    """Without any right of ours, and where others of that user may look into it as they may into a started one."""
    words = ("--worker-user", "20020", "--worker-group", "20021")
    forked = facts(folder, *words, before=for_anybody(folder))
    no_mounts(folder)
    preloaded = facts(folder, *words, "--preload", before=for_anybody(folder))
    no_mounts(folder)
    started = facts(folder, *words, "--no-template", before=for_anybody(folder))
    assert forked == {**started, "memory of the template": 0}
    for one in (preloaded, started):  # a library may open what it has but once a process, such as uvloop, earlier
        one["files"] = sorted(one["files"].values())
    assert preloaded == {**started, "memory of the template": 0}
    assert forked["status"]["Uid"].split() == ["20020"] * 4

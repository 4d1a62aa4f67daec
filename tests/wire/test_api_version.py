"""The version that a client says it speaks: taken, or refused with both versions."""

from __future__ import annotations

import pytest

from stillup.errors import Refused, UsageError
from stillup.wire.api_version import check_path, check_version, version


@pytest.mark.parametrize("said", ["1.0", "0.9", version()])
def test_a_client_that_is_no_newer_is_spoken_with(said: str) -> None:
    """Its version, or an older one."""
    check_version(said, "0.1.0")


@pytest.mark.parametrize("said", ["1.1", "2.0"])
def test_a_client_that_is_too_new_is_told_both_versions(said: str) -> None:
    """And what to do."""
    with pytest.raises(Refused, match=rf"API {said}, .*stillup 0\.1\.0\) API 1\.0 at most.*reexec") as caught:
        check_version(said, "0.1.0")
    assert caught.value.code == "client-too-new"


@pytest.mark.parametrize("said", ["", "new", "1", "1.0.0", "9" * 5000 + ".1", "\u0661.0"])
def test_what_is_no_version(said: str) -> None:
    """It is said how one looks."""
    with pytest.raises(UsageError, match="is no version"):
        check_version(said, "0.1.0")


def test_a_path_of_the_next_api() -> None:
    """It is refused by its version; any other unknown path by its name, which is not this table's."""
    for path in ("/v2/status", "/v17"):
        with pytest.raises(Refused, match="at most"):
            check_path(path, "0.1.0")
    for path in ("/v1/nope", "/nope", "/v1", "/vx/status", "/", "/v0/status"):
        check_path(path, "0.1.0")

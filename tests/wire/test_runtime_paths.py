"""Where runtime directories are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.wire.runtime_paths import CONTROL, HANDOFF, LOCK, bases, check_name, default_name, runtime_directory

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", fullmatch=True)


@given(name=NAMES)
def test_a_good_name_stays_as_it_is(name: str) -> None:
    """Letters, digits and a few marks make a name."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "@a", "a/b", "../a", "a b", "a\n", "\N{SNOWMAN}", "a" * 65])
def test_a_bad_name_is_refused(name: str) -> None:
    """What could leave the base directory, hide in it or not fit there is no name."""
    with pytest.raises(UsageError, match=r"a service cannot be named ") as caught:
        check_name(name)
    assert f"'{name}'" in str(caught.value)
    assert "--name" in str(caught.value)


@given(directory=st.text() | st.from_regex(r"/([a-z ._@-]{1,9}/){0,3}[a-zA-Z0-9 ._@-]{0,80}", fullmatch=True))
def test_every_directory_gives_a_good_name(directory: str) -> None:
    """Whatever a directory is called, the name that it gives a service is one that a service may have."""
    name = default_name(directory)
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("/srv/shop", "shop"),
        ("/srv/shop/", "shop"),
        ("/srv/my shop (new)", "my-shop-new"),
        ("/srv/.hidden", "hidden"),
        ("/srv/v1.2_a@b", "v1.2_a@b"),
        ("/", "app"),
        ("", "app"),
        ("/srv/\N{SNOWMAN}", "app"),
        ("/srv/" + "a" * 70, "a" * 64),
    ],
)
def test_a_service_is_called_like_its_directory(directory: str, name: str) -> None:
    """A service without a name has its working directory's, with what a name may not hold left out."""
    assert default_name(directory) == name


def test_root_has_one_place() -> None:
    """Root's services are in /run, whatever its environment says."""
    assert bases(0, {"XDG_RUNTIME_DIR": "/run/user/0"}) == ["/run/stillup"]


def test_a_user_prefers_its_own_runtime_directory() -> None:
    """A user's services are in XDG_RUNTIME_DIR, else in /tmp, with its number; last comes the host's."""
    own = ["/run/user/1000/stillup", "/tmp/stillup-1000"]
    assert bases(1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}) == [*own, "/run/stillup"]


def test_a_login_and_cron_find_the_same_services() -> None:
    """Without XDG_RUNTIME_DIR a service starts in /tmp, and those of a login are found where that has it."""
    for environment in ({}, {"XDG_RUNTIME_DIR": ""}):
        found = bases(1000, environment)
        assert found == ["/tmp/stillup-1000", "/run/user/1000/stillup", "/run/stillup"]
        assert set(found) == set(bases(1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}))
        assert runtime_directory("shop", 1000, environment) == "/tmp/stillup-1000/shop"


def test_the_preferred_place_is_taken() -> None:
    """A service's runtime directory is its name in the first of the places."""
    assert runtime_directory("shop", 0, {}) == "/run/stillup/shop"
    assert runtime_directory("shop", 1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}) == "/run/user/1000/stillup/shop"


def test_the_service_manager_has_the_first_word() -> None:
    """A directory that systemd made is used as it is; of several, the first."""
    assert runtime_directory("shop", 0, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == "/run/a"
    assert runtime_directory("shop", 0, {"RUNTIME_DIRECTORY": ""}) == "/run/stillup/shop"


def test_the_names_in_a_place_stay() -> None:
    """Clients and workers of another version look for the sockets and the lock under these names."""
    assert (CONTROL, HANDOFF, LOCK) == ("control.sock", "handoff.sock", "lock")


def test_a_place_is_never_made_of_a_bad_name() -> None:
    """A name that may not be is refused before it becomes a path."""
    with pytest.raises(UsageError):
        runtime_directory("../shop", 1000, {})

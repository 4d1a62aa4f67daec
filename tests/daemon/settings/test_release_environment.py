"""The environment that workers are started with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stillup.daemon.settings.release_environment import DEFAULTS, OF_MANAGER, OURS, with_file, worker_environment
from stillup.host.accounts import Account

NAMED = {"HOME": "/home/a", "USER": "a", "LOGNAME": "a", "SHELL": "/bin/sh"}
SOMEBODY = Account(5, 6, environment=NAMED)
NAMES = st.sampled_from(sorted(OURS | OF_MANAGER)) | st.text(min_size=1)
VARIABLES = st.dictionaries(NAMES, st.text(), max_size=10)


@given(VARIABLES, VARIABLES)
def test_our_own_users(ours: dict[str, str], file: dict[str, str]) -> None:
    """Workers of our own user have all of ours, which wins over the file; but nothing between the manager and us."""
    found = with_file(worker_environment(ours, None, ()), file, None)
    assert found == {name: value for name, value in {**file, **ours}.items() if name not in OURS}


@given(VARIABLES, VARIABLES, st.lists(NAMES, max_size=3))
def test_another_users(ours: dict[str, str], file: dict[str, str], passed: list[str]) -> None:
    """Workers of another have of ours what a service manager would give and what is named; the file adds to that."""
    found = with_file(worker_environment(ours, SOMEBODY, passed), file, SOMEBODY)
    assert not OURS & found.keys()
    assert NAMED.items() <= found.items()
    for name, value in found.items():
        if name in NAMED:
            continue
        if name in ours and (name in passed or name in OF_MANAGER or name.startswith("LC_")):
            assert value == ours[name]
        else:
            assert value == file.get(name, DEFAULTS.get(name))
    assert found.keys() >= (file.keys() | DEFAULTS.keys()) - OURS


def test_the_word_of_a_newer_manager() -> None:
    """Systemd 258 says more of who is to take the descriptors, anew at each start: to workers it says nothing."""
    handed = {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "LISTEN_PID": "196", "LISTEN_PIDFDID": "188535"}
    assert worker_environment({**handed, "COLOR": "red"}, None, ()) == {"COLOR": "red"}


def test_somebody_without_a_name() -> None:
    """Has a HOME and a PATH all the same, unless the file says another."""
    found = with_file(worker_environment({"HOME": "/root"}, Account(5, 6), ()), {}, Account(5, 6))
    assert found == DEFAULTS
    assert with_file({}, {"HOME": "/srv"}, Account(5, 6))["HOME"] == "/srv"

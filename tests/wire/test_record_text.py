"""The text of the record: whatever an environment holds comes back as it was; what is no record is said to be none."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.events import ReloadAsked
from stillup.core.model import Fleet, Release
from stillup.core.step import step
from stillup.errors import PeerError
from stillup.wire import record_format
from stillup.wire.record_format import SCHEMA, ListenerRecord, Record, ReexecState

ANYTHING = st.binary(max_size=20).map(os.fsdecode) | st.text(max_size=20)


def a_record(environment: dict[str, str]) -> Record:
    release = Release("main:app", "/usr/bin/python3", "/srv", environment=environment)
    fleet = step(Fleet(), ReloadAsked(release, "start"), 1.0).fleet
    listeners = (ListenerRecord("web", "127.0.0.1:0", 2**64 - 1), ListenerRecord("local", "unix:/s", 7, (1, 2)))
    return Record(SCHEMA, "boot", "0" * 64, 2, record_format.lasting(fleet), listeners, (2**64 - 1, 1), {3: "nonce"})


@given(environment=st.dictionaries(ANYTHING, ANYTHING, max_size=4))
def test_an_environment_of_any_bytes_comes_back(environment: dict[str, str]) -> None:
    """Variables are bytes to the kernel; what of them is no UTF-8 is in the record, too, and read as it was."""
    known = a_record(environment)
    assert record_format.decode(record_format.encode(known)) == known
    reexec_state = ReexecState(SCHEMA, known, "/run/stillup/app", 3, 4, 5, (6, 7), (8, 9))
    assert record_format.decode_reexec_state(record_format.encode_reexec_state(reexec_state)) == reexec_state


def test_a_bequest_of_a_program_that_had_fewer_sockets() -> None:
    """One that names no socket for monitoring and none of --admin-bind is read: there were none."""
    reexec_state = ReexecState(SCHEMA, a_record({}), "/run/stillup/app", 3, 4, 5, (6, 7), (8, 9))
    plain = json.loads(record_format.encode_reexec_state(reexec_state))
    for name in ("observe", "admin", "admin_bind"):
        del plain[name]
    assert record_format.decode_reexec_state(json.dumps(plain).encode()) == reexec_state


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{", b"[]", b"{}", b'{"schema": "1"}', b'{"schema": 2}', b'{"schema": 99}', b"[" * 100_000]
)
def test_what_is_no_record(text: bytes) -> None:
    """Nothing, noise, another shape or version, and depths that nobody writes are no record."""
    with pytest.raises(PeerError, match=r"^it (is no record|has schema 99)"):
        record_format.decode(text)


def test_a_bequest_has_a_descriptor_for_each_listener() -> None:
    """One with fewer or more than its record has listeners is none."""
    reexec_state = ReexecState(SCHEMA, a_record({}), "/run/stillup/app", 3, 4, 5, (6,), (8, 9))
    with pytest.raises(PeerError, match="contradict"):
        record_format.decode_reexec_state(record_format.encode_reexec_state(reexec_state))

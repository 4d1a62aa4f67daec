"""What a supervisor and a template, or a preloader, say to each other."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import PeerError
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import BootFailed, Welcome
from stillup.wire.template_messages import (
    ForkAsked,
    Forked,
    ForkFailed,
    FromTemplate,
    Load,
    Loaded,
    Prepared,
    Stale,
    decode_asked,
    decode_imports,
    decode_load,
    decode_loaded,
    decode_said,
    encode,
    encode_imports,
)

ASKED = ForkAsked(["python", "-m", "stillup.worker", "shop:1.2"], {"STILLUP_WORKER": "2"}, own_keyring=True)
SAID: list[FromTemplate] = [
    Prepared(1, {"nosuch": "ModuleNotFoundError: No module"}),
    Forked(7),
    ForkFailed(11),
    Stale("/x"),
]
LOAD = Load(Welcome(5, 0, 3, "main:app", "/srv/shop", "/srv/shop", {"ws": "none"}, 30.0, 60.0))
NEARLY = [broken for said in SAID for broken in (encode(said)[:-1], encode(said) + b"x")]


def test_what_is_asked() -> None:
    """It is read as it was written."""
    assert decode_asked(encode(ASKED)) == ASKED


@pytest.mark.parametrize("said", SAID)
def test_what_is_said(said: FromTemplate) -> None:
    """Each message is read as it was written, and is none of the supervisor's."""
    assert decode_said(encode(said)) == said
    with pytest.raises(PeerError):
        decode_asked(encode(said))


def test_what_is_to_be_preloaded_and_what_became_of_it() -> None:
    """Each is read as it was written; that it failed is said as a worker says it."""
    assert decode_load(encode(LOAD)) == LOAD
    assert decode_loaded(encode(Loaded(["a thread"]))) == Loaded(["a thread"])
    failed = BootFailed("import", "no module")
    assert decode_loaded(handoff_messages.encode(failed)) == failed


@pytest.mark.parametrize(("warm", "others"), [([], []), (["a"], []), ([], ["a.b"]), (["a", "b"], ["c.d", "e"])])
def test_what_is_imported(warm: list[str], others: list[str]) -> None:
    """It is read as it was written."""
    assert decode_imports(encode_imports(warm, others)) == (warm, others)


@given(st.binary() | st.sampled_from(NEARLY))
def test_any_bytes(packet: bytes) -> None:
    """They are a message, or a PeerError."""
    with suppress(PeerError):
        decode_said(packet)
    with suppress(PeerError):
        decode_asked(packet)
    with suppress(PeerError):
        decode_load(packet)
    with suppress(PeerError):
        decode_loaded(packet)

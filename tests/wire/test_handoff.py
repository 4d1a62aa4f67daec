"""The words of the hand-off channel."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import PeerError
from supervisor.wire.handoff import (
    BATCH_LIMIT,
    MESSAGE_LIMIT,
    PROTOCOL,
    SPOKEN,
    Accept,
    Batch,
    BootFailed,
    Drain,
    FromSupervisor,
    FromWorker,
    Hello,
    Hurry,
    ListenerInfo,
    Offer,
    Ready,
    Refusal,
    Report,
    Resume,
    Resumed,
    Return,
    Serving,
    Taken,
    Welcome,
    boot_failed,
    decode_from_supervisor,
    decode_from_worker,
    encode,
    for_version,
)

TEXT = st.text(max_size=30)
WHOLE = st.integers(-(2**63), 2**63 - 1)
COOKIE = st.integers(0, 2**64 - 1)
"""As the kernel has it: an unsigned long long."""
SECONDS = st.floats(0.0, 1e9)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
INFOS = st.lists(st.builds(ListenerInfo, TEXT, WHOLE, TEXT), max_size=3)
COOKIES = st.tuples(COOKIE, COOKIE)
WELCOMES = st.builds(
    Welcome,
    protocol=WHOLE,
    worker=WHOLE,
    generation=WHOLE,
    app=TEXT,
    directory=TEXT,
    app_dir=TEXT,
    options=st.dictionaries(TEXT, JSON, max_size=3),
    drain_timeout=SECONDS,
    boot_timeout=SECONDS,
    health_path=TEXT,
    health_host=TEXT,
    max_age=st.none() | SECONDS,
    max_rss=st.none() | WHOLE,
    orphan_timeout=SECONDS,
)
FROM_BOTH: st.SearchStrategy[Taken | Batch] = st.builds(Taken, WHOLE) | st.builds(Batch, WHOLE)
"""Descriptors go either way, and so do these."""
FROM_WORKER_ALONE: st.SearchStrategy[FromWorker] = (
    st.builds(Hello, WHOLE, TEXT)
    | st.builds(Resume, WHOLE, TEXT, st.booleans(), WELCOMES, INFOS, st.none() | COOKIES)
    | st.builds(BootFailed, TEXT, TEXT)
    | st.builds(Ready, TEXT)
    | st.builds(Serving)
    | st.builds(
        Report,
        st.dictionaries(TEXT, WHOLE, max_size=4),
        WHOLE,
        TEXT,
        st.dictionaries(TEXT, SECONDS, max_size=4),
        WHOLE,
        WHOLE,
        WHOLE,
        WHOLE,
        SECONDS,
    )
)
FROM_WORKER: st.SearchStrategy[FromWorker] = FROM_BOTH | FROM_WORKER_ALONE
FROM_SUPERVISOR_ALONE: st.SearchStrategy[FromSupervisor] = (
    WELCOMES
    | st.builds(Refusal, TEXT)
    | st.builds(Offer, INFOS, COOKIES)
    | st.builds(Return)
    | st.builds(Resumed)
    | st.builds(Accept)
    | st.builds(Drain, SECONDS, st.booleans(), WHOLE)
    | st.builds(Hurry)
)
FROM_SUPERVISOR: st.SearchStrategy[FromSupervisor] = FROM_BOTH | FROM_SUPERVISOR_ALONE


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    """Bytes of any kind: none, garbage, JSON of another shape, or a real message cut or with a byte changed."""
    message: FromWorker | FromSupervisor = draw(FROM_WORKER | FROM_SUPERVISOR)
    packet = encode(message)
    kind = draw(st.sampled_from(["garbage", "json", "cut", "changed"]))
    if kind == "garbage":
        return draw(st.binary(max_size=60))
    if kind == "json":
        return msgspec.json.encode(draw(JSON))
    place = draw(st.integers(0, len(packet) - 1))
    if kind == "cut":
        return packet[:place]
    return packet[:place] + bytes([draw(st.integers(0, 255))]) + packet[place + 1 :]


@given(message=FROM_WORKER)
def test_a_worker_is_understood(message: FromWorker) -> None:
    """What a worker says is what the supervisor hears."""
    assert decode_from_worker(encode(message)) == message


@given(message=FROM_SUPERVISOR)
def test_a_supervisor_is_understood(message: FromSupervisor) -> None:
    """What the supervisor says is what a worker hears."""
    assert decode_from_supervisor(encode(message)) == message


@given(packet=noise())
def test_noise_is_a_message_or_the_peers_error(packet: bytes) -> None:
    """Whatever bytes come, they are a message of the protocol or the other end's error, and nothing else happens."""
    for decode in (decode_from_worker, decode_from_supervisor):
        with suppress(PeerError):
            assert isinstance(decode(packet), FromWorker | FromSupervisor)


@given(mine=FROM_WORKER_ALONE, theirs=FROM_SUPERVISOR_ALONE)
def test_nobody_speaks_with_the_others_voice(mine: FromWorker, theirs: FromSupervisor) -> None:
    """A worker's own words are no words of the supervisor, nor the other way round."""
    with pytest.raises(PeerError):
        decode_from_supervisor(encode(mine))
    with pytest.raises(PeerError):
        decode_from_worker(encode(theirs))


@given(message=FROM_WORKER | FROM_SUPERVISOR)
def test_a_word_too_many_is_refused(message: FromWorker | FromSupervisor) -> None:
    """A message with a field that this version does not know is outside the protocol."""
    packet = encode(message)[:-1] + b',"extra":1}'
    decode = decode_from_worker if isinstance(message, FromWorker) else decode_from_supervisor
    with pytest.raises(PeerError, match="extra"):
        decode(packet)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff",
        b'{"type":"Ready","probe":"\xff"}',
        b'{"type":"Ready","probe":"\\ud800"}',
        b'{"type":"Taken","count":"1"}',
        b'{"type":"Taken"}',
        b'{"type":"Farewell"}',
        b'{"count":1}',
        b"[]",
    ],
)
def test_what_no_worker_says(packet: bytes) -> None:
    """An empty packet, text that is no UTF-8, a wrong type, a missing field and an unknown name are all refused."""
    with pytest.raises(PeerError, match=r"^not a message of the hand-off protocol: "):
        decode_from_worker(packet)


@given(message=FROM_WORKER | FROM_SUPERVISOR)
def test_a_message_bears_its_name(message: FromWorker | FromSupervisor) -> None:
    """A packet is a JSON object with the message's name under ``type``, for whoever speaks it in another version."""
    assert msgspec.json.decode(encode(message))["type"] == type(message).__name__


@pytest.mark.parametrize(
    "message",
    [
        BootFailed("import", "no file /srv/\udcff"),
        Offer([ListenerInfo("web", 1, "unix:/srv/\udcff")], (1, 2)),
        Report({"\udcff": 1}, 3),
    ],
)
def test_what_utf_8_cannot_say_is_escaped(message: FromWorker | FromSupervisor) -> None:
    """A lone surrogate, wherever it stands, comes over as its escape and changes nothing else of the message."""
    decode = decode_from_worker if isinstance(message, FromWorker) else decode_from_supervisor
    told = decode(encode(message))
    assert repr(told) == repr(message).replace("\\udcff", "\\\\udcff")


@given(reason=st.text(max_size=20), times=st.integers(0, 2000))
def test_a_reason_of_any_length_is_told(reason: str, times: int) -> None:
    """A reason comes over whole up to 4,096 characters; of a longer one its beginning does, and a sign that it is."""
    whole = reason * times
    told = decode_from_worker(encode(boot_failed("import", whole)))
    assert told == BootFailed("import", whole if len(whole) <= 4096 else f"{whole[:4096]} ...")


def test_the_longest_reason_fits() -> None:
    """Whatever a reason of the greatest length is made of, it is one packet."""
    for character in ("\udcff", "\0", "\N{PILE OF POO}"):
        encode(boot_failed("import", character * 5000))


def test_a_packet_has_a_limit() -> None:
    """A message that fills the limit to the byte is sent; one byte more is refused before it is."""
    room = MESSAGE_LIMIT - len(encode(Refusal("")))
    assert len(encode(Refusal("x" * room))) == MESSAGE_LIMIT
    with pytest.raises(PeerError, match=f"a Refusal of {MESSAGE_LIMIT + 1} bytes is over the limit of {MESSAGE_LIMIT}"):
        encode(Refusal("x" * (room + 1)))


def test_a_packet_fits_the_kernels_limits() -> None:
    """A packet fits a socket buffer of the default size, and its descriptors one control message."""
    assert MESSAGE_LIMIT < 212_992
    assert BATCH_LIMIT <= 253


def test_a_welcome_without_limits_is_understood() -> None:
    """A worker that is told of no limit to its age and memory has none."""
    plain = b'{"type":"Welcome","protocol":1,"worker":1,"generation":1,"app":"a:b","directory":"/","app_dir":"/",'
    welcome = decode_from_supervisor(plain + b'"options":{},"drain_timeout":1,"boot_timeout":1}')
    assert isinstance(welcome, Welcome)
    assert (welcome.max_age, welcome.max_rss) == (None, None)


def test_our_own_version_is_spoken() -> None:
    """The version that a worker says in its hello is among those that the supervisor speaks."""
    assert PROTOCOL in SPOKEN


@given(welcome=WELCOMES)
def test_a_welcome_for_a_worker_of_version_1(welcome: Welcome) -> None:
    """A worker of the version before is welcomed in its own words: what it does not know is not in the packet."""
    packet = msgspec.json.decode(encode(for_version(welcome, 1)))
    assert packet["protocol"] == 1
    assert "orphan_timeout" not in packet
    assert packet["app"] == welcome.app


@pytest.mark.parametrize(
    ("drain", "said"),
    [
        (Drain(5.0, final=False, packet=16), {"timeout": 5.0, "final": False, "packet": 16}),
        (Drain(5.0, final=False, packet=64, park=True), {"timeout": 5.0, "final": True}),
    ],
)
def test_a_drain_for_a_worker_of_version_1(drain: Drain, said: Mapping[str, object]) -> None:
    """A worker of the version before has no word for parking: it finishes what it holds."""
    assert msgspec.json.decode(encode(for_version(drain, 1))) == {"type": "Drain", **said}
    assert for_version(drain, PROTOCOL) is drain

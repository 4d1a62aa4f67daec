"""The words of the hand-off channel."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.crossing import Crossed
from stillup.core.worker_figures import Answers, Leadership, WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import PeerError
from stillup.wire.handoff_messages import (
    BATCH_LIMIT,
    MESSAGE_LIMIT,
    Accept,
    Batch,
    BootFailed,
    Cordon,
    Drain,
    FromSupervisor,
    FromWorker,
    Give,
    Hello,
    Hurry,
    KeepOnly,
    Lead,
    ListenerInfo,
    Offer,
    Pause,
    ProbeAnswer,
    Ready,
    Refusal,
    Reopened,
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
)
from stillup.wire.worker_words import UNKNOWN_REASON, in_short, reason_of, without_words

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
    settings=st.builds(WorkerSettings, TEXT, TEXT, st.none() | SECONDS, st.none() | WHOLE, SECONDS),
)
FROM_BOTH: st.SearchStrategy[Taken | Batch] = st.builds(Taken, WHOLE) | st.builds(Batch, WHOLE)
"""Descriptors go either way, and so do these."""
FROM_WORKER_ALONE: st.SearchStrategy[FromWorker] = (
    st.builds(Hello, WHOLE, TEXT)
    | st.builds(Resume, WHOLE, TEXT, st.booleans(), WELCOMES, INFOS, st.none() | COOKIES, st.booleans(), st.booleans())
    | st.builds(BootFailed, TEXT, TEXT)
    | st.builds(ProbeAnswer, WHOLE)
    | st.builds(Ready, TEXT)
    | st.builds(Serving)
    | st.builds(
        Report,
        st.builds(
            WorkerFigures,
            st.dictionaries(TEXT, WHOLE, max_size=4),
            WHOLE,
            st.dictionaries(TEXT, SECONDS, max_size=4),
            st.builds(Crossed, WHOLE, WHOLE, WHOLE, WHOLE, SECONDS),
            leadership=st.builds(Leadership, st.booleans(), st.booleans(), WHOLE),
            answers=st.builds(Answers, WHOLE, st.lists(WHOLE, max_size=14).map(tuple), st.just(())),
        ),
        TEXT,
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
    | st.builds(Reopened)
    | st.builds(Cordon, st.booleans())
    | st.builds(Lead, WHOLE)
    | st.builds(KeepOnly, st.lists(WHOLE))
    | st.builds(Pause, SECONDS, SECONDS, SECONDS, WHOLE)
    | st.builds(Give, SECONDS)
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
        Report(WorkerFigures({"\udcff": 1}, 3)),
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
    plain = b'{"type":"Welcome","protocol":3,"worker":1,"generation":1,"app":"a:b","directory":"/","app_dir":"/",'
    welcome = decode_from_supervisor(plain + b'"options":{},"drain_timeout":1,"boot_timeout":1}')
    assert isinstance(welcome, Welcome)
    assert (welcome.settings.max_worker_age, welcome.settings.max_worker_rss) == (None, None)


def test_a_figure_of_another_version() -> None:
    """A figure that is not known is passed over, and one that is missing has its default: no new version is needed."""
    told = decode_from_worker(b'{"type":"Report","figures":{"requests":7,"extra":[1],"crossed":{"given":2,"new":1}}}')
    assert told == Report(WorkerFigures(requests=7, crossed=Crossed(given=2)))


def test_a_setting_of_another_version() -> None:
    """A setting that is not known is passed over, and one that is missing has its default: no new version is needed."""
    plain = b'{"type":"Welcome","protocol":3,"worker":1,"generation":1,"app":"a:b","directory":"/","app_dir":"/",'
    more = b'"options":{},"drain_timeout":1,"boot_timeout":1,"settings":{"extra":{},"orphan_timeout":3}}'
    welcome = decode_from_supervisor(plain + more)
    assert isinstance(welcome, Welcome)
    assert welcome.settings == WorkerSettings(orphan_timeout=3.0)


def test_what_a_worker_says_in_short() -> None:
    """A reason that a worker made itself is kept whole, one of any length is not; and no stage is of its own naming."""
    honest = boot_failed("import", "x" * 10_000)
    assert in_short(honest) == ("import", honest.message)
    for stage in ("s" * 10_000, "exit", "x)\nMAINPID=1"):
        said = in_short(BootFailed(stage, "m" * 100_000))
        assert (said[0], len(said[1])) == ("worker", 4100)


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "1000 requests (--limit-max-requests)",
        "age 3600 s (--max-worker-age)",
        "rss 530 MB (--max-worker-rss)",
        "SIGTERM",
    ],
)
def test_why_a_worker_asks_to_be_replaced(reason: str) -> None:
    """What a worker has to say of that is kept as it is."""
    assert reason_of(reason) == reason


@given(st.text(min_size=1) | st.sampled_from(["a secret", "1 requests (--limit-max-requests) a secret", "9" * 10_000]))
def test_another_reason_is_none_of_ours(reason: str) -> None:
    """It is words of an app's, and viewers read why a worker is replaced."""
    assert reason_of(reason) in (UNKNOWN_REASON, "SIGTERM")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("Object contains unknown field `a secret`", "Object contains unknown field"),
        ("Invalid value 'a\nsecret' - at `$.stage`", "Invalid value"),
        ("Expected `int`, got `str`", "Expected `int`, got `str`"),
    ],
)
def test_why_something_is_no_message(error: str, shown: str) -> None:
    """The reason is kept, the words that were said are not: viewers read it."""
    assert without_words(error) == shown

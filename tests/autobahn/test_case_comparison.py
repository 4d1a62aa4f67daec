"""What `make prove-websockets` takes for worse, and what its fuzzer's octet strings are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.autobahn.case_comparison import NOT_RUN, CaseEnd, tally, worse
from tests.autobahn.fuzzed_servers import raised
from tests.autobahn.fuzzing_client import repeated
from tests.autobahn.octets import b2a_hex, decoded, encoded, sha1

OK = CaseEnd("OK", "OK", 1000)
FAILED = CaseEnd("FAILED", "WRONG CODE", 1012)
INFORMATIONAL = CaseEnd("INFORMATIONAL", "INFORMATIONAL", 1000)


@pytest.mark.parametrize(
    ("plain", "ours"),
    [
        (OK, CaseEnd("NON-STRICT", "OK", 1000)),
        (OK, CaseEnd("OK", "UNCLEAN", 1000)),
        (CaseEnd("NON-STRICT", "UNCLEAN"), CaseEnd("OK", "FAILED")),
        (OK, CaseEnd("OK", "OK", 1012)),
        (FAILED, CaseEnd("FAILED", "WRONG CODE", 1006)),
        (CaseEnd("UNIMPLEMENTED", "OK", 1000), CaseEnd("FAILED", "OK", 1000)),
        (FAILED, NOT_RUN),
    ],
)
def test_worse(plain: CaseEnd, ours: CaseEnd) -> None:
    """In what it did, how it closed, or with which code: whatever of the rest is better."""
    assert ours.worse_than(plain)


@pytest.mark.parametrize(
    ("plain", "ours"),
    [
        (OK, OK),
        (FAILED, FAILED),
        (FAILED, OK),
        (CaseEnd("NON-STRICT", "OK", 1002), CaseEnd("OK", "OK", 1007)),
        (INFORMATIONAL, CaseEnd("INFORMATIONAL", "INFORMATIONAL", 1002)),
    ],
)
def test_not_worse(plain: CaseEnd, ours: CaseEnd) -> None:
    """A failure that uvicorn has too is none of ours; where the fuzzer has no opinion, a close code is neither."""
    assert not ours.worse_than(plain)


def test_each_is_found() -> None:
    """In the order of the cases: which is worse than in each run with uvicorn, and which did not end."""
    plain = {"2.10": [OK, OK], "2.9": [OK], "4.1.5": [CaseEnd("NON-STRICT", "OK", 1000), OK], "7.1.1": [OK]}
    found = worse(plain, {"2.10": FAILED, "4.1.5": CaseEnd("NON-STRICT", "OK", 1000), "7.1.1": OK})
    assert [(one.case, one.ours) for one in found] == [("2.9", NOT_RUN), ("2.10", FAILED)]
    assert str(found[1]).split() == (
        ["2.10", "uvicorn:", "OK,", "close", "OK", "(1000)", "stillup:", "FAILED,", "close", "WRONG", "CODE", "(1012)"]
    )


def test_tally() -> None:
    """The line that is printed of a run names the best first, and of the closing only what is wrong."""
    ends = {"a": FAILED, "b": OK, "c": OK, "d": INFORMATIONAL}
    assert tally(ends) == "2 OK, 1 INFORMATIONAL, 1 FAILED, 1 closed WRONG CODE"


def test_octet_strings() -> None:
    """They are text where cases look at them, and octets on the wire; what is neither stays."""
    assert encoded("\xce\xba") == b"\xce\xba"
    assert decoded(b"\xfe") == "\xfe"
    assert (encoded(1), decoded(None)) == (1, None)
    assert b2a_hex("\xfe\x00") == b2a_hex(b"\xfe\x00") == "fe00"
    text, octets = sha1(), sha1()
    text.update("\xfe")
    octets.update(b"\xfe")
    assert text.digest() == octets.digest()


def test_a_payload_is_repeated() -> None:
    """Up to the length that a case asks for."""
    assert [repeated(b"abc", length) for length in (None, 0, 2, 7)] == [b"abc", b"", b"ab", b"abcabca"]


def test_kinds_of_exceptions(tmp_path: Path) -> None:
    """Of each traceback in a log, with the margin that ours has and without; what is only named is none."""
    log = tmp_path / "log"
    log.write_text("""ERROR: KeyError: 'named'
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
ValueError: none

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
starlette.websockets.WebSocketDisconnect: (1012, '')
2026-01-01 ERROR   5.1   Exception in ASGI application
  | Traceback (most recent call last):
  |   File "a.py", line 1, in f
  |     g()
  | asyncio.exceptions.CancelledError
""")
    kinds = {"ValueError", "starlette.websockets.WebSocketDisconnect", "asyncio.exceptions.CancelledError"}
    assert raised(log) == kinds

"""Requests that no client should send, the same ones in every run."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator

_HOST = b"Host: x\r\n"
_CHUNKED = b"POST /v1/abort HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_GOOD = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_PATHS = (b"/v1/status", b"/v1/rollouts/", b"/v1/scalings/", b"/v1/generations", b"/v2/status", b"/", b"*", b"//")


def requests(count: int, seed: int = 5) -> Iterator[bytes]:
    """So many, of every kind in turn."""
    dice = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](dice)


def _noise(dice: random.Random, most: int = 400) -> bytes:
    return dice.randbytes(dice.randint(1, most))


def _word(dice: random.Random) -> bytes:
    return "".join(dice.choices(string.ascii_letters + "-_%&=#;:,", k=dice.randint(1, 12))).encode()


def _target(dice: random.Random) -> bytes:
    odd = dice.choice(
        [b"", b"9" * 5000, b"%00", b"%zz", b"%ff%fe", b"../../etc/passwd", b"-1", b"1e3", b"?wait=%00", _word(dice)]
    )
    query = dice.choice([b"", b"?", b"?wait", b"?wait=" + _word(dice), b"?%=&&=&a", b"?" + b"a=1&" * 300])
    return dice.choice(_PATHS) + odd + query


def _truncated(dice: random.Random) -> bytes:
    whole = b"GET " + _target(dice) + b" HTTP/1.1\r\n" + _HOST + b"Accept: */*\r\n\r\n"
    return whole[: dice.randrange(1, len(whole) - 1)]


def _bad_line(dice: random.Random) -> bytes:
    method = dice.choice(
        [b"get", b"G\0T", b"", b" GET", b"GET\t", b"\xff\xfe", b"A" * 3000, b"PRI", b"CONNECT", b"TRACE", b"{}"]
    )
    ending = dice.choice(
        [b" HTTP/1.1", b" HTTP/9.9", b" HTTP/2.0", b" HTTP/1.1 HTTP/1.1", b"", b" ICAP/1.0", b" HTTP/1.0"]
    )
    return method + b" " + _target(dice) + ending + b"\r\n" + _HOST + b"\r\n"


def _bad_header(dice: random.Random) -> bytes:
    odd = [
        b"no colon",
        b": no name",
        b"Name : space",
        b" folded: at once",
        b"A: b\0c",
        b"A: b\rc",
        b"\xc3\xa9: \xff",
        b"Host: y",
        b"Content-Length: -1",
        b"Content-Length: 1e9",
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Length: " + b"9" * 40,
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Expect: 100-continue\r\nContent-Length: 5",
        b"Expect: a miracle",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"Stillup-API: 9.9",
        b"Stillup-API: \xff",
        b"X: " + _noise(dice, 60),
    ]
    method = dice.choice([b"GET ", b"HEAD ", b"PUT ", b"OPTIONS "])
    return method + _target(dice) + b" HTTP/1.1\r\n" + _HOST + dice.choice(odd) + b"\r\n\r\n"


def _giant(dice: random.Random) -> bytes:
    head = b"GET /v1/status HTTP/1.1\r\n" + _HOST
    return dice.choice(
        [
            head + b"A: " + b"a" * 70_000 + b"\r\n\r\n",
            head + b"a:\r\n" * 10_000 + b"\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + _HOST + b"\r\n",
            b"A" * 70_000,
            b"\r\n" * 20_000,
            b"POST /v1/abort HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000,
        ]
    )


def _bad_chunk(dice: random.Random) -> bytes:
    odd = [
        b"zz\r\n",
        b"-1\r\na\r\n",
        b"f" * 30 + b"\r\n",
        b"1\r\nab\r\n",
        b"1;" + b"a" * 20_000,
        b"\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
    ]
    return _CHUNKED + b"1\r\na\r\n" * dice.randint(0, 5) + dice.choice([*odd, _noise(dice, 50)])


def _pipelined(dice: random.Random) -> bytes:
    return _GOOD * dice.randint(1, 5) + dice.choice(
        [_noise(dice), _bad_header(dice), _bad_chunk(dice), _truncated(dice)]
    )


def _another_protocol(dice: random.Random) -> bytes:
    return dice.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _noise(dice),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _noise(dice, 50),
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b'{"schema": 1, "nonce": "x"}',
            b"\0" * dice.randint(1, 5000),
        ]
    )


_KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    _noise,
    _truncated,
    _bad_line,
    _bad_header,
    _bad_chunk,
    _pipelined,
    _another_protocol,
    _giant,
)

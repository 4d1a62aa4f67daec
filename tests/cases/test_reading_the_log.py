"""Reading one log: whoever wrote it, each line says when, how loud, and which worker; for people, or for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.system.harness import APP, Service, eventually

TALKS = """
import logging, os, sys
shop = logging.getLogger("shop")
print("printed at import")
os.write(2, b"written at import\\n")
shop.warning("warned at import")
def talk():
    print("printed", "in a request")
    sys.stderr.write("half of ")
    sys.stderr.write("a line\\n")
    print('{"event": "paid", "amount": 3}')
    try:
        raise ValueError("lost\\n\\x1b[2Jmoney")
    except ValueError:
        shop.exception("no %s", "way")
""" + APP.replace("    body =", "    talk()\n    body =")
"""An app that says something in every way there is, before it serves and when it is asked."""
SAID = [
    "printed at import",
    "written at import",
    "warned at import",
    "gen 1 serves",
    "printed in a request",
    "half of a line",
    "paid",
    "no way",
    '"GET / HTTP/1.1" 200 OK',
]


def test_by_a_program(tmp_path: Path) -> None:
    """With --log-format json every line is an object, also uvicorn's and what is printed, in the order of events."""
    service = Service(tmp_path, "main:app", "--log-format", "json")
    service.tracebacks_expected = True
    service.write(TALKS)
    with service:
        eventually(lambda: "gen 1 serves" in service.log(), "the supervisor has written, which has a thread for that")
        service.get()
        eventually(lambda: "HTTP/1.1" in service.log(), "the request is logged")
    lines: list[dict[str, Any]] = [json.loads(line) for line in service.log().splitlines()]
    assert all({"at", "level"} <= line.keys() for line in lines)
    texts = [line.get("message", line.get("event", "")) for line in lines]
    places = [next(number for number, text in enumerate(texts) if said in text) for said in SAID]
    assert places == sorted(places), texts
    of_workers = [lines[place] for place in places if "serves" not in texts[place]]
    assert {(line["generation"], line["worker"]) for line in of_workers} == {(1, "1.1")}
    levels = {texts[place]: lines[place]["level"] for place in places}
    assert levels["warned at import"] == "warning"
    assert levels["printed at import"] == "info"
    failed = lines[places[-2]]
    assert failed["level"] == "error"
    assert failed["message"].endswith("ValueError: lost\n\x1b[2Jmoney"), "one object has all of it"
    assert lines[places[-3]]["amount"] == 3, "an object that is printed is that object"
    assert (lines[places[-1]]["status"], lines[places[-1]]["path"]) == (200, "/")
    assert any(line.get("logger") == "uvicorn.error" for line in lines)

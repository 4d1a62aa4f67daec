"""docs/control-api.md has every operation, and leads to every problem; its examples run with the other pages'."""

from __future__ import annotations

import re

from stillup.wire.api_operation import ApiSocket
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import ANYWHERE, PROBLEM_TYPES
from tests.docs.pages import ROOT, examples

PAGE = ROOT / "docs" / "control-api.md"


def test_every_operation_is_on_the_page_and_every_problem_on_that_of_errors() -> None:
    """With its role, and where it can be asked for; and every operation is asked for in an example."""
    text = PAGE.read_text()
    asked = "\n".join(example.command for example in examples(PAGE))
    for one in OPERATIONS:
        sockets = ", ".join(f"`{where}`" for where in ApiSocket if where in one.sockets)
        assert f"| `{one.method} {one.path}` | {one.role} | {sockets} | {one.what} |" in text
        assert re.search(rf"localhost{re.sub(r'{id}', '[0-9]', one.path)}(['? ]|$)", asked, re.MULTILINE), one.path
    assert "(errors.md)" in text
    errors = (ROOT / "docs" / "errors.md").read_text()
    for code in {code for one in OPERATIONS for code in (*ANYWHERE, *one.problems)}:
        assert f"| [`{code}`](#{code}) | {PROBLEM_TYPES[code].status} |" in errors

"""Numbers of things in words: one of them is no plural."""

import pytest

from stillup.core.amounts import amount


@pytest.mark.parametrize(
    ("number", "reads"), [(0, "0 workers"), (1, "1 worker"), (2, "2 workers"), (1000, "1000 workers")]
)
def test_an_s_is_said_of_all_but_one(number: int, reads: str) -> None:
    """None has it, too."""
    assert amount(number, "worker") == reads


def test_any_plural_is_named() -> None:
    """A verb goes with its number."""
    assert [amount(number, "process lives", "processes live") for number in (1, 2)] == [
        "1 process lives",
        "2 processes live",
    ]

"""What the frames of ``stillup top`` are made of: bars, rates, times, numbers and keys."""

from __future__ import annotations

import itertools

import pytest

from stillup.client.status_ages import aged
from stillup.client.top import top_bars
from stillup.client.top.top_bars import bar
from stillup.client.top.top_keys import keys_line, offered, request, wanted
from stillup.client.top.top_lines import cells, count, duration, plain, size, wrapped
from stillup.client.top.top_rates import SUPERVISOR, Rate, RateMeter, averages
from stillup.core.drain import ConnectionClass
from stillup.core.values import replace
from stillup.wire import fleet_views
from stillup.wire.api_shapes import VacancyView
from tests.client.busy_supervisor import status
from tests.core import story

ROLE = frozenset({"reload", "rollback", "scale", "abort", "promote"})


@pytest.mark.parametrize("width", range(1, 40, 3))
def test_bars_are_in_proportion(width: int) -> None:
    """As long as the connections are of the most that a worker has; each class by its part, one mark at the least."""
    numbers = (0, 1, 3, 50)
    for idle, stream, busy in itertools.product(numbers, numbers, numbers):
        classes = {"idle": idle, "stream": stream, "in-progress": busy, "background": 9}
        made = {text[0]: len(text) for text, _ in bar(classes, 150, width)}
        total = idle + stream + busy
        kinds = sum(number > 0 for number in (idle, stream, busy))
        assert sum(made.values()) == (min(width, max(kinds, round(width * total / 150))) if total else 0)
        if width >= kinds:
            assert all((mark in made) == (number > 0) for mark, number in zip(".~#", (idle, stream, busy), strict=True))
        if total == 150:
            assert all(abs(length - width / 3) < 1 for length in made.values()) or width < 3


def test_a_class_without_a_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown as the first of its family; one that only a later supervisor knows is shown, too."""
    monkeypatch.delitem(top_bars.MARKS, ConnectionClass.ANSWERED)
    assert bar({"answered": 2, "in-progress": 1}, 3, 3) == [("#", "green"), ("##", "green")]
    assert bar({"quic": 2}, 2, 2) == [("??", "")]


def test_wrapped_lines() -> None:
    """Broken at blanks, the last one cut; a word that is too long is broken anywhere."""
    assert [plain(one) for one in wrapped(10, "one two three four", "", 2)] == ["one two", "three four"]
    assert [plain(one) for one in wrapped(10, "one two three four", "", 2, 2)] == ["one two", "  three f>"]
    assert [plain(one) for one in wrapped(10, "x" * 25, "", 3)] == ["x" * 10, "x" * 10, "x" * 5]
    assert all(cells(plain(one)) <= 9 for one in wrapped(9, "商店 " * 9 + "商" * 9, "", 9))


def test_rates() -> None:
    """Of the last seconds, by worker; a worker whose pid is another one begins anew."""
    meter = RateMeter()
    assert meter.rates(status(2, 0.0), 100.0) == {}
    for second in range(1, 10):
        rates = meter.rates(status(2, float(second)), 100.0 + second)
    assert rates["1.2", 4102] == Rate(0.25, 200.0)
    assert rates[SUPERVISOR, 4000].cpu == pytest.approx(0.01)
    assert meter.rates(status(40), 109.0) is rates, "the same answer says nothing new"
    still = status(2, 9.0)
    rates = meter.rates(still, 112.0)
    assert rates["1.2", 4102] == Rate(0.0, 0.0)
    other = replace(still.generations[0].workers[0], pid=9999)
    rates = meter.rates(replace(still, generations=[replace(still.generations[0], workers=[other])]), 113.0)
    assert list(rates) == [(SUPERVISOR, 4000)]
    assert averages(status(1, 60.0))["1.1", 4101] == Rate(15 / 120, 50.0)


def test_what_is_left_does_not_fall_below_nothing() -> None:
    """However old the status is."""
    told = story.draining(1)
    drains = replace(fleet_views.rollout(told.fleet, told.rollout(2), told.now), drain_left=3.0)
    late = aged(replace(status(1), rollout=drains), 500.0)
    assert late.rollout is not None
    assert late.rollout.drain_left == 0.0


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "0 s"), (59.9, "59 s"), (187, "3m07s"), (7500, "2h05m"), (1e6, "11d 13h")]
)
def test_durations(seconds: float, says: str) -> None:
    assert duration(seconds) == says


def test_numbers_fit_their_columns() -> None:
    """Whatever they are."""
    assert [size(number) for number in (0, 1024, 812 << 10, 45 << 20, 1288490189)] == ["-", "1K", "812K", "45M", "1.2G"]
    assert [count(number) for number in (0.44, 317.2, 9999, 12345, 3e7)] == ["0.4", "317", "9999", "12k", "30M"]
    assert max(len(size(3**power)) for power in range(38)) <= 5
    assert max(len(count(3.0**power)) for power in range(27)) <= 6


# Keys


def test_keys_are_those_that_the_role_allows() -> None:
    """And that make sense: there is nothing to abort without a rollout, or to promote without a canary."""
    assert offered(status(40), ROLE) == ["r", "b", "+", "-"]
    assert offered(status(40), {"status", "events"}) == []
    assert keys_line([], events=False) == " q quit  e events"
    assert keys_line(["r", "b", "+", "-", "a"], events=True) == (
        " q quit  e workers  r reload  b roll back  + - scale  a abort"
    )


def test_what_a_key_asks_for() -> None:
    """The question says what would be done; nobody is asked for fewer than one worker."""
    one = status(1)
    assert [asked.question for key in "rb+-ap" if (asked := request(key, one)) is not None] == [
        "reload shop? y/n",
        "roll shop back to the release before? y/n",
        "scale shop from 1 to 2? y/n",
        "scale shop from 1 to 1? y/n",
        "abort the rollout? y/n",
        "pass the canary, whatever its figures are? y/n",
    ]
    assert request("x", one) is None
    leaving = replace(one.generations[0].workers[0], id="1.2", state="draining")
    group = replace(
        one.generations[0], workers=[*one.generations[0].workers, leaving], waiting=[VacancyView("1.3", 1, 1)]
    )
    assert wanted(replace(one, generations=[group])) == 2

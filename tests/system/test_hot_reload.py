"""`--reload`: a change of source is a reload like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.client_group import frozen
from tests.system.harness import Service, eventually, lines

pytestmark = pytest.mark.xdist_group("hot reload")


def _service(folder: Path, *options: str, wait: bool = True) -> Service:
    service = Service(folder, "main:app", "--reload", "--reload-delay", "0.2", *options, wait=wait)
    service.tracebacks_expected = True  # of source that is broken
    return service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that is reloaded by every test, and watches other files than by default, too."""
    words = ("--reload-include", "*.html", "--reload-exclude", "made_*.py")
    service = _service(tmp_path_factory.mktemp("service"), *words)
    service.write()
    with service:
        eventually(lambda: "watching" in service.log(), "it watches")
        yield service


def _begun(service: Service) -> int:
    """The newest generation that boots or has booted."""
    return len(list(lines(service.log(), "boots from")))


def _saved(service: Service, version: str) -> None:
    """Save a new version, and wait until it answers, and nothing else."""
    service.write(version=version)
    _serves(service, version)


def _serves(service: Service, version: str) -> None:
    eventually(lambda: service.get().endswith(version), "the new source answers")
    eventually(lambda: len(service.generations()) == 1, "the old one has left")


def test_a_save_reloads(service: Service) -> None:
    """A saved source is served, and the log names the file."""
    new = _begun(service) + 1
    _saved(service, "saved")
    service.logged(f"gen {new}", "main.py changed")


def test_a_burst_is_one_reload(service: Service) -> None:
    """Forty files written one after another make one reload."""
    new = _begun(service) + 1
    with frozen([service.process.pid]):  # to it they are one burst, also where this process stands still between two
        for number in range(40):
            (service.folder / f"part{number}.py").write_text("x = 1\n")
        service.write(version="burst")
    _serves(service, "burst")
    assert _begun(service) == new


def test_broken_source_keeps_the_old_and_the_next_save_goes_on(service: Service) -> None:
    """A save that cannot serve shows its error and changes nothing; the next good one is served."""
    before, new = service.get(), _begun(service) + 1
    service.write("import nosuch\n")
    eventually(lambda: f"gen {new} rejected" in service.log(), "it is rejected")
    service.logged("No module named 'nosuch'")
    assert service.get() == before
    _saved(service, "mended")


def test_what_is_excluded_does_not_reload(service: Service) -> None:
    """Excluded and uncounted files change nothing; an included pattern does."""
    new = _begun(service) + 1
    (service.folder / "made_up.py").write_text("x = 1\n")
    (service.folder / "notes.txt").write_text("x\n")
    (service.folder / "page.html").write_text("<p>\n")
    eventually(lambda: service.get().startswith(f"{new} "), "the page reloads")
    service.logged(f"gen {new}", "(page.html changed)")


def test_a_first_start_with_broken_source_waits_for_the_next_save(tmp_path: Path) -> None:
    """Under --reload a broken first release does not end the supervisor; the save that mends it is served."""
    service = _service(tmp_path, wait=False)
    service.write("import nosuch\n")
    with service:
        eventually(lambda: "gen 1 rejected" in service.log(), "it is rejected")
        eventually(lambda: "watching" in service.log(), "it watches")
        service.write(version="v2")
        service.until_serving()
        assert service.get().endswith("v2")

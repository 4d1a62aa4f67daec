"""`--reload`: a change of source is a reload like any other."""

from __future__ import annotations

from pathlib import Path

from tests.system.harness import Service, eventually, lines


def _service(folder: Path, *options: str, wait: bool = True) -> Service:
    return Service(folder, "main:app", "--reload", "--reload-delay", "0.2", *options, wait=wait)


def _begun(service: Service) -> int:
    return len(list(lines(service.log(), "boots from")))


def test_a_save_reloads(tmp_path: Path) -> None:
    """A saved source is served, and the log names the file."""
    service = _service(tmp_path)
    service.write()
    with service:
        eventually(lambda: "watching" in service.log(), "it watches")
        service.write(version="v2")
        eventually(lambda: service.get().endswith("v2"), "the new source answers")
        assert list(lines(service.log(), "gen 2", "main.py changed"))


def test_a_burst_is_one_reload(tmp_path: Path) -> None:
    """Forty files written one after another make one reload."""
    service = _service(tmp_path)
    service.write()
    with service:
        eventually(lambda: "watching" in service.log(), "it watches")
        for number in range(40):
            (tmp_path / f"part{number}.py").write_text("x = 1\n")
        service.write(version="v2")
        eventually(lambda: service.get().endswith("v2"), "the new source answers")
        assert _begun(service) == 2


def test_broken_source_keeps_the_old_and_the_next_save_goes_on(tmp_path: Path) -> None:
    """A save that cannot serve shows its error and changes nothing; the next good one is served."""
    service = _service(tmp_path)
    service.tracebacks_expected = True
    service.write()
    with service:
        eventually(lambda: "watching" in service.log(), "it watches")
        service.write("import nosuch\n")
        eventually(lambda: "gen 2 rejected" in service.log(), "it is rejected")
        assert "No module named 'nosuch'" in service.log()
        assert service.get().endswith("v1")
        service.write(version="v3")
        eventually(lambda: service.get().endswith("v3"), "the next save answers")


def test_a_first_start_with_broken_source_waits_for_the_next_save(tmp_path: Path) -> None:
    """Under --reload a broken first release does not end the supervisor; the save that mends it is served."""
    service = _service(tmp_path, wait=False)
    service.tracebacks_expected = True
    service.write("import nosuch\n")
    with service:
        eventually(lambda: "gen 1 rejected" in service.log(), "it is rejected")
        eventually(lambda: "watching" in service.log(), "it watches")
        service.write(version="v2")
        service.until_serving()
        assert service.get().endswith("v2")


def test_what_is_excluded_does_not_reload(tmp_path: Path) -> None:
    """Excluded and uncounted files change nothing; an included pattern does."""
    service = _service(tmp_path, "--reload-include", "*.html", "--reload-exclude", "made_*.py")
    service.write()
    with service:
        eventually(lambda: "watching" in service.log(), "it watches")
        (tmp_path / "made_up.py").write_text("x = 1\n")
        (tmp_path / "notes.txt").write_text("x\n")
        (tmp_path / "page.html").write_text("<p>\n")
        eventually(lambda: service.get().startswith("2 "), "the page reloads")
        assert list(lines(service.log(), "gen 2", "(page.html changed)"))

"""Somebody changes stillup.toml and reloads, as gunicorn's users do: it is read again, or the reload says why not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from stillup.client import ProblemError
from tests.system.harness import Service, connect, eventually, lines

FILE = """
workers = 1
drain-timeout = 5
{more}
"""


class Configured(Service):
    """A service with a stillup.toml in its folder."""

    def say(self, more: str) -> None:
        (self.folder / "stillup.toml").write_text(FILE.format(more=more))

    def header(self) -> str | None:
        connection = connect(self.address())
        connection.request("GET", "/")
        found = connection.getresponse().headers["x-said"]
        connection.close()
        return found


def test_the_file_is_read_again_at_each_reload(tmp_path: Path) -> None:
    """Each changed key is told: applied, overridden, or what it needs; a broken file rejects the reload."""
    service = Configured(tmp_path, "main:app", "--drain-timeout", "7")
    service.argv = [word for word in service.argv if word not in ("--workers", "1")]
    service.write()
    service.say("")
    with service:
        service.say('header = ["x-said:hello"]\nlog-format = "json"\n')
        text = (tmp_path / "stillup.toml").read_text().replace("workers = 1", "workers = 2").replace("= 5", "= 6")
        (tmp_path / "stillup.toml").write_text(text)
        shown = service.reload()
        assert shown.returncode == 0, shown.stderr
        assert list(lines(shown.stdout, "config", "header", "workers", "applied")), shown.stdout
        assert list(lines(shown.stdout, "drain-timeout (--drain-timeout) overridden")), shown.stdout
        assert list(lines(shown.stdout, "log-format as before: 'stillup supervisor reexec' applies it")), shown.stdout
        assert len(service.workers()) == 2
        assert service.header() == "hello"
        eventually(
            lambda: list(lines(service.log(), "configuration read again; applied:", "needs a re-exec: log-format")),
            "it is logged",
        )
        # Broken: nothing happens, and what serves stays as it was configured.
        service.say("wrkers = 3")
        refused = service.reload()
        assert refused.returncode == 1
        assert "stillup.toml, line 4: unknown key 'wrkers'; did you mean 'workers'?" in refused.stderr
        assert "docs/errors.md#configuration" in refused.stderr
        service.signal(signal.SIGHUP)
        eventually(lambda: list(lines(service.log(), "no reload (SIGHUP): configuration", "wrkers")), "it is logged")
        newest = json.loads(service.cli("status", "--json").stdout)["outcomes"][0]
        assert (newest["outcome"], newest["reason"]) == ("refused", "configuration")
        # A release that is rejected takes the number of workers that came with it along.
        service.write("raise SystemExit(7)")
        service.say("")
        assert service.reload().returncode == 1
        assert (len(service.workers()), service.header()) == (2, "hello")
        # The record has what is configured: the next program finds nothing that it would have to change.
        service.write()
        text = text.replace('log-format = "json"', "")
        (tmp_path / "stillup.toml").write_text(text)
        before = service.generations()
        # A log that the next program could not open: it is not executed, and the service goes on.
        (tmp_path / "stillup.toml").write_text(f'{text}\nlog-file = "none/app.log"\n')
        with pytest.raises(ProblemError, match=r"failed its trial .*--log-file .*/none/app.log: No such file"):
            service.client.reexec()
        assert service.until_serving().reexecs == 0
        (tmp_path / "stillup.toml").write_text(text)
        service.client.reexec()
        eventually(lambda: service.until_serving().reexecs == 1, "it is replaced")
        assert service.generations() == before

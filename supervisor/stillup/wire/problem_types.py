"""Every type of problem that this package answers with, in one table.

A problem is what a ``Refused`` becomes on the control API: a document (RFC 9457) whose ``type`` is URN and the code.
The code is stable; programs are meant to look at it. ``docs/errors.md`` is made of this table::

    python -m stillup.wire.problem_types > docs/errors.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

PROBLEM: Final = "application/problem+json"
"""The media type of a problem document."""
URN: Final = "urn:stillup:problem:"
"""What the ``type`` of every problem document begins with."""
PAGE: Final = "docs/errors.md"
"""Where each type is explained, under its code as the anchor."""


class ProblemType(msgspec.Struct, frozen=True):
    """One type of problem."""

    code: str
    status: int
    """Of the HTTP answer."""
    meaning: str
    remedy: str
    exit_code: int = 1
    """Of a command of ``stillup`` that was answered so."""

    @property
    def urn(self) -> str:
        """The ``type`` of a problem document."""
        return f"{URN}{self.code}"

    @property
    def title(self) -> str:
        """The ``title`` of a problem document."""
        return self.code.replace("-", " ")

    @property
    def help(self) -> str:
        """Where the type is explained: page and anchor."""
        return f"{PAGE}#{self.code}"


PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {
    one.code: one
    for one in (
        ProblemType(
            "usage",
            400,
            "An option, a parameter, an address or a key of a file is missing, unknown or has no such value; or what "
            "came to the control socket is no HTTP/1.1 request.",
            "The message names the word and what it may be. `stillup COMMAND --help` lists the options, "
            "`GET /v1/openapi.json` the parameters.",
            exit_code=2,
        ),
        ProblemType(
            "client-too-new",
            400,
            "The client speaks a later version of the control API than the supervisor that runs. Nothing was done.",
            "`stillup supervisor reexec` puts the installed stillup in the place of the one that runs; no connection "
            "is closed.",
        ),
        ProblemType(
            "not-permitted",
            403,
            "The caller, as the kernel names it, has no role that allows this; or it asked for a change at "
            "`observe.sock`; or it may not enter the runtime directory.",
            "`stillup whoami` shows who you are to the supervisor, and your role. `--viewer`, `--operator` and "
            "`--admin` give one to a user or a group; a group that you were added to counts from your next login.",
            exit_code=4,
        ),
        ProblemType(
            "not-found",
            404,
            "There is no such path, or no such rollout or scaling: the last 32 of each are known. A rollout that is "
            "waited for is forgotten, too, when so many others came meanwhile.",
            "`stillup status` shows the last rollout and its number; `GET /v1/openapi.json` lists the paths.",
        ),
        ProblemType(
            "method-not-allowed",
            405,
            "The path is there, and takes another HTTP method.",
            "What only looks is a GET, what changes something is a POST.",
        ),
        ProblemType(
            "out-of-order",
            409,
            "There is nothing to do this to in the present state: no rollout to abort, no canary to promote, no "
            "generation that serves, a worker that is just being started.",
            "`stillup status` shows the state. What waits for a worker to start can be asked for again in a moment.",
        ),
        ProblemType(
            "rollout-in-progress",
            409,
            "A rollout is before its cut-over, and this cannot be done beside it.",
            "Wait for it (`stillup status`, `stillup events --follow`), or call it off with `stillup abort`.",
        ),
        ProblemType(
            "rollout-aborted",
            409,
            "The new generation was rejected before its cut-over, or called off. What served goes on; in a rolling "
            "rollout those of it that had left come back.",
            "`rollout.failure` in the answer has the stage, the worker and the end of its output. Mend the release and "
            "reload.",
        ),
        ProblemType(
            "rolled-back",
            409,
            "The new generation served, its workers crashed within `--probation`, and the release before it was put "
            "back.",
            "`rollout.failure` has how the last of them ended; the log has each. Mend the release and reload.",
        ),
        ProblemType(
            "probation-failed",
            409,
            "The new generation served, its workers crashed within `--probation`, and it stays in service: what was "
            "before it was changed in place, or it was a rollback itself.",
            "`stillup status` shows how the workers died. Mend the release and reload.",
        ),
        ProblemType(
            "scaling-aborted",
            409,
            "A new worker failed before it served. The number that was asked for is still wanted, and its slot is "
            "tried again.",
            "`scaling.failure` in the answer has why. Mend that, or scale back to the number before.",
        ),
        ProblemType(
            "superseded",
            409,
            "A later request took the place of this one.",
            "Nothing, if the later one is right: `stillup status` shows it.",
            exit_code=5,
        ),
        ProblemType(
            "no-previous-release",
            409,
            "No release is known that served before this one.",
            "Put the release that you want into `--directory` and reload.",
        ),
        ProblemType(
            "release-overwritten",
            409,
            "The release to go back to was changed in place, or removed, since it served, so it is not there any more.",
            "Put the code that you want back and reload. To have rollbacks, keep each release in a directory of its "
            "own behind a symlink (`--directory current`).",
        ),
        ProblemType(
            "rolled-back-before",
            409,
            "The release that a reload would run crashed within `--probation` when it served last, and was rolled "
            "back; nothing of it has changed since. What counts is its directory with the symlinks resolved, how the "
            "code there looks, the interpreter, the app, options and environment.",
            "Mend the release and reload, or let the symlink lead to another. If what it lacked is elsewhere and there "
            "by now (a database, a package), `stillup reload --force` deploys it again. A stop forgets it, too.",
        ),
        ProblemType(
            "too-large",
            413,
            "The body of the request has more than 64 KiB.",
            "Send none: no operation reads one.",
        ),
        ProblemType(
            "release",
            422,
            "What is to run is not on the disk as configured: the directory, the interpreter, the environment file or "
            "the app itself.",
            "The message names the file. `stillup check` with the options of `run` tries it without starting anything.",
        ),
        ProblemType(
            "configuration",
            422,
            "The configuration file was changed since it was read, and a reload that reads it again cannot take it: a "
            "key or a value means nothing, a new bind cannot be had, it cannot be read, or somebody other than root "
            "and the supervisor's own user could have changed it. What served serves on, configured as before.",
            "The message names the key and its place, the address and who has it, or who can write where: mend that, "
            "and reload. `stillup check` reads the file as a start does.",
        ),
        ProblemType(
            "trial-failed",
            422,
            "The supervisor's new program did not pass its trial. The one that runs goes on.",
            "The message has what the trial said. Mend the installation, then `stillup supervisor reexec` again.",
        ),
        ProblemType(
            "bug",
            500,
            "A defect in the supervisor. What serves goes on.",
            "Its log has the traceback; please report it.",
        ),
        ProblemType(
            "reexec-state",
            500,
            "The supervisor's new program cannot read what the one before it left for it, and does not start.",
            "Start the service anew with `stillup run` as before: it takes over the workers, which serve on.",
        ),
        ProblemType(
            "stopping",
            503,
            "The service is ending.",
            "Wait for its end, and start it anew.",
        ),
        ProblemType(
            "not-ready",
            503,
            "No worker serves: not yet, or not any more; or those that do hang.",
            "`stillup status` shows the state, the log why.",
        ),
        ProblemType(
            "cordoned",
            503,
            "The service serves, and no new clients are to be sent to it: somebody has cordoned it. `/readyz` says so, "
            "with the status of `--cordon-status`.",
            "`stillup uncordon`, or `POST /v1/uncordon`; a stop and a start end it, too.",
        ),
        ProblemType(
            "unavailable",
            503,
            "Something outside is in the way: an address that is in use, a lock that is held, a directory that belongs "
            "to another user, too few descriptors, a disk that does not answer, too many requests.",
            "The message names it. `stillup doctor` looks at what goes wrong in practice.",
        ),
        ProblemType(
            "platform",
            501,
            "This kernel lacks what stillup needs.",
            "Linux 5.10 or newer; `stillup doctor` names what is missing.",
        ),
    )
}
"""By code."""

ANYWHERE: Final = ("usage", "client-too-new", "not-permitted", "too-large", "bug", "unavailable")
"""Codes that any operation of the control API may answer with."""


def page() -> str:
    """The text of ``docs/errors.md``."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Everything that is refused has a type, which is stable: the end of `type` in a problem document of the"
    yield f"control API (RFC 9457), after `{URN}`. `status` is that of the HTTP answer, `exit` what the `stillup`"
    yield "command exits with, which prints the document with `--json`. Without a type (`about:blank`) are: no"
    yield "supervisor runs (exit 3), and one that does not answer in time or not as it should (exit 1)."
    yield ""
    yield "This page is made by `python -m stillup.wire.problem_types`; a test compares the two."
    yield ""
    yield "| type | status | exit |"
    yield "|---|---|---|"
    for one in PROBLEM_TYPES.values():
        yield f"| [`{one.code}`](#{one.code}) | {one.status} | {one.exit_code} |"
    for one in PROBLEM_TYPES.values():
        yield ""
        yield f"## {one.code}"
        yield ""
        yield one.meaning
        yield ""
        yield f"What to do: {one.remedy}"
    yield ""


if __name__ == "__main__":  # pragma: no cover - the test of the page calls page()
    print(page(), end="")  # noqa: T201 - what it is for

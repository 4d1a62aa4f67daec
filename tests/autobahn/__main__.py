"""Autobahn's WebSocket fuzzer against uvicorn, and against stillup while it is reloaded: `python -m tests.autobahn`.

The fuzzing client of `autobahntestsuite` plays some hundred cases of RFC 6455 and RFC 7692, most of them wrong on
purpose, against an app that echoes and whose sessions are handed over. It is written for Python 2: pip fetches it once,
and it is converted and kept in the environment. No case may end worse than with uvicorn alone, with the same
implementation of WebSockets:

1. while the service is reloaded every 2 s, in the middle of a case or between two;
2. on a connection that has been through a reload before the case begins, with one reload after the other.

Nor may stillup log a kind of exception that uvicorn does not: it logs one for each text that is no UTF-8.

A case that is worse once may have been disturbed, or be a race in the implementation (an echo and a broken frame right
behind it): it is run three times more with either server, and counts if it is worse each time than it ever was with
uvicorn. Before all that the same is done with sessions that do not go on, where each case must be worse. The exit code
is 1 if a case counts.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.autobahn.case_comparison import CaseEnd, Worse, tally, worse
from tests.autobahn.converted_suite import ConvertedSuite, FuzzerRun, NoFuzzer
from tests.autobahn.fuzzed_servers import ReloadedEcho, ReloadFailed, raised, uvicorn_served

CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
LONG = tuple(f"{group}.*.{number}" for group in (12, 13) for number in (2, 4, 6, 8, 9, 10, 13, 14, 15, 16, 17, 18))
"""A thousand compressed messages of each size; what remains has 16, 256, 4096 and 16384 bytes, and two in fragments."""
AGAIN = 3
PROBE = ("1.1.*", "7.1.1")
"""The cases that are tried with sessions that do not go on."""
STREAMS = 12
"""Cases at a time where each waits for a reload first."""


class StrangeError(Exception):
    """No case says so, but that was not as it should be."""


class Fuzzing:
    """Runs of the fuzzer, in the way that was chosen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._suite = ConvertedSuite()
        self._workers = options.workers
        self._exclude = () if options.all or options.cases else LONG
        self._plain: defaultdict[str, list[CaseEnd]] = defaultdict(list)
        """How each ended in all runs so far."""
        self._raised: set[str] = set()
        """The kinds of exceptions in the log in all of them."""

    def plain(self, cases: Sequence[str]) -> dict[str, list[CaseEnd]]:
        """With uvicorn: in this run, and in those before."""
        with TemporaryDirectory() as folder:
            with uvicorn_served(Path(folder)) as url:
                began = time.monotonic()
                ends = self._suite.ends(FuzzerRun(url=url, cases=cases, exclude=self._exclude))
            self._raised |= raised(Path(folder) / "log")
        if not ends:
            raise NoFuzzer(f"there is no case {', '.join(cases)}")
        print(f"  uvicorn: {tally(ends)}, in {time.monotonic() - began:.0f} s", flush=True)
        for case, end in ends.items():
            self._plain[case].append(end)
        return {case: self._plain[case] for case in ends}

    def ours(self, cases: Sequence[str], *, after: bool, forgetful: bool = False) -> dict[str, CaseEnd]:
        """With the service while it is reloaded; ``after``: each case begins after a reload."""
        with TemporaryDirectory() as folder:
            every = 0.5 if after else 2.0
            server = ReloadedEcho(Path(folder), workers=self._workers, every=every, forgetful=forgetful)
            with server as service:
                began = time.monotonic()
                run = FuzzerRun(
                    url=service.url(),
                    cases=cases,
                    exclude=self._exclude,
                    streams=min(STREAMS, len(cases)) if after else 1,
                    reloads=service.reload_counts if after else None,
                )
                ends = self._suite.ends(run)
                crossing, took = service.status().crossing, time.monotonic() - began
            if strange := raised(service.log_file) - self._raised:
                raise StrangeError(f"stillup's log has {', '.join(strange)}, uvicorn's has not:\n{service.log()}")
            if after and crossing.sessions_adopted < len(ends):
                raise StrangeError(
                    f"{crossing.sessions_adopted} sessions crossed, of {len(ends)} cases:\n{service.log()}"
                )
        moved = f"{crossing.sessions_adopted} sessions crossed, {crossing.sessions_refused} of them in vain"
        print(f"  stillup: {tally(ends)}, in {took:.0f} s; {service.reloads} reloads, {moved}", flush=True)
        return ends

    def compared(self, plain: Mapping[str, Sequence[CaseEnd]], *, after: bool) -> Sequence[Worse]:
        """What is worse, and each time that it is run again."""
        found = worse(plain, self.ours(list(plain), after=after))
        for number in range(AGAIN):
            if found:
                print(f"  {len(found)} worse: {', '.join(one.case for one in found)}; once more ({number + 1})")
                cases = [one.case for one in found]
                found = worse(self.plain(cases), self.ours(cases, after=after))
        return found


def main(options: argparse.Namespace) -> int:
    """Run them, and print what is worse; the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left
    try:
        fuzzing = Fuzzing(options)
        print("sessions that do not go on: each case must be worse", flush=True)
        plain = fuzzing.plain(PROBE)
        if len(worse(plain, fuzzing.ours(list(plain), after=True, forgetful=True))) < len(plain):
            print("not each is: what follows would prove nothing", file=sys.stderr)
            return 1
        found: list[Worse] = []
        for number in range(1, options.rounds + 1):
            print(f"round {number}, reloaded every 2 s", flush=True)
            plain = fuzzing.plain(options.cases or CASES)
            found += fuzzing.compared(plain, after=False)
            print(f"round {number}, each case on a connection that has been through a reload, and more", flush=True)
            found += fuzzing.compared(plain, after=True)
    except (NoFuzzer, ReloadFailed, StrangeError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    for one in found:
        print(one)
    print(f"{len(found)} are worse each time" if found else f"none of {len(plain)} cases is worse")
    return int(bool(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument(
        "--cases", type=lambda text: text.split(","), help="such as 1.*,7.5.1; all but many of 12.* and 13.*"
    )
    parser.add_argument("--all", action="store_true", help="those too")
    parser.add_argument("--rounds", type=int, default=1, help="of the whole (1)")
    parser.add_argument("--workers", type=int, default=1, help="of the service (1)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))

"""Reload, restart and kill in a real systemd, under load: `python -m tests.system.manager`.

Boots a systemd in namespaces of its own (needs root), installs the units of this repository in it, hardened, and counts
what clients in its network lose. Exits with 1 at the first loss.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.drop import Noticed
from tests.system.manager.booted import Booted, why_not
from tests.system.manager.test_restarts import nothing_lost
from tests.system.manager.units import Shop


def main(options: argparse.Namespace) -> int:
    """Do it all; the exit code."""
    if reason := why_not():
        print(f"no systemd can be booted: {reason}", file=sys.stderr)
        return 1
    with TemporaryDirectory(dir="/var/tmp") as folder:
        layer = Path(folder) if options.systemd else None
        if options.systemd:
            script = Path(__file__).with_name("layer.sh")
            subprocess.run(["bash", str(script), options.systemd, folder], check=True, timeout=120)
        with Booted(layer) as booted:
            print(booted.systemctl("--version").splitlines()[0], flush=True)
            shop = Shop(booted)
            shop.hardened()
            shop.upgradable()
            with shop:
                for happens in (shop.reload, shop.restart, shop.kill, shop.upgrade):
                    times = getattr(options, f"{happens.__name__}s")
                    try:
                        nothing_lost(booted, happens, times)
                    except (Noticed, TimeoutError) as error:
                        print(f"{happens.__name__}: {error}\n{shop.log()}", flush=True)
                        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.system.manager", description=__doc__)
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument("--systemd", choices=["254", "257"], help="instead of the one of this machine")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))

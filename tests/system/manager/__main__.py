"""Reload, restart and kill in a real systemd, under load: `python -m tests.system.manager`.

Boots a systemd in namespaces of its own (needs root), installs the units of this repository in it, hardened, and counts
what clients in its network lose: with this machine's systemd, and then with those of newer Debians, whose packages apt
fetches. Exits with 1 at the first loss.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.drop import Noticed
from tests.system.manager.booted_systemd import Booted, why_not
from tests.system.manager.debian_layers import unpack
from tests.system.manager.installed_units import Shop
from tests.system.manager.test_restarts import nothing_lost

HERE = "here"
NEWER = ("257", "262")


def main(options: argparse.Namespace) -> int:
    """Do it all; the exit code."""
    if reason := why_not():
        print(f"no systemd can be booted: {reason}", file=sys.stderr)
        return 1
    for version in options.systemd or (HERE, *NEWER):
        with TemporaryDirectory(dir="/var/tmp") as folder:
            layer = None if version == HERE else Path(folder)
            if layer is not None and (reason := unpack(version, layer)):
                print(reason, file=sys.stderr)
                if options.systemd:
                    return 1
                continue  # nobody has asked for it
            if not _nothing_is_lost(layer, options):
                return 1
    return 0


def _nothing_is_lost(layer: Path | None, options: argparse.Namespace) -> bool:
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
                    return False
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.system.manager", description=__doc__)
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument(
        "--systemd", nargs="+", choices=[HERE, "254", *NEWER], help="instead of this machine's and all newer ones"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))

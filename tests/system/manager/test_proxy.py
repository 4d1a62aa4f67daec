"""nginx in front, as docs/deploy.md has it: nobody behind it notices a deploy either."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.load import Mix, Pace
from tests.system.harness import ROOT, eventually
from tests.system.manager.booted_systemd import Booted
from tests.system.manager.installed_units import Shop
from tests.system.manager.test_restarts import nothing_lost

MIX = Mix(
    fresh=4, keepalive=16, idle=8, slow=4, upload=4, stream=2, think=0.05, pace=Pace(slow=0.2, upload=0.25, stream=0.3)
)
"""What a proxy passes on as it is."""
CONFIGURATION = (
    "user www-data;\nevents {}\nhttp {\naccess_log off;\nproxy_buffering off;\nkeepalive_requests 1000000;\n%s}\n"
)


def test_nginx_in_front(with_nginx: Booted) -> None:
    """Reloads and a restart, under load through nginx, which keeps its connections to stillup open."""
    booted = with_nginx
    page = (ROOT / "docs" / "deploy.md").read_text()
    (said,) = re.findall(r"^```nginx\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (bind,) = re.findall(r'^bind = \["(unix:.*)"\]$', page, re.MULTILINE)
    (drop_in,) = re.findall(r"^```ini\n(\[Service\]\nSupplementaryGroups=.*?)^```", page, re.MULTILINE | re.DOTALL)
    etc = Path(f"/proc/{booted.pid}/root/etc")
    (etc / "nginx.conf").write_text(CONFIGURATION % said.replace("listen 80;", "listen 127.0.0.1:8080;"))
    shop = Shop(booted, bind=[bind])
    shop.drop_in("proxy.conf", drop_in)
    with shop:
        booted.run("mkdir", "-p", "/var/lib/nginx", "/var/log/nginx")
        started = booted.run("systemd-run", "--unit", "proxy", "nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;")
        assert started.returncode == 0, started.stderr
        try:
            eventually(lambda: booted.run("curl", "-s", "http://127.0.0.1:8080/").returncode == 0, "nginx listens")
            for happens in (shop.reload, shop.restart):
                nothing_lost(booted, happens, address="127.0.0.1:8080", mix=MIX)
        finally:
            booted.systemctl("stop", "proxy")
            print(booted.journal("proxy"))

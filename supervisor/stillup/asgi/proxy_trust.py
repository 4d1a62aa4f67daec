"""Which peers on a Unix socket are believed with X-Forwarded-*: the local proxy, and not whoever can connect.

Anybody can connect to a socket file of mode 0666, or to an abstract socket, and could say to be any client. So these
are believed, by the kernel's word as of connect() (SO_PEERCRED, unix(7)): root, the supervisor's own user, and the
group that the bind names. All others only if ``--forwarded-allow-ips`` says ``*``, as over TCP by their addresses.
"""

from __future__ import annotations

from stillup.core.worker_settings import WorkerSettings
from stillup.host import peer
from stillup.host.sources import Arrival


def is_proxy(settings: WorkerSettings, arrival: Arrival) -> bool:
    """Whether the peer of that connection, which came over a Unix socket, is to be believed."""
    try:
        return peer.is_of(arrival.socket, settings.proxy_uids, settings.proxy_gids.get(arrival.listener))
    except OSError:  # it was reset before we came to it
        return False

"""Clients for a page's service, on its machine: ``python -m tests.docs.visitors PORT KEPT SLOW STREAMS``.

So many connections are kept after an answer, so many requests take a minute, so many streams have 20 events, one a
second. Prints ``here`` when all are connected and begun, and then waits for its end.
"""

from __future__ import annotations

import http.client
import signal
import sys


def main(port: int, kept: int, slow: int, streams: int) -> None:
    """Connect, ask, and stay."""
    connections = []
    for path, count in (("/", kept), ("/slow?ms=60000", slow), ("/stream?n=20&ms=1000", streams)):
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", path)
            if path == "/":
                connection.getresponse().read()
            connections.append(connection)
    for connection in connections[len(connections) - streams :]:
        connection.getresponse().readline()
    print("here", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))

"""The control API: sockets, callers, routes and answers."""

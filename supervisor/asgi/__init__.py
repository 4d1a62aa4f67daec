"""SERVES: what both the workers (to the world) and the supervisor (on its control socket) need to speak HTTP.

The accept loop, the closing of a connection, and in one file, ``borrowed``, all that we know of uvicorn's inside.
"""

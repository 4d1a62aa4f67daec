"""SERVES: what both the workers (to the world) and the supervisor (on its control socket) need to speak HTTP.

The accept loop, the connections and their closing, and what we know of uvicorn's inside (``uvicorn_adapter``).
"""

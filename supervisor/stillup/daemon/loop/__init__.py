"""The engine: events in, decisions performed; and the sources of its events."""

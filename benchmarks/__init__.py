"""The load that watches a server while it reloads, and the two programs built on it."""

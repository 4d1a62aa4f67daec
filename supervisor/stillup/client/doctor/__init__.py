"""``stillup doctor``: ``gather`` looks and never fails; ``findings`` decides from that, and looks at nothing."""

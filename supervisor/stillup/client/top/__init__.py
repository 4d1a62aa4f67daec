"""``stillup top``: what is known of a service, as a screen of a terminal; and the keys."""

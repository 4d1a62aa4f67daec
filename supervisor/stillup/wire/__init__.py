"""SPEAKS. Pure: the messages between supervisor and workers, the shapes of the control API, the text of addresses."""

"""Workers: their processes, which of them are let in, what is handed over, what they say, how they are taken over."""

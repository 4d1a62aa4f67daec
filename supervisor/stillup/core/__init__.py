"""DECIDES. Pure: no asyncio, no sockets, no clock, no logging. Time is an argument, what to do is a return value."""

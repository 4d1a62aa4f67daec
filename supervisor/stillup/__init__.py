"""stillup: keeps an ASGI service up while its code is replaced."""

__version__ = "0.1.0"

"""The certificate of a worker that speaks TLS: loaded anew when its files have changed, for the connections to come.

Connections with TLS stay where they are, so that a reload would have to close them: a new certificate needs none. One
that cannot be loaded changes nothing.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Final

from uvicorn.config import Config

from stillup.asgi.uvicorn_config import make_tls
from stillup.host.path_stamp import Stamp, stamp

logger = logging.getLogger("uvicorn.error")

LOOK: Final = 2.0
"""Seconds between two looks; what has changed between them has to be as it was for as long."""


class Certificate:
    """The files that it was loaded from."""

    def __init__(self, config: Config, use: Callable[[ssl.SSLContext], None], now: Callable[[], float]) -> None:
        """Have it as ``config``, uvicorn's, says; ``use`` takes what connections to come are to be made with."""
        self._config = config
        self._use = use
        self._now = now
        files = (config.ssl_certfile, config.ssl_keyfile)
        self._files = [str(file) for file in files if file] if config.is_ssl else []
        self._tried = self._seen = self._stamps()
        self._looked = now()

    def look(self) -> None:
        """Load it if it has changed, and looked the same twice; not at each call. Reads files of a few kilobytes."""
        if not self._files or self._now() - self._looked < LOOK:
            return
        self._looked = self._now()
        before, self._seen = self._seen, self._stamps()
        if self._seen != self._tried and self._seen == before:
            self._tried = self._seen
            self._load()

    def _stamps(self) -> list[Stamp]:
        return [stamp(file) for file in self._files]

    def _load(self) -> None:
        names = " and ".join(self._files)
        try:
            # A context of its own: in one that is in use, half of a pair would stay, and a key of another type.
            context = make_tls(self._config)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            logger.warning("the certificate stays what it was: %s cannot be loaded: %s", names, error)
        else:
            self._use(context)
            logger.info("the certificate is loaded anew from %s", names)

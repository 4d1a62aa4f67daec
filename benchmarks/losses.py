"""What those who were killed took with them: the losses that their deaths explain, and those that nothing does."""

import time
from collections.abc import Collection

from benchmarks.report import Loss


class Losses:
    """To be told of every death before it happens, and of every loss when it is seen."""

    def __init__(self) -> None:
        self._held: dict[int, float] = {}  # by the port of its client: until when it was alive for certain
        self.allowed = 0
        """Connections that were held by somebody who was killed."""
        self.lost = 0
        """Connections of those that were lost."""
        self.unexplained: list[Loss] = []
        self._last = time.monotonic()

    def will_take(self, ports: Collection[int]) -> None:
        """Somebody is about to be killed who holds these connections, and stands still."""
        self._last = time.monotonic()
        self._held.update(dict.fromkeys(ports, self._last))
        self.allowed += len(ports)

    def note(self, loss: Loss) -> None:
        """A client lost its connection. One that began after the death is another, though it has the same port."""
        if loss.since < self._held.get(loss.port, 0.0):
            del self._held[loss.port]
            self.lost += 1
        else:
            self.unexplained.append(loss)

    def demand_all_explained(self) -> None:
        """Fail if there was a loss that nobody's death explains.

        Raises:
            AssertionError: it names the first of them.
        """
        some = "; ".join(map(self._tell, self.unexplained[:10]))
        assert not self.unexplained, f"{len(self.unexplained)} losses that nobody's death explains: {some}"

    def _tell(self, loss: Loss) -> str:
        began, ended = loss.since - self._last, loss.at - self._last
        return f"{loss.kind} {loss.how} (began {began:+.3f} s and lost {ended:+.3f} s from the last death)"

"""Jobs at a steady rate while something happens; afterwards every one of them must have the right result."""

import random
import threading
from types import TracebackType
from typing import Any, Self

import crc32c as crc32c_package

from tasks import crc32c


class Load:
    """Publishes from a thread of its own, one job every ``every_s``, for as long as the context lasts; then checks all.

    The jobs are ranges of ``length`` bytes of ``data``, which is at ``url``; they go to ``queue``, or where the router says.
    ``results`` has what came of them.
    """

    def __init__(
        self,
        url: str,
        data: bytes,
        policy: dict[str, Any],
        *,
        every_s: float,
        length: int = 8 << 10,
        queue: str | None = None,
    ) -> None:
        self._url, self._data, self._policy = url, data, policy
        self._length, self._every_s, self._queue = length, every_s, queue
        self._pending: list[tuple[int, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self.results: list[dict[str, Any]] = []

    def _publish(self) -> None:
        rng = random.Random(5)
        while not self._stop.wait(self._every_s):
            offset = rng.randrange(len(self._data) - self._length)
            arguments = (self._url, offset, self._length)
            job = crc32c.apply_async(arguments, {"policy": self._policy}, queue=self._queue)
            self._pending.append((offset, job))

    def finished(self) -> list[dict[str, Any]]:
        """Return the results that are there already."""
        return [pending.result for _, pending in list(self._pending) if pending.ready()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            for offset, pending in self._pending:
                result = pending.get(timeout=60)  # raises where the job failed or was lost
                assert result["value"] == crc32c_package.crc32c(self._data[offset : offset + self._length])
                assert result["attempts"][-1] == {**result["attempts"][-1], "ok": True, "error": None}
                assert result["attempts"][-1]["substrate"] == result["substrate"]
                self.results.append(result)
            assert len(self.results) == len(self._pending) > 0

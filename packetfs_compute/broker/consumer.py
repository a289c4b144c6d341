"""Celery's consumer, with its events, where somebody asked for them, sent in batches.

Celery sends what happened to tasks in every turn of its loop, which with short tasks is a message an event: nearly half of
all that the worker's main process did. Here they wait for a fifth of a second, or until Celery's buffer is full, so that a
message tells of several tasks. Flower and ``celery events`` show the same, that much later.
"""

import time
from typing import Any, Final

from celery.worker.consumer import Consumer as CeleryConsumer

__all__ = ["Consumer"]

_EVENTS_S: Final = 0.2


class Consumer(CeleryConsumer):
    """The consumer of a worker of this application (``worker_consumer``)."""

    hub: Any
    _flush_events: Any
    _flush_at = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]
        """See that what is buffered is sent soon. Celery calls it for each event, and only where there is a loop."""
        now = time.monotonic()
        if self.hub and now >= self._flush_at:
            self._flush_at = now + _EVENTS_S
            self.hub.call_soon(self._flush_later)  # from here on in the loop's thread: its timers are for no other

    def _flush_later(self) -> None:
        self.hub.call_later(_EVENTS_S, self._flush_events)

"""HTTP/1.1 as the gateway and the compute server take it: uvicorn's, with the two bounds that it lacks.

uvicorn waits for ever for the head of a request, be it that nothing of it has come or half; and it keeps a connection's
keep-alive timer, with all that the connection holds, when it was the client that reset it. It needs uvicorn alone, which
comes with either extra, ``gateway`` or ``fly``.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol"]

_HEAD_TIMEOUT_S: Final = 10.0
"""For a request's head to be here whole."""


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol for ``uvicorn.Config(http=…)``; a connection whose head is late is closed without a word."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once there is a request to answer; wait for its end where a next one has begun."""
        super().data_received(data)
        became_another = self.transport.get_protocol() is not self  # a WebSocket, which keeps the time itself
        if became_another or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_waiting()
        elif self._head is None:
            self._await_head()

    def on_response_complete(self) -> None:
        """Leave the wait for the next request to the keep-alive timer, which is longer."""
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of both timers, whoever ended the connection."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

"""One connected browser: its slots, the leases that it runs, and what it may not send.

A lease lives for ``lease_s`` from when it was handed over or the browser last said that it runs. Whoever waits for it is
told when it is over: with the answer, or with ``None`` when the browser left, was put out, or fell silent. A browser that
let a lease lapse is taken for dead, and put out.
"""

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from packetfs_compute.errors import Busy, TooLarge
from packetfs_compute.volunteers.frames import (
    MAX_SLOTS,
    Alive,
    Answer,
    BadFrame,
    Frame,
    Hello,
    Pause,
    Resume,
    cancel_frame,
    run_frame,
    welcome_frame,
)
from packetfs_compute.volunteers.trust import Party

__all__ = ["Close", "Connection", "Limits", "Rate", "Session"]

_SEND_S: Final = 5.0
"""How long a browser may take to accept a frame."""


class Close(IntEnum):
    """Why the hub closes a connection: the WebSocket's close codes, 4000 and up of our own (RFC 6455, section 7.4.2)."""

    GOING = 1001
    BAD_FRAME = 4000
    REFUSED = 4001
    BANNED = 4003
    TOO_FAST = 4008
    TOO_MANY = 4010
    SILENT = 4011


class Connection(Protocol):
    """A WebSocket, or what stands for one. Its calls raise :class:`ConnectionError` once the other side has left."""

    async def receive(self) -> str:
        """Return the next message."""

    async def send(self, text: str) -> None:
        """Send one."""

    async def close(self, code: int, reason: str) -> None:
        """Close it; closing twice is fine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a hub allows."""

    browsers: int = 5000
    per_account: int = 16
    requests: int = 2000
    """Programs under way at once, those being checked included."""
    range_bytes: int = 64 << 20
    """Longest range of a program: what a home's line brings in half a minute."""
    hello_s: float = 10.0
    lease_s: float = 10.0
    frames_per_s: float = 20.0
    burst: int = 40
    hands: int = 4
    """Browsers that one program is handed to before it is given back."""
    rechecks: int = 4
    """Second looks at once, after a ban."""
    hubs: int = 1
    """Hubs that share the reputations: an account's credit is divided among them."""


class Rate:
    """A bucket of ``burst`` tokens that fills at ``per_s``."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, float(burst), clock
        self._tokens, self._at = self._burst, clock()

    def take(self) -> bool:
        """Return whether there was a token left."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(slots=True)
class _Lease:
    until: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Mapping[str, Any] | None = None


class Session:
    """A browser that was let in. Used by one event loop."""

    def __init__(
        self, connection: Connection, party: Party, hello: Hello, lease_s: float, clock: Callable[[], float]
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self.party = party
        self.slots = hello.slots
        self.range_bytes: float = math.inf
        """Longest range that it takes, as far as it has said."""
        self._connection = connection
        self._lease_s, self._clock = lease_s, clock
        self._leases: dict[str, _Lease] = {}
        self._ended: deque[str] = deque(maxlen=4 * MAX_SLOTS)
        """Leases whose late answers are no fault: they were taken back while the answer was on its way."""
        self._paused = False
        self._resting_until = -math.inf
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether it can take another program."""
        resting = self._paused or self._clock() < self._resting_until
        return not self._closed and not resting and len(self._leases) < self.slots

    @property
    def running(self) -> int:
        """How many programs it runs."""
        return len(self._leases)

    def awaits(self, frame: Frame) -> bool:
        """Return whether ``frame`` is the answer to a lease that it runs."""
        return isinstance(frame, Answer) and frame.lease in self._leases

    def excused(self, error: str, length: int | None) -> bool:
        """Return whether it may say ``error`` of a program of ``length`` without having failed, and remember it.

        It is ``busy`` when it pauses while a program is on its way: it gets none for as long as a lease lives, or until it
        resumes. A range may be ``too_large`` for the limit that its owner has set: it gets no such one again.
        """
        if error == Busy.type:
            self._resting_until = self._clock() + self._lease_s
            return True
        if error == TooLarge.type and length:
            self.range_bytes = min(self.range_bytes, length - 1)
            return True
        return False

    async def welcome(self) -> None:
        """Send the answer to its hello."""
        await self.send(welcome_frame(self.id, int(self._lease_s * 1000)))

    async def run(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Hand a program over and return the answer, not looked at yet; ``None`` where the browser was lost over it.

        Cancelling the call takes the program back.
        """
        lease_id, lease = secrets.token_urlsafe(9), _Lease(self._clock() + self._lease_s)
        self._leases[lease_id] = lease
        try:
            await self.send(run_frame(lease_id, request))
            while not lease.over.is_set():
                left_s = lease.until - self._clock()
                if left_s <= 0:
                    await self.close(Close.SILENT, "a lease was not renewed")
                    break
                try:
                    await asyncio.wait_for(lease.over.wait(), left_s)
                except TimeoutError:
                    continue  # it may have been renewed meanwhile
        except ConnectionError:
            await self.close(Close.SILENT, "a frame could not be sent")
        except asyncio.CancelledError:
            self._forget(lease_id)
            await self._take_back(lease_id)
            raise
        finally:
            self._forget(lease_id)
        return lease.answer

    def take(self, frame: Frame) -> None:
        """Take what the browser said; raise :class:`BadFrame` for what it may not say now."""
        match frame:
            case Alive(leases):
                for lease_id in leases:
                    held = self._held(lease_id)
                    if held is not None:
                        held.until = self._clock() + self._lease_s
            case Answer(lease_id, answer):
                held = self._held(lease_id)
                if held is not None:
                    held.answer = answer
                    held.over.set()
                    self._forget(lease_id)
            case Pause():
                self._paused = True
            case Resume():
                self._paused, self._resting_until = False, -math.inf
            case Hello():
                raise BadFrame("hello comes once")

    async def send(self, text: str) -> None:
        """Send a frame; raise :class:`ConnectionError` where the browser has left, or does not take it in time."""
        try:
            async with asyncio.timeout(_SEND_S):
                await self._connection.send(text)
        except TimeoutError as error:
            raise ConnectionError("the browser takes no frames") from error

    async def close(self, code: Close, reason: str) -> None:
        """Put the browser out; whoever waits for one of its leases is told."""
        already, self._closed = self._closed, True
        for lease in self._leases.values():
            lease.over.set()
        if not already:
            try:
                async with asyncio.timeout(_SEND_S):
                    await self._connection.close(code, reason)
            except (ConnectionError, TimeoutError):
                pass

    async def _take_back(self, lease_id: str) -> None:
        if not self._closed:
            try:
                await self.send(cancel_frame(lease_id))
            except ConnectionError:
                await self.close(Close.SILENT, "a frame could not be sent")

    def _held(self, lease_id: str) -> _Lease | None:
        if lease_id not in self._leases and lease_id not in self._ended:
            raise BadFrame("there is no such lease")
        return self._leases.get(lease_id)

    def _forget(self, lease_id: str) -> None:
        if self._leases.pop(lease_id, None) is not None:
            self._ended.append(lease_id)

"""Names to addresses, within a deadline.

``getaddrinfo`` takes no timeout and cannot be interrupted, so it runs in a daemon thread that is left behind when its
time is over. How many may be left behind is bounded: a name server that hangs must not eat the process's threads.
"""

import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, SourceFailed
from packetfs_compute.sources.guard import Address, Target

__all__ = ["BoundedResolver", "LookUp", "system_look_up"]

LookUp = Callable[[str], Sequence[str]]
"""Returns every address of a name as text, or raises :class:`OSError`; may block for as long as it likes."""

_MAX_LOOK_UPS: Final = 16


def system_look_up(host: str) -> list[str]:
    """Return the addresses that the system's resolver has for ``host``, in the order in which to try them (RFC 6724)."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(slots=True)
class _Slots:
    """The room for look-ups of one process: threads do not survive a fork, so neither may what counts them."""

    free: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_MAX_LOOK_UPS))
    pid: int = field(default_factory=os.getpid)


class BoundedResolver:
    """Looks names up with ``look_up``, at most 16 at once, each within its deadline."""

    def __init__(self, look_up: LookUp = system_look_up) -> None:
        self._look_up = look_up
        self._slots = _Slots()

    def addresses(self, target: Target, deadline: Deadline, timeout_s: float) -> list[Address]:
        """Return every address of the target's host; the deadline, or ``timeout_s`` before it, ends the wait.

        Raises :class:`SourceFailed` when the name has none, :class:`AttemptTimeout` at the deadline.
        """
        if target.address is not None:
            return [target.address]
        slots = self._current_slots()
        left_s = deadline.remaining_s()
        if not slots.free.acquire(timeout=min(left_s, timeout_s)):
            raise SourceFailed(f"{_MAX_LOOK_UPS} name look-ups hang: no room for {target.host}")
        answer = _Answer()

        def run() -> None:
            try:
                answer.texts = self._look_up(target.host)
            except (OSError, UnicodeError) as error:
                answer.error = error
            finally:
                slots.free.release()
                answer.done.set()

        try:
            threading.Thread(target=run, name=f"look-up {target.host}", daemon=True).start()
        except RuntimeError as error:
            slots.free.release()
            raise SourceFailed(f"no thread to look {target.host} up: {error}") from error
        if not answer.done.wait(min(deadline.remaining_s(), timeout_s)):
            if left_s <= timeout_s:
                raise AttemptTimeout(f"the name {target.host} was not found within {deadline.budget_s:g} s")
            raise SourceFailed(f"the name {target.host} was not found within {timeout_s:g} s")
        if answer.error is not None or not answer.texts:
            raise SourceFailed(f"the name {target.host} has no address") from answer.error
        return [ipaddress.ip_address(text) for text in answer.texts]

    def _current_slots(self) -> _Slots:
        if self._slots.pid != os.getpid():
            self._slots = _Slots()
        return self._slots


@dataclass(slots=True)
class _Answer:
    texts: Sequence[str] = ()
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

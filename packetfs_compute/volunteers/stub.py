"""Reputations in this process's memory: what one hub needs that shares them with nobody, and forgets them when it ends."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from packetfs_compute.volunteers.base import CLOSED_S, DOUBTED_S, MAX_KEPT
from packetfs_compute.volunteers.trust import Event, Reputation, recorded

__all__ = ["StubReputations"]


class StubReputations:
    """The reputations of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Reputation] = {}
        self._kept: dict[str, deque[str]] = {}
        self._doubts: dict[str, dict[str, float]] = {}
        self._spent: dict[str, float] = {}

    def get(self, account: str) -> Reputation:
        """Return what is known of an account."""
        return self._known.get(account, Reputation())

    def record(self, account: str, event: Event, byte_count: int, now: float) -> Reputation:
        """Learn how an answer fared."""
        with self._lock:
            self._known[account] = recorded(self.get(account), event, byte_count, now)
            return self._known[account]

    def keep(self, account: str, result: Mapping[str, Any]) -> None:
        """Keep an unconfirmed result."""
        with self._lock:
            self._kept.setdefault(account, deque(maxlen=MAX_KEPT)).append(json.dumps(result))

    def take(self, account: str) -> list[dict[str, Any]]:
        """Return what was kept, and forget it."""
        with self._lock:
            return [json.loads(text) for text in self._kept.pop(account, ())]

    def closed(self, origin: str, now: float) -> bool:
        """Return whether browsers cannot read this source."""
        with self._lock:
            doubts = [at for at in self._doubts.get(origin, {}).values() if at > now - CLOSED_S]
            return len(doubts) > 1 or any(at > now - DOUBTED_S for at in doubts)

    def doubt(self, origin: str, network: str, now: float) -> None:
        """Learn that a browser could not read this source."""
        with self._lock:
            self._doubts = {
                source: fresh
                for source, by in self._doubts.items()
                if (fresh := {whose: at for whose, at in by.items() if at > now - CLOSED_S})
            }
            self._doubts.setdefault(origin, {})[network] = now

    def spend(self, token: str, until: float, now: float) -> bool:
        """Return whether ``token`` is spent for the first time."""
        with self._lock:
            self._spent = {one: end for one, end in self._spent.items() if end > now}
            if token in self._spent:
                return False
            self._spent[token] = until
            return True

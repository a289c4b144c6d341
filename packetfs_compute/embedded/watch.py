"""A child process that is started again when it ends, or when it lives and no longer does its work."""

import logging
import time
from collections.abc import Callable
from typing import Final

from packetfs_compute.embedded.processes import Child
from packetfs_compute.errors import PacketFSError

__all__ = ["Watched"]

_log = logging.getLogger(__name__)

_RESTART_DELAYS_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0)
_CALM_S: Final = 60.0
"""A child that ran this long before it ended starts again from the first delay."""
_IDLE_S: Final = 12.0
"""A child that has not worked for this long, though it could, is started again …"""
_FIRST_IDLE_S: Final = 60.0
"""… but one that has only been started may take its time."""


class Watched:
    """A child that is started again. ``works`` says whether it does what it is for; ``None`` is "cannot be told now"."""

    def __init__(
        self,
        start: Callable[[], Child],
        works: Callable[[], bool | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._works = works
        self._clock = clock
        self.child = start()
        self._started_s = self._worked_s = clock()
        self._restarts = 0
        self._has_worked = False

    def look(self) -> None:
        """Start it again if it has ended, or has not worked for too long."""
        now_s = self._clock()
        if self.child.exit_code is None:
            works = self._works()
            if works is not False:
                self._worked_s = now_s
                self._has_worked = self._has_worked or works is True
            if now_s - self._worked_s < (_IDLE_S if self._has_worked else _FIRST_IDLE_S):
                return
            why = "no longer does its work"
        else:
            why = f"ended (exit code {self.child.exit_code})"
        if now_s - self._started_s > _CALM_S:
            self._restarts = 0
        if now_s - self._started_s < _RESTART_DELAYS_S[min(self._restarts, len(_RESTART_DELAYS_S) - 1)]:
            return
        self._restarts += 1
        self._started_s = self._worked_s = now_s
        _log.warning("%s %s; starting it again", self.child.name, why)
        self.child.stop()  # what it started itself may have outlived it
        try:
            self.child = self._start()
        except PacketFSError as error:
            _log.warning("%s", error)
        self._worked_s, self._has_worked = self._clock(), False

"""Celery's router (``task_routes``): which substrate's queue a task is published to.

Celery asks it at every publish, in the publisher's process, and an explicit ``queue=`` wins over what it says. Its hot
path makes no network call: it decides by the last snapshot of the fleet, which a thread of its own refreshes once a
second for as long as there is something to publish. Until there is one, it decides by what the substrates declare.

It never refuses. A task whose arguments make no sense, or whose policy leaves no place, is published to the local
queue, where a worker gives it its typed error.
"""

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from packetfs_compute.errors import JobError, PacketFSError
from packetfs_compute.fleet import Fleet
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.job import wanted_for
from packetfs_compute.names import (
    LOCAL,
    MAX_RANGE_BYTES,
    OPS_WITH_IMM,
    PROBE_TASK,
    SCAN_TASK,
    SCANS_QUEUE,
    SWEEP_TASK,
    TASK_PREFIX,
    UPKEEP_QUEUE,
    queue_of,
    task_of,
)
from packetfs_compute.routing import (
    Capabilities,
    Decision,
    Policy,
    Snapshot,
    Survey,
    Wanted,
    decide,
    parse_policy,
    survey,
    unmeasured,
)
from packetfs_compute.routing.pace import Pace
from packetfs_compute.routing.shortlist import MANY, class_of, pick, rank
from packetfs_compute.routing.snapshot import Outlook
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate, substrate_names

__all__ = ["Router", "wanted_of"]

_REFRESH_S: Final = 1.0
_STALE_S: Final = 10.0
"""A snapshot that could not be refreshed for so long says nothing any more: what is declared is the better guess."""
_IDLE_S: Final = 5.0
"""The refreshing ends this long after the last publish."""
_MAX_LISTS: Final = 256
_MOST_ALIKE: Final = 32
_PART: Final = 4
"""Of a place's slots one in so many may be taken by jobs that were not looked at singly: its queue grows by no more."""
_POSITIONS: Final = {
    **{task_of(op): 2 for op in ("crc32c", "fnv64")},
    **{task_of(op): 3 for op in OPS_WITH_IMM},
    task_of("program"): 3,
}
"""Where ``length`` stands among a task's positional arguments; ``offset`` is before it, ``policy`` two after it."""


class Router:
    """The router of one application, built from its settings without I/O.

    ``open_fleet`` is how it reaches the fleet, ``clock`` is Unix time and ``random`` gives numbers in [0, 1); tests give
    their own. It may be used from many threads, and after a fork.
    """

    _fleet: Fleet | None
    _survey: Survey | None
    _declared: Survey | None
    _sent: Counter[str]
    _thread: threading.Thread | None
    _lists: dict[Hashable, Survey]
    _drawn: list[float]

    def __init__(
        self,
        settings: Settings,
        open_fleet: Callable[[Settings, Any], Fleet] = open_fleet,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self._open_fleet = open_fleet
        self._clock = clock
        self._random = random
        self._reset()

    def __call__(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: object = None,
        **more: Any,
    ) -> dict[str, str] | None:
        """Return ``{"queue": …}`` for a task of this project, ``None`` (no opinion) for any other.

        The signature is the one that Celery calls a router with.
        """
        del options, task, more
        if not name.startswith(TASK_PREFIX):
            return None
        if name in (PROBE_TASK, SWEEP_TASK):
            return {"queue": UPKEEP_QUEUE}
        if name == SCAN_TASK:
            return {"queue": SCANS_QUEUE}
        try:
            policy, wanted = wanted_of(name, args or (), kwargs or {}, self.settings)
        except JobError:
            return {"queue": queue_of(LOCAL)}
        substrate = self._publish(wanted, policy).substrate or LOCAL
        self._sent[substrate] += 1
        return {"queue": queue_of(substrate)}

    def alike(self, wanted: Wanted, policy: Policy) -> Iterator[str]:
        """Yield the queue of one job after another that are all like this one, each published when it is yielded.

        A decision holds for a few: as many as hardly change how busy the place is that it names.
        """
        while True:
            decision = self._publish(wanted, policy)
            substrate, fleet = decision.substrate or LOCAL, self.survey()
            outlook = next((one for one in fleet.outlooks if one.place.name == substrate), None)
            count = _holds_for(decision, policy, outlook)
            if fleet.publishers > 1:
                self._pace.sent(class_of(wanted, policy), self._published_at, count - 1)
            queue = queue_of(substrate)
            for _ in range(count):
                self._sent[substrate] += 1
                yield queue

    def decide(self, wanted: Wanted, policy: Policy, tried: Collection[str] = ()) -> Decision:
        """Decide for one job with the whole table, by what a publish knows; count nothing as sent."""
        return decide(wanted, policy, self.survey(), self._random, self._sent, tried)

    def _publish(self, wanted: Wanted, policy: Policy) -> Decision:
        """Decide for a job that is published now: by a shortlist where the fleet is large, and with the others in mind."""
        now = self._published_at = self._clock()
        fleet = self.survey()
        some, kind, coming = fleet, None, 0.0
        if len(fleet.outlooks) > MANY:
            kind = class_of(wanted, policy)
            some = self._shortlist(wanted, policy, fleet, kind)
        if fleet.publishers > 1:
            kind = kind or class_of(wanted, policy)
            coming = self._pace.rate(kind, now) * (some.publishers - 1)
            self._pace.sent(kind, now)
        decision = decide(wanted, policy, some, self._random, self._sent, (), coming)
        if some is not fleet and (decision.substrate is None or decision.panic):
            return decide(wanted, policy, fleet, self._random, self._sent)
        return decision

    def _shortlist(self, wanted: Wanted, policy: Policy, fleet: Survey, kind: Hashable) -> Survey:
        """Return the places that are worth a look for jobs like this one, found once a snapshot."""
        lists = self._lists
        found = lists.get(kind)
        if found is None or found.at != fleet.at:
            if len(lists) >= _MAX_LISTS:
                lists.clear()
            if len(self._drawn) != len(fleet.outlooks):
                own = random.Random(self._id)
                self._drawn = [own.random() for _ in fleet.outlooks]
            found = lists[kind] = pick(rank(wanted, policy, fleet, self._random), self._drawn, self._random)
        return found

    def survey(self) -> Survey:
        """Return the fleet as this process knows it now, and have it refreshed."""
        now = self._clock()
        if self._pid != os.getpid():  # a fork has taken the memory but not the thread
            self._reset()
        self._wanted_at = now
        if self._thread is None or not self._thread.is_alive():
            self._start()
        if self._survey is None or now - self._survey.at > _STALE_S:
            return self._declared_survey()
        return self._survey

    def refresh(self) -> None:
        """Read the fleet once; raises a :class:`PacketFSError` when it cannot be."""
        fleet = self._fleet or self._open_fleet(self.settings, list(self._places()))
        self._fleet = fleet
        now = self._clock()
        publishes = now - self._published_at < _IDLE_S  # a worker that only fails jobs over is none to reckon with
        self._take(fleet.snapshot(now, self._id if publishes else None))

    def _take(self, snapshot: Snapshot) -> None:
        # What was sent before the snapshot is in it. What is sent while it is on its way is counted for neither: rare.
        self._survey, self._sent = survey(snapshot, self._clock()), Counter()

    def _declared_survey(self) -> Survey:
        if self._declared is None:
            self._declared = survey(unmeasured(self._places()), self._clock())
        return self._declared

    def _places(self) -> Iterator[Capabilities]:
        """Yield what is declared. A substrate that cannot be built is left out: its worker will say why."""
        for name in substrate_names(self.settings):
            with suppress(PacketFSError):
                yield load_substrate(name, self.settings).capabilities

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._id = uuid.uuid4().hex
        self._fleet = None
        self._survey = None
        self._declared = None
        self._sent = Counter()
        self._thread = None
        self._wanted_at = self._published_at = 0.0
        self._pace = Pace()
        self._lists = {}
        self._drawn = []
        self._lock = threading.Lock()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep_fresh, name="packetfs-router", daemon=True)
                self._thread.start()

    def _keep_fresh(self) -> None:
        while self._clock() - self._wanted_at < _IDLE_S:
            try:
                self.refresh()
            except PacketFSError:
                self._fleet = None  # the next turn connects anew
            time.sleep(_REFRESH_S)


def _holds_for(decision: Decision, policy: Policy, outlook: Outlook | None) -> int:
    """Return for how many equal jobs a decision holds."""
    if outlook is None or outlook.most is not None or outlook.share < 1:
        return 1
    if policy.deadline_s is None and sum(row.veto is None for row in decision.candidates) == 1:
        return _MOST_ALIKE
    return max(1, min(_MOST_ALIKE, outlook.slots // _PART))


def wanted_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], settings: Settings) -> tuple[Policy, Wanted]:
    """Return what of a task's arguments its place depends on. Raises :class:`BadPolicy` for a policy that is none."""
    at = _POSITIONS.get(name, 2)
    raw_policy = kwargs.get("policy") if len(args) <= at + 2 else args[at + 2]
    length = kwargs.get("length") if len(args) <= at else args[at]
    url = kwargs.get("data_url") if not args else args[0]
    if isinstance(length, float) and length.is_integer():  # JSON has one kind of number
        length = int(length)
    known = isinstance(length, int) and not isinstance(length, bool) and 0 <= length <= MAX_RANGE_BYTES
    return parse_policy(raw_policy), wanted_for(
        url if isinstance(url, str) else "", length if known else None, settings
    )

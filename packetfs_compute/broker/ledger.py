"""The ledger: jobs that were published and whose result is not stored yet, in Redis.

A job is entered in the same round trip that publishes its message, and struck out in the one that stores its result.
In between it is *open*, and a sweeper looks at it now and then (:mod:`packetfs_compute.broker.sweeper`). Keys, in
:mod:`packetfs_compute.names`: ``open`` says when to look next, ``jobs`` holds the message, ``runs`` how often it was
published again, ``leases`` until when a running attempt is believed alive. All times are the server's, so that hosts whose
clocks differ agree.

A job's record is the name of its list, a newline, and the message as JSON (which has no newline in it). Where the message
takes another way than a list of this very Redis, the name is empty.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from packetfs_compute.broker.entry import PATIENCE_S, enter_arguments
from packetfs_compute.broker.lua import Script
from packetfs_compute.names import (
    LEDGER_GIVEN_UP,
    LEDGER_JOBS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    LEDGER_RESUBMITTED,
    LEDGER_RUNS,
)

__all__ = [
    "ENTER",
    "ENTER_MANY",
    "MOST_AT_ONCE",
    "Batch",
    "Entering",
    "Entry",
    "Ledger",
    "LedgerStats",
    "Move",
]

_MAX_BYTES: Final = 8 << 20
"""Of messages that one look reads."""
_UNACKED: Final = ("unacked", "unacked_index")
"""Where kombu's Redis transport keeps the messages that workers hold (``unacked_key`` and ``unacked_index_key``)."""

ENTER: Final = Script("enter")
ENTER_MANY: Final = Script("enter_many")
MOST_AT_ONCE: Final = 250
"""Jobs in one run of it: some hundred KiB, and a millisecond in which the server does nothing else."""
_DUE: Final = Script("due")
_POSTPONE: Final = Script("postpone")
_RENEW: Final = Script("renew")
_RESUBMIT: Final = Script("resubmit")


@dataclass(frozen=True, slots=True)
class Entry:
    """An open job that is due to be looked at."""

    id: str
    due: float
    key: str
    """The list that its message goes on; empty where the message takes another way."""
    message: bytes
    """Empty where the record is gone."""
    runs: int
    lease: float | None
    """Until when an attempt was or is believed to run; ``None`` when none was seen since the last publication."""


@dataclass(frozen=True, slots=True)
class Move:
    """An entry to look at again at ``until``; ``running`` when an attempt is presumed to run so long."""

    entry: Entry
    until: float
    running: bool = False


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """The ledger in numbers. ``running`` counts attempts whose lease lives; the last two count since ever."""

    open: int
    running: int
    overdue_s: float
    resubmitted: int
    given_up: int


class Batch(NamedTuple):
    """Jobs whose messages have most in common."""

    key: str
    """The list that the messages go on."""
    message: str
    """What they have in common, as JSON; ``{1}`` stands for a job's id, ``{2}`` for its next part …"""
    jobs: Sequence[tuple[str, ...]]
    """Each job's parts as they stand in JSON, so without a line break, its id first."""


class Entering:
    """Jobs on their way into the ledger and on their lists: between :meth:`start` and :meth:`finish` the server works.

    It holds a connection meanwhile, which :meth:`abandon` gives back where nobody will finish. Both pass on redis-py's
    errors, and leave nothing behind then.
    """

    def __init__(self, client: Any, batches: Iterable[Batch], patience_s: float = PATIENCE_S) -> None:
        self._pool = client.connection_pool
        self._connection: Any = None
        self._commands = [
            ("EVAL", ENTER_MANY.text, 3, LEDGER_OPEN, LEDGER_JOBS, key, patience_s, message[:-1], lines, len(jobs[0]))
            for key, message, jobs in batches
            for lines in _lines(jobs)
        ]

    def start(self) -> None:
        """Send them."""
        self._connection = self._pool.get_connection()
        try:
            for command in self._commands:
                self._connection.send_command(*command)
        except BaseException:
            self.abandon()
            raise

    def finish(self) -> None:
        """Wait until they have arrived."""
        try:
            for _ in self._commands:
                self._connection.read_response()
        except BaseException:
            self.abandon()
            raise
        self._pool.release(self._connection)
        self._connection = None

    def abandon(self) -> None:
        """Let go of the connection, whatever is still on its way."""
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None


def _lines(jobs: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield jobs' parts, as many jobs' as one run takes. In one string: of many, redis-py sends a few KiB at a time."""
    for at in range(0, len(jobs), MOST_AT_ONCE):
        yield "".join(["\n".join(job) + "\n" for job in jobs[at : at + MOST_AT_ONCE]])


class Ledger:
    """The ledger in the Redis of ``client``, a redis-py client whose errors it passes on."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def enter(
        self, job_id: str, key: str, message: str, eta: float | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        """Enter a job, and put its message on the list ``key`` unless that is empty. A job that is open stays one entry."""
        ENTER(self._client, *enter_arguments(job_id, key, message, eta, patience_s))

    def enter_many(self, batches: Iterable["Batch"], patience_s: float = PATIENCE_S) -> None:
        """Enter jobs, and put their messages on lists, in one round trip.

        A job that is open is passed over, so that this may be tried again where its answer was lost.
        """
        entering = Entering(self._client, batches, patience_s)
        entering.start()
        entering.finish()

    def lease(self, job_id: str, ttl_s: float) -> bool:
        """Say that an attempt runs; return whether the job is open, that is: worth running."""
        return self.renew([job_id], ttl_s) == 1

    def renew(self, job_ids: Iterable[str], ttl_s: float) -> int:
        """Say of many jobs that a worker has them, for the next ``ttl_s`` seconds; return how many are open."""
        ids = list(job_ids)
        return int(_RENEW(self._client, [LEDGER_OPEN, LEDGER_LEASES], [ttl_s, *ids])) if ids else 0

    def release(self, job_id: str) -> None:
        """Take a lease back: the attempt ended, and another may begin."""
        self._client.zrem(LEDGER_LEASES, job_id)

    def strike(self, job_id: str) -> None:
        """Strike a job out: it is finished."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(LEDGER_OPEN, job_id)
            pipe.hdel(LEDGER_JOBS, job_id)
            pipe.hdel(LEDGER_RUNS, job_id)
            pipe.zrem(LEDGER_LEASES, job_id)
            pipe.execute()

    def open_count(self) -> int:
        """Return how many jobs are open."""
        return int(self._client.zcard(LEDGER_OPEN))

    def due(self, limit: int, now: float | None = None) -> tuple[float, list[Entry]]:
        """Return the time, the server's unless given, and the entries that are due at it, the longest overdue first."""
        keys = [LEDGER_OPEN, LEDGER_JOBS, LEDGER_RUNS, LEDGER_LEASES]
        time, *flat = _DUE(self._client, keys, [limit, _MAX_BYTES, "" if now is None else repr(now)])
        return float(time), [_entry(flat[i : i + 5]) for i in range(0, len(flat), 5)]

    def postpone(self, moves: Sequence[Move]) -> int:
        """Look at entries later, each unless it was changed meanwhile; return how many were moved."""
        arguments = [
            part
            for move in moves
            for part in (move.entry.id, repr(move.entry.due), repr(move.until), int(move.running))
        ]
        return int(_POSTPONE(self._client, [LEDGER_OPEN, LEDGER_LEASES], arguments)) if moves else 0

    def resubmit(self, entry: Entry, due: float, message: str, tag: str = "") -> bool:
        """Publish an entry's job again as ``message``, in place of the one with the delivery tag ``tag``.

        Return whether that happened: not when the job was finished, or published, since the entry was read.
        """
        keys = [LEDGER_OPEN, LEDGER_JOBS, LEDGER_RUNS, LEDGER_LEASES, LEDGER_RESUBMITTED, entry.key, *_UNACKED]
        arguments = [entry.id, repr(entry.due), repr(due), message[:-1], tag]
        return int(_RESUBMIT(self._client, keys, arguments)) == 1

    def give_up(self, job_id: str) -> None:
        """Strike out a job that nothing more is done for."""
        self.strike(job_id)
        self._client.incr(LEDGER_GIVEN_UP)

    def forget_leases(self, before: float) -> None:
        """Remove leases that ended before a time: of jobs that were never entered, nobody else does."""
        self._client.zremrangebyscore(LEDGER_LEASES, "-inf", before)

    def stats(self) -> LedgerStats:
        """Return the ledger in numbers."""
        seconds, micros = self._client.time()
        now = seconds + micros / 1e6
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcard(LEDGER_OPEN)
            pipe.zcount(LEDGER_LEASES, now, "+inf")
            pipe.zrange(LEDGER_OPEN, 0, 0, withscores=True)
            pipe.mget(LEDGER_RESUBMITTED, LEDGER_GIVEN_UP)
            count, running, first, (resubmitted, given_up) = pipe.execute()
        overdue_s = max(0.0, now - first[0][1]) if first else 0.0
        return LedgerStats(count, running, overdue_s, int(resubmitted or 0), int(given_up or 0))


def _entry(parts: list[Any]) -> Entry:
    job_id, due, record, runs, lease = parts
    key, _, message = (record or b"").rpartition(b"\n")
    return Entry(
        job_id.decode(), float(due), key.decode(), message, int(runs or 0), None if lease is None else float(lease)
    )

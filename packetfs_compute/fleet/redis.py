"""The fleet in Redis: every process's attempts teach all the others, in one round trip each.

Keys, for each substrate: ``packetfs:fleet:NAME`` is its health (a hash), ``…:leases`` its running attempts by when their
lease ends, ``…:consumers`` who consumes its queue and how much each runs at once, by when that is no longer believed.
Scripts stand in ``scripts/``, one file each, after ``health.lua`` or ``cancelled.lua``, which they share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import resources
from typing import Any, Final

import redis

from packetfs_compute.errors import Cancelled
from packetfs_compute.fleet.base import LEASE_S, Leased
from packetfs_compute.names import JOB_STATE, LEDGER_LEASES, LEDGER_OPEN, fleet_key, queue_of
from packetfs_compute.routing import Capabilities, Health, Member, Outcome, Snapshot
from packetfs_compute.routing.breaker import Breaker
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect, sent, translated

__all__ = ["RedisFleet", "open_fleet"]

_PRIORITY_SUFFIXES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""kombu keeps a list for each of four priorities of a queue (kombu.transport.redis, ``priority_steps`` and ``sep``)."""
_translated: Final = translated("the fleet's")
_PUBLISHERS: Final = "packetfs:fleet:publishers"
_PUBLISHER_S: Final = 5.0
_FORGET_S: Final = 3600
_INTEGERS: Final = frozenset({"streak", "probe_streak", "attempts", "byte_count", "opened"})
_NUMBERS: Final = tuple(f.name for f in fields(Health) if f.name not in ("breaker", "in_flight", "depth", "slots"))


def open_fleet(settings: Settings, places: Iterable[Capabilities]) -> "RedisFleet":
    """Return the fleet of ``places`` in the Redis of ``settings``; nothing is connected yet."""
    return RedisFleet(connect(settings), places)


class RedisFleet:
    """The fleet of all processes that share ``client``'s Redis."""

    def __init__(self, client: redis.Redis, places: Iterable[Capabilities]) -> None:
        self.places = tuple(places)
        self._client: Any = client
        self._slots = {place.name: place.slots or 0 for place in self.places}
        self._begin = client.register_script(_lua("cancelled", "begin"))
        self._renew = client.register_script(_lua("cancelled", "renew"))
        self._record = client.register_script(_lua("health", "record"))
        self._probe = client.register_script(_lua("health", "probe"))

    @_translated
    def snapshot(self, now: float, publisher: str | None = None) -> Snapshot:
        """Return everything as it is now."""
        with self._client.pipeline(transaction=False) as pipe:
            if publisher is not None:
                pipe.zadd(_PUBLISHERS, {publisher: now + _PUBLISHER_S})
                pipe.zremrangebyscore(_PUBLISHERS, "-inf", now)
            pipe.zcount(_PUBLISHERS, f"({now}", "+inf")
            for place in self.places:
                self._ask(pipe, place.name, now)
            answers = pipe.execute()
        answers = answers[0 if publisher is None else 2 :]
        publishers, each = answers[0], 4 + len(_PRIORITY_SUFFIXES)
        parts = [answers[at : at + each] for at in range(1, len(answers), each)]
        known = any(part[2] for part in parts)
        return Snapshot(
            tuple(Member(place, _health(part, known)) for place, part in zip(self.places, parts, strict=True)),
            now,
            max(1, int(publishers)),
        )

    @_translated
    def begin(self, leased: Leased, now: float) -> bool:
        """Take a slot."""
        return _taken(self._begin(*self._to_begin(leased, now)))

    @contextmanager
    def beginning(self, leased: Leased, now: float) -> Iterator[Callable[[], bool]]:
        """Take a slot, and read the answer when it is asked for."""
        with sent(self._client, self._begin, *self._to_begin(leased, now)) as answer:
            yield _translated(lambda: _taken(answer()))

    def _to_begin(self, leased: Leased, now: float) -> tuple[list[str], list[Any]]:
        keys = [fleet_key(leased.substrate, "leases"), LEDGER_LEASES, JOB_STATE + leased.job_id, LEDGER_OPEN]
        return keys, [now, LEASE_S, leased.job_id, self._slots[leased.substrate]]

    @_translated
    def renew(self, leases: Iterable[Leased], now: float) -> frozenset[str]:
        """Keep leases alive; one that is gone stays gone."""
        held = list(leases)
        keys = [LEDGER_LEASES, LEDGER_OPEN]
        for leased in held:
            keys += [fleet_key(leased.substrate, "leases"), JOB_STATE + leased.job_id]
        return frozenset(map(_text, self._renew(keys, [now, LEASE_S, *(leased.job_id for leased in held)])))

    @_translated
    def record(self, leased: Leased, outcome: Outcome, now: float) -> tuple[Health, bool]:
        """Give the slot back and learn how the attempt ended."""
        reply = self._record(*_ended(leased, outcome, now))
        return _measured(reply[:-1]), bool(reply[-1])

    def recording(self, leased: Leased, outcome: Outcome, now: float) -> tuple[str, str, list[str], list[Any]]:
        """Return what :meth:`record` runs, for somebody who goes to this Redis anyway: script, digest, keys, arguments."""
        keys, arguments = _ended(leased, outcome, now)
        return str(self._record.script), self._record.sha, keys, [*arguments, 1]

    @_translated
    def probed(self, substrate: str, ok: bool, now: float, jitter: float = 1.0) -> Health:
        """Learn what an active probe found."""
        return _measured(self._probe([fleet_key(substrate)], [now, jitter, int(ok)]))

    @_translated
    def consuming(self, consumer: str, slots: Mapping[str, int], now: float, ttl_s: float) -> None:
        """Count a consumer for a while."""
        with self._client.pipeline(transaction=False) as pipe:
            for substrate, count in slots.items():
                key, counts = fleet_key(substrate, "consumers"), fleet_key(substrate, "slots")
                pipe.zremrangebyscore(key, "-inf", now)
                pipe.zadd(key, {consumer: now + ttl_s})
                pipe.hset(counts, consumer, str(count))
                pipe.expire(counts, _FORGET_S)
            pipe.execute()

    @_translated
    def consumers(self, now: float) -> dict[str, frozenset[str]]:
        """Return who consumes which substrate's queue."""
        with self._client.pipeline(transaction=False) as pipe:
            for place in self.places:
                pipe.zrange(fleet_key(place.name, "consumers"), f"({now}", "+inf", byscore=True)
            answers = pipe.execute()
        return {place.name: frozenset(map(_text, names)) for place, names in zip(self.places, answers, strict=True)}

    @staticmethod
    def _ask(pipe: Any, substrate: str, now: float) -> None:
        pipe.hgetall(fleet_key(substrate))
        pipe.zcount(fleet_key(substrate, "leases"), f"({now}", "+inf")
        pipe.zrange(fleet_key(substrate, "consumers"), f"({now}", "+inf", byscore=True)
        pipe.hgetall(fleet_key(substrate, "slots"))
        for suffix in _PRIORITY_SUFFIXES:
            pipe.llen(queue_of(substrate) + suffix)


def _lua(*names: str) -> str:
    folder = resources.files("packetfs_compute.fleet") / "scripts"
    return "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names)


def _taken(answer: int) -> bool:
    if answer < 0:
        raise Cancelled("the job was cancelled before this attempt")
    return answer > 0


def _ended(leased: Leased, outcome: Outcome, now: float) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script that records an attempt."""
    keys = [fleet_key(leased.substrate), fleet_key(leased.substrate, "leases"), LEDGER_LEASES]
    arguments = [
        now, outcome.jitter, leased.job_id, int(outcome.ok), int(outcome.substrate_fault), outcome.byte_count,
        outcome.seconds, outcome.surprise_s, outcome.cost_usd, outcome.retry_after_s, int(outcome.wants_retry),
    ]  # fmt: skip
    return keys, arguments


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _health(part: list[Any], consumers_known: bool) -> Health:
    """Return a substrate's health from its share of a snapshot's answers."""
    pairs, in_flight, consumers, counts, *depths = part
    slots = sum(int(_text(counts.get(consumer, b"0"))) for consumer in consumers)
    return _built(
        {_text(key): _text(value) for key, value in pairs.items()},
        in_flight=int(in_flight),
        depth=sum(map(int, depths)),
        slots=slots if consumers_known else None,
    )


def _measured(flat: list[bytes | str]) -> Health:
    texts = [_text(value) for value in flat]
    return _built(dict(zip(texts[::2], texts[1::2], strict=True)))


def _built(stored: Mapping[str, str], **load: Any) -> Health:
    known: dict[str, Any] = {
        name: int(float(stored[name])) if name in _INTEGERS else float(stored[name])
        for name in _NUMBERS
        if name in stored
    }
    if "breaker_state" in stored:
        known["breaker"] = Breaker(
            stored["breaker_state"],  # type: ignore[arg-type]
            float(stored["breaker_since"]),
            float(stored["breaker_until"]),
            int(float(stored["breaker_times"])),
            int(float(stored["breaker_trials"])),
        )
    return Health(**known, **load)

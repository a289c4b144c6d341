"""What a scan has done, kept in Redis as one hash: whoever goes on with it does only what is left.

Fields of ``packetfs:scan:<id>``: ``plan`` (what was asked, and how it is split), each window's number (what it came to),
``chain`` (how far a chain is that runs in the coordinator's process), ``tally`` (what went wrong), ``result`` once there is
one, in whose place the windows go: the hash of a scan that is done is small. It lives as long as results do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.names import SCAN_STATE
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Head
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.tally import Part, ScanResult, Tally
from packetfs_compute.settings import Settings

__all__ = ["Found", "ScanState", "connect"]

_TIMEOUT_S: Final = 5.0
_AT_ONCE: Final = 1000


@dataclass(slots=True)
class Found:
    """What is kept of a scan."""

    plan: Plan | None = None
    parts: dict[int, Part] = field(default_factory=dict)
    chain: tuple[int, Part] | None = None
    tally: Tally = field(default_factory=Tally)
    result: ScanResult | None = None
    head: Head | None = None
    """What the range begins with, and the plan does not hold."""
    anew: str | None = None
    """Why there is none, where the scan asked for one."""


def connect(settings: Settings) -> Any:
    """Return a client of the Redis that holds results; nothing is connected yet."""
    return redis.Redis.from_url(
        settings.state_url,
        socket_connect_timeout=settings.connect_timeout_s,
        socket_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
    )


class ScanState:
    """One scan's hash. Every method raises :class:`BrokerUnavailable` while Redis does not answer."""

    def __init__(self, client: Any, scan: Scan, ttl_s: int) -> None:
        self._client = client
        self._key = SCAN_STATE + scan.id
        self._asked = json.dumps(scan.to_wire(), sort_keys=True)
        self._ttl_s = ttl_s

    def found(self) -> Found:
        """Return what is kept; what is kept of another scan under the same id is thrown away."""
        raw = self._do(lambda: self._client.hgetall(self._key))
        if not raw:
            return Found()
        if b"plan" not in raw or json.loads(raw[b"plan"])["asked"] != self._asked:
            self._do(lambda: self._client.delete(self._key))
            return Found()
        kept = {name.decode(): json.loads(value) for name, value in raw.items()}
        chain = kept.get("chain")
        return Found(
            Plan.from_json(kept["plan"]["plan"]),
            {int(name): Part.from_json(part) for name, part in kept.items() if name.isdecimal()},
            None if chain is None else (chain[0], Part.from_json(chain[1])),
            Tally.from_json(kept["tally"]) if "tally" in kept else Tally(),
            cast("ScanResult | None", kept.get("result")),
            Head.from_json(kept["plan"]["head"]) if kept["plan"].get("head") else None,
            kept["plan"].get("anew"),
        )

    def begin(self, plan: Plan, head: Head | None = None, anew: str | None = None) -> None:
        """Keep the plan, and the head that it goes on from or why there is none, before anything is done by it."""
        told = None if head is None else head.to_json()
        self._set({"plan": json.dumps({"asked": self._asked, "plan": plan.to_json(), "head": told, "anew": anew})})

    def keep(self, parts: Mapping[int, Part]) -> None:
        """Keep what windows came to."""
        self._set({str(number): _compact(part.to_json()) for number, part in parts.items()})

    def part(self, number: int) -> Part | None:
        """Return what one window came to, where that is kept: another coordinator of the same scan may have done it."""
        raw = self._do(lambda: self._client.hget(self._key, str(number)))
        return None if raw is None else Part.from_json(json.loads(raw))

    def keep_chain(self, position: int, so_far: Part) -> None:
        """Keep how far a chain is: what its first ``position`` bytes came to."""
        self._set({"chain": _compact([position, so_far.to_json()])})

    def keep_tally(self, tally: Tally) -> None:
        """Keep what went wrong."""
        self._set({"tally": _compact(tally.to_json())})

    def finish(self, plan: Plan, result: ScanResult) -> None:
        """Keep the result in place of what it was made of: it is found by who runs the scan again before it is stored."""
        names = [str(number) for number in range(plan.windows)]
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(self._key, "result", _compact(result))
            for at in range(0, len(names), _AT_ONCE):
                pipe.hdel(self._key, *names[at : at + _AT_ONCE])
            self._do(pipe.execute)

    def _set(self, fields: Mapping[str, str]) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(self._key, mapping=fields)
            pipe.expire(self._key, self._ttl_s)
            self._do(pipe.execute)

    @staticmethod
    def _do(call: Any) -> Any:
        try:
            return call()
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the scan's Redis does not answer: {error}") from error


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))

"""What is counted, as whole numbers that only ever grow: names of the fields in Redis, and what they add up to.

A field is ``what|substrate`` or ``what|substrate|which``. Dollars are counted in units of 10**-12, in which the cheapest
attempt still is a number and a day's bill fits in 64 bits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from packetfs_compute.journal.histogram import bucket_of, percentile_s
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Outcome

__all__ = ["Tally", "count_attempt", "count_job", "summed", "tallies"]

_PARTS_OF_A_DOLLAR: Final = 10**12


@dataclass(slots=True)
class Tally:
    """What has ended at one substrate in some time. ``failed`` jobs and ``bad`` attempts are by their error's type."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    ok: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    buckets: Counter[int] = field(default_factory=Counter)
    """Of what attempts took; see :mod:`packetfs_compute.journal.histogram`."""
    byte_count: int = 0
    dollar_parts: int = 0
    cached: int = 0
    """Of the jobs that were done, those whose values were known."""

    @property
    def usd(self) -> float:
        """What attempts cost, in dollars."""
        return self.dollar_parts / _PARTS_OF_A_DOLLAR

    def percentile_s(self, share: float) -> float | None:
        """Return what ``share`` of the attempts did not exceed, in seconds; ``None`` where there was none."""
        return percentile_s(self.buckets, share)

    def add(self, other: "Tally") -> None:
        """Add what another one has counted."""
        self.done += other.done
        self.failed.update(other.failed)
        self.ok += other.ok
        self.bad.update(other.bad)
        self.buckets.update(other.buckets)
        self.byte_count += other.byte_count
        self.dollar_parts += other.dollar_parts
        self.cached += other.cached


def count_attempt(counts: Counter[str], attempt: Attempt, outcome: Outcome) -> None:
    """Count one attempt in ``counts``, a field's name to its number."""
    place, error = attempt["substrate"], attempt["error"]
    counts[f"ok|{place}" if error is None else f"bad|{place}|{error['type']}"] += 1
    counts[f"took|{place}|{bucket_of(attempt['seconds'])}"] += 1
    counts[f"bytes|{place}"] += outcome.byte_count
    counts[f"usd|{place}"] += round(outcome.cost_usd * _PARTS_OF_A_DOLLAR)


def count_job(counts: Counter[str], substrate: str, error: str | None, *, cached: bool = False) -> None:
    """Count one job that ended at ``substrate``, well or with the error of this type; ``cached``: its values were known."""
    counts[f"done|{substrate}" if error is None else f"failed|{substrate}|{error}"] += 1
    if cached:
        counts[f"cached|{substrate}"] += 1


def tallies(stored: Mapping[bytes, bytes]) -> dict[str, Tally]:
    """Return what a hash in Redis says of each substrate. What this version does not know in it is left out."""
    found: dict[str, Tally] = {}
    for name, value in stored.items():
        what, _, rest = name.decode().partition("|")
        place, _, which = rest.partition("|")
        tally = found.setdefault(place, Tally())
        count = int(value)
        match what:
            case "done":
                tally.done += count
            case "cached":
                tally.cached += count
            case "failed":
                tally.failed[which] += count
            case "ok":
                tally.ok += count
            case "bad":
                tally.bad[which] += count
            case "took":
                tally.buckets[int(which)] += count
            case "bytes":
                tally.byte_count += count
            case "usd":
                tally.dollar_parts += count
    return found


def summed(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Return what all of ``parts`` say together."""
    whole: dict[str, Tally] = {}
    for part in parts:
        for place, tally in part.items():
            whole.setdefault(place, Tally()).add(tally)
    return whole

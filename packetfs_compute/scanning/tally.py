"""What a scan has done so far: its parts, what they cost, how fast it goes, and what all of it comes to. Pure."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from packetfs_compute.names import LOCAL
from packetfs_compute.result import Attempt, JobResult
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Head
from packetfs_compute.scanning.request import Scan

__all__ = ["Part", "Progress", "ScanResult", "Speed", "Tally", "scan_result"]

_MAX_FAILED: Final = 100
_RECENT_S: Final = 10.0


class Progress(TypedDict):
    """How far a scan is. Rates are over the last ten seconds; ``None`` where there is nothing to tell one from."""

    bytes_done: int
    bytes_total: int
    windows_done: int
    windows: int
    rate_bytes_per_s: float | None
    cost_usd: float
    eta_s: float | None


class ScanResult(JobResult):
    """A finished scan. ``substrate`` and ``region`` are those that computed most bytes.

    ``attempts`` are those that failed, a hundred at most, and one row for what was done on each substrate.
    """

    windows: int
    window: int
    pinned: bool
    """Whether all windows were held to one strong ETag."""
    cached_bytes: int
    """Of bytes that were not read, since what they came to was known; the windows that proved a head not counted."""
    appended_to: str | None
    """The ETag of the earlier version whose values it went on from."""
    anew: str | None
    """Why there is none, where ``policy.append_only`` asked for one."""
    substrates: dict[str, int]
    """Bytes by the substrate that computed them."""
    hedges: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one window came to: its values, in the order of the ops, and how."""

    values: tuple[int, ...]
    byte_count: int
    substrate: str
    region: str
    cost_usd: float = 0.0
    fetch_s: float = 0.0
    compute_s: float = 0.0
    cached: bool = False

    def to_json(self) -> list[Any]:
        """Return it as compact JSON."""
        return [
            list(self.values), self.byte_count, self.substrate, self.region,
            self.cost_usd, self.fetch_s, self.compute_s, int(self.cached),
        ]  # fmt: skip

    @classmethod
    def from_json(cls, raw: Sequence[Any]) -> "Part":
        """Return the part that :meth:`to_json` told."""
        values, byte_count, substrate, region, cost_usd, fetch_s, compute_s, cached = raw
        return cls(tuple(values), byte_count, substrate, region, cost_usd, fetch_s, compute_s, bool(cached))


@dataclass(slots=True)
class Tally:
    """What went otherwise than planned; kept with the parts, so that a scan that goes on remembers it."""

    failed: list[Attempt] = field(default_factory=list)
    failed_usd: float = 0.0
    """What attempts that failed are reckoned to have cost, and what was paid to prove a head."""
    hedges: int = 0

    def add(self, attempts: Iterable[Attempt], estimate_usd: float) -> None:
        """Add the attempts of a job that failed, each of which cost what one is expected to."""
        for attempt in attempts:
            self.failed_usd += estimate_usd
            if not attempt["ok"] and len(self.failed) < _MAX_FAILED:
                self.failed.append(attempt)

    def to_json(self) -> list[Any]:
        """Return it as JSON."""
        return [list(self.failed), self.failed_usd, self.hedges]

    @classmethod
    def from_json(cls, raw: Sequence[Any]) -> "Tally":
        """Return the tally that :meth:`to_json` told."""
        return cls(*raw)


class Speed:
    """How fast bytes come, over the last ten seconds of a clock."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=1000)

    def progress(self, now: float, plan: Plan, bytes_done: int, windows_done: int, cost_usd: float) -> Progress:
        """Return how far the scan is at ``now``, in seconds."""
        self._seen.append((now, bytes_done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RECENT_S:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (bytes_done - before) / (now - since) if now > since and bytes_done > before else None
        left = plan.length - bytes_done
        return {
            "bytes_done": bytes_done,
            "bytes_total": plan.length,
            "windows_done": windows_done,
            "windows": plan.windows,
            "rate_bytes_per_s": None if rate is None else round(rate, 1),
            "cost_usd": cost_usd,
            "eta_s": None if rate is None else round(left / rate, 3),
        }


def scan_result(
    scan: Scan,
    plan: Plan,
    values: Sequence[int],
    parts: Sequence[Part],
    tally: Tally,
    *,
    queued_s: float | None,
    total_s: float,
    head: Head | None = None,
    anew: str | None = None,
) -> ScanResult:
    """Return what a scan came to whose ops have ``values``: made of ``parts``, those of ``plan`` after those of ``head``."""
    shares, seconds, regions = Counter[str](), defaultdict[str, float](float), dict[str, str]()
    for part in parts:
        shares[part.substrate] += part.byte_count
        seconds[part.substrate] += part.fetch_s + part.compute_s
        regions[part.substrate] = part.region
    most = max(shares, key=lambda name: (shares[name], name), default=LOCAL)
    done: list[Attempt] = [
        {"substrate": name, "ok": True, "error": None, "seconds": round(seconds[name], 6)}
        for name in {part.substrate: None for part in parts if not part.cached}
    ]
    return {
        "results": [op.render(value) for op, value in zip(scan.program.ops, values, strict=True)],  # type: ignore[misc]
        "job_id": scan.id,
        "data_url": scan.program.data_url,
        "offset": scan.program.offset,
        "length": scan.program.length,
        "bytes_processed": plan.offset + plan.length - scan.program.offset,
        "object_size": plan.object_size,
        "etag": plan.etag,
        "substrate": most,
        "region": regions.get(most, LOCAL),
        "attempts": [*tally.failed, *done],
        "cost_usd": tally.failed_usd + sum(part.cost_usd for part in parts),
        "cached": bool(parts) and all(part.cached for part in parts) and head is None,
        "timing": {
            "queued_s": queued_s,
            "fetch_s": round(sum(part.fetch_s for part in parts), 6),
            "compute_s": round(sum(part.compute_s for part in parts), 6),
            "total_s": round(total_s, 6),
        },
        "windows": plan.windows,
        "window": plan.window,
        "pinned": plan.etag is not None,
        "cached_bytes": sum(part.byte_count for part in parts if part.cached),
        "appended_to": None if head is None else head.etag,
        "anew": anew,
        "substrates": dict(shares),
        "hedges": tally.hedges,
    }

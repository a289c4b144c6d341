"""A stub: a place that computes the right values, here, and then behaves as its script says.

It stands in a fleet beside real places, to try out routing, failover and dashboards, or to plan for a place that is not
there yet. Its ``script`` is a table, every field of it optional::

    [substrates.far-away.script]
    latency_s = 0.2              # added to every attempt, with up to jitter_s more
    jitter_s = 0.1
    seconds_per_byte = 1e-9
    error_rate = 0.05            # the share of attempts that fail, and how
    error = "busy"
    retry_after_s = 2.0
    outages = [[60, 90]]         # no answer within these seconds since its first use
    garbage_rate = 0.01          # the share of answers that are none of the wire's
    seed = 7                     # the same behaviour again

An attempt takes no longer than its timeout: one that would has failed when it is over. Garbage is really made, and really
checked by :func:`packetfs_compute.wire.parse_answer`, so that it ends as it does at a place that is broken.
"""

import json
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, ConfigurationError, Internal, JobError, error_class
from packetfs_compute.executor import execute, health
from packetfs_compute.names import MAX_RANGE_BYTES, MAX_TIMEOUT_MS
from packetfs_compute.parsers import count, number, seconds
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities, declared
from packetfs_compute.settings import Settings
from packetfs_compute.validation import show
from packetfs_compute.wire import failure, job_id_of, parse_answer, parse_request

__all__ = ["Script", "StubSubstrate", "parse_script"]

_ERRORS: Final = ("bad_program", "forbidden_source", "range_not_satisfiable", "source_not_found", "source_changed",
                  "source_failed", "unauthorized", "too_large", "busy", "timeout", "internal")  # fmt: skip
_GARBAGE: Final[tuple[Callable[[dict[str, Any]], object], ...]] = (
    lambda _: "<html>502 Bad Gateway</html>",
    lambda answer: {**answer, "jobId": "another"},
    lambda answer: {**answer, "results": answer["results"][1:]},
    lambda answer: {**answer, "bytesProcessed": answer["bytesProcessed"] + 0.5},
    lambda answer: {**answer, "results": [{**entry, "value": -1} for entry in answer["results"]]},
    lambda answer: {**answer, "executionTimeMs": float("nan")},
)
"""What broken places answer."""


@dataclass(frozen=True, slots=True)
class Script:
    """How a stub behaves; the defaults are a perfect place."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    seconds_per_byte: float = 0.0
    error_rate: float = 0.0
    error: str = "internal"
    retry_after_s: float | None = None
    outages: tuple[tuple[float, float], ...] = ()
    garbage_rate: float = 0.0
    seed: int | None = None


def _error(raw: object) -> str:
    if not isinstance(raw, str) or raw not in _ERRORS:
        raise ValueError(f"give one of {', '.join(_ERRORS)}")
    return raw


def _outages(raw: object) -> tuple[tuple[float, float], ...]:
    try:
        spans = [(_moment(start), _moment(stop)) for start, stop in raw]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        spans = [(1.0, 0.0)]
    if not all(start < stop for start, stop in spans):
        raise ValueError("give a list of [start, stop], in seconds since its first use")
    return tuple(spans)


_moment = seconds(0, 1e9)
_share = number(0, 1)
_FIELDS: Final[dict[str, Callable[[object], Any]]] = {
    "latency_s": seconds(0, 3600),
    "jitter_s": seconds(0, 3600),
    "seconds_per_byte": seconds(0, 1),
    "error_rate": _share,
    "error": _error,
    "retry_after_s": seconds(0, 300),
    "outages": _outages,
    "garbage_rate": _share,
    "seed": count(-(1 << 63), 1 << 63),
}


def parse_script(raw: str | None, where: str) -> Script:
    """Return the script in ``raw``, a JSON object; raise :class:`ConfigurationError` naming the field under ``where``."""
    try:
        fields = {} if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{where} is no JSON object", {"field": where, "hint": "give a table"})
    parsed: dict[str, Any] = {}
    for name, value in fields.items():
        field = f"{where}.{name if name.isidentifier() and len(name) <= 32 else show(name)}"
        if name not in _FIELDS:
            hint = f"known are {', '.join(_FIELDS)}"
            raise ConfigurationError(f"{field} is not a known field", {"field": field, "hint": hint})
        try:
            parsed[name] = _FIELDS[name](value)
        except ValueError as error:
            raise ConfigurationError(f"{field} is {show(value)}", {"field": field, "hint": str(error)}) from None
    return Script(**parsed)


class StubSubstrate:
    """Runs attempts in the calling thread, by its script. ``clock``, ``sleep`` and ``rng`` are for tests."""

    def __init__(
        self,
        spec: SubstrateSpec,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._script = parse_script(spec.script, f"substrates.{spec.name}.script")
        self._settings = replace(settings, region=spec.region or settings.region)
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random(self._script.seed)
        self._lock = threading.Lock()
        self._first_used_s: float | None = None
        defaults = Capabilities(
            name="stub",
            trust="own",
            memory_mb=1024,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=MAX_TIMEOUT_MS / 1000,
            schemes=frozenset({"http", "https", "s3", "file"}),
            kind="stub",
            region=self._settings.region,
        )
        self.capabilities = declared(defaults, spec)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt here, and answer when and as the script says."""
        started_s = self._clock()
        try:
            answer = self._behave(request, started_s)
        except JobError as error:
            return failure(job_id_of(request), error, self._clock() - started_s)
        answer["executionTimeMs"] = round((self._clock() - started_s) * 1000, 3)
        return answer

    def health(self, timeout_s: float) -> dict[str, Any]:
        """Return what this process says of itself, but not during an outage, nor when it takes too long."""
        self._check_outage(self._clock())
        self._wait(self._script.latency_s, timeout_s)
        return health(self._settings)

    def _behave(self, request: Mapping[str, Any], started_s: float) -> dict[str, Any]:
        script, asked = self._script, parse_request(request)
        with self._lock:  # always the same draws, so that one chance does not move the others
            jitter_s, fails, lies, how = self._rng.random(), self._rng.random(), self._rng.random(), self._rng.random()
        self._check_outage(started_s)
        latency_s, timeout_s = script.latency_s + jitter_s * script.jitter_s, asked.timeout_ms / 1000
        if fails < script.error_rate:
            self._wait(latency_s, timeout_s)
            after = {} if script.retry_after_s is None else {"retry_after_s": script.retry_after_s}
            raise error_class(script.error)(f"the stub fails as its script says ({script.error})", after)
        answer = execute(request, self._settings)
        latency_s += script.seconds_per_byte * answer.get("bytesProcessed", 0)
        self._wait(latency_s, timeout_s - (self._clock() - started_s))
        if lies < script.garbage_rate and answer["success"]:
            return parse_answer(_GARBAGE[int(how * len(_GARBAGE))](answer), asked)
        return answer

    def _check_outage(self, now_s: float) -> None:
        with self._lock:
            if self._first_used_s is None:
                self._first_used_s = now_s
            since_s = now_s - self._first_used_s
        if any(start <= since_s < stop for start, stop in self._script.outages):
            raise Internal("the stub is out, as its script says")

    def _wait(self, wanted_s: float, left_s: float) -> None:
        never = Deadline.after(math.inf, self._clock)  # unless the job is cancelled
        rest_s = max(0.0, min(wanted_s, left_s))
        while rest_s > 0:
            turn_s = min(rest_s, never.turn_s)
            self._sleep(turn_s)
            rest_s -= turn_s
            never.remaining_s()
        if wanted_s > left_s:
            raise AttemptTimeout("the stub takes longer than the attempt may")

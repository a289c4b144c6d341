"""AWS Lambda: the contract of ``remote/contract/`` by Invoke, on :mod:`packetfs_compute.executor`.

An event is the body of ``POST /compute`` or of ``POST /compute/batch``, or ``{"health": true}`` for ``GET /health``; what
is returned is that request's answer, and ``coldStart``, whether it is the environment's first. Nothing is raised for any
event: the failure that it is, typed, is the result, and of bounded size (a batch's is far below Lambda's 6 MB). An
attempt ends a second before Lambda would end the environment, so that a timeout comes back as one.
"""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any, Final, Protocol

from packetfs_compute.errors import ConfigurationError, Internal, JobError
from packetfs_compute.executor import health
from packetfs_compute.serving import attempt, batch_jobs, for_others
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.validation import bad, require_object, show
from packetfs_compute.wire import failure, job_id_of

__all__ = ["Context", "handler"]

_MARGIN_MS: Final = 1000
"""For an attempt to notice that its time is over, and for the answer to go out."""
_MB_PER_VCPU: Final = 1769
_THREADS_PER_VCPU: Final = 4
"""Attempts wait for their sources most of the time."""
_MAX_THREADS: Final = 32

_cold: Final = iter((True,))
"""Gives something once in an environment's life."""


class Context(Protocol):
    """What is needed of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's timeout."""


def handler(event: object, context: Context) -> dict[str, Any]:
    """Answer one event."""
    cold, started_s = next(_cold, False), time.perf_counter()
    try:
        answer = _answer(event, lambda: context.get_remaining_time_in_millis() - _MARGIN_MS)
    except ConfigurationError as error:
        internal = Internal(error.message, {"retryable": False, **error.details})
        answer = failure(job_id_of(event), internal, time.perf_counter() - started_s)
    except JobError as error:
        answer = failure(job_id_of(event), error, time.perf_counter() - started_s)
    return {**answer, "coldStart": cold}


def _answer(event: object, left_ms: Callable[[], int]) -> dict[str, Any]:
    settings = _settings()
    if isinstance(event, Mapping) and "health" in event:
        if require_object(event, "request", frozenset({"health"}))["health"] is not True:
            raise bad("request.health", f"is {show(event['health'])}", "give true")
        found = health(settings)
        most_ms = max(1, min(found["limits"]["maxTimeoutMs"], left_ms()))
        return {**found, "limits": {**found["limits"], "maxTimeoutMs": most_ms}}
    if not isinstance(event, Mapping) or "jobs" not in event:
        return attempt(event, settings, left_ms())
    jobs = batch_jobs(event)
    memory_mb = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", _MB_PER_VCPU))
    threads = min(_MAX_THREADS, max(1, round(_THREADS_PER_VCPU * memory_mb / _MB_PER_VCPU)), len(jobs) or 1)
    with ThreadPoolExecutor(threads) as pool:
        return {"results": list(pool.map(lambda job: attempt(job, settings, left_ms()), jobs))}


@cache
def _settings() -> Settings:
    """Return the settings; the region is the platform's where none is set."""
    settings = for_others(load_settings())
    region = os.environ.get("AWS_REGION", "")
    return replace(settings, region=region) if region and settings.region == Settings().region else settings

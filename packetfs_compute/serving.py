"""What every server that computes for others does: Lambda's handler and the HTTP compute server alike.

What comes from elsewhere may open nothing that is this machine's own. Local files have no roots, whatever the settings
say (:func:`for_others`), and an ``s3://`` URL is refused (:func:`attempt`): it would be signed with this machine's keys,
so it is presigned where jobs are dispatched.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from packetfs_compute.errors import AttemptTimeout, ForbiddenSource, JobError
from packetfs_compute.executor import execute
from packetfs_compute.names import MAX_TIMEOUT_MS
from packetfs_compute.settings import Settings
from packetfs_compute.validation import bad, require_object, show
from packetfs_compute.wire import failure, job_id_of, parse_request

__all__ = ["MAX_JOBS", "attempt", "batch_jobs", "for_others"]

MAX_JOBS: Final = 64
"""Most jobs of one batch."""


def for_others(settings: Settings) -> Settings:
    """Return the settings with which jobs from elsewhere are run."""
    return replace(settings, file_roots=())


def attempt(request: object, settings: Settings, most_ms: int = MAX_TIMEOUT_MS) -> dict[str, Any]:
    """Run one attempt and return its answer, both as in ``remote/contract/``; never raises for any input.

    ``most_ms`` is what the platform leaves: an attempt that asks for more gets this, one that would get nothing has
    timed out.
    """
    started_s = time.perf_counter()
    try:
        asked = parse_request(request)
        if asked.program.data_url[:3].lower() == "s3:":
            hint = "dispatchers do it with packetfs_compute.sources.presign"
            details = {"field": "program.data_url", "hint": hint}
            raise ForbiddenSource("s3:// must be presigned where jobs are dispatched", details)
        if most_ms < 1:
            raise AttemptTimeout("the platform leaves no time for this attempt")
    except JobError as error:
        return failure(job_id_of(request), error, time.perf_counter() - started_s)
    return execute(replace(asked, timeout_ms=min(asked.timeout_ms, most_ms)).to_wire(), settings)


def batch_jobs(request: object) -> Sequence[object]:
    """Return the jobs of the body of ``POST /compute/batch``, none of them looked at; raise ``BadProgram`` for no batch."""
    jobs = require_object(request, "request", frozenset({"jobs"})).get("jobs")
    if not isinstance(jobs, list) or len(jobs) > MAX_JOBS:
        raise bad("request.jobs", f"is {show(jobs)}", f"give a list of at most {MAX_JOBS} jobs")
    return jobs

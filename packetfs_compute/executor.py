"""Run one program over its source's bytes: what the local substrate, Lambda and Fly all execute.

:func:`execute` is the whole contract as one function from a request to a response, both plain JSON values. The bytes
stream through a fused plan of the kernels in chunks, so that memory stays flat whatever the range's length
and all operations of a program share one pass.
"""

import logging
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from packetfs_compute import __version__, affinity, kernels
from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import Internal, JobError, PacketFSError
from packetfs_compute.names import MAX_RANGE_BYTES, MAX_TIMEOUT_MS, OPS, PROTOCOL
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.wire import ComputeRequest, Measured, failure, job_id_of, parse_request, success

__all__ = ["execute", "health"]

_log = logging.getLogger(__name__)

_PEAK: Final = re.compile(rb"^VmHWM:\s*([0-9]+) kB", re.MULTILINE)
_AT_IMPORT: Final = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_RSS_PER_MB: Final = 1 << 20 if sys.platform == "darwin" else 1 << 10
"""``ru_maxrss`` is in bytes on macOS and in KiB elsewhere (getrusage(2))."""


def execute(request: object, settings: Settings | None = None) -> dict[str, Any]:
    """Run the request and return the response, both as in ``remote/contract/``; never raises for any input.

    Without ``settings`` they are read anew from the environment. Whatever goes wrong (bad input, a hostile URL, a
    broken server) comes back as ``{"success": False, "error": {…}}`` with a type of :mod:`packetfs_compute.errors`.
    """
    started_s = time.perf_counter()
    try:
        return _run(parse_request(request), settings or load_settings(), started_s)
    except JobError as error:
        return failure(job_id_of(request), error, time.perf_counter() - started_s)
    except PacketFSError as error:  # this machine is set up wrong: another one may not be
        internal = Internal(error.message, {"retryable": False, **error.details})
        return failure(job_id_of(request), internal, time.perf_counter() - started_s)
    except Exception as error:  # noqa: BLE001  (the boundary that promises an answer whatever happens)
        _log.exception("an attempt failed in a way that has no type")
        internal = Internal(f"{type(error).__name__}: {error}")
        return failure(job_id_of(request), internal, time.perf_counter() - started_s)


def health(settings: Settings) -> dict[str, Any]:
    """Return the ``GET /health`` answer of a place that executes in this process, as in ``remote/contract/``."""
    return {
        "status": "healthy",
        "version": __version__,
        "protocol": PROTOCOL,
        "region": settings.region,
        "ops": list(OPS),
        "kernel": ", ".join(sorted(set(kernels.active().values()))),
        "limits": {"maxRangeBytes": MAX_RANGE_BYTES, "maxTimeoutMs": MAX_TIMEOUT_MS},
    }


def _run(request: ComputeRequest, settings: Settings, started_s: float) -> dict[str, Any]:
    program = request.program
    deadline = Deadline.after(request.timeout_ms / 1000)
    plan = kernels.plan([(op.name, op.imm) for op in program.ops])
    values = [op.identity for op in program.ops]
    read = _Meter()
    wanted = RangeRequest(program.data_url, program.offset, program.length, program.etag)
    with affinity.away(program.length), open_source(wanted, deadline, settings) as stream:
        read.fetch_s = time.perf_counter() - started_s
        for chunk in read.through(iter(stream)):
            values = plan.run(chunk, values)
            deadline.remaining_s()
        measured = Measured(
            bytes_processed=read.bytes,
            object_size=stream.object_size,
            etag=stream.etag,
            execution_s=time.perf_counter() - started_s,
            fetch_s=read.fetch_s,
            region=settings.region,
            memory_used_mb=_peak_memory_mb(),
            cache=stream.cache,
        )
    return success(request, values, measured)


def _peak_memory_mb() -> int:
    """Return the most memory that this process has had resident.

    Linux keeps ``ru_maxrss`` over fork and exec: in a small server that a large process started, it is that one's. What has
    grown since this module was imported is ours; else the slower ``/proc`` tells.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak <= _AT_IMPORT:
        with suppress(OSError):
            match = _PEAK.search(Path("/proc/self/status").read_bytes())
            if match is not None:
                return int(match[1]) >> 10
    return peak // _RSS_PER_MB


class _Meter:
    """Counts a stream's bytes, and the time spent waiting for them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.fetch_s = 0.0

    def through(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        while True:
            asked_s = time.perf_counter()
            chunk = next(chunks, None)
            self.fetch_s += time.perf_counter() - asked_s
            if chunk is None:
                return
            self.bytes += len(chunk)
            yield chunk

"""One window as a job: its id, its program, and what its result or its error means to the scan. Pure."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from packetfs_compute.broker.outcome import ErrorInfo
from packetfs_compute.errors import Internal, JobError, RangeNotSatisfiable, SourceChanged, error_class
from packetfs_compute.result import JobResult
from packetfs_compute.scanning.plan import Plan, Window, changed_size
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.tally import Part

__all__ = ["error_of", "part_of", "window_id", "window_program", "windows_glob"]

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_HEX: Final = 16


def window_id(scan_id: str, window: Window, tries: int, *, hedge: bool = False) -> str:
    """Return the id of a window's job, which has been run anew ``tries`` times: that of the scan and a number, or more.

    Where the scan's own leaves no room for them, or is none for a job, they stand after one that is made of it.
    """
    again = f".{tries}" if tries else ""
    return f"{_base(scan_id)}.{window.number}{again}{'.h' if hedge else ''}"


def windows_glob(scan_id: str) -> str:
    """Return the pattern that the ids of all windows' jobs match."""
    return f"{_base(scan_id)}.*"


def window_program(scan: Scan, plan: Plan, window: Window, before: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the program of a window's job; in a chain, from the values ``before`` on, those of the window before it."""
    program: dict[str, Any] = {
        "data_url": scan.program.data_url,
        "offset": window.offset,
        "length": window.length,
        "ops": [op.to_wire() for op in scan.program.ops],
    }
    if plan.etag is not None:
        program["etag"] = plan.etag
    for op, value in zip(program["ops"], before or (), strict=before is not None):
        if op["op"] == "fnv64":
            op["seed"] = f"{value:0{_HEX}x}"
    return program


def part_of(plan: Plan, window: Window, result: JobResult) -> Part:
    """Return what a window came to.

    Raises :class:`SourceChanged` for a result that is of another version than the scan's, :class:`Internal` for one that is
    of other bytes than the window's.
    """
    etag, byte_count = result["etag"], result["bytes_processed"]
    if changed_size(plan, result["object_size"]):
        raise SourceChanged(f"the object has {result['object_size']} bytes, and had {plan.object_size} at first")
    if plan.etag is not None and etag is not None and etag != plan.etag:
        raise SourceChanged(f"the object is now {etag}, not the pinned {plan.etag}", {"etag": etag})
    if byte_count != window.length:
        raise Internal(f"window {window.number} is of {byte_count} bytes, not of {window.length}")
    values = [one["value"] for one in result["results"]]
    timing = result["timing"]
    return Part(
        tuple(int(value, _HEX) if isinstance(value, str) else value for value in values),
        window.length,
        result["substrate"],
        result["region"],
        result["cost_usd"],
        timing["fetch_s"],
        timing["compute_s"],
        result["cached"],
    )


def error_of(info: ErrorInfo | None, plan: Plan) -> JobError:
    """Return what a window's job ended with. That a range which was there is no more means another version."""
    if info is None:
        return Internal("a window's job is not known any more")
    details = {name: value for name, value in info.items() if name not in ("type", "message")}
    error = error_class(info["type"])(info["message"], details)
    if isinstance(error, RangeNotSatisfiable) and plan.object_size is not None:
        return SourceChanged(f"the object no longer has {plan.object_size} bytes: {error.message}", details)
    return error


def _base(scan_id: str) -> str:
    return scan_id if _ID.fullmatch(scan_id) else f"scan-{sha256(scan_id.encode()).hexdigest()[:40]}"

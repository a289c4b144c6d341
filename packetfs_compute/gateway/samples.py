"""Examples in the API's documentation: one job, from its submission to its result."""

from typing import Any, Final

__all__ = ["EXPLAINED", "FLEET", "JOB", "KEY", "METRICS", "PROGRAM", "STATUS"]

PROGRAM: Final[dict[str, Any]] = {
    "data_url": "https://host.example/object",
    "offset": 0,
    "length": 1048576,
    "ops": [{"op": "crc32c"}, {"op": "counteq", "imm": 10}],
}
JOB: Final[dict[str, Any]] = {
    "job_id": "j1",
    "status": "queued",
    "submitted_at": 1764000000.25,
    "program": PROGRAM,
    "policy": {"goal": "cheapest"},
    "result": None,
    "error": None,
}
_RESULT: Final[dict[str, Any]] = {
    "results": [{"op": "crc32c", "value": 2316035459}, {"op": "counteq", "imm": 10, "value": 4096}],
    "job_id": "j1",
    "data_url": "https://host.example/object",
    "offset": 0,
    "length": 1048576,
    "bytes_processed": 1048576,
    "object_size": 9000000,
    "etag": '"abc"',
    "substrate": "local",
    "region": "local",
    "attempts": [{"substrate": "local", "ok": True, "error": None, "seconds": 0.012}],
    "cost_usd": 0.0,
    "timing": {"queued_s": 0.004, "fetch_s": 0.011, "compute_s": 0.001, "total_s": 0.018},
}
STATUS: Final[dict[str, Any]] = {**JOB, "status": "done", "result": _RESULT}
EXPLAINED: Final[dict[str, Any]] = {
    "substrate": "local",
    "panic": False,
    "measured": True,
    "byte_count": 1048576,
    "candidates": [
        {
            "substrate": "local",
            "wait_s": 0.0,
            "run_s": 0.006,
            "usd": 0.0,
            "egress_usd": 0.0,
            "success": 0.99,
            "score": 6.1e-06,
            "veto": None,
        }
    ],
}
FLEET: Final[dict[str, Any]] = {
    "substrates": [
        {
            "name": "local",
            "kind": "local",
            "provider": None,
            "region": "local",
            "trust": "own",
            "breaker": "closed",
            "overhead_s": 0.004,
            "s_per_byte": 2e-09,
            "usd_per_job_gb": 0.0,
            "declared_slots": None,
            "health": {"in_flight": 0, "depth": 0, "slots": 2, "attempts": 20, "cost_usd": 0.0},
        }
    ]
}
KEY: Final[dict[str, Any]] = {
    "id": "9f86d081884c",
    "name": "ci",
    "scopes": ["submit", "read"],
    "created_at": 1764000000.0,
}
METRICS: Final = "# TYPE packetfs_open_jobs gauge\npacketfs_open_jobs 0.0\n"

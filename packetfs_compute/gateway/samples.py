"""Examples in the API's documentation: one job, from its submission to its result."""

from typing import Any, Final

__all__ = [
    "EXPLAINED",
    "FLEET",
    "JOB",
    "KEY",
    "METRICS",
    "OVERVIEW",
    "PROGRAM",
    "SCAN",
    "SCANNED",
    "SCANNING",
    "STATUS",
]

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
    "cached": False,
    "timing": {"queued_s": 0.004, "fetch_s": 0.011, "compute_s": 0.001, "total_s": 0.018},
}
STATUS: Final[dict[str, Any]] = {**JOB, "status": "done", "result": _RESULT}
SCANNED: Final[dict[str, Any]] = {"data_url": "https://host.example/object", "ops": PROGRAM["ops"]}
SCAN: Final[dict[str, Any]] = {
    **JOB,
    "job_id": "s1",
    "program": {**SCANNED, "offset": 0, "window": 8388608},
    "policy": {"max_cost_usd": 0.5},
}
SCANNING: Final[dict[str, Any]] = {
    **SCAN,
    "status": "running",
    "progress": {
        "bytes_done": 4294967296,
        "bytes_total": 10737418240,
        "windows_done": 512,
        "windows": 1280,
        "rate_bytes_per_s": 429496729.6,
        "cost_usd": 0.0,
        "eta_s": 15.0,
    },
}
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
OVERVIEW: Final[dict[str, Any]] = {
    "at": 1764000060.5,
    "window_s": 60,
    "ledger": {"open": 1, "overdue_s": 0.0, "resubmitted": 0, "given_up": 0},
    "unwell": [],
    "status": "healthy",
    "substrates": [
        {
            "name": "local",
            "kind": "local",
            "provider": "own",
            "region": "local",
            "trust": "own",
            "breaker": {
                "state": "closed",
                "since": 1763990000.0,
                "until": None,
                "times": 1,
                "cause": {"at": 1763989990.0, "error": "internal", "message": "the worker ran out of memory"},
            },
            "depth": 0,
            "in_flight": 1,
            "slots": 2,
            "consumers": 1,
            "jobs": {
                "done_per_s": 0.5,
                "failed_per_s": 0.0,
                "done": 1200,
                "cached": 40,
                "failed": {"source_not_found": 3},
            },
            "attempts": {"ok": 1200, "failed": {"source_not_found": 3, "source_failed": 4}},
            "latency_s": {"count": 30, "p50": 0.0119, "p95": 0.0237, "p99": 0.0281},
            "bytes_per_s": 524288.0,
            "bytes": 1258291200,
            "usd_per_hour": 0.0,
            "usd": 0.0,
        }
    ],
    "series": {
        "step_s": 2,
        "from": 1763999756.0,
        "done": {"local": [1, 0, 2]},
        "failed": {"local": [0, 0, 0]},
        "usd": [0.0, 0.0, 0.0],
        "p50_s": [0.0119, None, 0.0119],
        "p95_s": [0.0119, None, 0.0141],
    },
    "scans": [
        {
            "job_id": "s1",
            "op": "program",
            "data_url": "https://host.example/object",
            "length": None,
            "since": 1764000050.25,
            "progress": SCANNING["progress"],
        }
    ],
    "recent": [
        {
            "job_id": "j1",
            "at": 1764000060.1,
            "op": "program",
            "data_url": "https://host.example/object",
            "length": 1048576,
            "status": "done",
            "error": None,
            "substrate": "local",
            "cost_usd": 0.0,
            "cached": False,
            "total_s": 0.018,
            "attempts": _RESULT["attempts"],
            "decision": {
                "substrate": "local",
                "panic": False,
                "at": 1764000060.08,
                "candidates": [
                    {
                        **EXPLAINED["candidates"][0],
                        "seconds": 0.006,
                        "by_health": False,
                        "share": 1.0,
                        "severity": 0,
                    }
                ],
            },
            "window_of": None,
            "scan": None,
        }
    ],
    "browsers": None,
    "links": {"flower": None, "docs": "/docs", "metrics": "/metrics"},
}
KEY: Final[dict[str, Any]] = {
    "id": "9f86d081884c",
    "name": "ci",
    "scopes": ["submit", "read"],
    "created_at": 1764000000.0,
}
METRICS: Final = "# TYPE packetfs_open_jobs gauge\npacketfs_open_jobs 0.0\n"

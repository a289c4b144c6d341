"""What a scan has around it in tests: a desk that runs windows in its own time, and the clock of that time."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packetfs_compute import kernels
from packetfs_compute.desk import Submission
from packetfs_compute.errors import JobError
from packetfs_compute.wire import job_id_of

DATA = bytes(range(256)) * 10
"""The object that every window is of."""


@dataclass
class Clock:
    now: float = 1000.0
    turns: int = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.turns += 1
        assert self.turns < 20_000, "it does not end"
        self.now += seconds


@dataclass
class Job:
    """What the desk knows of one: when it will end, and how."""

    program: Mapping[str, Any]
    policy: Any
    ends_at: float
    error: dict[str, Any] | None = None
    begun: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    cancelled: bool = False


@dataclass
class FakeDesk:
    """Runs what is submitted, in its own time. ``fate`` may change a job that is submitted; ``before`` every call."""

    clock: Clock
    fate: Callable[[str, Job], object] = lambda _id, _job: None
    before: Callable[[], object] = lambda: None
    jobs: dict[str, Job] = field(default_factory=dict)
    computed: Counter[int] = field(default_factory=Counter)
    cancelled: list[str] = field(default_factory=list)
    most_open: int = 0
    place: str = "local"
    refuse: dict[str, JobError] = field(default_factory=dict)

    def submit_many(self, submissions: Sequence[Submission]) -> list[Any]:
        self.before()
        told = []
        for one in submissions:
            assert job_id_of({"jobId": one.job_id}) is not None
            assert isinstance(one.program, dict)
            if one.job_id in self.refuse:
                told.append(self.refuse[one.job_id])
                continue
            if one.job_id not in self.jobs:
                self.computed[one.program["offset"]] += 1
                self.jobs[one.job_id] = job = Job(one.program, one.policy, self.clock.now + 1.0)
                self.fate(one.job_id, job)
            told.append(self._status(one.job_id))
        self.most_open = max(self.most_open, sum(job.ends_at > self.clock.now for job in self.jobs.values()))
        self.before()  # the answer may be lost on its way
        return told

    def statuses(self, job_ids: Sequence[str]) -> list[Any]:
        self.before()
        return [self._status(job_id) for job_id in job_ids]

    def cancel(self, job_id: str) -> Any:
        self.before()
        self.cancelled.append(job_id)
        if self.jobs[job_id].ends_at > self.clock.now:
            self.jobs[job_id].cancelled = True
        return self._status(job_id)

    def forget(self, job_ids: Sequence[str]) -> None:
        self.before()
        for job_id in job_ids:
            self.jobs.pop(job_id, None)

    def places(self, job_ids: Sequence[str]) -> list[str | None]:
        self.before()
        return [self.place for _ in job_ids]

    def _status(self, job_id: str) -> Any:
        job = self.jobs.get(job_id)
        if job is None:
            return None
        told: dict[str, Any] = {"job_id": job_id, "status": "queued", "result": None, "error": None}
        if job.cancelled:
            return {**told, "status": "cancelled", "error": {"type": "cancelled", "message": "by somebody"}}
        if self.clock.now < job.ends_at:
            return {**told, "status": "running" if job.begun else "queued"}
        if job.error is not None:
            return {**told, "status": "failed", "error": job.error}
        return {**told, "status": "done", "result": {**result_of(job.program), **job.more}}


def result_of(program: Mapping[str, Any]) -> dict[str, Any]:
    ops = program["ops"]
    data = DATA[program["offset"] : program["offset"] + program["length"]]
    start = [int(op.get("seed", f"{kernels.FNV64_OFFSET:x}"), 16) if op["op"] == "fnv64" else 0 for op in ops]
    values = kernels.fused(data, ops, start)
    return {
        "results": [
            {"op": op["op"], "value": f"{value:016x}" if op["op"] == "fnv64" else value}
            for op, value in zip(ops, values, strict=True)
        ],
        "bytes_processed": len(data), "object_size": len(DATA), "etag": program.get("etag"), "substrate": "local",
        "region": "here", "cost_usd": 0.01, "cached": False, "attempts": [], "timing": {"fetch_s": 0.5, "compute_s": 0.25},
    }  # fmt: skip

"""The operations as Celery tasks. Each body names its program; :func:`tasks.base.run` does the rest."""

from typing import Any

from packetfs_compute.celery import app
from packetfs_compute.names import task_of
from packetfs_compute.result import JobResult, op_result
from tasks.base import JobTask, run

__all__ = ["add", "counteq", "crc32c", "fnv64", "program", "xor"]

_Json = dict[str, Any]


def _one(
    task: JobTask, op: _Json, data_url: str, offset: int, length: int | None, etag: str | None, policy: _Json | None
) -> _Json:
    raw = {"data_url": data_url, "offset": offset, "length": length, "etag": etag, **op}
    return op_result(run(task, raw, policy))


@app.task(bind=True, base=JobTask, name=task_of("counteq"))
def counteq(
    self: JobTask,
    data_url: str,
    imm: int,
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
) -> _Json:
    """Count the bytes equal to ``imm`` (0..255) in a range."""
    return _one(self, {"op": "counteq", "imm": imm}, data_url, offset, length, etag, policy)


@app.task(bind=True, base=JobTask, name=task_of("crc32c"))
def crc32c(
    self: JobTask,
    data_url: str,
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
) -> _Json:
    """Return the CRC-32C (RFC 3720, section 12.1) of a range."""
    return _one(self, {"op": "crc32c"}, data_url, offset, length, etag, policy)


@app.task(bind=True, base=JobTask, name=task_of("fnv64"))
def fnv64(
    self: JobTask,
    data_url: str,
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
    seed: str | None = None,
) -> _Json:
    """Return the FNV-1a 64 hash of a range as 16 hex digits; ``seed`` continues from an earlier range's value."""
    return _one(self, {"op": "fnv64", "seed": seed}, data_url, offset, length, etag, policy)


@app.task(bind=True, base=JobTask, name=task_of("xor"))
def xor(
    self: JobTask,
    data_url: str,
    imm: int,
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
) -> _Json:
    """Return the XOR over a range's bytes of (byte ^ ``imm``), 0..255."""
    return _one(self, {"op": "xor", "imm": imm}, data_url, offset, length, etag, policy)


@app.task(bind=True, base=JobTask, name=task_of("add"))
def add(
    self: JobTask,
    data_url: str,
    imm: int,
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
) -> _Json:
    """Return the sum over a range's bytes of ((byte + ``imm``) mod 256)."""
    return _one(self, {"op": "add", "imm": imm}, data_url, offset, length, etag, policy)


@app.task(bind=True, base=JobTask, name=task_of("program"))
def program(
    self: JobTask,
    data_url: str,
    ops: list[_Json],
    offset: int = 0,
    length: int | None = None,
    etag: str | None = None,
    policy: _Json | None = None,
) -> JobResult:
    """Run several operations over a range in one pass; ``ops`` as on the wire, ``[{"op": "counteq", "imm": 10}, …]``."""
    raw = {"data_url": data_url, "offset": offset, "length": length, "etag": etag, "ops": ops}
    return run(self, raw, policy)

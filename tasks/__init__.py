"""Celery tasks: ``from tasks import crc32c; crc32c.delay("https://host/object", length=1 << 20).get()``."""

from tasks.many import submit_many
from tasks.operations import add, counteq, crc32c, fnv64, program, xor
from tasks.scans import scan
from tasks.upkeep import probe, sweep

__all__ = ["add", "counteq", "crc32c", "fnv64", "probe", "program", "scan", "submit_many", "sweep", "xor"]

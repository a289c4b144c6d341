"""Celery tasks: ``from tasks import crc32c; crc32c.delay("https://host/object", length=1 << 20).get()``."""

from tasks.operations import add, counteq, crc32c, fnv64, program, xor
from tasks.upkeep import probe, sweep

__all__ = ["add", "counteq", "crc32c", "fnv64", "probe", "program", "sweep", "xor"]

"""Results that are known already: ``base.py`` is the contract, ``redis.py`` the real one, ``stub.py`` one in memory.

Ops are pure, and a strong ETag names one sequence of bytes, so a value that was computed once stands for as long as
somebody asks for that version. The real one is imported by its module's name, so that what runs attempts without a queue
needs no Redis client.
"""

from packetfs_compute.cache.base import Known, ResultCache, cache_key, op_key
from packetfs_compute.cache.stub import StubCache

__all__ = ["Known", "ResultCache", "StubCache", "cache_key", "op_key"]

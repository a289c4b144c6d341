"""The cache in Redis, which a fleet shares: one round trip to ask, one to keep.

Keys: ``packetfs:cache:object:DIGEST`` is what is known of one version of an object (a hash: its size, and each value under
its range and operation), or what is noted of an object whatever its version (a text, likewise, of a kilobyte or two at
most); ``packetfs:cache:objects`` names all of them by when they were last written to,
``packetfs:cache:counts`` says how many values each holds, and all. When there are too many, the objects that were written
to longest ago go, whole. One object holds at most half of them.

While Redis is away nothing is known, and for some seconds nobody waits to be told so again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from itertools import chain
from typing import Any, Final

import redis

from packetfs_compute.cache.base import NOTED, Kept, Known, cache_key, kept_of, note_field, notes_key, op_key
from packetfs_compute.names import CACHE_COUNTS, CACHE_OBJECT, CACHE_OBJECTS
from packetfs_compute.program import Program
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect

__all__ = ["TTL_S", "RedisCache", "open_cache"]

TTL_S: Final = 30 * 86_400

Entrust = Callable[[str, str, list[str], list[Any]], bool]
_SILENCE_S: Final = 2.0
_AWAY_S: Final = 5.0
"""How long Redis is left alone after it has not answered."""


class RedisCache:
    """Values in ``client``'s Redis, at most ``entries`` of them; 0 keeps none.

    ``store`` is the S3-compatible store that ``s3://`` means. ``entrust`` has values kept by somebody who goes to this Redis
    anyway, where there is somebody, and says so; it is told a script, its digest, keys and arguments.
    """

    def __init__(
        self,
        client: redis.Redis,
        entries: int,
        store: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        entrust: Entrust | None = None,
    ) -> None:
        self._look = client.register_script(_lua("look"))
        self._keep = client.register_script(_lua("keep"))
        self._entries = entries
        self._store = store
        self._clock = clock
        self._entrust = entrust or _to_nobody
        self._back_at_s = float("-inf")

    def look(self, program: Program) -> Known | None:
        """Return what is known of a program."""
        key = program.etag and cache_key(program.data_url, program.etag, self._store)
        if not key or not self._entries:
            return None
        length = "" if program.length is None else program.length
        found = self._asked(self._look, [CACHE_OBJECT + key], [program.offset, length, *map(op_key, program.ops)])
        if not found:
            return None
        try:
            size, *values = (one.decode() for one in found)
            return Known(program, int(size), tuple(map(Kept.from_text, values)))
        except ValueError:  # of a version to come, or written by hand
            return None

    def keep(self, program: Program, answer: Mapping[str, Any], substrate: str, *, sure: bool) -> None:
        """Keep an answer's values."""
        etag, size = answer["etag"], answer["objectSize"]
        key = None if etag is None or size is None else cache_key(program.data_url, etag, self._store)
        if key is None or not self._entries:
            return
        self._put(key, size, kept_of(program, answer, substrate), sure=sure)

    def note(self, program: Program, texts: Sequence[str]) -> None:
        """Note a text for each op: kept, counted and let go as values are."""
        key = notes_key(program.data_url, self._store)
        if key is not None and self._entries:
            names = [note_field(program, op) for op in program.ops]
            self._put(key, 0, dict(zip(names, texts, strict=True)), sure=True)

    def noted(self, program: Program) -> tuple[str, ...] | None:
        """Return what was noted last."""
        key = notes_key(program.data_url, self._store)
        if key is None or not self._entries:
            return None
        found = self._asked(self._look, [CACHE_OBJECT + key], [program.offset, NOTED, *map(op_key, program.ops)])
        return tuple(one.decode() for one in found[1:]) if found else None

    def _put(self, key: str, size: int, values: Mapping[str, str], *, sure: bool) -> None:
        keys = [CACHE_OBJECT + key, CACHE_OBJECTS, CACHE_COUNTS]
        arguments = [
            key,
            CACHE_OBJECT,
            size,
            TTL_S,
            self._entries,
            int(sure),
            *chain.from_iterable(values.items()),
        ]
        if not self._entrust(str(self._keep.script), self._keep.sha, keys, arguments):
            self._asked(self._keep, keys, arguments)

    def _asked(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script; return ``None`` where Redis is away."""
        if self._clock() < self._back_at_s:
            return None
        try:
            return script(keys, arguments)
        except (redis.RedisError, OSError):
            self._back_at_s = self._clock() + _AWAY_S
            return None


def open_cache(settings: Settings, entrust: Entrust | None = None) -> RedisCache:
    """Return the cache in the Redis of ``settings``; nothing is connected yet."""
    return RedisCache(
        connect(settings, silence_s=_SILENCE_S), settings.cache_entries, settings.s3_endpoint_url, entrust=entrust
    )


def _to_nobody(text: str, digest: str, keys: list[str], arguments: list[Any]) -> bool:
    del text, digest, keys, arguments
    return False


def _lua(name: str) -> str:
    return (resources.files("packetfs_compute.cache") / "scripts" / f"{name}.lua").read_text("utf-8")

"""A cache in this process's memory: for programs without Redis, and what the real one is compared with in the tests."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from packetfs_compute.cache.base import Kept, Known, cache_key, kept_of, note_field, notes_key, op_key
from packetfs_compute.program import Program

__all__ = ["StubCache"]


class StubCache:
    """The values of one process, at most ``entries`` of them; the objects written to last stay."""

    def __init__(self, entries: int = 10_000, store: str | None = None) -> None:
        self._entries = entries
        self._store = store
        self._objects: dict[str, tuple[int, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def look(self, program: Program) -> Known | None:
        """Return what is known of a program."""
        key = program.etag and cache_key(program.data_url, program.etag, self._store)
        with self._lock:
            size, values = self._objects.get(key or "", (0, {}))
            length = size - program.offset if program.length is None else program.length
            found = [values.get(f"{program.offset}:{length}:{op_key(op)}") for op in program.ops]
        kept = [Kept.from_text(one) for one in found if one is not None]
        return Known(program, size, tuple(kept)) if len(kept) == len(found) else None

    def keep(self, program: Program, answer: Mapping[str, Any], substrate: str, *, sure: bool) -> None:
        """Keep an answer's values."""
        etag, size = answer["etag"], answer["objectSize"]
        key = None if etag is None or size is None else cache_key(program.data_url, etag, self._store)
        if key is None:
            return
        self._put(key, size, kept_of(program, answer, substrate), sure=sure)

    def note(self, program: Program, texts: Sequence[str]) -> None:
        """Note a text for each op."""
        key = notes_key(program.data_url, self._store)
        if key is not None:
            names = [note_field(program, op) for op in program.ops]
            self._put(key, 0, dict(zip(names, texts, strict=True)), sure=True)

    def noted(self, program: Program) -> tuple[str, ...] | None:
        """Return what was noted last."""
        with self._lock:
            _, texts = self._objects.get(notes_key(program.data_url, self._store) or "", (0, {}))
            found = [texts.get(note_field(program, op)) for op in program.ops]
        told = tuple(one for one in found if one is not None)
        return told if len(told) == len(found) else None

    def _put(self, key: str, size: int, new: dict[str, str], *, sure: bool) -> None:
        with self._lock:
            known, values = self._objects.pop(key, (size, {}))
            values = {} if known != size else values
            values = values | new if sure else new | values
            self._objects[key] = (size, dict(list(values.items())[: max(1, self._entries // 2)]))
            while sum(len(kept) for _, kept in self._objects.values()) > self._entries:
                del self._objects[next(iter(self._objects))]

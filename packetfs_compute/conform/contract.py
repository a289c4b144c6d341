"""The objects and vectors of ``remote/contract/``, which every endpoint is held to.

An object's bytes are described, not stored, so that any language can make them; ``generate.py`` says how.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import cycle, islice
from typing import Any, Final

__all__ = ["Contract", "Object", "load_contract", "make_bytes"]

_U32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Object:
    """What an honest server of the object gives."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Contract:
    """All that ``vectors.json`` holds; the objects' bytes are made."""

    objects: Mapping[str, Object]
    vectors: tuple[dict[str, Any], ...]
    bad_requests: tuple[dict[str, Any], ...]


@functools.cache
def load_contract() -> Contract:
    """Return the contract that this version of the package was built with."""
    text = resources.files(__package__ or "packetfs_compute.conform").joinpath("vectors.json").read_text("ascii")
    document: dict[str, Any] = json.loads(text)
    objects = {one["name"]: Object(make_bytes(one["bytes"], one["size"]), one["etag"]) for one in document["objects"]}
    return Contract(objects, tuple(document["vectors"]), tuple(document["badRequests"]))


def make_bytes(spec: Mapping[str, Any], size: int) -> bytes:
    """Return the ``size`` bytes that an object's ``bytes`` describes."""
    if spec["kind"] == "constant":
        return bytes([spec["byte"]]) * size
    if spec["kind"] == "counter":
        return bytes(i & 255 for i in range(size))
    if spec["kind"] == "cycle":
        return bytes(islice(cycle(spec["text"].encode()), size))
    return bytes(_xorshift32(spec["seed"], size))


def _xorshift32(state: int, size: int) -> Iterator[int]:
    for _ in range(size):
        state ^= state << 13 & _U32
        state ^= state >> 17
        state ^= state << 5 & _U32
        yield state & 255

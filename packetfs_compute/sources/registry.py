"""Which source reads a URL, by its scheme: names as data, each class loaded on first use."""

from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Final, cast

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import ForbiddenSource
from packetfs_compute.settings import Settings
from packetfs_compute.sources.base import ByteStream, RangeRequest, Source
from packetfs_compute.sources.guard import scheme_of
from packetfs_compute.sources.s3 import presign
from packetfs_compute.validation import show

__all__ = ["SOURCES", "open_source"]

SOURCES: Final = {
    "http": "packetfs_compute.sources.http:HttpSource",
    "https": "packetfs_compute.sources.http:HttpSource",
    "s3": "packetfs_compute.sources.s3:S3Source",
    "file": "packetfs_compute.sources.file:FileSource",
}

_CACHED: Final = "packetfs_compute.sources.cached:CachedSource"
_CACHEABLE: Final = frozenset({"http", "https", "s3"})


def open_source(request: RangeRequest, deadline: Deadline, settings: Settings) -> ByteStream:
    """Open a range of the object at ``request.url``; an absolute path is a file.

    With ``settings.cache_dir``, what is read over HTTP or from S3 goes through the cache there.
    Raises a :class:`~packetfs_compute.errors.JobError`: :class:`ForbiddenSource` for a scheme that has no source.
    """
    scheme = "file" if request.url.startswith("/") else scheme_of(request.url)
    if scheme not in SOURCES:
        known = ", ".join(f"{name}:" for name in SOURCES)
        raise ForbiddenSource(
            f"the scheme {show(scheme)} is not open to sources", {"field": "program.data_url", "hint": f"use {known}"}
        )
    if settings.cache_dir is not None and scheme in _CACHEABLE:
        request = replace(request, url=presign(request.url, settings))
        return _source(_CACHED, settings).open(request, deadline)
    return _source(SOURCES[scheme], settings).open(request, deadline)


@lru_cache(maxsize=16)
def _source(spec: str, settings: Settings) -> Source:
    """Return the one source of a kind for equal settings, so that its idle connections are found again."""
    module, _, name = spec.partition(":")
    return cast("Source", getattr(import_module(module), name)(settings))

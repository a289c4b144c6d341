"""Blocks of objects on disk, kept between programs: what a fetched byte need not be fetched for again.

One directory below ``settings.cache_dir``, which several threads and processes share without asking each other::

    packetfs-blocks/<object>/<version>/version      JSON: the ETag and the size of this version
                                      /<number>     one block of 256 KiB, shorter at the object's end

``<object>`` is the hash of the URL without what presigning adds to it, ``<version>`` that of URL, strong ETag and size.
The rules that make it safe:

- A file is written under another name and renamed, so that no reader sees half of one.
- Its header holds the length and a CRC-32C, over the data and over whose block it is. Both are checked at each reading: a
  file that is damaged, cut short or in the wrong place is removed, and its bytes are as good as never stored.
- Only its owner may enter the directory. One that belongs to somebody else is not used.
- Nothing here fails a program. A disk that is full or gone is one warning, and a minute later one more try.

The bound is kept by removing what was used longest ago, by the files' modification time, which a hit renews. Each process
counts what it writes and looks at the whole directory when that may have filled it; with several, the bound may be
passed by a sixteenth each until one of them looks.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import struct
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packetfs_compute.kernels import crc32c

__all__ = ["BLOCK", "BlockStore", "Version"]

_log = logging.getLogger(__name__)

BLOCK: Final = 1 << 18
"""Bytes of one block."""

_DIRECTORY: Final = "packetfs-blocks"
_ABOUT: Final = "version"
_MAGIC: Final = b"PFSB\x01"
_HEADER: Final = struct.Struct("<5sxxxII")
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_PAGE: Final = 4096
"""What a file takes on disk is counted in whole pages."""
_PAUSE_S: Final = 60.0
_ABANDONED_S: Final = 600.0
"""When a file that was never renamed belongs to a process that died."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object: its canonical URL, its strong ETag and its size in bytes."""

    url: str
    etag: str
    size: int

    def length_of(self, number: int) -> int:
        """Return the bytes of a block; the last one may be short."""
        return min(BLOCK, self.size - number * BLOCK)

    @property
    def key(self) -> bytes:
        """What no other version has."""
        return hashlib.sha256(f"{_digest(self.url)}\n{self.size}\n{self.etag}".encode()).digest()


@dataclass(slots=True)
class _Room:
    """What one process knows of the directory's fill: locks do not survive a fork."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    used: int | None = None
    """Bytes at the last look, and what was written since; ``None`` before the first."""
    written: int = 0
    """Bytes written since the last look."""


class BlockStore:
    """The blocks below ``directory``, at most ``limit`` bytes of them. Built without I/O; safe to share."""

    def __init__(self, directory: Path, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = directory / _DIRECTORY
        self._full = limit - BLOCK - 2 * _PAGE
        """Up to here there is room for one more block."""
        self._target = min(self._full, limit * 7 // 8)
        self._look_after = limit // 16
        self._clock = clock
        self._room = _Room()
        self._warned = False
        self._paused_until = -1.0

    def newest(self, url: str, etag: str | None = None) -> Version | None:
        """Return the version of ``url`` (canonical) that was used last, among those with ``etag`` where it is given."""
        found: list[tuple[int, Path]] = []
        with contextlib.suppress(OSError):
            self._check_owner()
            for directory in _inside(self._root / _digest(url)):
                with contextlib.suppress(OSError):
                    about = Path(directory.path) / _ABOUT
                    found.append((about.stat().st_mtime_ns, about))
        for _, about in sorted(found, reverse=True):
            version = _read_about(about, url)
            if version is not None and etag in (None, version.etag):
                return version
        return None

    def numbers(self, version: Version) -> "array[int]":
        """Return the numbers of the version's blocks that are here, in order."""
        names = (entry.name for entry in _inside(self._place(version)))
        return array("Q", sorted(int(name) for name in names if _NUMBER.fullmatch(name)))

    def read(self, version: Version, number: int, buffer: bytearray) -> memoryview | None:
        """Read a block into ``buffer``, which holds ``BLOCK`` bytes, and return its data; ``None`` when it is not here."""
        path, length = self._place(version) / str(number), version.length_of(number)
        data = memoryview(buffer)[:length]
        try:
            with path.open("rb", buffering=0) as file:
                head = file.read(_HEADER.size)
                whole = file.readinto(data) == length and not file.read(1)
            if whole and head == _header(version, number, data):
                with contextlib.suppress(OSError):
                    os.utime(path)
                return data.toreadonly()
            _log.warning("a block of the cache is damaged and was removed: %s", path)
            path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    def write(self, version: Version, number: int, data: memoryview) -> None:
        """Keep a block; when that cannot be done, do without."""
        if self._clock() < self._paused_until:
            return
        place = self._place(version)
        try:
            size = 0
            if not (place / _ABOUT).exists():
                self._prepare(place)
                size = _publish(place / _ABOUT, _about(version))
            size += _publish(place / str(number), _header(version, number, data), data)
            self._count(size)
        except FileNotFoundError:
            pass  # its directory was evicted just now
        except OSError as error:
            self._paused_until = self._clock() + _PAUSE_S
            if not self._warned:
                self._warned = True
                _log.warning("the cache in %s cannot be written, sources are read without it: %s", self._root, error)

    def touch(self, version: Version) -> None:
        """Note that the version is the one in use."""
        with contextlib.suppress(OSError):
            os.utime(self._place(version) / _ABOUT)

    def _place(self, version: Version) -> Path:
        return self._root / _digest(version.url) / version.key.hex()[:32]

    def _prepare(self, place: Path) -> None:
        """Make the directory of a version; the root is closed to others."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        if self._root.stat().st_mode & 0o077:
            self._root.chmod(0o700)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _check_owner(self) -> None:
        status = os.lstat(self._root)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError("it is not a directory of ours")

    def _count(self, size: int) -> None:
        """Note that ``size`` bytes were written; make room when that may have been too many."""
        if self._room.pid != os.getpid():
            self._room = _Room()
        room = self._room
        with room.lock:
            room.written += size
            room.used = None if room.used is None else room.used + size
            if room.used is None or room.used > self._full or room.written > self._look_after:
                room.used, room.written = self._evict(), 0

    def _evict(self) -> int:
        """Where it is full, remove the blocks that were used longest ago; return the bytes left.

        The times are held, eight bytes a block, rather than the files: there may be millions.
        """
        while True:
            times, used = array("q"), 0
            for entry, status in _files(self._root):
                used += _on_disk(status.st_size)
                if _NUMBER.fullmatch(entry.name):
                    times.append(status.st_mtime_ns)
            if used <= self._full or not times:
                return used
            excess = used - self._target
            oldest = sorted(times)[: max(1, -(-excess * len(times) // used))]
            if not self._remove_until(oldest[-1], excess):
                return used

    def _remove_until(self, moment_ns: int, excess: int) -> int:
        """Remove blocks last used by ``moment_ns`` until ``excess`` bytes are free; return how many blocks that took."""
        removed = 0
        for entry, status in _files(self._root):
            if excess > 0 and status.st_mtime_ns <= moment_ns and _NUMBER.fullmatch(entry.name):
                _remove(Path(entry.path))
                excess -= _on_disk(status.st_size)
                removed += 1
        for url in _inside(self._root):
            for version in _inside(url.path):
                if not any(_NUMBER.fullmatch(entry.name) for entry in _inside(version.path)):
                    _remove(Path(version.path) / _ABOUT)
                    _remove_empty(Path(version.path))
        return removed


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _header(version: Version, number: int, data: memoryview) -> bytes:
    whose = version.key + number.to_bytes(8, "little")
    return _HEADER.pack(_MAGIC, len(data), crc32c(data, crc32c(whose)))


def _about(version: Version) -> bytes:
    return json.dumps({"etag": version.etag, "size": version.size}).encode("ascii")


def _read_about(about: Path, url: str) -> Version | None:
    """Return the version that ``about`` describes, if it is what its directory's name says."""
    try:
        with about.open("rb") as file:
            fields = json.loads(file.read(_PAGE * 4))
        version = Version(url, fields["etag"], fields["size"])
        known = about.parent.name == version.key.hex()[:32]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return version if known else None


def _publish(path: Path, *parts: bytes | memoryview) -> int:
    """Write a file so that it is there whole or not at all; return what it takes on disk."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb", buffering=0) as file:
            for part in parts:
                if file.write(part) != len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    return _on_disk(sum(map(len, parts)))


def _on_disk(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _inside(directory: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a directory; one that is gone is empty."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        yield from entries


def _files(root: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Yield every file with its status; on the way, remove what a process left behind that died while it wrote."""
    for url in _inside(root):
        for version in _inside(url.path):
            for entry in _inside(version.path):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(".tmp") and time.time() - status.st_mtime > _ABANDONED_S:
                        _remove(Path(entry.path))
                    else:
                        yield entry, status


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_empty(version: Path) -> None:
    """Remove a version's directory, and the object's, where nothing is left in them."""
    with contextlib.suppress(OSError):
        version.rmdir()
        version.parent.rmdir()

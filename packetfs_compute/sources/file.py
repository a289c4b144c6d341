"""Local files, as an absolute path or a file:// URL, and only under ``settings.file_roots``.

The path is resolved first, and what it resolves to must lie under a root; then that resolved path, which has no
symbolic link in it, is opened one component at a time without following any. So a link swapped in between the check
and the opening is met with an error rather than followed. Outside the roots the answer is always the same, whether
there is such a file or not.

A file's version is its modification time, size and inode, given as a strong ETag, so that a scan can pin it.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import ForbiddenSource, SourceChanged, SourceFailed, SourceNotFound
from packetfs_compute.settings import Settings
from packetfs_compute.sources.base import ByteStream, RangeRequest
from packetfs_compute.sources.ranges import beyond
from packetfs_compute.validation import bad, show

__all__ = ["FileSource", "FileStream"]

_FIELD: Final = "program.data_url"
_CHUNK: Final = 1 << 18
# O_NONBLOCK: opening a FIFO must not wait for its writer. O_PATH (Linux): a directory need only be searchable.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileSource:
    """Files of this machine, under the roots that settings give; none by default."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def open(self, request: RangeRequest, deadline: Deadline) -> "FileStream":
        """Open a range; see :class:`~packetfs_compute.sources.base.Source`."""
        path = _path(request.url)
        root, parts = _locate(path, self._settings.file_roots)
        file = FileIO(_open_beneath(root, parts, path), "rb")
        try:
            return FileStream(file, request, deadline)
        except BaseException:
            file.close()
            raise


class FileStream(ByteStream):
    """The bytes of an opened range; see :class:`~packetfs_compute.sources.base.ByteStream`."""

    def __init__(self, file: FileIO, request: RangeRequest, deadline: Deadline) -> None:
        self._file = file
        self._deadline = deadline
        status = os.fstat(file.fileno())
        self.object_size: int | None = status.st_size
        self.etag: str | None = _etag(status)
        if request.etag is not None and request.etag != self.etag:
            raise SourceChanged(f"the file is now {show(self.etag)}, not the pinned {show(request.etag)}")
        stop = status.st_size if request.stop is None else request.stop
        if request.offset > status.st_size or stop > status.st_size:
            raise beyond(request, status.st_size)
        self._left = stop - request.offset
        file.seek(request.offset)

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the range's bytes, each chunk in the same buffer."""
        buffer = memoryview(bytearray(min(_CHUNK, self._left)))
        try:
            while self._left:
                self._deadline.remaining_s()
                count = self._readinto(buffer[: min(len(buffer), self._left)])
                self._left -= count
                yield buffer[:count].toreadonly()
            if _etag(os.fstat(self._file.fileno())) != self.etag:
                raise SourceChanged("the file changed while it was read")
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _readinto(self, view: memoryview) -> int:
        try:
            count = self._file.readinto(view)
        except OSError as error:
            raise SourceFailed(f"the file cannot be read: {error.strerror}") from error
        if not count:
            raise SourceChanged("the file became shorter while it was read")
        return count


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


def _path(url: str) -> str:
    """Return the absolute path that ``url`` names; a file:// URL is percent-decoded (RFC 8089), a path is not."""
    path = url
    if not url.startswith("/"):
        try:
            parts = urlsplit(url)
        except ValueError:
            raise bad(_FIELD, f"is {show(url)}", "write file:///path") from None
        if parts.netloc.lower() not in ("", "localhost"):
            raise ForbiddenSource(f"{show(parts.netloc)} is another machine", {"field": _FIELD})
        if parts.query or parts.fragment or not parts.path.startswith("/"):
            raise bad(_FIELD, f"is {show(url)}", "write file:///path, with ? and # percent-encoded")
        path = os.fsdecode(unquote_to_bytes(parts.path))
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise bad(_FIELD, f"is {show(url)}", "give a path that can name a file")
    return path


def _locate(path: str, roots: tuple[Path, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the root under which ``path`` lies, and the way from there, both without symbolic links."""
    with suppress(OSError, ValueError):
        resolved = os.path.realpath(path)
        for real_root in map(os.path.realpath, roots):
            if f"{resolved}/".startswith(f"{real_root.rstrip('/')}/"):
                return real_root, tuple(filter(None, resolved[len(real_root) :].split("/")))
    hint = "PACKETFS_FILE_ROOTS lists the directories under which files may be read"
    raise ForbiddenSource("the path is not under a directory that is open to sources", {"field": _FIELD, "hint": hint})


def _open_beneath(root: str, parts: tuple[str, ...], path: str) -> int:
    """Open the file at ``parts`` under ``root`` without following a symbolic link, and return its descriptor."""
    if not parts:
        raise _not_regular()
    try:
        directory = os.open(root, _OPEN_DIRECTORY)
        try:
            for part in parts[:-1]:
                directory, above = os.open(part, _OPEN_DIRECTORY, dir_fd=directory), directory
                os.close(above)
            return _only_regular(os.open(parts[-1], _OPEN_FILE, dir_fd=directory))
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"there is no file {show(path)}") from error
    except OSError as error:
        raise SourceFailed(f"the file {show(path)} cannot be opened: {error.strerror}", {"retryable": False}) from error


def _only_regular(descriptor: int) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _not_regular()


def _not_regular() -> ForbiddenSource:
    return ForbiddenSource("the path is not a regular file", {"field": _FIELD})

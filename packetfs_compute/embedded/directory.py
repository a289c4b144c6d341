"""The directory of the embedded system's socket and data: whoever may write there could put another server in its place."""

import os
import stat
from pathlib import Path

from packetfs_compute.errors import ConfigurationError

__all__ = ["private_directory"]

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private_directory(path: Path) -> None:
    """Make ``path``, for this user alone, or accept it as it is when nobody else owns it or may write there.

    The mode of a directory that is there already is never changed: it may be ``/tmp``, or somebody's home. Raises
    :class:`ConfigurationError` for one that cannot be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise _unusable(f"{path} cannot be made: {error.strerror}") from error
    if status.st_uid != os.getuid():
        raise _unusable(f"{path} belongs to another user")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise _unusable(f"{path} may be written by other users")


def _unusable(problem: str) -> ConfigurationError:
    hint = "set it to a directory of your own; a new one is made with the right mode"
    return ConfigurationError(f"PACKETFS_DATA_DIR: {problem}", {"field": "PACKETFS_DATA_DIR", "hint": hint})

"""The directory that holds the embedded server's socket."""

import os
from pathlib import Path

import pytest

from packetfs_compute.embedded.directory import private_directory
from packetfs_compute.errors import ConfigurationError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_new_one_is_for_this_user_alone(tmp_path: Path) -> None:
    private_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_directory(tmp_path)
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("wrong", [0o777, 0o1777, 0o775, 0o702])
def test_one_that_others_may_write_is_refused_and_not_mended(tmp_path: Path, wrong: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(wrong)
    with pytest.raises(ConfigurationError, match="may be written by other users") as caught:
        private_directory(shared)
    assert caught.value.details["field"] == "PACKETFS_DATA_DIR"
    assert caught.value.hint
    assert mode(shared) == wrong


def test_one_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        private_directory(tmp_path)


def test_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="cannot be made"):
            private_directory(path)

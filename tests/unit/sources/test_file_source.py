"""Local files: only under the roots, only regular ones, only one version."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from support.reading import DATA, read

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import (
    AttemptTimeout,
    BadProgram,
    ForbiddenSource,
    RangeNotSatisfiable,
    SourceChanged,
    SourceFailed,
    SourceNotFound,
)
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest
from packetfs_compute.sources.file import FileSource


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "a file+%25é?#").write_bytes(DATA)
    (directory / "data").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    return directory


@pytest.fixture
def source(root: Path) -> FileSource:
    return FileSource(replace(Settings(), file_roots=(root,)))


def test_a_path_is_literal_and_a_url_is_decoded(root: Path, source: FileSource) -> None:
    path = f"{root}/sub/a file+%25é?#"
    assert read(source, RangeRequest(path, 10, 20)).data == DATA[10:30]
    for url in (Path(path).as_uri(), Path(path).as_uri().replace("file://", "file://localhost"),
                Path(path).as_uri().replace("file://", "FILE:")):  # fmt: skip
        assert read(source, RangeRequest(url)).data == DATA


def test_many_chunks(root: Path, source: FileSource) -> None:
    big = os.urandom(700_001)
    (root / "big").write_bytes(big)
    assert read(source, RangeRequest(f"{root}/big", 3)).data == big[3:]


@pytest.mark.parametrize(
    "path", ["{root}/../secret", "{root}/out", "{root}/outdir/secret", "{root}/dangling", "{root}2/data", "/etc/passwd",
             "/etc/no-such-file", "file://{root}/%2e%2e/secret", "file:///etc/passwd", "/proc/self/root/etc/passwd",
             "file://example.com/etc/passwd"]
)  # fmt: skip
def test_outside_the_roots_everything_is_forbidden_alike(root: Path, source: FileSource, path: str) -> None:
    (root / "out").symlink_to(root.parent / "secret")
    (root / "outdir").symlink_to(root.parent)
    (root / "dangling").symlink_to(root.parent / "nothing")
    Path(f"{root}2").mkdir()
    Path(f"{root}2", "data").write_bytes(DATA)
    with pytest.raises(ForbiddenSource) as caught:
        read(source, RangeRequest(path.format(root=root)))
    assert "PACKETFS_FILE_ROOTS" in (caught.value.hint or "") or "machine" in str(caught.value)


def test_without_roots_there_are_no_files(root: Path) -> None:
    with pytest.raises(ForbiddenSource):
        read(FileSource(Settings()), RangeRequest(f"{root}/data"))


def test_links_within_the_roots_and_linked_roots_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "in").symlink_to(root / "sub")
    (tmp_path / "alias").symlink_to(root)
    source = FileSource(replace(Settings(), file_roots=(tmp_path / "alias",)))
    for path in (f"{root}/in/a file+%25é?#", f"{tmp_path}/alias/data"):
        assert read(source, RangeRequest(path)).data == DATA


def test_a_link_swapped_in_after_the_check_is_not_followed(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.realpath

    def swap(path: str | Path) -> str:
        resolved = real(path)
        if str(path).endswith("data"):
            (root / "data").unlink()
            (root / "data").symlink_to(root.parent / "secret")
        return resolved

    monkeypatch.setattr(os.path, "realpath", swap)
    with pytest.raises(SourceFailed):
        read(source, RangeRequest(f"{root}/data"))


@pytest.mark.parametrize("path", ["{root}", "{root}/", "{root}/sub", "{root}/fifo", "{root}/link-to-device"])
def test_only_regular_files(root: Path, source: FileSource, path: str) -> None:
    os.mkfifo(root / "fifo")
    (root / "link-to-device").symlink_to("/dev/zero")
    with pytest.raises(ForbiddenSource):
        read(source, RangeRequest(path.format(root=root)))


def test_a_socket_is_no_file(root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(SourceFailed):
            read(source, RangeRequest(f"{root}/socket"))


@pytest.mark.parametrize("path", ["{root}/nothing", "{root}/data/below", "{root}/no/where"])
def test_a_missing_file_under_a_root_is_not_found(root: Path, source: FileSource, path: str) -> None:
    with pytest.raises(SourceNotFound):
        read(source, RangeRequest(path.format(root=root)))


@pytest.mark.parametrize(
    "url", ["/a\0b", "file:///a%00b", "file:relative", "file://", "file:///a?b", "file:///a#b", "file://[x", "/\ud800x"]
)
def test_what_names_no_file(source: FileSource, url: str) -> None:
    with pytest.raises(BadProgram):
        read(source, RangeRequest(url))


def test_the_version_is_pinned(root: Path, source: FileSource) -> None:
    path = f"{root}/data"
    first = read(source, RangeRequest(path))
    assert first.etag is not None
    assert first.etag[0] == first.etag[-1] == '"'
    assert read(source, RangeRequest(path, etag=first.etag)) == first
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChanged):
        read(source, RangeRequest(path, etag=first.etag))


@pytest.mark.parametrize("change", ["touched", "shorter"])
def test_a_file_that_changes_while_it_is_read(root: Path, source: FileSource, change: str) -> None:
    path = root / "big"
    path.write_bytes(bytes(1 << 20))
    with source.open(RangeRequest(str(path)), Deadline.after(5)) as stream:
        chunks = iter(stream)
        next(chunks)
        if change == "touched":
            os.utime(path, ns=(1, 1))
        else:
            os.truncate(path, 1 << 18)
        with pytest.raises(SourceChanged):
            list(chunks)


def test_the_deadline_ends_it(root: Path, source: FileSource) -> None:
    now = 0.0
    with source.open(RangeRequest(f"{root}/data"), Deadline.after(1, lambda: now)) as stream:
        now = 2.0
        with pytest.raises(AttemptTimeout):
            list(stream)


def test_past_the_end(root: Path, source: FileSource) -> None:
    with pytest.raises(RangeNotSatisfiable, match="1000 bytes"):
        source.open(RangeRequest(f"{root}/data", 990, 11), Deadline.after(5))

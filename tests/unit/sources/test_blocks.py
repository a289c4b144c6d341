"""The cache of blocks: never another version, never a damaged byte, never more bytes asked for, never over its bound."""

import errno
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.misbehaving import Exchange, RawServer, answer, honest
from support.reading import OPEN

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import (
    AttemptTimeout,
    ConfigurationError,
    JobError,
    RangeNotSatisfiable,
    SourceChanged,
    SourceFailed,
    SourceNotFound,
)
from packetfs_compute.executor import execute
from packetfs_compute.presigned import canonical_url
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.sources import blocks as blocks_module
from packetfs_compute.sources.blocks import BLOCK, BlockStore, Version
from packetfs_compute.sources.cached import CachedSource

SIZE = 4 * BLOCK + 1000
DATA = b"".join(hashlib.blake2b(at.to_bytes(4, "big")).digest() for at in range(SIZE // 64 + 1))[:SIZE]
OTHER = bytes(SIZE)


@dataclass
class Got:
    """What a read gave, and the ranges that the source was asked for meanwhile, as [start, stop)."""

    data: bytes
    cache: str | None
    asked: list[tuple[int, int | None]]
    object_size: int | None
    etag: str | None


@dataclass
class Lab:
    """A server of one object, which may change, and a cache."""

    server: RawServer
    settings: Settings
    store: BlockStore
    source: CachedSource
    ranges: list[tuple[int, int | None]] = field(default_factory=list)

    def put(self, data: bytes, etag: str = '"v1"') -> None:
        good = honest(data, etag)

        def script(exchange: Exchange) -> object:
            if exchange.range is not None:
                first, last = exchange.range
                self.ranges.append((first, None if last is None else last + 1))
            return good(exchange)

        self.server.routes["/object"] = script

    def read(self, offset: int = 0, length: int | None = None, etag: str | None = None, query: str = "") -> Got:
        self.ranges.clear()
        request = RangeRequest(self.server.url("/object") + query, offset, length, etag)
        with self.source.open(request, Deadline.after(10)) as stream:
            data = b"".join(map(bytes, stream))
            return Got(data, stream.cache, list(self.ranges), stream.object_size, stream.etag)

    def files(self) -> list[Path]:
        root = self.settings.cache_dir
        assert root is not None
        return sorted(path for path in root.rglob("*") if path.name.isdecimal())

    def block(self, number: int) -> Path:
        (path,) = [path for path in self.files() if path.name == str(number)]
        return path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with RawServer(lambda x: x.send(answer("404 Not Found"))) as server:
        yield make_lab(server, tmp_path / "cache")


def make_lab(server: RawServer, directory: Path, limit: int = 1 << 30) -> Lab:
    given_settings = replace(OPEN, cache_dir=directory, cache_bytes=limit)
    store = BlockStore(directory, limit)
    lab = Lab(server, given_settings, store, CachedSource(given_settings, store=store))
    lab.put(DATA)
    return lab


def test_a_miss_then_a_hit_that_asks_for_one_byte(lab: Lab) -> None:
    first = lab.read()
    assert (first.data, first.cache, first.asked) == (DATA, "MISS", [(0, None)])
    again = lab.read()
    assert (again.data, again.cache, again.asked) == (DATA, "HIT", [(0, 1)])
    assert (again.object_size, again.etag) == (first.object_size, first.etag) == (SIZE, '"v1"')
    assert lab.server.connections == 1


@pytest.mark.parametrize(
    ("offset", "length", "whole"),
    [(0, None, [0, 1, 2, 3, 4]), (0, 2 * BLOCK, [0, 1]), (1, 2 * BLOCK, [1]), (BLOCK - 1, BLOCK, []), (5, 10, []),
     (BLOCK, BLOCK, [1]), (3 * BLOCK, None, [3, 4]), (4 * BLOCK, 1000, [4]), (4 * BLOCK, 999, []), (4 * BLOCK + 1, 999, []),
     (SIZE, None, [])],
)  # fmt: skip
def test_only_whole_blocks_within_the_range_are_kept_and_nothing_more_is_asked_for(
    lab: Lab, offset: int, length: int | None, whole: list[int]
) -> None:
    got = lab.read(offset, length)
    assert got.data == DATA[offset : None if length is None else offset + length]
    assert got.asked == [(offset, None if length is None else offset + length)]
    assert [int(path.name) for path in lab.files()] == whole


def test_a_part_of_a_kept_block_is_a_hit(lab: Lab) -> None:
    lab.read()
    got = lab.read(BLOCK + 7, 20)
    assert (got.data, got.cache, got.asked) == (DATA[BLOCK + 7 : BLOCK + 27], "HIT", [(BLOCK + 7, BLOCK + 8)])
    assert lab.read(2 * BLOCK - 5, 10).data == DATA[2 * BLOCK - 5 : 2 * BLOCK + 5]


def test_runs_of_missing_blocks_are_one_request_each_and_pinned(lab: Lab) -> None:
    lab.read(BLOCK, BLOCK)
    lab.read(3 * BLOCK, BLOCK)
    heads = len(lab.server.heads)
    got = lab.read()
    assert (got.data, got.cache) == (DATA, "PARTIAL")
    assert got.asked == [(0, BLOCK), (2 * BLOCK, 3 * BLOCK), (4 * BLOCK, SIZE)]
    pins = [b"If-Match" in head for head in lab.server.heads[heads:]]
    assert pins == [False, True, True]
    assert lab.read().cache == "HIT"


def test_what_is_asked_for_is_what_is_missing(lab: Lab) -> None:
    lab.read(0, BLOCK)
    got = lab.read(10, 2 * BLOCK)
    assert (got.data, got.cache, got.asked) == (DATA[10 : 2 * BLOCK + 10], "PARTIAL", [(BLOCK, 2 * BLOCK + 10)])


@pytest.mark.parametrize("shorter", [False, True])
def test_a_version_that_the_source_would_not_give_now_is_never_answered_from_the_disk(lab: Lab, shorter: bool) -> None:
    lab.read()
    changed = OTHER[: SIZE - 5 if shorter else SIZE]
    lab.put(changed, '"v2"')
    for _ in range(2):
        got = lab.read()
        assert (got.data, got.etag, got.object_size) == (changed, '"v2"', len(changed))
    assert got.cache == "HIT"
    lab.put(DATA, '"v1"')
    assert lab.read().data == DATA


def test_a_shorter_object_of_the_same_etag_is_another_version(lab: Lab) -> None:
    lab.read()
    lab.put(DATA[: BLOCK + 3])
    got = lab.read()
    assert (got.data, got.cache, got.object_size) == (DATA[: BLOCK + 3], "MISS", BLOCK + 3)
    with pytest.raises(RangeNotSatisfiable) as caught:
        lab.read(2 * BLOCK, 10)
    assert caught.value.details["object_size"] == BLOCK + 3


def test_an_object_that_is_gone_or_closed_is_not_served(lab: Lab) -> None:
    lab.read()
    lab.server.routes["/object"] = lambda x: x.send(answer("404 Not Found"))
    with pytest.raises(SourceNotFound):
        lab.read()
    lab.server.routes["/object"] = lambda x: x.send(answer("403 Forbidden"))
    with pytest.raises(SourceFailed, match="403"):
        lab.read()


def test_a_pinned_version(lab: Lab) -> None:
    lab.read()
    assert lab.read(etag='"v1"').cache == "HIT"
    with pytest.raises(SourceChanged):
        lab.read(etag='"v0"')
    lab.put(OTHER, '"v2"')
    with pytest.raises(SourceChanged):
        lab.read(etag='"v1"')


def test_a_change_between_two_runs_is_an_error_and_not_a_mixture(lab: Lab) -> None:
    lab.read(BLOCK, BLOCK)
    request = RangeRequest(lab.server.url("/object"))
    with lab.source.open(request, Deadline.after(10)) as stream:
        chunks = iter(stream)
        next(chunks)
        lab.put(OTHER, '"v2"')
        with pytest.raises(SourceChanged):
            list(chunks)


@pytest.mark.parametrize("etag", ["", 'ETag: W/"v1"'])
def test_without_a_strong_etag_nothing_is_kept(lab: Lab, etag: str) -> None:
    fields = [etag] if etag else []
    lab.server.routes["/object"] = lambda x: x.send(answer("200 OK", *fields, f"Content-Length: {SIZE}", body=DATA))
    for _ in range(2):
        got = lab.read()
        assert (got.data, got.cache) == (DATA, None)
    assert lab.files() == []


def test_a_source_that_ignores_ranges(lab: Lab) -> None:
    lab.server.routes["/object"] = lambda x: x.send(answer("200 OK", 'ETag: "w"', f"Content-Length: {SIZE}", body=DATA))
    assert [lab.read(BLOCK, 2 * BLOCK).cache for _ in range(2)] == ["MISS", "HIT"]
    got = lab.read()
    assert (got.data, got.cache) == (DATA, "PARTIAL")


def error_of(read: Callable[[], object]) -> tuple[type[JobError], str, dict[str, Any]]:
    with pytest.raises(JobError) as caught:
        read()
    return type(caught.value), caught.value.message, caught.value.details


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE + 1), (SIZE, 1), (SIZE + 1, None), (SIZE + 1, 0), (BLOCK, SIZE), ((1 << 53) - 1, 1)]
)
def test_past_the_end_is_the_very_error_that_it_is_without_a_cache(lab: Lab, offset: int, length: int | None) -> None:
    request = RangeRequest(lab.server.url("/object"), offset, length)
    plain = error_of(lambda: open_source(request, Deadline.after(5), OPEN))
    assert plain[0] is RangeNotSatisfiable
    assert error_of(lambda: lab.read(offset, length)) == plain
    lab.read()
    assert error_of(lambda: lab.read(offset, length)) == plain


@pytest.mark.parametrize("offset", [0, 5, SIZE])
def test_an_empty_range(lab: Lab, offset: int) -> None:
    lab.read()
    assert lab.read(offset, 0).data == b""
    assert lab.read(SIZE).data == b""


def test_an_empty_object(lab: Lab) -> None:
    lab.put(b"")
    assert [lab.read().data for _ in range(2)] == [b"", b""]
    assert lab.files() == []


@pytest.mark.parametrize("harm", ["bit in the data", "bit in the header", "cut", "longer", "empty", "another block's"])
def test_a_damaged_block_is_removed_and_fetched_again(lab: Lab, caplog: pytest.LogCaptureFixture, harm: str) -> None:
    lab.read()
    path = lab.block(2)
    raw = bytearray(path.read_bytes())
    if harm == "bit in the data":
        raw[len(raw) // 2] ^= 16
    elif harm == "bit in the header":
        raw[9] ^= 1
    elif harm == "cut":
        del raw[-1]
    elif harm == "longer":
        raw += b"x"
    elif harm == "empty":
        raw.clear()
    else:
        raw[:] = lab.block(1).read_bytes()
    path.write_bytes(raw)
    got = lab.read()
    assert (got.data, got.cache) == (DATA, "PARTIAL")
    assert got.asked == [(0, 1), (2 * BLOCK, 3 * BLOCK)]
    assert "damaged" in caplog.text
    assert lab.read().cache == "HIT"
    path.write_bytes(raw)
    assert lab.read(2 * BLOCK, 10).data == DATA[2 * BLOCK : 2 * BLOCK + 10]
    assert not path.exists()


def test_every_flipped_byte_of_a_small_block_is_seen(lab: Lab) -> None:
    lab.put(DATA[:40])
    lab.read()
    path, version = lab.block(0), Version(lab.server.url("/object"), '"v1"', 40)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        assert lab.store.read(version, 0, bytearray(BLOCK)) is None, at
        assert not path.exists()
    path.write_bytes(good)
    assert lab.store.read(version, 0, bytearray(BLOCK)) == DATA[:40]


@pytest.mark.parametrize("about", [b"", b"{", b"[]", b'{"etag": "\\"v1\\"", "size": 7}', b"\xff", b"[" * 10_000])
def test_a_damaged_description_of_a_version_is_not_believed(lab: Lab, about: bytes) -> None:
    lab.read()
    (lab.block(0).parent / "version").write_bytes(about)
    got = lab.read()
    assert (got.data, got.cache) == (DATA, "MISS")


def test_blocks_that_go_while_they_are_needed_are_fetched(lab: Lab) -> None:
    lab.read()
    lab.block(0).unlink()
    with lab.source.open(RangeRequest(lab.server.url("/object")), Deadline.after(10)) as stream:
        for path in lab.files():
            path.unlink()
        assert b"".join(map(bytes, stream)) == DATA
        assert stream.cache == "MISS"


def test_a_stream_may_be_left_in_the_middle(lab: Lab) -> None:
    for _ in range(3):
        lab.read(BLOCK, BLOCK)
        with lab.source.open(RangeRequest(lab.server.url("/object")), Deadline.after(5)) as stream:
            assert next(iter(stream))[:10] == DATA[:10]
        stream.close()
    assert lab.read().data == DATA


def test_a_hit_ends_by_the_deadline_too(lab: Lab) -> None:
    lab.read()
    now = 0.0
    deadline = Deadline.after(60, lambda: now)
    with lab.source.open(RangeRequest(lab.server.url("/object")), deadline) as stream:
        chunks = iter(stream)
        next(chunks)
        now = 61.0
        with pytest.raises(AttemptTimeout):
            next(chunks)


AMZ = "&".join(f"X-Amz-{name}={{0}}" for name in
               ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Security-Token", "Signature"))  # fmt: skip
GOOG = "&".join(f"X-Goog-{name}={{0}}" for name in
                ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"))  # fmt: skip
V2 = "AWSAccessKeyId={0}&Expires={0}&Signature={0}"


@pytest.mark.parametrize("query", [AMZ, GOOG, V2, AMZ.lower(), "versionId=7&" + AMZ + "&partNumber=1"])
def test_every_signature_of_an_object_finds_its_blocks(lab: Lab, query: str) -> None:
    rest = "?versionId=7&partNumber=1" if "versionId" in query else ""
    assert canonical_url(f"https://Host/Key?{query.format(1)}#x") == f"https://host/Key{rest}"
    for at, cache in enumerate(["MISS", "HIT"]):
        signed = "?" + query.format(at)
        lab.server.routes[f"/object{signed}"] = lab.server.routes["/object"]
        assert lab.read(query=signed).cache == cache


@pytest.mark.parametrize(
    "query",
    ["Expires=1", "Signature=1", "X-Amz-Date=1", "Signature=1&Expires=1", "id=1", "x-amz-signatures=1", "a", "%41=1"],
)
def test_what_no_signature_explains_names_the_object(query: str) -> None:
    assert canonical_url(f"https://host/key?{query}") == f"https://host/key?{query}"
    assert canonical_url(f"https://host/key?{query}") != canonical_url("https://host/key")


@given(st.text())
def test_any_text_has_a_canonical_form(url: str) -> None:
    assert canonical_url(canonical_url(url)) == canonical_url(url)


def test_the_directory_is_closed_to_others(lab: Lab) -> None:
    lab.read()
    root = lab.settings.cache_dir
    assert root is not None
    made = root / "packetfs-blocks"
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    lab.put(DATA, '"v2"')
    lab.read()
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_somebody_else_is_not_used(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.read()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    files = lab.files()
    assert lab.read().cache == "MISS"
    lab.put(OTHER, '"v2"')
    assert lab.read().data == OTHER
    assert lab.files() == files


def test_a_link_in_place_of_the_directory_is_not_followed(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert lab.settings.cache_dir is not None
    lab.settings.cache_dir.mkdir()
    (lab.settings.cache_dir / "packetfs-blocks").symlink_to(tmp_path / "elsewhere")
    assert lab.read().data == DATA
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_one_warning(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    assert lab.settings.cache_dir is not None
    lab.settings.cache_dir.write_text("a file stands where the directory should")
    for _ in range(3):
        got = lab.read()
        assert (got.data, got.cache) == (DATA, "MISS")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be written" in caplog.text


def test_a_full_disk_is_one_warning_and_tried_again_later(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, now = 0, 0.0

    def full(path: Path, *parts: bytes) -> int:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blocks_module, "_publish", full)
    lab.store._clock = lambda: now
    for moment in (0.0, 59.0, 61.0):
        now = moment
        assert lab.read().data == DATA
    assert tries == 2
    assert len(caplog.records) == 1
    monkeypatch.undo()
    lab.store._clock = lambda: 200.0
    assert [lab.read().cache for _ in range(2)] == ["MISS", "HIT"]


def test_a_write_that_fails_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    assert lab.read().data == DATA
    assert lab.settings.cache_dir is not None
    assert [path for path in lab.settings.cache_dir.rglob("*") if path.is_file()] == []


def usage(directory: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in directory.rglob("*") if path.is_file())


def a_version(at: int, size: int = 3 * BLOCK) -> Version:
    return Version(f"https://host/{at}", f'"{at}"', size)


def data_of(version: Version, number: int) -> memoryview:
    return memoryview(random.Random(f"{version.etag}{number}").randbytes(version.length_of(number)))


@pytest.mark.integration  # writes thousands of small files
@pytest.mark.parametrize(("limit", "size"), [(1 << 20, 3 * BLOCK), (4 << 20, 3 * BLOCK), (1 << 20, 5000), (2 << 20, 1)])
def test_it_never_holds_more_than_its_bound_and_fills_most_of_it(tmp_path: Path, limit: int, size: int) -> None:
    store, most = BlockStore(tmp_path, limit), 0
    for at in range(limit // size * 2 if size > 5000 else 400):
        version = a_version(at, size)
        for number in range(-(-size // BLOCK)):
            store.write(version, number, data_of(version, number))
            if size > 5000 or at % 9 == 0:
                most = max(most, usage(tmp_path))
    assert limit // 2 < most <= limit
    assert store.newest(version.url) == version
    assert store.read(version, number, bytearray(BLOCK)) == data_of(version, number)
    first = a_version(0, size)
    assert store.read(first, 0, bytearray(BLOCK)) is None
    assert store.newest(first.url) is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 4 << 20)
    kept = a_version(0, BLOCK)
    store.write(kept, 0, data_of(kept, 0))
    for at in range(1, 60):
        version = a_version(at, BLOCK)
        store.write(version, 0, data_of(version, 0))
        assert store.read(kept, 0, bytearray(BLOCK)) == data_of(kept, 0)
    assert store.read(a_version(1, BLOCK), 0, bytearray(BLOCK)) is None


def test_nothing_is_left_of_what_was_evicted(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 1 << 20)
    for at in range(30):
        store.write(a_version(at, BLOCK), 0, data_of(a_version(at, BLOCK), 0))
    objects = list((tmp_path / "packetfs-blocks").iterdir())
    assert len(objects) <= 4
    assert all(list(path.rglob("0")) for path in objects)


def test_what_a_dead_process_left_half_written_is_removed(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 1 << 20)
    version = a_version(0, BLOCK)
    store.write(version, 0, data_of(version, 0))
    (block,) = tmp_path.rglob("0")
    old, new = block.with_name("1.aa.tmp"), block.with_name("1.bb.tmp")
    for path in (old, new):
        path.write_bytes(bytes(100))
    os.utime(old, (time.time() - 700,) * 2)
    other = BlockStore(tmp_path, 1 << 20)
    other.write(a_version(1, BLOCK), 0, data_of(version, 0))
    assert (old.exists(), new.exists()) == (False, True)


WRITER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from unit_test_blocks import a_version, data_of, BLOCK, BlockStore
    store, wrong = BlockStore(Path({directory!r}), 2 << 20), 0
    for at in range(60):
        version = a_version((at * 7 + {seed}) % 13)
        for number in range(3):
            found = store.read(version, number, bytearray(BLOCK))
            wrong += found is not None and found != data_of(version, number)
            if found is None:
                store.write(version, number, data_of(version, number))
    print(wrong)
"""


def test_several_processes_share_it(tmp_path: Path) -> None:
    directory, module = tmp_path / "cache", tmp_path / "unit_test_blocks.py"
    module.write_bytes(Path(__file__).read_bytes())
    root = Path(__file__).parents[3]
    environ = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    code = textwrap.dedent(WRITER).format(tests=str(tmp_path), directory=str(directory), seed="{seed}")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code.replace("{seed}", str(at))],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for at in range(2)
    ]  # fmt: skip
    for writer in writers:
        out, err = writer.communicate(timeout=60)
        assert (out.strip(), err) == ("0", "")
    assert usage(directory) <= (2 << 20) + 2 * (2 << 20) // 16
    assert not list(directory.rglob("*.tmp"))


def test_several_threads_share_it(lab: Lab) -> None:
    def scan(seed: int) -> bool:
        rng = random.Random(seed)
        at = rng.randrange(SIZE)
        length = rng.randrange(SIZE - at)
        request = RangeRequest(lab.server.url("/object"), at, length)
        with lab.source.open(request, Deadline.after(20)) as stream:
            return b"".join(map(bytes, stream)) == DATA[at : at + length]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(scan, range(100)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_is_not_stuck_on_its_parents_lock(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 1 << 20)
    version = a_version(0)
    with store._room.lock:
        child = os.fork()
        if child == 0:
            try:
                store.write(version, 0, data_of(version, 0))
                os._exit(0)
            finally:
                os._exit(1)
        for _ in range(500):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a lock that nobody will release")
    assert os.waitstatus_to_exitcode(status) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 9)), min_size=1, max_size=6))
@example([(262145, 524287, 0), (524288, 1, 0)])
def test_any_ranges_in_any_order_with_any_damage(lab: Lab, reads: list[tuple[int, int, int]]) -> None:
    for path in lab.files():
        path.unlink()
    damaged = False
    for offset, most, victim in reads:
        length = min(most, SIZE - offset)
        got = lab.read(offset, length)
        assert got.data == DATA[offset : offset + length]
        asked = sum((stop or SIZE) - start for start, stop in got.asked)
        # One byte is asked for to see that what is kept is still the version; then that may turn out to be damaged.
        assert asked <= (length + 1 if damaged else max(length, 1))
        files = lab.files()
        if victim < len(files):
            damaged = True
            raw = bytearray(files[victim].read_bytes())
            raw[victim * 997 % len(raw)] ^= 1
            files[victim].write_bytes(raw)


def test_it_is_used_where_settings_name_a_directory(lab: Lab) -> None:
    request = {"program": {"data_url": lab.server.url("/object"), "op": "crc32c"}}
    answers = [execute(request, lab.settings) for _ in range(2)]
    assert [found["cache"] for found in answers] == ["MISS", "HIT"]
    assert answers[0]["results"] == answers[1]["results"]
    assert execute(request, OPEN)["cache"] is None


def test_files_are_not_kept_twice(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(DATA)
    given_settings = Settings(file_roots=(tmp_path,), cache_dir=tmp_path / "cache")
    found = execute({"program": {"data_url": str(tmp_path / "object"), "op": "crc32c"}}, given_settings)
    assert (found["success"], found["cache"]) == (True, None)
    assert not (tmp_path / "cache").exists()


def test_s3_objects_are_found_again_under_another_signature(object_store: Any, tmp_path: Path) -> None:
    url = object_store.put("a key", DATA)
    given_settings = replace(object_store.settings, cache_dir=tmp_path)
    found = []
    for _ in range(2):
        with open_source(RangeRequest(url), Deadline.after(20), given_settings) as stream:
            found.append((b"".join(map(bytes, stream)) == DATA, stream.cache))
    assert found == [(True, "MISS"), (True, "HIT")]


def test_it_needs_a_directory() -> None:
    with pytest.raises(ConfigurationError):
        CachedSource(Settings())


def test_no_url_and_no_signature_is_written_down(lab: Lab) -> None:
    query = "?" + AMZ.format("hunter2")
    lab.server.routes[f"/object{query}"] = lab.server.routes["/object"]
    lab.read(query=query)
    about = lab.block(0).parent / "version"
    assert json.loads(about.read_text()) == {"etag": '"v1"', "size": SIZE}
    assert lab.settings.cache_dir is not None
    assert not any(b"hunter2" in path.read_bytes() for path in lab.settings.cache_dir.rglob("*") if path.is_file())

"""Which source reads a URL, and what loading it costs."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.misbehaving import RawServer, honest
from support.reading import DATA, OPEN

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import BadProgram, ForbiddenSource
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.sources.registry import SOURCES, _source


def read(url: str, settings: Settings) -> bytes:
    with open_source(RangeRequest(url), Deadline.after(5), settings) as stream:
        return b"".join(map(bytes, stream))


def test_each_scheme_finds_its_source(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    settings = replace(OPEN, file_roots=(tmp_path,))
    assert read(f"{tmp_path}/data", settings) == read((tmp_path / "data").as_uri(), settings) == DATA
    with RawServer(honest(DATA)) as server:
        assert read(server.url(), settings) == read(server.url(scheme="HTTP"), settings) == DATA
        assert server.connections == 1
    _source.cache_clear()


@pytest.mark.parametrize("url", ["ftp://example.com/", "gopher://example.com/", "data:,x", "javascript:1", "c:/x"])
def test_an_unknown_scheme_is_forbidden_and_the_known_ones_are_named(url: str) -> None:
    with pytest.raises(ForbiddenSource) as caught:
        read(url, OPEN)
    assert all(f"{scheme}:" in (caught.value.hint or "") for scheme in SOURCES)


@pytest.mark.parametrize("url", ["", "example.com/x", "./data", "../data", " /data", "1http://x", ":", "\\\\host\\x"])
def test_no_scheme_is_a_bad_program(url: str) -> None:
    with pytest.raises(BadProgram):
        read(url, OPEN)


def test_equal_settings_share_a_source() -> None:
    assert _source(SOURCES["http"], OPEN) is _source(SOURCES["https"], replace(OPEN))
    assert _source(SOURCES["http"], OPEN) is not _source(SOURCES["http"], Settings())
    _source.cache_clear()


def test_importing_loads_neither_boto3_nor_a_broker_and_starts_nothing() -> None:
    code = (
        "import sys, threading, packetfs_compute.sources, packetfs_compute.sources.http, packetfs_compute.sources.file\n"
        "heavy = {'boto3', 'botocore', 'celery', 'redis', 'kombu', 'requests', 'urllib3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])

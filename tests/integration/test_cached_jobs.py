"""Results that are known already, on the real system over nginx: they cost no attempt, and are never of other bytes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.nginx import Nginx
from support.reading import OPEN
from support.system import RunningSystem

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceNotFound
from packetfs_compute.kernels import crc32c as reference
from packetfs_compute.sources import RangeRequest, open_source
from tasks import crc32c, program

pytestmark = pytest.mark.integration

OPS = [{"op": "crc32c"}, {"op": "counteq", "imm": 10}]


@pytest.fixture
def published(nginx: Nginx, system: RunningSystem) -> Iterator[tuple[Path, str]]:
    """An object of two mebibytes: its file, and its URL."""
    assert system.process.poll() is None
    path = nginx.www / "cached-jobs"
    path.write_bytes(os.urandom(2 << 20))
    yield path, nginx.url(path.name)
    path.unlink(missing_ok=True)


def etag_of(url: str) -> str:
    with open_source(RangeRequest(url, 0, 0), Deadline.after(5), OPEN) as stream:
        assert stream.etag
        return stream.etag


def got(url: str, **arguments: Any) -> dict[str, Any]:
    return dict(crc32c.delay(url, **arguments).get(timeout=20))


def test_what_is_known_is_told_without_a_look_at_the_source(published: tuple[Path, str]) -> None:
    path, url = published
    first = got(url)  # nobody knows of which version it is to be, so it is computed; its values are kept
    assert (first["cached"], first["value"]) == (False, reference(path.read_bytes()))
    path.unlink()
    again = got(url, etag=first["etag"])
    assert (again["cached"], again["attempts"], again["cost_usd"]) == (True, [], 0)
    same = ("value", "etag", "object_size", "bytes_processed", "substrate", "region", "offset")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    with pytest.raises(SourceNotFound):
        got(url, etag=first["etag"], policy={"cache": False})
    with pytest.raises(SourceNotFound):
        got(url, etag=first["etag"], length=first["object_size"] - 1)
    with pytest.raises(SourceNotFound):
        program.delay(url, ops=OPS, etag=first["etag"]).get(timeout=20)


def test_another_version_is_computed(published: tuple[Path, str]) -> None:
    path, url = published
    old = got(url)
    fresh = path.with_name("cached-jobs-fresh")
    fresh.write_bytes(b"\n" * (3 << 20))
    fresh.rename(path)
    etag = etag_of(url)
    assert etag != old["etag"]
    new = program.delay(url, ops=OPS, etag=etag).get(timeout=20)
    assert not new["cached"]
    assert [one["value"] for one in new["results"]] == [reference(path.read_bytes()), 3 << 20]
    assert got(url, etag=old["etag"])["value"] == old["value"], "what was true of a version stays true of it"
    assert got(url, etag=etag)["cached"], "of a program with several operations each is known"


def test_it_is_told_at_the_shell_and_counted(published: tuple[Path, str], system: RunningSystem) -> None:
    _, url = published
    etag = got(url)["etag"]
    done = system.packetfs("run", "crc32c", url, "--etag", etag, "--json")
    assert json.loads(done.stdout)["cached"] is True
    told = system.packetfs("run", "crc32c", url, "--etag", etag)
    assert "known already: nothing was read" in told.stderr
    refused = system.packetfs("run", "crc32c", url, "--etag", etag, "--policy", "cache=false", "--json")
    assert json.loads(refused.stdout)["cached"] is False

"""``packetfs verify`` on the real system: objects on nginx, and in a store that declares checksums."""

import base64
import csv
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.nginx import Nginx
from support.objectstore import ObjectStore
from support.processes import wait_until
from support.system import PACKETFS, RunningSystem, environment

from packetfs_compute.kernels import crc32c, fnv64

pytestmark = pytest.mark.integration

DATA = bytes(range(256)) * 4096
CRC, FNV = f"{crc32c(DATA):08x}", f"{fnv64(DATA):016x}"
BIG = (65 << 20) + 1
"""What is split."""


class Site:
    """Objects on nginx, in a directory of this module's."""

    def __init__(self, nginx: Nginx) -> None:
        self._nginx = nginx
        self.folder = nginx.www / "verify"
        self.folder.mkdir()
        self._written_at = 1_700_000_000

    def put(self, name: str, data: bytes = DATA) -> str:
        """Publish an object; nginx makes its ETag of size and whole seconds, so that each is given seconds of its own."""
        path = self.folder / name
        path.write_bytes(data)
        self._written_at += 1
        os.utime(path, (self._written_at, self._written_at))
        return self.url(name)

    def url(self, name: str) -> str:
        return self._nginx.url(f"verify/{name}")


@pytest.fixture(scope="module")
def site(nginx: Nginx) -> Iterator[Site]:
    made = Site(nginx)
    yield made
    for path in made.folder.iterdir():
        path.unlink()
    made.folder.rmdir()


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return a CSV report's rows by the last part of their source."""
    with path.open(newline="") as file:
        return {row["source"].rpartition("/")[2]: row for row in csv.DictReader(file)}


def test_one_object(site: Site, system: RunningSystem) -> None:
    url = site.put("one")
    good = system.packetfs("verify", url, "--crc32c", f"0x{CRC.upper()}", "--size", str(len(DATA)), "--json")
    assert good.returncode == 0, good.stderr
    row = json.loads(good.stdout)
    assert (row["status"], row["found"], row["found_size"]) == ("match", f"crc32c:{CRC}", len(DATA))
    assert row["etag"]
    bad = system.packetfs("verify", url, "--fnv64", "0" * 16)
    assert (bad.returncode, bad.stdout) == (1, "mismatch\n")
    assert f"it has fnv64:{FNV} (1,048,576 bytes), expected fnv64:{'0' * 16}" in bad.stderr
    silent = system.packetfs("verify", url)
    assert (silent.returncode, silent.stdout) == (1, "undeclared\n")
    assert "the store declares no crc32c" in silent.stderr


def test_a_manifest_is_verified_and_what_did_not_match_again(site: Site, system: RunningSystem) -> None:
    """Of the second run, only what did not match in the first is looked at: all else is gone by then."""
    wrong = DATA[:-1] + b"\0"
    checks = [
        {"source": site.put("good"), "crc32c": CRC, "size": len(DATA)},
        {"source": site.put("chained"), "fnv64": FNV},
        {"source": site.put("mirror"), "against": site.put("master")},
        {"source": site.put("wrong", wrong), "crc32c": CRC},
        {"source": site.put("short", DATA[:-1]), "against": site.url("master")},
        {"source": site.put("same-size", wrong), "against": site.url("master")},
        {"source": site.url("missing"), "crc32c": CRC},
        {"source": site.put("resized"), "crc32c": CRC, "size": len(DATA) + 1},
    ]
    manifest, report = system.files / "verify.jsonl", system.files / "verify.csv"
    manifest.write_text("".join(json.dumps(check) + "\n" for check in checks))
    command = ["verify", "--manifest", str(manifest), "--report", str(report), "--strict", "--concurrency", "3"]
    first = system.packetfs(*command, "--json")
    assert first.returncode == 1, first.stderr
    counts = {"match": 3, "mismatch": 4, "undeclared": 0, "failed": 1, "known": 0, "report": str(report)}
    assert json.loads(first.stdout) == counts
    rows = rows_of(report)
    assert {name for name, row in rows.items() if row["status"] == "match"} == {"good", "chained", "mirror"}
    assert rows["mirror"]["found"] == rows["mirror"]["wanted"] == f"crc32c:{CRC} fnv64:{FNV}"
    assert (rows["wrong"]["found"], rows["wrong"]["wanted"]) == (f"crc32c:{crc32c(wrong):08x}", f"crc32c:{CRC}")
    short = rows["short"]
    assert (short["found_size"], short["wanted_size"], short["found"]) == (str(len(DATA) - 1), str(len(DATA)), "")
    assert rows["same-size"]["found"] == f"crc32c:{crc32c(wrong):08x} fnv64:{fnv64(wrong):016x}"
    assert rows["missing"]["error"] == "source_not_found"
    assert rows["resized"]["status"] == "mismatch"

    for name in ("good", "chained", "mirror"):
        (site.folder / name).unlink()
    for name in ("wrong", "short", "same-size", "missing"):
        site.put(name)
    site.put("resized", DATA + b"\0")
    second = system.packetfs(*command)
    assert second.stdout == "7 match, 1 mismatch\n"
    assert "3 of them were known to match" in second.stderr
    assert f"{site.url('resized')}: mismatch" in second.stderr
    assert second.returncode == 1
    assert len(rows_of(report)) == len(report.read_text().splitlines()) - 1 == len(checks)


def test_an_interrupt_keeps_what_was_made(site: Site, system: RunningSystem) -> None:
    """One object is on a server that never answers; the next run goes on from the rows that are there."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sources = [site.put("a"), site.put("b"), f"http://127.0.0.1:{mute.getsockname()[1]}/c"]
        manifest, report = system.files / "interrupted.jsonl", system.files / "interrupted.json"
        manifest.write_text("".join(json.dumps({"source": one, "crc32c": CRC}) + "\n" for one in sources))
        command = [*PACKETFS, "verify", "--manifest", str(manifest), "--report", str(report)]
        running = subprocess.Popen(
            command, env=system.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: report.exists() and len(json.loads(report.read_text())) == 2, "two rows are there")
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=20)
        assert running.returncode == 130, told
    assert [row["status"] for row in json.loads(report.read_text())] == ["match", "match"]
    manifest.write_text("".join(json.dumps({"source": one, "crc32c": CRC}) + "\n" for one in sources[:2]))
    assert system.packetfs("verify", "--manifest", str(manifest), "--report", str(report)).stdout == "2 match\n"


def test_what_a_store_declares_and_an_object_that_is_split(
    site: Site, object_store: ObjectStore, tmp_path: Path
) -> None:
    """In a system that is started for it, which the store's keys lead to."""
    client = boto3.session.Session().client(
        "s3", endpoint_url=object_store.settings.s3_endpoint_url, region_name="us-east-1"
    )
    for name, data, declared in (("true", DATA, crc32c(DATA)), ("false", DATA, 7)):
        text = base64.b64encode(declared.to_bytes(4)).decode()
        client.put_object(
            Bucket=object_store.bucket, Key=name, Body=data, ChecksumAlgorithm="CRC32C", ChecksumCRC32C=text
        )
    client.put_object(Bucket=object_store.bucket, Key="none", Body=DATA, ChecksumAlgorithm="SHA256")
    client.close()
    with (site.folder / "big").open("wb") as file:
        file.truncate(BIG)
    zeros, big = bytes(1 << 20), 0
    for _ in range(BIG >> 20):
        big = crc32c(zeros, big)
    big = crc32c(b"\0", big)
    manifest, report = tmp_path / "manifest.csv", tmp_path / "report.jsonl"
    objects = "".join(f"s3://{object_store.bucket}/{name},,\n" for name in ("true", "false", "none"))
    manifest.write_text(f"source,crc32c,size\n{objects}{site.url('big')},{big:08x},{BIG}\n")
    environ = environment(
        tmp_path / "data", PACKETFS_S3_ENDPOINT_URL=object_store.settings.s3_endpoint_url or "",
        PACKETFS_S3_REGION="us-east-1",
    )  # fmt: skip
    done = subprocess.run(
        [*PACKETFS, "verify", "--manifest", str(manifest), "--report", str(report)],
        env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "2 match, 1 mismatch, 1 undeclared\n", done.stderr
    rows = {row["source"].rpartition("/")[2]: row for row in map(json.loads, report.read_text().splitlines())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "true": "match", "false": "mismatch", "none": "undeclared", "big": "match"
    }  # fmt: skip
    assert rows["false"]["wanted"] == "crc32c:00000007"
    assert rows["big"]["found_size"] == BIG

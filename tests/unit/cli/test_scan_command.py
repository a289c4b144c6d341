"""``packetfs scan`` in this process: what it prints, and what it says to what makes no sense."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from packetfs_compute import kernels
from packetfs_compute.cli.scan import scan
from packetfs_compute.errors import BadPolicy, BadProgram, RangeNotSatisfiable

DATA = bytes(range(256)) * 5000


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PACKETFS_DATA_DIR", str(tmp_path / "data"))
    path = tmp_path / "object"
    path.write_bytes(DATA)
    return str(path)


def run(*words: str) -> Any:
    return CliRunner().invoke(scan, [*words, "--inline"])


def test_the_value_of_one_operation_stands_alone(source: str) -> None:
    done = run(source, "--op", "crc32c")
    assert done.stdout == f"{kernels.crc32c(DATA)}\n"
    assert "1.2 MiB in 1 window on local 1.2 MiB" in done.stderr


def test_those_of_several_are_named(source: str) -> None:
    done = run(source, "--op", "counteq:10", "--op", "fnv64", "--window", "100kB")
    assert done.stdout == f"counteq:10 5000\nfnv64 {kernels.fnv64(DATA):016x}\n"
    assert "13 windows" in done.stderr


def test_a_range_as_json(source: str) -> None:
    done = run(source, "--op", "add:1", "--offset", "1KiB", "--length", "1000", "--json")
    result = json.loads(done.stdout)
    assert result["results"] == [{"op": "add", "imm": 1, "value": kernels.add(DATA[1024:2024], 1)}]
    assert (result["job_id"], result["offset"], result["bytes_processed"]) == ("scan", 1024, 1000)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--op", "counteq"], BadProgram),
        (["--op", "crc32c", "--window", "0"], BadProgram),
        (["--op", "crc32c", "--policy", "goal=best"], BadPolicy),
        (["--op", "crc32c", "--length", "1GiB"], RangeNotSatisfiable),
        (["--op", "crc32c", "--append-only"], BadPolicy),
    ],
)
def test_a_mistake_is_told_by_name(source: str, words: list[str], error: type[Exception]) -> None:
    assert isinstance(run(source, *words).exception, error)


@pytest.mark.parametrize("words", [[], ["--op", "md5"], ["--op", "crc32c:1"]])
def test_so_is_bad_usage(source: str, words: list[str]) -> None:
    assert run(source, *words).exit_code == 2


def test_what_runs_alone_knows_of_no_earlier_version(source: str) -> None:
    error = run("https://host/object", "--op", "crc32c", "--append-only").exception
    assert isinstance(error, BadPolicy)
    assert (error.details["field"], "--inline" in error.hint) == ("policy.append_only", True)


def test_a_range_that_begins_beyond_the_end_is_told_as_it_was_asked_for(source: str) -> None:
    error = run(source, "--op", "crc32c", "--offset", "2000000").exception
    assert str(error).startswith("the range [2000000, ) reaches past the object's end (1280000 bytes)")

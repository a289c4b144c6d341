"""``packetfs verify`` before anything is started: what is refused, and what is done already."""

import json
from pathlib import Path

import pytest

from packetfs_compute.cli import verify as module
from packetfs_compute.cli.main import _main
from packetfs_compute.cli.verify import _line
from packetfs_compute.verifying import Check, Row, open_report

URL, CRC = "https://host/object", "8a9136aa"


@pytest.fixture(autouse=True)
def nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACKETFS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(module, "system_for", None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to verify is named"),
        ([URL, "--crc32c", "8a9136a"], "--crc32c is '8a9136a'"),
        ([URL, "--fnv64", CRC], "--fnv64 is '8a9136aa'"),
        ([URL, "--crc32c", CRC, "--fnv64", "0" * 16], "--fnv64 stands beside crc32c"),
        ([URL, "--crc32c", CRC, "--against", URL], "--against stands beside crc32c"),
        ([URL, "--declared", "--crc32c", CRC], "--crc32c stands beside --declared"),
        ([URL, "--size", "-1"], "-1 is not in the range"),
        (["ftp://host/object"], "SOURCE is 'ftp://host/object'"),
        ([URL, "--against", "ftp://host/object"], "--against is 'ftp://host/object'"),
        ([URL, "--report", "r.jsonl"], "--report is of a manifest"),
        ([URL, "--policy", "goal=best"], "policy.goal is 'best'"),
        ([URL, "--manifest", "m", "--report", "r.jsonl"], "SOURCE stands beside --manifest"),
        (["--declared", "--manifest", "m", "--report", "r.jsonl"], "--declared stands beside --manifest"),
        (["--size", "0", "--manifest", "m", "--report", "r.jsonl"], "--size stands beside --manifest"),
        (["--manifest", "m"], "a manifest needs a report"),
        (["--manifest", "none", "--report", "r.jsonl"], "none cannot be read"),
        (["--manifest", "m", "--report", "r.txt"], "r.txt does not say its format"),
        (["--manifest", "m", "--report", "m.csv"], "m.csv line 1 is no row of a report"),
        (["--manifest", "m.csv", "--report", "r.jsonl"], "m.csv line 2: crc32c is 'x'"),
        (["--manifest", "m", "--report", "r.jsonl", "--concurrency", "0"], "0 is not in the range"),
    ],
)
def test_bad_usage_is_told_before_anything_starts(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").write_text(json.dumps({"source": URL, "crc32c": CRC}))
    (tmp_path / "m.csv").write_text(f"source,crc32c\n{URL},x\n")
    assert _main(["verify", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()


def test_what_is_all_known_needs_no_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").write_text(json.dumps({"source": URL, "crc32c": CRC}))
    with open_report(tmp_path / "r.json", [Check(URL, "crc32c", CRC)]) as report:
        report.add(Row(URL, "crc32c", CRC, None, "match"))
    assert _main(["verify", "--manifest", "m", "--report", "r.json"]) == 0
    out = capsys.readouterr()
    assert out.out == "1 match\n"
    assert out.err == "1 of them were known to match; the report is r.json\n"
    assert _main(["verify", "--manifest", "m", "--report", "r.json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"match": 1, "mismatch": 0, "undeclared": 0, "failed": 0, "known": 1, "report": "r.json"}


def test_a_row_for_a_person() -> None:
    row = Row(URL, "crc32c", CRC, 3, "mismatch", "crc32c:00000001", f"crc32c:{CRC}", 1234, 3, None, 0.0, 0.5)
    assert _line(row) == (
        f"{URL}: mismatch: it has crc32c:00000001 (1,234 bytes), expected crc32c:{CRC} (3 bytes); 500.0 ms, $0"
    )
    failed = Row(URL, "crc32c", CRC, None, "failed", error="source_not_found", message="none")
    assert _line(failed) == f"{URL}: failed: source_not_found: none"
    assert _line(Row(URL, "declared", "", None, "undeclared", message="why")) == f"{URL}: undeclared: why"

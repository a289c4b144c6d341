"""Reports: whole after every row, in three formats; gone on with after an end at any byte."""

import csv
import fcntl
import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.errors import AlreadyRunning, ConfigurationError
from packetfs_compute.verifying import Check, Report, Row, open_report
from packetfs_compute.verifying.check import Status

URL = "https://host/a"
ROWS = [
    Row(URL, "crc32c", "8a9136aa", 3, "match", "crc32c:8a9136aa", "crc32c:8a9136aa", 3, 3, '"v,1"', 0.25, 1.5),
    Row(URL + "2", "against", "s3://b/k", None, "mismatch", found_size=3, wanted_size=4),
    Row(URL + "3", "declared", "", None, "undeclared", message='it says "no", é'),
    Row(URL + "4", "fnv64", "cbf29ce484222325", None, "failed", error="source_not_found", message="none (404)"),
]
CHECKS = [row.check for row in ROWS]
NAMES = ["r.jsonl", "r.ndjson", "r.json", "r.CSV"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a report as anybody would."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return list(json.loads(text))
    if path.suffix == ".CSV":
        numbers = {"size": int, "found_size": int, "wanted_size": int, "cost_usd": float, "seconds": float}
        return [
            {
                key: None if cell == "" and key != "expected" else numbers.get(key, str)(cell)
                for key, cell in row.items()
            }
            for row in csv.DictReader(text.splitlines(keepends=True))
        ]
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", NAMES)
class TestFormats:
    def test_it_is_whole_after_every_row(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        with open_report(path, CHECKS) as report:
            assert rows_of(path) == []
            for at, row in enumerate(ROWS, 1):
                report.add(row)
                assert rows_of(path) == [one.document() for one in ROWS[:at]]
        assert report.done == {}

    def test_what_matched_stays_and_the_rest_is_made_anew(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        for _ in range(2):
            with open_report(path, CHECKS) as report:
                made = ROWS if not report.done else ROWS[1:]
                assert list(report.done.values()) in ([], ROWS[:1])
                assert rows_of(path) == [row.document() for row in report.done.values()]
                for row in made:
                    report.add(row)
            assert rows_of(path) == [row.document() for row in ROWS]

    def test_another_expectation_is_another_check(self, tmp_path: Path, name: str) -> None:
        with open_report(tmp_path / name, CHECKS) as report:
            report.add(ROWS[0])
        for other in (replace(CHECKS[0], expected="00000000"), replace(CHECKS[0], size=None)):
            with open_report(tmp_path / name, [other]) as report:
                assert report.done == {}
            assert rows_of(tmp_path / name) == [ROWS[0].document()]

    def test_rows_that_nobody_asks_for_now_stay(self, tmp_path: Path, name: str) -> None:
        with open_report(tmp_path / name, CHECKS) as report:
            for row in ROWS:
                report.add(row)
        with open_report(tmp_path / name, [CHECKS[1]]) as report:
            report.add(replace(ROWS[1], status="match"))
        assert [row["status"] for row in rows_of(tmp_path / name)] == ["match", "undeclared", "failed", "match"]

    def test_a_run_that_was_killed_at_any_byte_is_gone_on_with(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        good = [replace(row, status="match") for row in ROWS]
        with open_report(path, CHECKS) as report:
            for row in good:
                report.add(row)
        whole = path.read_bytes()
        breaks = [at for at in range(len(whole)) if whole[at : at + 1] == b"\n"]
        ends = {near for at in (*breaks, whole.find("é".encode())) for near in (at - 1, at, at + 1)}
        ends |= set(range(breaks[1], len(whole), 97))
        ends = {at for at in ends if breaks[1] < at < len(whole)}
        for end in ends:
            path.write_bytes(whole[:end])
            with open_report(path, CHECKS) as report:
                known = list(report.done.values())
                assert known == good[: len(known)]
                assert len(known) >= whole[:end].count(b"\n") - (2 if name == "r.json" else 1)
                for row in good[len(known) :]:
                    report.add(row)
            assert path.read_bytes() == whole

    @pytest.mark.parametrize("text", ["hello\nworld\n", '{"a": 1}\n', "7\n", "[[]]\n", "a,b\n1,2\n", "\0\n", '"x\n'])
    def test_a_file_that_is_none_is_left_as_it_is(self, tmp_path: Path, name: str, text: str) -> None:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="line 1 is no row of a report") as caught:
            open_report(path, CHECKS)
        assert caught.value.details["field"] == "--report"
        assert path.read_text() == text

    def test_its_rights_are_kept(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        open_report(path, CHECKS).close()
        assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
        path.chmod(0o640)
        open_report(path, CHECKS).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [one.name for one in tmp_path.iterdir()] == [name]

    def test_one_run_writes_it_at_a_time(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        for _ in range(2):  # a new one, and one that is there
            with open_report(path, CHECKS[:1]) as report:
                with pytest.raises(AlreadyRunning, match="another run writes") as caught:
                    open_report(path, CHECKS[:1])
                assert caught.value.details["field"] == "--report"
                if not report.done:
                    report.add(ROWS[0])
                assert rows_of(path) == [ROWS[0].document()]
        assert [one.name for one in tmp_path.iterdir()] == [name]

    def test_a_run_that_failed_to_open_it_does_not_hold_it(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("hello\n")
        with pytest.raises(ConfigurationError):
            open_report(path, CHECKS)
        path.unlink()
        open_report(path, CHECKS).close()

    def test_a_file_of_other_bytes(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\xff\xfe\n")
        with pytest.raises(ConfigurationError, match="line 1"):
            open_report(tmp_path / name, CHECKS)


@pytest.mark.parametrize("name", ["report", "report.txt", "report.xlsx"])
def test_a_name_says_the_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="does not say its format"):
        open_report(tmp_path / name, CHECKS)


def test_a_report_that_is_replaced_before_it_is_locked_is_another_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, others = tmp_path / "r.jsonl", fcntl.flock, list[Report]()

    def flock(file: Any, how: int) -> None:
        if not others:
            monkeypatch.setattr(fcntl, "flock", real)
            others.append(open_report(path, CHECKS))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(AlreadyRunning):
        open_report(path, CHECKS)
    others[0].close()


def test_of_many_that_begin_at_once_one_has_it(tmp_path: Path) -> None:
    """They begin at one moment, and hold it until all have tried: else one could have it after another."""
    path, together, tried = tmp_path / "r.jsonl", threading.Barrier(16), threading.Barrier(16)

    def begin(_: int) -> bool:
        together.wait(10)
        try:
            with open_report(path, CHECKS):
                tried.wait(10)
                return True
        except AlreadyRunning:
            tried.wait(10)
            return False

    with ThreadPoolExecutor(16) as pool:
        for _ in range(20):
            assert sum(pool.map(begin, range(16))) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        open_report(tmp_path / "none" / "r.jsonl", CHECKS)


_TEXT = st.none() | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1, max_size=12
)
_SIZES = st.none() | st.integers(0, 2**53 - 1)
_STATUSES: list[Status] = ["match", "mismatch", "undeclared", "failed"]
_ROWS = st.builds(
    Row,
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1, max_size=12).map("s3://b/".__add__),
    st.sampled_from(["crc32c", "fnv64", "against", "declared"]), st.sampled_from(["", "8a9136aa"]), _SIZES,
    st.sampled_from(_STATUSES), _TEXT, _TEXT, _SIZES, _SIZES, _TEXT, st.floats(0, 1e6), st.floats(0, 1e6), _TEXT, _TEXT,
)  # fmt: skip


@patient
@given(st.lists(_ROWS, max_size=5, unique_by=lambda row: row.check), st.sampled_from(NAMES))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], name: str) -> None:
    path = tmp_path_factory.mktemp("report") / name
    with open_report(path, []) as report:
        for row in rows:
            report.add(row)
    assert rows_of(path) == [row.document() for row in rows]
    with open_report(path, [row.check for row in rows]) as report:
        assert report.done == {row.check: row for row in rows if row.status == "match"}


def test_checks_are_told_from_each_other() -> None:
    assert len({*CHECKS, Check(URL, "crc32c", "8a9136aa"), Check(URL, "declared", "")}) == 6

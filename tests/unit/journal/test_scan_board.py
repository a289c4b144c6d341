"""Scans that run, at a real Redis: each is told of while it says how far it is, and no longer."""

from pathlib import Path
from typing import Any

import pytest

from packetfs_compute.journal import ScanBoard, open_board, open_reader
from packetfs_compute.journal.scans import MOST_SCANS, running
from packetfs_compute.names import JOURNAL_SCAN, JOURNAL_SCANS
from packetfs_compute.program import Op, Program
from packetfs_compute.settings import Settings

PROGRAM = Program("https://user:word@host/object?secret", (Op("crc32c"),))
PROGRESS = {"bytes_done": 1, "bytes_total": 4, "windows_done": 1, "windows": 4, "eta_s": None}


@pytest.fixture
def board(redis_client: Any) -> ScanBoard:
    return ScanBoard(redis_client)


def test_it_is_told_of_as_far_as_it_is(board: ScanBoard, redis_settings: Settings) -> None:
    board.tell("s1", PROGRAM, 100.0, {**PROGRESS, "bytes_done": 0})
    board.tell("s1", PROGRAM, 100.0, PROGRESS)
    assert open_reader(redis_settings).read().scans == (
        {"job_id": "s1", "op": "crc32c", "data_url": "https://host/object", "length": None, "since": 100.0,
         "progress": PROGRESS},
    )  # fmt: skip


def test_the_latest_is_the_first_and_one_that_ended_is_gone(board: ScanBoard, redis_client: Any) -> None:
    for number in range(4):
        board.tell(f"s{number}", PROGRAM, 100.0 + number, PROGRESS)
    board.end("s1")
    board.end("s1")
    assert [one["job_id"] for one in running(redis_client)] == ["s3", "s2", "s0"]
    for number in range(4):
        board.end(f"s{number}")
    assert redis_client.keys("packetfs:journal:*") == []


def test_one_that_died_is_forgotten_and_one_that_lives_comes_back(board: ScanBoard, redis_client: Any) -> None:
    board.tell("s1", PROGRAM, 100.0, PROGRESS)
    assert 0 < redis_client.ttl(JOURNAL_SCAN + "s1") <= 20
    assert 0 < redis_client.ttl(JOURNAL_SCANS) <= 86_400
    redis_client.delete(JOURNAL_SCAN + "s1")  # as time does
    assert running(redis_client) == []
    assert redis_client.smembers(JOURNAL_SCANS) == set()
    board.tell("s1", PROGRAM, 100.0, PROGRESS)
    assert [one["job_id"] for one in running(redis_client)] == ["s1"]


def test_there_is_a_bound(board: ScanBoard, redis_client: Any) -> None:
    for number in range(MOST_SCANS + 5):
        board.tell(f"s{number}", PROGRAM, float(number), PROGRESS)
    assert len(running(redis_client)) == MOST_SCANS


def test_while_redis_is_away_nothing_is_raised(tmp_path: Path) -> None:
    board = open_board(Settings(data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    board.tell("s1", PROGRAM, 100.0, PROGRESS)
    board.end("s1")

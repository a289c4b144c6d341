"""Values as a person reads them."""

from typing import Any

import pytest

from packetfs_compute.cli.render import bytes_text, rate_text, result_lines, seconds_text, usd_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (64 << 20, "64.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 40, "1.0 TiB"),
        (1 << 53, "8192.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 ms"), (0.0000125, "0.0 ms"), (0.0125, "12.5 ms"), (1, "1.00 s"), (75.123, "75.12 s")]
)
def test_times(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"), [(10**9, 0.5, "2,000"), (10**6, 1, "1"), (0, 1, "-"), (1, 0, "-"), (0, 0, "-")]
)
def test_rates(count: int, seconds: float, text: str) -> None:
    assert rate_text(count, seconds) == text


RESULT: dict[str, Any] = {
    "op": "counteq",
    "imm": 10,
    "value": 4096,
    "bytes_processed": 1536,
    "object_size": 1 << 20,
    "substrate": "local",
    "cost_usd": 1.5e-7,
    "attempts": [{"substrate": "local", "ok": True, "error": None, "seconds": 0.0125}],
    "timing": {"queued_s": 0.1, "fetch_s": 0.0119, "compute_s": 0.0006, "total_s": 0.2},
}


def test_a_result_is_its_value_and_a_line_about_it() -> None:
    assert result_lines(RESULT) == (
        "4096",
        "counteq over 1.5 KiB of 1.0 MiB on local, 12.5 ms (fetch 11.9 ms), $1.50e-07",
    )


def test_a_size_that_is_not_known_is_not_told() -> None:
    value, details = result_lines({**RESULT, "object_size": None, "value": "cbf29ce484222325", "cost_usd": 0.0})
    assert value == "cbf29ce484222325"
    assert details == "counteq over 1.5 KiB on local, 12.5 ms (fetch 11.9 ms), $0"


def test_what_was_known_is_told() -> None:
    line = result_lines({**RESULT, "attempts": [], "cost_usd": 0.0, "cached": True})[1]
    assert line.endswith("$0, known already: nothing was read")
    assert result_lines({**RESULT, "cached": False}) == result_lines(RESULT), "as a worker of an earlier version has it"


def test_what_failed_before_is_told() -> None:
    failed = {"substrate": "fly-a", "ok": False, "error": {"type": "busy", "message": "no room"}, "seconds": 0.1}
    done = {"substrate": "local", "ok": True, "error": None, "seconds": 0.1}
    assert result_lines({**RESULT, "attempts": [failed, done]})[1].endswith("$1.50e-07, after fly-a: busy")


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (1.5e-7, "$1.50e-07"),
        (0.000123, "$0.000123"),
        (0.09, "$0.09"),
        (1.23, "$1.23"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money(usd: float, text: str) -> None:
    assert usd_text(usd) == text

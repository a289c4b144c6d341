"""The parsers of settings: what each one takes from the environment or from TOML, and that it refuses the rest by name."""

import datetime
import ipaddress
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, patient, python_values

from packetfs_compute.parsers import (
    count,
    flag,
    from_json,
    listed,
    network,
    number,
    path,
    seconds,
    split_url,
    text,
    url,
)

PARSERS: dict[str, Callable[[object], Any]] = {
    "text": text,
    "url": url("http", "https"),
    "path": path,
    "number": number(-1, 1e6),
    "seconds": seconds(0.5, 60),
    "count": count(1, 100),
    "flag": flag,
    "network": network,
    "listed": listed(count(1, 100)),
}
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("parser", "raw", "value"),
    [
        ("text", " a b ", "a b"),
        ("url", " http://host ", "http://host"),
        ("url", "https://host:1/p?q", "https://host:1/p?q"),
        ("path", "/a/../b", Path("/a/../b")),
        ("path", "~", Path.home()),
        ("path", "relative", Path.cwd() / "relative"),
        ("number", "-1", -1.0),
        ("number", " 1e6 ", 1e6),
        ("number", 3, 3.0),
        ("seconds", 0.5, 0.5),
        ("seconds", "60", 60.0),
        ("count", "1", 1),
        ("count", 100, 100),
        ("flag", True, True),
        ("flag", False, False),
        ("flag", "1", True),
        ("flag", " TRUE ", True),
        ("flag", "0", False),
        ("flag", "False", False),
        ("network", "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        ("network", " ::1 ", ipaddress.ip_network("::1/128")),
        ("listed", "1, 2,,3", (1, 2, 3)),
        ("listed", "", ()),
        ("listed", [1, "2"], (1, 2)),
        ("listed", '[1, "2"]', (1, 2)),
    ],
)
def test_what_is_taken(parser: str, raw: object, value: object) -> None:
    parsed = PARSERS[parser](raw)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("parser", "wrong", "fix"),
    [
        ("text", ["", "  ", None, 1, [], b"x"], "non-empty string"),
        ("url", ["", "host", "ftp://host", "HTTP://host", "http:host", "http://[", 1, None], "give a "),
        ("path", ["", " ", None, 1], "non-empty string"),
        ("path", ["~no-such-user-here/x"], "no such user"),
        ("number", ["", "x", "1,5", "nan", "inf", math.nan, -1.001, 1e7, True, None, [], {}, HUGE, "9" * 5000,
                    datetime.date(2026, 1, 1)], "give a number from -1 to 1e+06"),
        ("seconds", [0.49, "60.1", "5s", False], "give a number of seconds from 0.5 to 60"),
        ("count", ["", "x", "1.0", "1e1", "0x1", 1.0, 0, 101, True, None, [], {}, HUGE, "9" * 5000],
         "give an integer from 1 to 100"),
        ("flag", ["", "yes", "on", "2", 1, 0, None, []], "give 1 or 0, true or false"),
        ("network", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", 10, None], "give "),
        ("listed", [None, 1, {}, ("1",), True], "give a list"),
        ("listed", ["0", "1,x", [1, 0], "[101]", [[1]]], "give an integer from 1 to 100"),
        ("listed", ["[", "[1", "[1]]", "[nope]", NESTED], "give JSON; this is none"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_what_would_be_right(parser: str, wrong: list[object], fix: str) -> None:
    for raw in wrong:
        with pytest.raises(ValueError) as caught:
            PARSERS[parser](raw)
        assert fix in str(caught.value)


@pytest.mark.parametrize("parser", PARSERS)
@patient
@given(raw=python_values | st.text(alphabet='0123456789.,-+eE[]"~/:_ \0'))
def test_any_value_is_parsed_or_is_a_value_error(parser: str, raw: object) -> None:
    try:
        told = repr(PARSERS[parser](raw))
    except ValueError as error:
        told = str(error)
    assert told


@patient
@given(st.integers(-200, 200), st.integers(-200, 200), st.integers(-300, 300))
def test_a_bound_is_within(low: int, high: int, value: int) -> None:
    for parse in (count(low, high), number(low, high)):
        for raw in (value, str(value)):
            try:
                assert parse(raw) == value
                assert low <= value <= high
            except ValueError:
                assert not low <= value <= high


@pytest.mark.parametrize("given_", ["http://[::1", "http://[user:hunter2@host", "http://a[b]c"])
def test_a_url_that_has_no_parts(given_: str) -> None:
    assert split_url(given_) is None


def test_a_url_that_has_parts() -> None:
    parts = split_url("redis://user:word@host:1/0?db=1")
    assert parts is not None
    assert (parts.scheme, parts.username, parts.password, parts.query) == ("redis", "user", "word", "db=1")


class TestFromJson:
    @pytest.mark.parametrize(("raw", "value"), [("{}", {}), ("null", None), (" [1, 2.5] ", [1, 2.5]), ('"é"', "é")])
    def test_what_it_holds(self, raw: str, value: object) -> None:
        assert from_json(raw) == value

    @pytest.mark.parametrize(
        "raw",
        ["", "{", "{a: 1}", "hunter2", '["hunter2"', pytest.param("1" * 5000, id="long"), pytest.param(NESTED, id="deep"),
         pytest.param('{"a":' * 100_000, id="deep objects")],
    )  # fmt: skip
    def test_what_is_none_is_a_value_error_that_quotes_nothing(self, raw: str) -> None:
        with pytest.raises(ValueError, match="give JSON") as caught:
            from_json(raw)
        assert "hunter2" not in str(caught.value)
        assert len(str(caught.value)) < 200

"""Checks of untrusted JSON: what passes, and what the refusal says."""

import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from support.untrusted import HUGE, json_values, patient, python_values

from packetfs_compute.errors import BadPolicy, BadProgram
from packetfs_compute.validation import bad, integer, require_object, show

KNOWN = frozenset({"a", "b"})


def test_an_error_names_the_field_and_the_fix() -> None:
    error = bad("program.imm", "is 256", "give an integer from 0 to 255")
    assert type(error) is BadProgram
    assert str(error) == "program.imm is 256"
    assert error.details == {"field": "program.imm", "hint": "give an integer from 0 to 255"}
    assert type(bad("policy", "is 1", "give an object", BadPolicy)) is BadPolicy


@pytest.mark.parametrize("raw", [{}, {"a": 1}, {"a": None, "b": []}, OrderedDict(b=2)])
def test_an_object_of_known_fields_passes_as_it_is(raw: dict[str, Any]) -> None:
    assert require_object(raw, "x", KNOWN) is raw


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "x is missing"),
        ([], "x is a list of 0 items"),
        ("a", "x is 'a'"),
        (7, "x is 7"),
        (True, "x is True"),
        ({"a", "b"}, "x is {"),
        ([("a", 1)], "x is a list of 1 items"),
    ],
)
def test_no_object(raw: object, says: str) -> None:
    with pytest.raises(BadProgram) as caught:
        require_object(raw, "x", KNOWN)
    assert str(caught.value).startswith(says)
    assert caught.value.details == {"field": "x", "hint": "give a JSON object"}


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("lenght", "x.lenght"),
        ("", "x."),
        ("k" * 32, "x." + "k" * 32),
        ("k" * 33, "x.'" + "k" * 33 + "'"),
        ("a\n\x00", "x.'a\\n\\x00'"),
        (7, "x.7"),
        (None, "x.missing"),
        (b"a", "x.b'a'"),
        pytest.param(HUGE, f"x.an integer of {HUGE.bit_length()} bits", id="huge"),
    ],
)
def test_an_unknown_field_is_refused_by_name(key: object, field: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        require_object({"a": 1, key: 1}, "x", KNOWN, BadPolicy)
    assert str(caught.value) == f"{field} is not a known field"
    assert caught.value.details == {"field": field, "hint": "known are a, b"}


@pytest.mark.parametrize(("raw", "value"), [(0, 0), (255, 255), (1.0, 1), (-0.0, 0), (255.0, 255)])
def test_a_whole_number_may_be_written_either_way(raw: object, value: int) -> None:
    got = integer(raw, "x", 0, 255)
    assert got == value
    assert type(got) is int


@pytest.mark.parametrize(
    "raw",
    [-1, 256, 0.5, 254.999, True, False, None, "1", b"1", "", [], [1], {}, math.nan, math.inf, -math.inf, 1e308,
     pytest.param(HUGE, id="huge"), pytest.param(-HUGE, id="-huge"), 1 + 0j, object()],
)  # fmt: skip
def test_everything_else_is_no_integer(raw: object) -> None:
    with pytest.raises(BadPolicy) as caught:
        integer(raw, "x", 0, 255, BadPolicy)
    assert caught.value.details == {"field": "x", "hint": "give an integer from 0 to 255"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "missing"),
        (0, "0"),
        (-5, "-5"),
        (True, "True"),
        (1.5, "1.5"),
        (math.nan, "nan"),
        ((1 << 128) - 1, str((1 << 128) - 1)),
        (1 << 128, "an integer of 129 bits"),
        pytest.param(-HUGE, f"an integer of {HUGE.bit_length()} bits", id="-huge"),
        ("", "''"),
        ("a\x00\n\x1b[31m", "'a\\x00\\n\\x1b[31m'"),
        ("x" * 62, "'" + "x" * 62 + "'"),
        ("x" * 63, "'" + "x" * 62 + "…"),
        ("\x00" * 5000, "'" + "\\x00" * 15 + "\\x…"),
        (b"\xff" * 5000, "b'" + "\\xff" * 15 + "\\…"),
        ({}, "an object of 0 fields"),
        ({"a": HUGE}, "an object of 1 fields"),
        ([HUGE] * 3, "a list of 3 items"),
        ((1,), "a list of 1 items"),
    ],
)
def test_a_value_is_shown_short_and_safe(value: object, text: str) -> None:
    assert show(value) == text


def test_the_limit_may_be_another() -> None:
    assert show("abcdef", 5) == "'abc…"


@patient
@given(json_values | python_values)
def test_anything_is_shown_in_one_short_line(value: object) -> None:
    text = show(value)
    assert 0 < len(text) <= 64
    assert "\n" not in text

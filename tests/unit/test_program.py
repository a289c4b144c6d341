"""Programs: what parses, what is refused and how it is told, and the way back to the wire."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from support.untrusted import HUGE, json_values, nearly_requests, ops, patient, programs

from packetfs_compute.errors import BadProgram
from packetfs_compute.names import FNV64_OFFSET, MAX_INTEGER, MAX_RANGE_BYTES
from packetfs_compute.program import Op, Program, parse_op, parse_program

URL = "https://host/object"
CRC = {"op": "crc32c"}


def refusal(raw: object) -> BadProgram:
    with pytest.raises(BadProgram) as caught:
        parse_program(raw)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "program"),
    [
        ({"op": "crc32c"}, Program(URL, (Op("crc32c"),))),
        ({"op": "crc32c", "imm": None, "seed": None, "ops": None}, Program(URL, (Op("crc32c"),))),
        ({"op": "counteq", "imm": 0}, Program(URL, (Op("counteq", 0),))),
        ({"op": "xor", "imm": 255.0}, Program(URL, (Op("xor", 255),))),
        ({"op": "fnv64"}, Program(URL, (Op("fnv64"),))),
        ({"op": "fnv64", "seed": "00000000000000ff"}, Program(URL, (Op("fnv64", None, 255),))),
        ({"ops": [CRC]}, Program(URL, (Op("crc32c"),))),
        ({"ops": (CRC, {"op": "add", "imm": 7})}, Program(URL, (Op("crc32c"), Op("add", 7)))),
        ({"ops": [CRC] * 16}, Program(URL, (Op("crc32c"),) * 16)),
        ({"ops": [CRC], "op": None}, Program(URL, (Op("crc32c"),))),
        ({**CRC, "offset": None, "length": None, "etag": None}, Program(URL, (Op("crc32c"),))),
        ({**CRC, "offset": 5.0, "length": 0}, Program(URL, (Op("crc32c"),), 5, 0)),
        ({**CRC, "offset": MAX_INTEGER, "length": MAX_RANGE_BYTES},
         Program(URL, (Op("crc32c"),), MAX_INTEGER, MAX_RANGE_BYTES)),
        ({**CRC, "etag": '"abc"'}, Program(URL, (Op("crc32c"),), etag='"abc"')),
        ({**CRC, "etag": '""'}, Program(URL, (Op("crc32c"),), etag='""')),
        ({**CRC, "etag": '"\x80\xff"'}, Program(URL, (Op("crc32c"),), etag='"\x80\xff"')),
        ({**CRC, "etag": '"' + "x" * 1022 + '"'}, Program(URL, (Op("crc32c"),), etag='"' + "x" * 1022 + '"')),
    ],
)  # fmt: skip
def test_what_parses(fields: dict[str, Any], program: Program) -> None:
    assert parse_program({"data_url": URL, **fields}) == program


@pytest.mark.parametrize("url", ["x", "x" * 2048, "/a file", "s3://b/k", "https://host/\x00", "☃"])
def test_a_url_is_any_short_string_here(url: str) -> None:
    # What it may name is the sources' to say.
    assert parse_program({"data_url": url, **CRC}).data_url == url


NUMBERS = [-1, 0.5, math.nan, math.inf, True, False, "0", "", [0], {}, HUGE, -HUGE, 1e300]


@pytest.mark.parametrize(
    "raw", [None, [], "program", b"{}", 7, True, math.nan, pytest.param(HUGE, id="huge"), [{"data_url": URL, **CRC}]]
)
def test_a_program_is_an_object(raw: object) -> None:
    error = refusal(raw)
    assert error.details == {"field": "program", "hint": "give a JSON object"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *[({"data_url": value}, "data_url") for value in (None, "", 7, b"x", [URL], {"url": URL}, "x" * 2049, "x" * 10**6)],
        *[({"offset": value}, "offset") for value in [*NUMBERS, MAX_INTEGER + 1, float(MAX_INTEGER + 1)]],
        *[({"length": value}, "length") for value in [*NUMBERS, MAX_RANGE_BYTES + 1]],
        *[({"etag": value}, "etag") for value in
          ("", "abc", '"', 'W/"abc"', '"a"b"', '"a b"', '"a\n"', '"a"\n', '"a\x00"', '"é€"', 7, b'"a"', ['"a"'], True,
           '"' + "x" * 1023 + '"')],
        *[({"op": value}, "op") for value in ("crc32", "CRC32C", "", 7, True, ["crc32c"], {}, HUGE, "crc32c\x00")],
        ({"op": None}, "ops"),
        *[({"op": name, "imm": value}, "imm") for name in ("counteq", "xor", "add") for value in [*NUMBERS, 256, None]],
        *[({"op": name, "imm": value}, "imm") for name in ("crc32c", "fnv64") for value in (0, "", False)],
        *[({"op": "fnv64", "seed": value}, "seed") for value in
          ("", "0" * 15, "0" * 17, "CBF29CE484222325", "0x00000000000000", "0" * 15 + "\n", "٠" * 16, 7, True, [],
           b"0" * 16)],
        ({"op": "crc32c", "seed": "0" * 16}, "seed"),
        ({"op": "add", "imm": 1, "seed": ""}, "seed"),
        *[({"op": None, "ops": value}, "ops") for value in ([], (), "crc32c", CRC, 7, False, "", [CRC] * 17, {0: CRC})],
        *[({"ops": [CRC]} | beside, field) for beside, field in (({}, "op"), ({"op": None, "imm": 0}, "imm"),
                                                               ({"op": None, "seed": ""}, "seed"))],
        *[({"op": None, "ops": [CRC, value]}, "ops[1]") for value in (None, "crc32c", [], 7, HUGE)],
        ({"op": None, "ops": [{}]}, "ops[0].op"),
        ({"op": None, "ops": [CRC, {"op": "add"}]}, "ops[1].imm"),
        ({"op": None, "ops": [{"op": "fnv64", "seed": 1}]}, "ops[0].seed"),
        ({"op": None, "ops": [{**CRC, "value": 1}]}, "ops[0].value"),
        ({"lenght": 1}, "lenght"),
        ({"x" * 10**6: 1}, "'" + "x" * 62 + "…"),
        ({7: 1}, "7"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_field_and_the_fix(fields: dict[Any, Any], field: str) -> None:
    error = refusal({"data_url": URL, **CRC, **fields})
    assert error.details["field"] == f"program.{field}"
    assert str(error).startswith(f"program.{field} ")
    assert error.hint
    assert len(str(error)) < 300
    assert len(error.hint) < 300


@pytest.mark.parametrize(
    ("fields", "says", "hint"),
    [
        ({"data_url": None}, "program.data_url is missing", "give the object's URL as a string"),
        ({"data_url": "x" * 3000}, "program.data_url has 3000 characters", "use at most 2048"),
        ({"op": "sha256"}, "program.op is 'sha256'", "use one of counteq, crc32c, fnv64, xor, add"),
        ({"op": "add"}, "program.imm is missing, and add needs it", "give an integer from 0 to 255"),
        ({"imm": 1}, "program.imm is given, but crc32c takes none", "leave it out"),
        ({"etag": 'W/"a"'}, "program.etag is weak ('W/\"a\"') and cannot pin bytes", None),
        ({"ops": [CRC]}, "program.op stands beside program.ops", "put it into the list, or leave the list out"),
        (
            {"length": 10**50},
            "program.length is an integer of 167 bits",
            f"give an integer from 0 to {MAX_RANGE_BYTES}",
        ),
    ],
)
def test_how_a_mistake_is_told(fields: dict[str, Any], says: str, hint: str | None) -> None:
    error = refusal({"data_url": URL, **CRC, **fields})
    assert str(error) == says
    assert hint is None or error.hint == hint


def test_nothing_given_is_changed() -> None:
    raw = {"data_url": URL, "offset": 1.0, "ops": [{"op": "add", "imm": 2.0}]}
    before = json.dumps(raw)
    parse_program(raw)
    assert json.dumps(raw) == before


@pytest.mark.parametrize(
    ("op", "identity"),
    [(Op("counteq", 5), 0), (Op("crc32c"), 0), (Op("xor", 5), 0), (Op("add", 5), 0), (Op("fnv64"), FNV64_OFFSET),
     (Op("fnv64", seed=0), 0), (Op("fnv64", seed=9), 9)],
)  # fmt: skip
def test_the_value_over_no_bytes(op: Op, identity: int) -> None:
    assert op.identity == identity


@pytest.mark.parametrize(
    ("op", "value", "rendered"),
    [
        (Op("counteq", 0), 7, {"op": "counteq", "imm": 0, "value": 7}),
        (Op("crc32c"), 2**32 - 1, {"op": "crc32c", "value": 4294967295}),
        (Op("fnv64", seed=1), 255, {"op": "fnv64", "value": "00000000000000ff"}),
    ],
)
def test_a_value_as_it_stands_in_results(op: Op, value: int, rendered: dict[str, Any]) -> None:
    assert op.render(value) == rendered


def test_an_op_on_its_own_is_told_by_the_name_it_is_given() -> None:
    assert parse_op({"op": "xor", "imm": 1}) == Op("xor", 1)
    with pytest.raises(BadProgram) as caught:
        parse_op({"op": "xor"}, "argument")
    assert caught.value.details["field"] == "argument.imm"


@patient
@given(programs)
def test_a_program_survives_the_wire(program: Program) -> None:
    assert parse_program(program.to_wire()) == program
    assert parse_program(json.loads(json.dumps(program.to_wire()))) == program


@patient
@given(ops)
def test_an_op_survives_the_wire(op: Op) -> None:
    assert parse_op(op.to_wire()) == op


def outcome(raw: object) -> Program | BadProgram:
    try:
        return parse_program(raw)
    except BadProgram as error:
        return error


@patient
@given(json_values | nearly_requests.map(lambda request: request["program"]))
def test_any_json_parses_or_is_a_bad_program(raw: object) -> None:
    found = outcome(raw)
    if isinstance(found, Program):
        assert parse_program(found.to_wire()) == found
    else:
        assert found.details["field"].startswith("program")
        assert found.hint
        assert len(str(found)) < 300
        assert "\n" not in str(found)

"""The TypeScript core beside the Python package: one vocabulary, the same requests accepted, the same values."""

import json
import re
import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.edge import Edge, Refused, encoded
from support.untrusted import holds_a_huge_number, json_values, nearly_requests, ops, patient

from packetfs_compute import __version__, errors, kernels, names
from packetfs_compute.conform import serving
from packetfs_compute.conform.contract import load_contract
from packetfs_compute.conform.origin import Origin
from packetfs_compute.errors import JobError
from packetfs_compute.program import Op
from packetfs_compute.wire import parse_request

pytestmark = pytest.mark.integration

CONTRACT = load_contract()


def test_the_vocabulary_is_the_same(edge: Edge) -> None:
    found = edge.call("names")
    assert found.pop("VERSION") == __version__
    assert int(found.pop("FNV64_OFFSET")) == names.FNV64_OFFSET
    assert found.pop("OPS") == list(names.OPS)
    for name in ("OPS_WITH_IMM", "OPS_WITH_SEED"):
        assert found.pop(name) == sorted(getattr(names, name))
    assert found == {name: getattr(names, name) for name in found}
    dispatchers = {"MAX_PRIORITY", "MAX_WINDOWS"}  # no place hears of priorities and scans
    assert {name for name in vars(names) if re.match("MAX_|DEFAULT_|PROTOCOL", name)} - dispatchers == set(found)


def test_the_errors_are_the_same(edge: Edge) -> None:
    dispatchers = {"bad_policy", "no_substrate", "cancelled"}
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and "type" in vars(cls)]
    assert edge.call("errors") == {
        cls.type: {"status": cls.status, "fault": cls.fault, "retryable": cls.retryable_by_default}
        for cls in classes
        if cls.type not in dispatchers
    }


@pytest.fixture(scope="module")
def objects() -> Any:
    with serving() as origin:
        yield origin


def test_every_vector(edge: Edge, objects: Origin) -> None:
    edge.platform()
    for vector in CONTRACT.vectors:
        program = {"data_url": objects.url(f"/objects/{vector['object']}"), **vector["program"]}
        answer = edge.call("execute", {"jobId": vector["id"], "program": program, "timeout": 20_000})
        expect = vector["expect"]
        if "error" in expect:
            assert answer["error"]["type"] == expect["error"], vector["id"]
        else:
            assert answer["success"], answer
            found = [answer[key] for key in expect]
            assert json.dumps(found) == json.dumps([expect[key] for key in expect]), vector["id"]


@pytest.mark.parametrize("case", CONTRACT.bad_requests, ids=lambda case: case["id"])
def test_a_bad_request(edge: Edge, case: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        edge.call("parse", case["request"])
    assert (caught.value.type, caught.value.field) == ("bad_program", case["field"])
    assert caught.value.details["hint"]


def in_javascripts_order(value: Any) -> Any:
    """``value`` with each object's keys as JavaScript has them: array indices first, in order (ECMA-262, 10.1.11.1)."""
    if isinstance(value, dict):
        indices = [key for key in value if re.fullmatch("0|[1-9][0-9]{0,9}", key) and int(key) < 2**32 - 1]
        rest = [key for key in value if key not in indices]
        return {key: in_javascripts_order(value[key]) for key in [*sorted(indices, key=int), *rest]}
    return [in_javascripts_order(part) for part in value] if isinstance(value, list) else value


def sent(request: Any) -> Any:
    """Return ``request`` as it arrives, or give the example up where JSON cannot carry it."""
    assume(not holds_a_huge_number(request))
    try:
        text = json.dumps(request, allow_nan=False)
    except ValueError:
        assume(False)
    # Which characters are printable changes with Unicode's version, and the two have not the same one.
    assume(not any(unicodedata.category(char) == "Cn" for char in json.dumps(request, ensure_ascii=False)))
    return in_javascripts_order(json.loads(text))


def python_parses(request: Any) -> dict[str, Any] | JobError:
    try:
        return parse_request(request).to_wire()
    except JobError as error:
        return error


def compare(edge: Edge, request: Any) -> None:
    """Hold the core to what Python makes of ``request``: the same program, or an error that names the same field."""
    wanted = python_parses(request)
    outcome = edge.calls([("parse", request)])[0]
    if isinstance(wanted, JobError):
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.field) == (wanted.type, wanted.details["field"])
        assert outcome.error.details["hint"] == wanted.hint
    else:
        # By their JSON, which tells 1 from true and from 1.0.
        assert json.dumps(outcome.value, sort_keys=True) == json.dumps(wanted, sort_keys=True)


@patient
@given(request=nearly_requests | json_values)
def test_both_accept_the_same_requests_and_name_the_same_field(edge: Edge, request: Any) -> None:
    arrived = sent(request)
    compare(edge, arrived)


@pytest.mark.parametrize(
    "change",
    [{"etag": '"a"\n'}, {"etag": '"a\n"'}, {"op": "fnv64", "seed": "0" * 16 + "\n"}, {"op": "crc32c\n"}, {"offset": 1.0},
     {"offset": -0.0}, {"length": None}, {"imm": None}, {"ops": None}, {"ops": []}, {"ops": [], "op": None},
     {"op": None, "ops": [{"op": "crc32c", "imm": None}]}, {"offset": 9007199254740991}, {"offset": 9007199254740992.0},
     {"offset": True}, {"data_url": "é" * 2048}, {"data_url": "😀" * 2048}, {"data_url": "😀" * 2049},
     {"data_url": "\x00"}, {"etag": '"\x7f"'}, {"etag": '"\x80"'}, {"etag": '"\u0100"'}, {"etag": '"' + "x" * 1022 + '"'},
     {"etag": '"' + "x" * 1023 + '"'}, {"__proto__": 1}, {"constructor": 1}, {"toString": None}, {"lenght\n": 1},
     {"'": 1}, {"'\"": 1}, {"é\u200b": 1}, {"\ud800": 1}, {"x" * 33: 1}, {"\\" * 40: 1}, {"😀" * 70: 1}],
)  # fmt: skip
def test_they_agree_at_the_edges(edge: Edge, change: dict[str, Any]) -> None:
    compare(edge, {"program": {"data_url": "https://host/x", "op": "crc32c", **change}})


def parts_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("module", ["kernels", "kernels-simd"])
@patient
@given(
    data=st.binary(max_size=3000) | st.integers(0, 300_000).map(lambda size: (b"\x00\xff\x80ab" * 60_001)[:size]),
    cuts=st.lists(st.integers(0, 300_000), max_size=4),
    wanted=st.lists(ops, min_size=1, max_size=16),
)
def test_the_kernels_give_the_same_values(
    edge: Edge, module: str, data: bytes, cuts: list[int], wanted: list[Op]
) -> None:
    found = edge.call(
        "kernels", module, [op.to_wire() for op in wanted], [encoded(part) for part in parts_of(data, cuts)]
    )
    values = kernels.fused(data, [(op.name, op.imm) for op in wanted], [op.identity for op in wanted])
    assert [int(value) for value in found] == values


@pytest.mark.parametrize("module", ["kernels", "kernels-simd"])
def test_every_length_of_every_op(edge: Edge, module: str) -> None:
    data = bytes(at * at % 253 for at in range(700))
    wanted = [Op("counteq", 0), Op("crc32c"), Op("fnv64"), Op("xor", 165), Op("add", 255)]
    wires = [op.to_wire() for op in wanted]
    outcomes = edge.calls([("kernels", module, wires, [encoded(data[:size])]) for size in range(len(data))])
    for size, outcome in enumerate(outcomes):
        values = kernels.fused(data[:size], [(op.name, op.imm) for op in wanted], [op.identity for op in wanted])
        assert [int(value) for value in outcome.value] == values


@pytest.mark.parametrize("byte", [0, 1, 255])
@pytest.mark.parametrize("module", ["kernels", "kernels-simd"])
def test_counters_in_the_vectors_do_not_overflow(edge: Edge, module: str, byte: int) -> None:
    """Lanes are 8 and 16 bits wide inside: runs of the byte that fills them fastest."""
    data = bytes([byte]) * 1_000_003
    wanted = [Op("counteq", byte), Op("add", 255 - byte), Op("add", 0), Op("xor", byte)]
    found = edge.call("kernels", module, [op.to_wire() for op in wanted], [encoded(data)])
    assert [int(value) for value in found] == [len(data), 255 * len(data), byte * len(data), 0]


def test_the_kernels_say_which_they_are(edge: Edge) -> None:
    assert edge.platform(kernels="kernels")["name"] == "wasm"
    assert edge.platform(kernels="kernels-simd")["name"] == "wasm-simd"

"""Hypothesis strategies for what a stranger may send: any JSON, and programs that are nearly right."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from packetfs_compute.names import MAX_INTEGER, MAX_RANGE_BYTES, OPS, OPS_WITH_IMM
from packetfs_compute.program import Op, Program

patient = settings(deadline=None)
"""For every property: how long one example takes says nothing on a machine that others use too."""

HUGE = 10**5000
"""An integer that ``str`` refuses to write out."""

_huge_integers = st.sampled_from([1, -1]).map(lambda sign: sign * HUGE)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _huge_integers | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

python_values = (
    json_values
    | st.binary()
    | st.complex_numbers()
    | st.dates()
    | st.builds(object)
    | st.sets(st.integers())
    | st.dictionaries(st.none() | st.integers() | st.binary() | st.tuples(st.text()), st.none(), min_size=1)
    | st.tuples(st.integers())
    | st.functions()
)

ops = st.one_of(
    st.builds(Op, st.sampled_from(sorted(OPS_WITH_IMM)), st.integers(0, 255)),
    st.just(Op("crc32c")),
    st.builds(Op, st.just("fnv64"), st.none(), st.none() | st.integers(0, (1 << 64) - 1)),
)

etags = st.text(st.characters(codec="latin-1", exclude_characters='"', exclude_categories=["Cc", "Zs"]), max_size=20)

programs = st.builds(
    Program,
    data_url=st.text(min_size=1, max_size=60),
    ops=st.lists(ops, min_size=1, max_size=16).map(tuple),
    offset=st.integers(0, MAX_INTEGER),
    length=st.none() | st.integers(0, MAX_RANGE_BYTES),
    etag=st.none() | etags.map(lambda text: f'"{text}"'),
)


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly ``good`` values, now and then any JSON at all."""
    return st.one_of(good, good, good, st.none(), json_values)


def _object(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_number = st.sampled_from([0, 1, 255, 256, -1, 1.0, 0.5, True, MAX_INTEGER, MAX_INTEGER + 1, MAX_RANGE_BYTES + 1])
_imm = st.integers(0, 255) | _number
_seed = st.from_regex(r"[0-9a-f]{16}", fullmatch=True) | st.from_regex(r"[0-9a-fA-F]{15,17}", fullmatch=True)
_op_fields = {"op": _mostly(st.sampled_from(OPS)), "imm": _mostly(_imm), "seed": _mostly(_seed)}
_program_fields = {
    "offset": _mostly(_number | st.integers(0, 99)),
    "length": _mostly(_number | st.integers(0, 99)),
    "etag": _mostly(
        st.sampled_from(['"abc"', '""', '"\xff"', 'W/"abc"', '"a b"', '"a"b"', "abc", '"' + "x" * 1023 + '"'])
    ),
    "ops": _mostly(st.lists(_mostly(_object(_op_fields)), max_size=17)),
    **_op_fields,
}
_a_program = st.fixed_dictionaries(
    {"data_url": _mostly(st.sampled_from(["https://example.com/object", "s3://bucket/key", "x" * 2048, "x" * 2049]))},
    optional=_program_fields,
)
_changes = st.lists(
    st.sampled_from(sorted(_program_fields)).flatmap(lambda name: st.tuples(st.just(name), _program_fields[name])),
    max_size=2,
).map(dict)

nearly_requests: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "program": st.one_of(
            st.builds(lambda program, changes: {**program.to_wire(), **changes}, programs, _changes),
            _mostly(_a_program),
        )
    },
    optional={
        "jobId": _mostly(st.sampled_from(["j1", "A.b_c:-9", "x" * 128, "x" * 129, "a b", "", "é"])),
        "timeout": _mostly(st.sampled_from([1, 3_600_000, 3_600_001, 0, 1.0, 1.5, True, "30000"])),
    },
)
"""Requests of which some are valid, most are wrong in one place or two, and a few are wrong everywhere."""


def holds_a_huge_number(value: object) -> bool:
    """Whether ``value`` cannot be written as JSON by Python at all."""
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False

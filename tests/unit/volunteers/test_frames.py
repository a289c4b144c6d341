"""The frames: the parser takes what ``remote/contract/browser.schema.json`` allows, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.untrusted import holds_a_huge_number, json_values, patient

from packetfs_compute.volunteers.frames import (
    MAX_FRAME,
    MAX_SLOTS,
    Alive,
    Answer,
    BadFrame,
    Hello,
    Pause,
    Resume,
    cancel_frame,
    checked_frame,
    parse_frame,
    run_frame,
    welcome_frame,
)

SCHEMA = json.loads((Path(__file__).parents[3] / "remote" / "contract" / "browser.schema.json").read_text("utf-8"))

HELLO = {"type": "hello", "version": 1, "ticket": "v1.a-b_c.0f", "kernel": "wasm-simd", "slots": 2}
ALIVE = {"type": "alive", "leases": ["a", "b_-9"]}
ANSWER = {"type": "answer", "lease": "a", "answer": {"success": True}}
GOOD: list[dict[str, Any]] = [HELLO, ALIVE, ANSWER, {"type": "pause"}, {"type": "resume"}]


def anchored(schema: Any) -> Any:
    """In Python ``$`` also stands before a last newline; in JSON Schema it is the end."""
    if isinstance(schema, dict):
        return {
            key: value.removesuffix("$") + r"\Z" if key == "pattern" else anchored(value)
            for key, value in schema.items()
        }
    return [anchored(part) for part in schema] if isinstance(schema, list) else schema


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**anchored(SCHEMA), "oneOf": [{"$ref": f"#/$defs/{name}"}]})


FROM_BROWSER, FROM_HUB = validator("fromBrowser"), validator("fromHub")


def parses(raw: object) -> bool:
    try:
        checked_frame(raw)
    except BadFrame:
        return False
    return True


def test_each_becomes_what_it_says() -> None:
    assert [parse_frame(json.dumps(frame)) for frame in GOOD] == [
        Hello("v1.a-b_c.0f", "wasm-simd", 2), Alive(("a", "b_-9")), Answer("a", {"success": True}), Pause(), Resume(),
    ]  # fmt: skip


def test_what_the_hub_says_is_what_a_browser_accepts() -> None:
    for text in (welcome_frame("b-1", 10_000), run_frame("l_1", {"program": {}}), cancel_frame("l_1")):
        assert FROM_HUB.is_valid(json.loads(text))
        assert not FROM_BROWSER.is_valid(json.loads(text))
        with pytest.raises(BadFrame):
            parse_frame(text)


_any = json_values
_nearly = st.sampled_from(GOOD).flatmap(
    lambda frame: st.one_of(
        st.just(frame),
        st.builds(lambda key, value: {**frame, key: value}, st.sampled_from([*frame, "more"]), _any),
        st.sampled_from([*frame]).map(lambda key: {name: value for name, value in frame.items() if name != key}),
        st.builds(
            lambda kind, slots: {**frame, "type": kind, **({"slots": slots} if "slots" in frame else {})},
            st.sampled_from([other["type"] for other in GOOD]),
            st.integers(-1, MAX_SLOTS + 2) | st.floats(0, 9),
        ),
    )
)


@patient
@given(_nearly | json_values)
def test_parser_and_schema_agree(raw: Any) -> None:
    if holds_a_huge_number(raw):
        return  # jsonschema cannot write it into its message
    assert parses(raw) is FROM_BROWSER.is_valid(raw)


@pytest.mark.parametrize(
    ("frame", "change"),
    [(HELLO, {"version": 1.0}), (HELLO, {"version": True}), (HELLO, {"version": 2}), (HELLO, {"slots": 0}),
     (HELLO, {"slots": MAX_SLOTS}), (HELLO, {"slots": MAX_SLOTS + 1}), (HELLO, {"slots": 2.5}), (HELLO, {"slots": "2"}),
     (HELLO, {"ticket": ""}), (HELLO, {"ticket": "x" * 512}), (HELLO, {"ticket": "x" * 513}), (HELLO, {"ticket": "a\n"}),
     (HELLO, {"kernel": "k" * 32}), (HELLO, {"kernel": "k" * 33}), (HELLO, {"kernel": "<b>"}), (HELLO, {"kernel": None}),
     (ALIVE, {"leases": []}), (ALIVE, {"leases": ["a"] * 8}), (ALIVE, {"leases": ["a"] * 9}), (ALIVE, {"leases": [1]}),
     (ALIVE, {"leases": "ab"}), (ALIVE, {"leases": ["a\n"]}), (ANSWER, {"lease": "x" * 64}), (ANSWER, {"lease": "x" * 65}),
     (ANSWER, {"answer": []}), (ANSWER, {"answer": {}}), (ANSWER, {"lease": None}), (ANSWER, {"type": "Answer"}),
     ({"type": "pause"}, {"leases": []})],
)  # fmt: skip
def test_parser_and_schema_agree_at_the_edges(frame: dict[str, Any], change: dict[str, Any]) -> None:
    assert parses(frame | change) is FROM_BROWSER.is_valid(frame | change)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"type":"pause"} x', "[" * 50_000, '{"type":"alive","leases":[NaN]}', "\ud800",
     '{"type":"hello","version":' + "1" * 5000 + "}", '{"type":["pause"]}', '{"type":{}}'],
)  # fmt: skip
def test_what_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(BadFrame):
        parse_frame(text)


def test_a_frame_has_64_kib_at_most() -> None:
    def padded(size: int, char: str = "x") -> str:
        empty = json.dumps({**ANSWER, "answer": {"a": ""}}, ensure_ascii=False)
        return empty.replace('""', f'"{char * ((size - len(empty)) // len(char.encode()))}"')

    parse_frame(padded(MAX_FRAME))
    for text in (padded(MAX_FRAME + 1), padded(MAX_FRAME + 100, "é")):
        with pytest.raises(BadFrame, match="bytes"):
            parse_frame(text)


def test_a_reason_fits_a_close_frame() -> None:
    with pytest.raises(BadFrame) as caught:
        checked_frame({"type": "x" * 10_000})
    assert len(str(caught.value)) < 200

"""The contract: its schemas and vectors are sound, and the Python side keeps them.

The vectors are run through :func:`packetfs_compute.executor.execute`, which is what local, Lambda and Fly run.
"""

import copy
import importlib.util
import ipaddress
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from support.untrusted import holds_a_huge_number, json_values, nearly_requests, patient

from packetfs_compute import errors, names
from packetfs_compute.conform import serving
from packetfs_compute.errors import BadProgram, JobError
from packetfs_compute.executor import execute
from packetfs_compute.settings import Settings
from packetfs_compute.wire import failure, parse_request

CONTRACT = Path(__file__).parents[2] / "remote" / "contract"
DOCUMENT: dict[str, Any] = json.loads((CONTRACT / "vectors.json").read_text("ascii"))
VECTORS: list[dict[str, Any]] = DOCUMENT["vectors"]
BAD_REQUESTS: list[dict[str, Any]] = DOCUMENT["badRequests"]
SETTINGS = Settings(allow_private_sources=(ipaddress.ip_network("127.0.0.0/8"),))

SCHEMAS = {path.name.partition(".")[0]: json.loads(path.read_text("utf-8")) for path in CONTRACT.glob("*.schema.json")}


def anchored(schema: Any) -> Any:
    """Return the schema with each pattern's closing ``$`` as ``\\Z``.

    JSON Schema's patterns are ECMA-262's, where ``$`` is the end; in Python's it also stands before a last newline.
    """
    if isinstance(schema, dict):
        return {
            key: value.removesuffix("$") + r"\Z" if key == "pattern" and isinstance(value, str) else anchored(value)
            for key, value in schema.items()
        }
    return [anchored(part) for part in schema] if isinstance(schema, list) else schema


def validator(name: str) -> Validator:
    return Draft202012Validator(anchored(SCHEMAS[name]))


REQUEST, RESPONSE = validator("request"), validator("response")


def faults(checker: Validator, document: object) -> list[str]:
    return [error.message[:200] for error in checker.iter_errors(document)]


class TestSchemas:
    def test_there_is_one_for_each_document(self) -> None:
        assert set(SCHEMAS) == {"request", "response", "health", "browser"}

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_each_is_a_schema(self, name: str) -> None:
        Draft202012Validator.check_schema(SCHEMAS[name])
        assert SCHEMAS[name]["$id"] == f"packetfs/contract/{names.PROTOCOL}/{name}"

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_every_pattern_is_anchored(self, name: str) -> None:
        patterns = [part for part in _parts(SCHEMAS[name]) if isinstance(part.get("pattern"), str)]
        assert all(part["pattern"].startswith("^") and part["pattern"].endswith("$") for part in patterns)

    def test_the_bounds_are_the_vocabularys(self) -> None:
        text = json.dumps(SCHEMAS["request"])
        bounds = (
            names.MAX_INTEGER,
            names.MAX_RANGE_BYTES,
            names.MAX_TIMEOUT_MS,
            names.MAX_URL_CHARS,
            names.MAX_ETAG_CHARS,
        )
        assert all(f": {bound}" in text for bound in bounds)
        assert f'"maxItems": {names.MAX_OPS}' in text
        assert SCHEMAS["health"]["properties"]["ops"]["items"]["enum"] == list(names.OPS)

    def test_every_error_that_a_substrate_can_give_is_an_answer(self) -> None:
        dispatchers = {"bad_policy", "no_substrate", "cancelled"}  # no substrate is asked before these are raised
        classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and "type" in vars(cls)]
        known = set(SCHEMAS["response"]["$defs"]["error"]["properties"]["type"]["enum"])
        assert known == {cls.type for cls in classes} - dispatchers
        for cls in classes:
            details = {"field": "program.imm", "hint": "x", "object_size": 5, "retry_after_s": 0.5, "attempts": [1]}
            answer = failure("j1", cls("one line", details), 0.01)
            assert bool(faults(RESPONSE, answer)) is (cls.type in dispatchers)

    @pytest.mark.parametrize(
        "change",
        [{"success": 1}, {"success": False}, {"jobId": 7}, {"bytesProcessed": -1}, {"bytesProcessed": 1.5}, {"results": []},
         {"results": [{"op": "crc32c", "value": -1}]}, {"results": [{"op": "crc32c", "value": "7"}]},
         {"results": [{"op": "fnv64", "value": 7}]}, {"results": [{"op": "fnv64", "value": "00000000000000ff\n"}]},
         {"results": [{"op": "xor", "imm": 1, "value": 256}]}, {"results": [{"op": "sha1", "value": 1}]},
         {"region": None}, {"executionTimeMs": -1}, {"etag": 7}],
    )  # fmt: skip
    def test_the_response_schema_can_refuse(self, change: dict[str, Any]) -> None:
        good = {
            "success": True, "jobId": "j1", "results": [{"op": "crc32c", "value": 7}], "bytesProcessed": 1,
            "objectSize": None, "etag": None, "executionTimeMs": 1.5, "fetchTimeMs": 1, "region": "iad",
        }  # fmt: skip
        assert faults(RESPONSE, good) == []
        assert faults(RESPONSE, good | change)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _parts(part)


def load_generator() -> ModuleType:
    """Return ``remote/contract/generate.py`` as a module; it is no part of any package."""
    spec = importlib.util.spec_from_file_location("contract_generate", CONTRACT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestVectors:
    def test_the_file_is_what_the_generator_makes(self) -> None:
        generate = load_generator()
        assert generate.render(generate.vectors()) == (CONTRACT / "vectors.json").read_text("ascii")

    def test_they_reach_everything(self) -> None:
        programs = [vector["program"] for vector in VECTORS]
        assert {op["op"] for program in programs for op in program.get("ops") or [program]} == set(names.OPS)
        assert {len(program.get("ops", [])) for program in programs} >= {0, 1, 3, 5}
        assert {vector["object"] for vector in VECTORS} == {obj["name"] for obj in DOCUMENT["objects"]} | {"missing"}
        assert {vector["expect"].get("error") for vector in VECTORS} == {
            None, "range_not_satisfiable", "source_not_found", "source_changed",
        }  # fmt: skip
        assert any("seed" in op for program in programs for op in program.get("ops") or [program])
        assert any("etag" in program for program in programs)

    @pytest.mark.parametrize("kind", ["vectors", "badRequests", "objects"])
    def test_their_names_are_their_own(self, kind: str) -> None:
        found = [entry.get("id") or entry["name"] for entry in DOCUMENT[kind]]
        assert len(set(found)) == len(found)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with serving() as origin:
        yield origin.url("/objects")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_a_vector(base_url: str, vector: dict[str, Any]) -> None:
    program = {"data_url": f"{base_url}/{vector['object']}", **vector["program"]}
    request = {"jobId": vector["id"], "program": program, "timeout": 20_000}
    assert faults(REQUEST, request) == []
    answer = execute(request, SETTINGS)
    assert faults(RESPONSE, answer) == []
    assert answer["jobId"] == vector["id"]
    expect = vector["expect"]
    if "error" in expect:
        assert answer["error"]["type"] == expect["error"]
    else:
        assert {key: answer.get(key) for key in expect} == expect
        # 1 == True and 1 == 1.0 in Python, but not on the wire.
        assert json.dumps([answer[key] for key in expect]) == json.dumps([expect[key] for key in expect])


@pytest.mark.parametrize("case", BAD_REQUESTS, ids=lambda case: case["id"])
def test_a_bad_request_is_refused_by_parser_and_schema(case: dict[str, Any]) -> None:
    with pytest.raises(BadProgram) as caught:
        parse_request(copy.deepcopy(case["request"]))
    assert caught.value.details["field"] == case["field"]
    assert caught.value.hint
    assert faults(REQUEST, case["request"])
    answer = execute(case["request"], SETTINGS)
    assert (answer["error"]["type"], answer["error"]["field"]) == ("bad_program", case["field"])
    assert faults(RESPONSE, answer) == []


def parses(raw: object) -> bool:
    try:
        parse_request(raw)
    except JobError:
        return False
    return True


@patient
@given(nearly_requests | json_values)
def test_parser_and_schema_agree_on_any_request(request: Any) -> None:
    if holds_a_huge_number(request):
        return  # jsonschema cannot write it into its message
    assert parses(request) is REQUEST.is_valid(request)


@pytest.mark.parametrize(
    "change",
    [{"etag": '"a"\n'}, {"etag": '"a\n"'}, {"op": "fnv64", "seed": "0" * 16 + "\n"}, {"op": "crc32c\n"}, {"offset": 1.0},
     {"offset": -0.0}, {"length": None}, {"imm": None}, {"ops": None}, {"ops": []}, {"ops": [], "op": None},
     {"op": None, "ops": [{"op": "crc32c", "imm": None}]}, {"offset": 9007199254740991}, {"offset": 9007199254740992.0},
     {"offset": True}, {"data_url": "é" * 2048}, {"data_url": "😀" * 2048}, {"data_url": "\x00"}, {"etag": '"\x7f"'},
     {"etag": '"\x80"'}, {"etag": '"\u0100"'}, {"etag": '"' + "x" * 1022 + '"'}, {"etag": '"' + "x" * 1023 + '"'}],
)  # fmt: skip
def test_parser_and_schema_agree_at_the_edges(change: dict[str, Any]) -> None:
    request = {"program": {"data_url": "https://host/x", "op": "crc32c", **change}}
    assert parses(request) is REQUEST.is_valid(request)


@pytest.mark.parametrize("job_id", ["j1\n", "j1", "x" * 128, "x" * 129, "", "é", None])
def test_they_agree_on_job_ids(job_id: str | None) -> None:
    request = {"jobId": job_id, "program": {"data_url": "https://host/x", "op": "crc32c"}}
    assert parses(request) is REQUEST.is_valid(request)


def test_the_strategy_makes_good_requests_as_well_as_bad_ones() -> None:
    """Agreement proves nothing where all is refused."""
    seen: Counter[bool] = Counter()

    @settings(deadline=None, database=None, derandomize=True)
    @given(nearly_requests)
    def look(request: dict[str, Any]) -> None:
        if not holds_a_huge_number(request):
            seen[REQUEST.is_valid(request)] += 1

    look()
    assert min(seen[True], seen[False]) >= 10


def test_the_contract_is_no_part_of_the_package() -> None:
    package = Path(__file__).parents[2] / "packetfs_compute"
    assert not CONTRACT.is_relative_to(package)

"""The OpenAPI document, the page made of it, and that its schemas say what the parsers do."""

import re
from typing import Any

import jsonschema
import pytest

from packetfs_compute.conform.contract import load_contract
from packetfs_compute.errors import JobError
from packetfs_compute.gateway.app import create_app
from packetfs_compute.gateway.docs import render
from packetfs_compute.gateway.openapi import SCHEMAS
from packetfs_compute.gateway.problems import PROBLEMS
from packetfs_compute.program import parse_program
from packetfs_compute.routing import parse_policy
from packetfs_compute.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), None, lambda: None).openapi()  # type: ignore[arg-type]


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}})


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{method} {path}", one) for path, item in document["paths"].items() for method, one in item.items()]


def test_every_face_of_the_design_is_there(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == {
        "post /v1/jobs", "get /v1/jobs/{job_id}", "delete /v1/jobs/{job_id}", "get /v1/jobs/{job_id}/events",
        "post /v1/scans", "post /v1/explain", "get /v1/fleet", "get /metrics", "get /health",
        "get /v1/overview", "get /v1/overview/events", "post /v1/browsers/tickets",
        "post /v1/keys", "get /v1/keys", "delete /v1/keys/{key_id}",
    }  # fmt: skip


def test_every_operation_has_examples_which_its_schemas_allow(document: dict[str, Any]) -> None:
    for name, one in operations(document):
        contents = [answer["content"] for answer in one["responses"].values() if "content" in answer]
        assert contents, name
        for content in [*contents, one.get("requestBody", {}).get("content", {})]:
            for media, body in content.items():
                assert "example" in body, (name, media)
                jsonschema.Draft202012Validator({**body["schema"], "components": document["components"]}).validate(
                    body["example"]
                )


def test_every_operation_that_changes_something_or_tells_of_jobs_needs_a_key(document: dict[str, Any]) -> None:
    assert [name for name, one in operations(document) if not one["x-scope"]] == ["get /health"]
    scopes = {name: one["x-scope"] for name, one in operations(document)}
    assert (scopes["get /metrics"], scopes["get /v1/fleet"], scopes["get /v1/keys"]) == ("read", "read", "admin")


def test_a_program_that_is_one_passes_the_schema() -> None:
    check = validator("Program")
    for vector in load_contract().vectors:
        program = {**vector["program"], "data_url": "https://host.example/x"}
        parse_program(program)
        check.validate(program)


URL = "https://host.example/x"
BAD_PROGRAMS: list[Any] = [
    None, [], "x", {}, {"data_url": ""}, {"data_url": 1, "op": "crc32c"}, {"data_url": "x" * 2049, "op": "crc32c"},
    {"data_url": URL, "op": "md5"}, {"data_url": URL, "op": "crc32c", "lenght": 1},
    {"data_url": URL, "op": "crc32c", "offset": -1},
    {"data_url": URL, "op": "crc32c", "offset": 0.5}, {"data_url": URL, "op": "crc32c", "offset": 1 << 53},
    {"data_url": URL, "op": "crc32c", "length": (1 << 45) + 1}, {"data_url": URL, "ops": []}, {"data_url": URL, "ops": [1]},
    {"data_url": URL, "ops": [{"op": "counteq", "imm": 256}]}, {"data_url": URL, "ops": [{"op": "counteq", "imm": True}]},
    {"data_url": URL, "ops": [{"op": "fnv64", "seed": "XYZ"}]}, {"data_url": URL, "ops": [{"op": "crc32c"}] * 17},
]  # fmt: skip
BAD_POLICIES: list[Any] = [
    [], "x", {"goal": "best"}, {"max_cost_usd": -1}, {"max_cost_usd": "1"}, {"deadline_s": 0}, {"deadline_s": 3601},
    {"substrates": "local"}, {"substrates": [1]}, {"exclude": ["x" * 65]}, {"min_memory_mb": 0.5}, {"trust": "none"},
    {"gaol": 1}, {"cache": 1},
]  # fmt: skip


@pytest.mark.parametrize("program", BAD_PROGRAMS, ids=str)
def test_a_program_that_is_none_passes_neither(program: Any) -> None:
    assert not validator("Program").is_valid(program)
    with pytest.raises(JobError):
        parse_program(program)


@pytest.mark.parametrize("policy", BAD_POLICIES, ids=str)
def test_a_policy_that_is_none_passes_neither(policy: Any) -> None:
    assert not validator("Policy").is_valid(policy)
    with pytest.raises(JobError):
        parse_policy(policy)


def test_a_policy_that_is_one_passes_the_schema() -> None:
    policy = {"goal": "fastest", "value_of_time_usd_per_hour": 3.6, "max_cost_usd": 0, "deadline_s": 0.001, "trust": None,
              "substrates": ["local"], "exclude": [], "min_memory_mb": 128.0, "cache": False}  # fmt: skip
    parse_policy(policy)
    validator("Policy").validate(policy)


class TestPage:
    def test_it_shows_every_operation_and_problem_and_its_links_lead_somewhere(self, document: dict[str, Any]) -> None:
        page = render(document)
        anchors = set(re.findall(r'id="([^"]+)"', page))
        assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
        assert {one["operationId"] for _, one in operations(document)} <= anchors
        assert {f"problem-{name}" for name in PROBLEMS} <= anchors

    def test_it_loads_nothing_from_another_host_and_runs_nothing(self, document: dict[str, Any]) -> None:
        page = render(document)
        assert not re.search(r"<script|<iframe|<img|style=|\son\w+=", page)
        loaded = {"/", "/dashboard/icon.svg", "/docs.css", "/openapi.json"}
        assert set(re.findall(r'(?:href|src)="([^"#]+)"', page)) == loaded

    def test_nothing_of_the_document_is_taken_for_markup(self, document: dict[str, Any]) -> None:
        info = {**document["info"], "title": "<b>&", "description": "<script>"}
        assert "<script>" not in render({**document, "info": info})

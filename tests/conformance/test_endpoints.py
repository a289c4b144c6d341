"""Every vector of the contract through the real servers of the substrates, each in a process of its own, over HTTP.

A substrate joins with a fixture that starts its server and returns the substrate, and a line in ``SERVED``.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from contract_server import CONTRACT, load_objects, serve
from jsonschema import Draft202012Validator

from packetfs_compute import __version__
from packetfs_compute.signature import HEADER, sign
from packetfs_compute.substrates import Substrate

pytestmark = pytest.mark.integration

DOCUMENT: dict[str, Any] = json.loads((CONTRACT / "vectors.json").read_text("ascii"))
SCHEMAS = {
    name: Draft202012Validator(json.loads((CONTRACT / f"{name}.schema.json").read_text("utf-8")))
    for name in ("response", "health")
}


def fly(request: pytest.FixtureRequest) -> Substrate:
    return request.getfixturevalue("fly_server").substrate()  # type: ignore[no-any-return]


SERVED: dict[str, Callable[[pytest.FixtureRequest], Substrate]] = {"fly": fly}


@pytest.fixture(scope="module", params=SERVED)
def substrate(request: pytest.FixtureRequest) -> Iterator[Substrate]:
    found = SERVED[request.param](request)
    yield found
    found.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with serve(load_objects()) as url:
        yield url


def test_it_is_well_and_says_what_it_is(substrate: Substrate) -> None:
    health = substrate.health(5)
    assert list(SCHEMAS["health"].iter_errors(health)) == []
    assert (health["version"], health["region"]) == (__version__, "iad")


@pytest.mark.parametrize("vector", DOCUMENT["vectors"], ids=lambda vector: vector["id"])
def test_a_vector(substrate: Substrate, base_url: str, vector: dict[str, Any]) -> None:
    program = {"data_url": f"{base_url}/{vector['object']}", **vector["program"]}
    answer = substrate.invoke({"jobId": vector["id"], "program": program, "timeout": 20_000})
    assert list(SCHEMAS["response"].iter_errors(answer)) == []
    assert answer["jobId"] == vector["id"]
    expect = vector["expect"]
    if "error" in expect:
        assert answer["error"]["type"] == expect["error"]
    else:
        assert answer["success"], answer
        assert json.dumps([answer[key] for key in expect]) == json.dumps([expect[key] for key in expect])


@pytest.mark.parametrize("case", DOCUMENT["badRequests"], ids=lambda case: case["id"])
def test_a_bad_request_goes_no_further(substrate: Substrate, case: dict[str, Any]) -> None:
    answer = substrate.invoke(case["request"])
    assert (answer["error"]["type"], answer["error"]["field"]) == ("bad_program", case["field"])


def test_the_server_refuses_them_too(fly_server: Any) -> None:
    """The substrate above stops them on the way; here they are put before the server itself."""
    with urllib3.PoolManager(retries=False, timeout=10) as http:
        for at, case in enumerate(DOCUMENT["badRequests"]):
            body = json.dumps(case["request"]).encode()
            signed = sign(
                "POST", "/compute", body, fly_server.key_id, fly_server.secret, time.time(), f"bad-request-{at:08}"
            )
            answer = http.request("POST", f"{fly_server.url}/compute", body=body, headers={HEADER: signed})
            assert answer.status == 400, case["id"]
            assert list(SCHEMAS["response"].iter_errors(answer.json())) == []
            error = answer.json()["error"]
            assert (error["type"], error["field"]) == ("bad_program", case["field"]), case["id"]

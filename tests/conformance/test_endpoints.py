"""Every endpoint that we ship passes the conformance suite, on its platform's real runtime.

A place joins with a function that starts it and returns it as the suite takes it, and a name in ``ENDPOINTS``.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from support.awslambda import LambdaServer
from support.reading import OPEN

from packetfs_compute.conform import CHECKS, Bench, HttpTarget, InvokedTarget, Key, Target, conform, serving
from packetfs_compute.conform.origin import Origin
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.substrates.local import LocalSubstrate

pytestmark = pytest.mark.integration


class RawFunction:
    """Lambda's function as the Invoke API has it, with nothing of ours between: any event goes in."""

    def __init__(self, server: LambdaServer) -> None:
        self._function = f"{server.function}:{server.alias}"
        retries = Config(retries={"total_max_attempts": 1}, max_pool_connections=8, read_timeout=120)
        self._client: Any = boto3.client("lambda", endpoint_url=server.url, region_name=server.region, config=retries)

    def invoke(self, request: object) -> dict[str, Any]:
        answer = self._client.invoke(FunctionName=self._function, Payload=json.dumps(request).encode())
        assert "FunctionError" not in answer
        found: dict[str, Any] = json.loads(answer["Payload"].read())
        return found

    def health(self, timeout_s: float) -> dict[str, Any]:
        return self.invoke({"health": True})


def local(request: pytest.FixtureRequest) -> Target:
    return InvokedTarget(LocalSubstrate(SubstrateSpec("local", "local"), OPEN))


def function(request: pytest.FixtureRequest) -> Target:
    return InvokedTarget(RawFunction(request.getfixturevalue("lambda_server")), batches=True)


def behind_http(fixture: str) -> Callable[[pytest.FixtureRequest], Target]:
    def make(request: pytest.FixtureRequest) -> Target:
        server = request.getfixturevalue(fixture)
        return HttpTarget(server.url, Key(server.key_id, server.secret))

    return make


ENDPOINTS: dict[str, Callable[[pytest.FixtureRequest], Target]] = {
    "local": local,
    "cloudflare": behind_http("workerd_server"),
    "lambda": function,
    "fly": behind_http("fly_server"),
    "vercel": behind_http("vercel_server"),
}
NOT_OVER_HTTP = {"bodies", "errors", "signatures", "forgeries"}
LEFT_OUT = {"local": NOT_OVER_HTTP | {"batches"}, "lambda": NOT_OVER_HTTP}


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module", params=ENDPOINTS)
def bench(request: pytest.FixtureRequest, origin: Origin) -> Bench:
    return Bench(ENDPOINTS[request.param](request), origin, origin.url(""), tampered=10_000)


@pytest.mark.parametrize("check", [check.name for check in CHECKS])
def test_it_conforms(bench: Bench, check: str, request: pytest.FixtureRequest) -> None:
    endpoint = request.node.callspec.params["bench"]
    report = conform(bench, frozenset({check}))
    assert [(one.case, one.problem) for one in report.failed] == []
    assert bool(report.outcomes) is (check not in LEFT_OUT.get(endpoint, set()))

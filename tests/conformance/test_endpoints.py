"""Every endpoint that we ship passes the conformance suite, on its platform's real runtime.

A place joins with a function that starts it and returns it as the suite takes it, and a name in ``ENDPOINTS``.
"""

from collections.abc import Callable, Iterator

import pytest
from support.fly import FlyServer
from support.reading import OPEN

from packetfs_compute.conform import CHECKS, Bench, HttpTarget, InvokedTarget, Key, Target, conform, serving
from packetfs_compute.conform.origin import Origin
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.substrates.local import LocalSubstrate

pytestmark = pytest.mark.integration


def local(request: pytest.FixtureRequest) -> Target:
    return InvokedTarget(LocalSubstrate(SubstrateSpec("local", "local"), OPEN))


def fly(request: pytest.FixtureRequest) -> Target:
    server: FlyServer = request.getfixturevalue("fly_server")
    return HttpTarget(server.url, Key(server.key_id, server.secret))


ENDPOINTS: dict[str, Callable[[pytest.FixtureRequest], Target]] = {"local": local, "fly": fly}
LEFT_OUT = {"local": {"bodies", "errors", "batches", "signatures", "forgeries"}}


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

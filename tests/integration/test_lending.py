"""A real Chromium lends a hand: the page that the gateway serves, jobs that Celery routes to it; each place, by each way."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect
from support.everywhere import ALL_OPS, DATA, REMOTES, Places
from support.gateway import Client
from support.nginx import Nginx
from support.ports import free_port
from support.processes import wait_until
from support.system import RunningSystem, end_system, publishing_to, start_system

from packetfs_compute import __version__, kernels
from packetfs_compute.names import LOCAL, queue_of
from tasks import program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

EVERYWHERE = (LOCAL, *REMOTES, "browser")
PROGRAM = {"ops": ALL_OPS, "offset": 3}
EXPECTED = [
    {"op": "counteq", "imm": 10, "value": kernels.counteq(DATA[3:], 10)},
    {"op": "crc32c", "value": kernels.crc32c(DATA[3:])},
    {"op": "fnv64", "value": f"{kernels.fnv64(DATA[3:]):016x}"},
    {"op": "xor", "imm": 255, "value": kernels.xor(DATA[3:], 255)},
    {"op": "add", "imm": 1, "value": kernels.add(DATA[3:], 1)},
]


@pytest.fixture(scope="module")
def world(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """`packetfs up` with every place there is: the browsers of its own gateway among them."""
    port = free_port()
    substrates = json.loads(places.environ["PACKETFS_SUBSTRATES"])
    system = start_system(
        tmp_path_factory.mktemp("world"),
        gateway=True,
        PACKETFS_GATEWAY_PORT=str(port),
        PACKETFS_SUBSTRATES=json.dumps({**substrates, "browser": {"url": f"http://127.0.0.1:{port}/v1/browsers"}}),
        PACKETFS_KEYS=places.environ["PACKETFS_KEYS"],  # its own gateway's browsers need none
    )
    try:
        with publishing_to(system.settings):
            yield system
    finally:
        end_system(system)


@pytest.fixture(scope="module")
def client(world: RunningSystem) -> Client:
    return Client(str(world.ready["gateway_url"]))


@pytest.fixture(scope="module")
def page(chromium: Browser, client: Client) -> Iterator[Page]:
    """The lending page, as the gateway serves it."""
    context = chromium.new_context()
    made = context.new_page()
    made.problems = []  # type: ignore[attr-defined]
    made.on("console", lambda said: made.problems.append(said.text) if said.type == "error" else None)  # type: ignore[attr-defined]
    made.on("pageerror", lambda error: made.problems.append(str(error)))  # type: ignore[attr-defined]
    made.goto(f"{client.url}/browser/lend.html")
    yield made
    context.close()


def lend(page: Page) -> None:
    page.get_by_label("I agree").check()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_have_text("Lending")


def connected(client: Client) -> int:
    return int(client.get("/v1/overview").json["browsers"]["connected"])


def test_a_page_joins_computes_what_celery_routes_to_it_leaves_and_comes_back(
    page: Page, client: Client, places: Places
) -> None:
    only_browsers = {"substrates": ["browser"], "deadline_s": 60}
    assert page.url.endswith(f"/browser/{__version__}/lend.html")
    expect(page.get_by_label("Ticket")).to_be_hidden()
    lend(page)
    wait_until(lambda: connected(client) == 1, "it has come")
    jobs = [program.delay(places.url, ALL_OPS, offset=at, length=1000, policy=only_browsers) for at in range(12)]
    for at, job in enumerate(jobs):
        told = job.get(timeout=60)
        assert told["substrate"] == "browser"
        assert told["results"][1]["value"] == kernels.crc32c(DATA[at : at + 1000])
    expect(page.locator("#jobs")).to_have_text("12")
    page.get_by_role("button", name="Leave").click()
    wait_until(lambda: connected(client) == 0, "it has left")
    expect(page.get_by_role("status")).to_have_text("Not lent")
    lend(page)
    wait_until(lambda: connected(client) == 1, "it is back")
    told = program.delay(places.url, ALL_OPS, policy=only_browsers).get(timeout=60)
    assert (told["substrate"], told["results"][1]["value"]) == ("browser", kernels.crc32c(DATA))
    assert page.problems == []  # type: ignore[attr-defined]


class TestEveryWayIn:
    """One job routed to each place, by each way in: the same values from all."""

    @pytest.fixture(autouse=True)
    def _lent(self, page: Page, client: Client) -> None:
        if connected(client) == 0:
            lend(page)

    @pytest.fixture(params=["python", "redis-cli", "http", "page"])
    def way_in(
        self, request: pytest.FixtureRequest, world: RunningSystem, client: Client, page: Page, places: Places
    ) -> Callable[[str], dict[str, Any]]:
        """Submit the job to one place and return its result."""

        def policy(place: str) -> dict[str, Any]:
            return {"substrates": [place], "deadline_s": 60}

        def asked(place: str) -> dict[str, Any]:
            return {"program": {"data_url": places.url, **PROGRAM}, "policy": policy(place)}

        def python(place: str) -> Any:
            return program.delay(places.url, ALL_OPS, offset=3, policy=policy(place)).get(timeout=60)

        def redis_list(place: str) -> Any:
            with redis.Redis.from_url(world.settings.state_url) as store:
                store.lpush("packetfs:jobs:queue", json.dumps({"job_id": f"r-{place}", **asked(place)}))
                wait_until(lambda: store.get(f"packetfs:results:r-{place}"), "the result is there", 60)
                return json.loads(store.get(f"packetfs:results:r-{place}"))["result"]

        def http(place: str) -> Any:
            submitted = client.post("/v1/jobs", asked(place))
            assert submitted.status == 202, submitted
            return client.get(f"{submitted.headers['Location']}?wait_s=30").json["result"]

        def web(place: str) -> Any:
            return page.evaluate(
                """async ([files, { program, policy }]) => {
                    const PacketFS = await import(`${files}/packetfs.mjs`);
                    const client = await PacketFS.connect({ gateway: "/" });
                    try { return (await client.submit(program, policy)).result; } finally { client.close(); }
                }""",
                [f"/browser/{__version__}", asked(place)],
            )

        ways: dict[str, Callable[[str], Any]] = {"python": python, "redis-cli": redis_list, "http": http, "page": web}
        return ways[request.param]

    @pytest.mark.parametrize("place", EVERYWHERE)
    def test_the_values_are_the_same(self, way_in: Callable[[str], dict[str, Any]], place: str) -> None:
        result = way_in(place)
        assert result["substrate"] == place, result["attempts"]
        assert result["results"] == EXPECTED
        assert result["bytes_processed"] == len(DATA) - 3


def test_the_dashboard_shows_a_breaker_open_and_close(
    chromium: Browser, client: Client, page: Page, places: Places
) -> None:
    """Of the real system: a place dies under its jobs, which go elsewhere, and it comes back."""
    if connected(client) == 0:
        lend(page)
    fly, watching = places.servers["fly"], chromium.new_page()
    watching.goto(client.url)
    row = watching.get_by_role("row").filter(has=watching.get_by_role("rowheader", name="fly"))
    breaker = row.locator(".breaker")
    expect(breaker).to_have_text(re.compile("^closed"), timeout=20_000)
    expect(watching.locator("#browsers")).to_contain_text("1")

    def work() -> None:
        either = {"substrates": ["fly", LOCAL], "deadline_s": 60}
        jobs = [program.apply_async((places.url, ALL_OPS), {"policy": either}, queue=queue_of("fly")) for _ in range(8)]
        assert {job.get(timeout=60)["results"][1]["value"] for job in jobs} == {kernels.crc32c(DATA)}

    fly.kill()
    work()
    expect(breaker).to_have_text(re.compile("^open.*connection"), timeout=20_000)
    expect(watching.locator("#headline")).to_have_text("Degraded")
    expect(watching.locator("#unwell")).to_contain_text("fly")
    fly.start()
    expect(breaker).to_have_text(re.compile("^half open"), timeout=40_000)  # by probes alone
    for _ in range(5):
        work()
    expect(breaker).to_have_text(re.compile("^closed"), timeout=20_000)
    expect(watching.locator("#unwell")).not_to_contain_text("fly")
    watching.close()


def test_a_source_that_browsers_cannot_read_is_computed_elsewhere_and_not_sent_to_them_again(
    page: Page, client: Client, nginx: Nginx
) -> None:
    """Without CORS: the browser cannot, a place of trust can, and that is learnt of the origin; so this test is the last."""
    if connected(client) == 0:
        lend(page)
    (nginx.www / "closed.bin").write_bytes(DATA)
    either = {"substrates": ["browser", LOCAL], "deadline_s": 60}
    failures = int(page.locator("#failures").inner_text())
    for at in range(8):
        job = program.apply_async((nginx.url("closed.bin"), ALL_OPS, at), {"policy": either}, queue=queue_of("browser"))
        told = job.get(timeout=60)
        assert told["results"][1]["value"] == kernels.crc32c(DATA[at:])
    assert int(page.locator("#failures").inner_text()) - failures == 1, "it was asked for it once"

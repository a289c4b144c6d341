"""The browser runtime in real Chromium: its Service Worker, its pool, its client, and what CORS makes of sources."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from playwright.sync_api import Browser, Page
from support.browser import OPENED, Site, Sources, request_of, shared
from support.misbehaving import Exchange, answer, honest

from packetfs_compute import __version__, gateway, kernels
from packetfs_compute.conform.contract import load_contract

pytestmark = pytest.mark.integration

CONTRACT = load_contract()
COMPARED = ("results", "bytesProcessed", "objectSize", "etag")
SCHEMAS = Path(__file__).parents[2] / "remote" / "contract"
DATA = bytes(range(256)) * 4096


@pytest.fixture(scope="class")
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    """An empty page with the runtime's one script, tagged with its integrity."""
    context = chromium.new_context()
    made = context.new_page()
    thrown: list[str] = []
    made.on("pageerror", lambda error: thrown.append(str(error)))
    made.goto(site.origin)
    embed(made, site)
    yield made
    context.close()
    assert thrown == []


def embed(page: Page, site: Site) -> None:
    page.evaluate(
        """({url, integrity}) => new Promise((resolve, reject) => {
            const script = document.createElement("script");
            Object.assign(script, {src: url, integrity, crossOrigin: "anonymous", onload: resolve, onerror: reject});
            document.head.append(script);
        })""",
        {"url": f"{site.files}packetfs.js", "integrity": manifest(site.folder)["packetfs.js"]["integrity"]},
    )


def manifest(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["files"]
    return files


def connected(page: Page, **options: Any) -> None:
    """Make ``window.client``, in place of the one before."""
    page.evaluate("window.client?.close()")
    page.evaluate(
        "async (options) => { window.client = await PacketFS.connect(options); }", {"variables": OPENED, **options}
    )


def executed(page: Page, *requests: object) -> list[dict[str, Any]]:
    """Compute in the pool."""
    answers: list[dict[str, Any]] = page.evaluate(
        "(requests) => Promise.all(requests.map((request) => client.execute(request)))", list(requests)
    )
    return answers


def requests_of_contract(origin: str) -> tuple[list[Any], list[Any]]:
    programs = [
        {"jobId": one["id"], "program": {"data_url": f"{origin}/objects/{one['object']}", **one["program"]}}
        for one in CONTRACT.vectors
    ]
    return programs, [one["request"] for one in CONTRACT.bad_requests]


def hold_to_contract(answers: list[dict[str, Any]], refused: list[dict[str, Any]]) -> None:
    for one, found in zip(CONTRACT.vectors, answers, strict=True):
        expect = one["expect"]
        if "error" in expect:
            assert not found["success"], one["id"]
            assert found["error"]["type"] == expect["error"], (one["id"], found)
        else:
            assert found["success"], (one["id"], found)
            assert {key: found[key] for key in COMPARED} == {key: expect[key] for key in COMPARED}, one["id"]
    for one, found in zip(CONTRACT.bad_requests, refused, strict=True):
        assert (found["error"]["type"], found["error"]["field"]) == ("bad_program", one["field"]), (one["id"], found)


class TestFiles:
    def test_the_same_sources_give_the_bytes_that_the_gateway_serves(self, browser_files: Path) -> None:
        served = Path(gateway.__file__).parent / "static" / "browser"
        first, second = (
            {path.name: path.read_bytes() for path in folder.iterdir()}
            for folder in (browser_files, served / __version__)
        )
        assert first == second, "build them anew: node remote/browser/build.mjs"
        assert [path.name for path in served.iterdir()] == [__version__]

    def test_the_manifest_tells_sizes_and_hashes(self, browser_files: Path) -> None:
        files = manifest(browser_files)
        assert set(files) | {"manifest.json"} == {path.name for path in browser_files.iterdir()}
        for name, told in files.items():
            body = (browser_files / name).read_bytes()
            hashed = base64.b64encode(hashlib.sha384(body).digest()).decode()
            assert (told["bytes"], told["integrity"]) == (len(body), f"sha384-{hashed}")

    def test_the_scripts_vouch_for_what_they_load(self, browser_files: Path) -> None:
        files = manifest(browser_files)
        script = (browser_files / "packetfs.js").read_text()
        for name in ("worker.js", "kernels.wasm", "kernels-simd.wasm"):
            assert files[name]["integrity"] in script

    def test_a_changed_file_is_not_loaded(self, page: Page, site: Site) -> None:
        changed = (site.folder / "kernels-simd.wasm").read_bytes() + b"\0\1\0"
        site.more["/packetfs/kernels-simd.wasm"] = (200, "application/wasm", changed)
        try:
            told = page.evaluate("PacketFS.connect().then(() => 'loaded', (error) => error.name)")
        finally:
            site.more.clear()
        assert told == "TypeError"


@pytest.fixture(scope="class")
def served(page: Page, site: Site) -> Page:
    """A page in the scope of a registered Service Worker."""
    page.evaluate("(variables) => PacketFS.registerServiceWorker({variables})", OPENED)
    site.more["/packetfs/blank"] = site.find("/")
    page.goto(f"{site.files}blank")
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    return page


class TestServiceWorker:
    def test_its_health(self, served: Page) -> None:
        found = served.evaluate("fetch('health').then((response) => response.json())")
        Draft202012Validator(json.loads((SCHEMAS / "health.schema.json").read_text())).validate(found)
        assert (found["version"], found["kernel"], found["region"]) == (__version__, "wasm-simd", "browser")

    def test_it_keeps_the_contract(self, served: Page, sources: Sources) -> None:
        programs, refused = requests_of_contract(sources.url(""))
        answers = served.evaluate(
            """async (requests) => {
                const answers = [];
                const work = requests.entries();
                const one = async () => {
                    for (const [at, request] of work) {
                        const response = await fetch("execute", {method: "POST", body: JSON.stringify(request)});
                        answers[at] = {...(await response.json()), status: response.status};
                    }
                };
                await Promise.all([one(), one(), one(), one()]);
                return answers;
            }""",
            programs + refused,
        )
        hold_to_contract(answers[: len(programs)], answers[len(programs) :])
        statuses = {found.get("error", {}).get("type", ""): found["status"] for found in answers}
        assert statuses == {
            "": 200, "bad_program": 400, "range_not_satisfiable": 416, "source_changed": 409, "source_not_found": 404,
        }  # fmt: skip
        assert sources.preflights == []

    def test_it_answers_messages(self, served: Page, sources: Sources) -> None:
        found = served.evaluate(
            """(requests) => new Promise((resolve) => {
                const answers = {};
                navigator.serviceWorker.addEventListener("message", ({data}) => {
                    answers[data.id] = data.answer;
                    if (Object.keys(answers).length === requests.length) resolve(answers);
                });
                navigator.serviceWorker.startMessages();
                const {controller} = navigator.serviceWorker;
                requests.forEach((request, id) => controller.postMessage({type: "execute", id, request}));
            })""",
            [request_of(sources.url("/objects/one")), 7],
        )
        assert found["0"]["results"] == [{"op": "crc32c", "value": kernels.crc32c(b"\xff")}]
        assert found["1"]["error"]["type"] == "bad_program"

    def test_the_kernels_are_kept(self, served: Page) -> None:
        kept = served.evaluate(
            """async () => {
                const names = await caches.keys();
                const kept = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).length));
                return names.map((name, at) => [name, kept[at]]);
            }"""
        )
        assert kept == [[f"packetfs-kernels-{__version__}", 1]]

    def test_a_navigation_reaches_no_program(self, served: Page, site: Site) -> None:
        response = served.goto(f"{site.files}health")
        assert response is not None
        assert response.status == 404
        served.go_back()


class TestPool:
    def test_it_keeps_the_contract(self, page: Page, sources: Sources) -> None:
        connected(page, slots=2)
        programs, refused = requests_of_contract(sources.url(""))
        half = len(programs) // 2
        answers = executed(page, *programs[:half]) + executed(page, *programs[half:])
        hold_to_contract(answers, executed(page, *refused))
        metrics = page.evaluate("client.metrics")
        succeeded = [one["expect"]["bytesProcessed"] for one in CONTRACT.vectors if "error" not in one["expect"]]
        failures = len(programs) + len(refused) - len(succeeded)
        assert (metrics["jobs"], metrics["failures"], metrics["bytes"], metrics["running"]) == (
            len(programs) + len(refused), failures, sum(succeeded), 0,
        )  # fmt: skip
        assert metrics["seconds"] > 0

    def test_the_queue_has_a_bound(self, page: Page) -> None:
        connected(page, slots=1)
        told = [found["error"]["type"] for found in executed(page, *range(300))]
        assert told == ["bad_program"] * 257 + ["busy"] * 43

    def test_a_cancelled_job_ends_and_the_next_one_runs(self, page: Page, sources: Sources) -> None:
        ended = threading.Event()

        def slow(exchange: Exchange) -> None:
            head = answer("206 Partial Content", "Content-Length: 100", "Content-Range: bytes 0-99/100")
            exchange.send(head, b"x")
            with suppress(OSError):
                exchange.sock.recv(1)
            ended.set()

        sources.routes["/slow"] = shared(slow)
        connected(page, slots=1)
        told = page.evaluate(
            """async (request) => {
                const controller = new AbortController();
                const options = {signal: controller.signal};
                const jobs = [client.execute(request, options), client.execute(request, options)];
                setTimeout(() => controller.abort(new Error("enough")), 300);
                return (await Promise.allSettled(jobs)).map(({reason}) => reason?.message);
            }""",
            request_of(sources.url("/slow")),
        )
        assert told == ["enough", "enough"]
        assert ended.wait(10)
        assert executed(page, request_of(sources.url("/objects/one")))[0]["success"]
        assert page.evaluate("client.metrics.jobs") == 1

    def test_a_worker_that_cannot_start_is_told(self, page: Page, site: Site, sources: Sources) -> None:
        site.more["/packetfs/worker.js"] = (404, "text/plain", b"")
        try:
            connected(page)
            (found,) = executed(page, request_of(sources.url("/objects/one")))
        finally:
            site.more.clear()
        assert (found["error"]["type"], found["error"]["retryable"]) == ("internal", True)
        assert executed(page, request_of(sources.url("/objects/one")))[0]["success"]

    def test_the_limits_of_the_page_hold(self, page: Page, sources: Sources) -> None:
        sources.routes["/large"] = shared(honest(DATA))
        connected(page, slots=1, limits={"maxBytesPerJob": 400_000, "maxMBPerSecond": 0.4})
        large = sources.url("/large")
        whole, part = executed(page, request_of(large), request_of(large, offset=1, length=400_000))
        assert whole["error"]["type"] == "too_large"
        assert part["results"][0]["value"] == kernels.crc32c(DATA[1:400_001])
        assert part["executionTimeMs"] >= 700
        wrong = page.evaluate("PacketFS.connect({limits: {minBattery: 2}}).catch((error) => error.message)")
        assert wrong.startswith("limits.minBattery is 2")

    def test_from_a_cdn(self, chromium: Browser, browser_files: Path, site: Site, sources: Sources) -> None:
        with Site(browser_files, shared=True) as cdn:
            context = chromium.new_context()
            page = context.new_page()
            page.goto(site.origin)
            embed(page, cdn)
            connected(page)
            (found,) = executed(page, request_of(sources.url("/objects/one")))
            context.close()
        assert found["results"][0]["value"] == kernels.crc32c(b"\xff")


class TestSources:
    """What a browser may not read, or not prove, is told as such, so that no browser is sent there again."""

    def failure(self, page: Page, request: dict[str, Any]) -> dict[str, Any]:
        connected(page, slots=1)
        (found,) = executed(page, request)
        assert not found["success"], found
        error: dict[str, Any] = found["error"]
        return error

    def told(self, error: dict[str, Any]) -> tuple[Any, ...]:
        return error["type"], error.get("field"), error["retryable"]

    CORS = ("source_failed", "cors", False)

    def test_one_without_cors(self, page: Page, sources: Sources) -> None:
        assert self.told(self.failure(page, request_of(sources.url("/closed/one")))) == self.CORS

    def test_one_that_is_not_there_at_all_is_another_matter(self, page: Page, sources: Sources) -> None:
        sources.routes["/gone"] = lambda exchange: exchange.reset()
        assert self.told(self.failure(page, request_of(sources.url("/gone")))) == ("source_failed", None, True)

    @pytest.mark.parametrize("hidden", ["Content-Range", "ETag"])
    def test_one_that_hides_what_proves_its_bytes(self, page: Page, sources: Sources, hidden: str) -> None:
        exposed = "ETag" if hidden == "Content-Range" else "Content-Range"
        fields = ["Content-Length: 2", "Content-Range: bytes 0-1/2", 'ETag: "v1"', "Access-Control-Allow-Origin: *"]
        part = answer("206 Partial Content", *fields, f"Access-Control-Expose-Headers: {exposed}", body=b"ab")
        sources.routes["/hides"] = lambda exchange: exchange.send(part)
        error = self.failure(page, request_of(sources.url("/hides"), length=2, etag='"v1"'))
        assert self.told(error) == self.CORS
        assert hidden in error["message"]

    def test_one_that_ignores_range(self, page: Page, sources: Sources) -> None:
        sources.routes["/whole"] = shared(lambda exchange: exchange.send(answer("200 OK", "Content-Length: 2"), b"ab"))
        assert self.told(self.failure(page, request_of(sources.url("/whole"), length=2))) == self.CORS

    def test_a_stale_pin(self, page: Page, sources: Sources) -> None:
        error = self.failure(page, request_of(sources.url("/objects/one"), etag='"other"'))
        assert error["type"] == "source_changed"
        assert not any(b"if-match" in head.lower() for head in sources.heads)
        assert sources.preflights == []

    def test_a_redirect_is_followed(self, page: Page, sources: Sources) -> None:
        moved = answer("302 Found", "Location: /objects/odd", "Content-Length: 0")
        sources.routes["/moved"] = shared(lambda exchange: exchange.send(moved))
        connected(page)
        (found,) = executed(page, request_of(sources.url("/moved")))
        assert found["results"][0]["value"] == kernels.crc32c(CONTRACT.objects["odd"].data)

    def test_no_bytes_come_from_where_a_redirect_may_not_lead(self, page: Page, sources: Sources) -> None:
        with Sources() as inner:
            inner.routes["/secret"] = shared(honest(b"secret"))
            away = answer("302 Found", f"Location: {inner.url('/secret', 'localhost')}", "Content-Length: 0")
            sources.routes["/away"] = shared(lambda exchange: exchange.send(away))
            connected(page, variables={"PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.1/32"})
            (found,) = executed(page, request_of(sources.url("/away")))
            assert len(inner.heads) == 1
        assert found["error"]["type"] == "forbidden_source"

    def test_private_places_are_closed_at_first(self, page: Page, sources: Sources) -> None:
        heads = len(sources.heads)
        connected(page, variables={})
        (found,) = executed(page, request_of(sources.url("/objects/one")))
        assert (found["error"]["type"], len(sources.heads)) == ("forbidden_source", heads)

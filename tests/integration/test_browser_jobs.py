"""A page submits jobs: what the client sends to a gateway, and what it makes of the answers."""

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from support.browser import Site

pytestmark = pytest.mark.integration

PROGRAM = {"data_url": "https://example.com/object", "ops": [{"op": "crc32c"}]}


def status_of(status: str, **more: Any) -> dict[str, Any]:
    return {"job_id": "j1", "status": status, "submitted_at": 1.0, "program": PROGRAM, "policy": None,
            "result": None, "error": None, **more}  # fmt: skip


DONE = status_of("done", result={"results": [{"op": "crc32c", "value": 7}]})


class FakeGateway:
    """A gateway on the page's own origin whose answers the test sets; ``sent`` is what came to it."""

    def __init__(self, site: Site) -> None:
        self.sent: queue.Queue[tuple[str, dict[str, str], Any]] = queue.Queue()
        self.first: tuple[int, dict[str, Any]] = (202, status_of("queued"))
        self.now = status_of("running")
        self.streams: list[bytes] = []
        self.held = threading.Event()
        site.actions = {
            "POST /v1/jobs": lambda request: self._answer(request, *self.first),
            "GET /v1/jobs/j1": lambda request: self._answer(request, 200, self.now),
            "DELETE /v1/jobs/j1": lambda request: self._answer(request, 200, status_of("cancelled")),
            "GET /v1/jobs/j1/events": self._events,
        }

    def _note(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.sent.put((f"{request.command} {request.path}", fields, json.loads(body or b"null")))

    def _answer(self, request: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
        self._note(request)
        body = json.dumps(document).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _events(self, request: BaseHTTPRequestHandler) -> None:
        """Send the next stream, a part at each ``|``; without any more, hold the connection."""
        self._note(request)
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        if not self.streams:
            self.held.wait(20)
            return
        for part in self.streams.pop(0).split(b"|"):
            request.wfile.write(part)
            request.wfile.flush()
            self.held.wait(0.02)

    def paths(self) -> list[str]:
        return [self.sent.get_nowait()[0] for _ in range(self.sent.qsize())]


@pytest.fixture
def gateway(site: Site) -> Iterator[FakeGateway]:
    made = FakeGateway(site)
    yield made
    made.held.set()
    site.actions = {}


@pytest.fixture(scope="module")
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    context = chromium.new_context()
    made = context.new_page()
    made.goto(site.origin)
    made.evaluate(
        """async (url) => {
            window.PacketFS = await import(url);
            window.client = await PacketFS.connect({key: "k1"});
            window.submit = (options) => (window.seen = []) && client.submit(options.program, options.policy, {
                jobId: "j1", onProgress: ({status}) => seen.push(status), ...options,
            }).then((status) => ({status}), (error) => ({
                name: error.name, message: error.message, type: error.type, told: error.status?.status ?? null,
            }));
        }""",
        f"{site.files}packetfs.mjs",
    )
    yield made
    context.close()


def submitted(page: Page, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = page.evaluate("(options) => submit(options)", {"program": PROGRAM, **more})
    return told


def event(document: object, name: str = "status", end: str = "\n") -> bytes:
    return f"event: {name}{end}data: {json.dumps(document)}{end}{end}".encode()


def test_a_job_is_submitted_and_followed(page: Page, gateway: FakeGateway) -> None:
    lines = json.dumps(status_of("running"), indent=1).split("\n")
    gateway.streams = [
        b": a comment\n\n" + event("no status") + event(status_of("queued"), end="\r\n").replace(b"\r\n\r\n", b"\r|\n\r|\n")
        + "".join(f"data:{line}\r|\n" for line in lines).encode() + b"\r\n" + event(DONE, "done").replace(b"crc", b"c|rc")
    ]  # fmt: skip
    told = submitted(page, policy={"goal": "cheapest"}, priority=3)
    assert told == {"status": DONE}
    assert page.evaluate("seen") == ["queued", "queued", "running", "done"]
    path, fields, body = gateway.sent.get_nowait()
    assert path == "POST /v1/jobs"
    assert body == {"job_id": "j1", "program": PROGRAM, "policy": {"goal": "cheapest"}, "priority": 3}
    assert (fields["idempotency-key"], fields["authorization"]) == ("j1", "Bearer k1")
    assert gateway.sent.get_nowait()[1]["authorization"] == "Bearer k1"


def test_one_that_is_known_and_done_is_not_followed(page: Page, gateway: FakeGateway) -> None:
    gateway.first = (200, DONE)
    assert submitted(page) == {"status": DONE}
    assert gateway.paths() == ["POST /v1/jobs"]


def test_events_that_break_off_are_asked_for_again(page: Page, gateway: FakeGateway) -> None:
    end = event({"reason": "lifetime"}, "end")
    gateway.streams = [b"retry: 2000\n" + event(status_of("running")) + end + b"data: {", event(DONE)]
    assert submitted(page) == {"status": DONE}
    events = "GET /v1/jobs/j1/events"
    assert gateway.paths() == ["POST /v1/jobs", events, "GET /v1/jobs/j1", events]


def test_an_end_that_was_missed_is_learnt(page: Page, gateway: FakeGateway) -> None:
    gateway.streams, gateway.now = [b""], DONE
    assert submitted(page) == {"status": DONE}


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
def test_one_that_ends_otherwise_is_an_error(page: Page, gateway: FakeGateway, ended: str) -> None:
    error = {"type": "source_not_found", "message": "there is none"} if ended == "failed" else None
    gateway.streams = [event(status_of(ended, error=error))]
    told = submitted(page)
    assert (told["name"], told["told"]) == ("JobFailed", ended)
    assert told["type"] == ("source_not_found" if error else "cancelled")


def test_a_refusal_tells_why(page: Page, gateway: FakeGateway) -> None:
    gateway.first = (
        422,
        {"type": "/docs#problem-bad_program", "error": "bad_program", "detail": "program.ops is missing"},
    )
    told = submitted(page)
    assert (told["name"], told["type"]) == ("JobFailed", "bad_program")
    assert told["message"] == "the gateway refuses: program.ops is missing"


def test_to_cancel_it_is_told_to_the_gateway(page: Page, gateway: FakeGateway) -> None:
    told = page.evaluate(
        """(program) => {
            const controller = new AbortController();
            setTimeout(() => controller.abort(new Error("enough")), 200);
            return submit({program, signal: controller.signal});
        }""",
        PROGRAM,
    )
    assert (told["name"], told["message"]) == ("Error", "enough")
    assert gateway.paths() == ["POST /v1/jobs", "GET /v1/jobs/j1/events", "DELETE /v1/jobs/j1"]


def test_an_id_is_chosen_before_it_is_sent(page: Page, gateway: FakeGateway) -> None:
    gateway.first = (200, DONE)
    page.evaluate("(program) => client.submit(program)", PROGRAM)
    _, fields, body = gateway.sent.get_nowait()
    assert len(body["job_id"]) == 36
    assert fields["idempotency-key"] == body["job_id"]
    assert set(body) == {"job_id", "program"}

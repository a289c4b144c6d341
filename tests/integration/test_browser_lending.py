"""Lending a browser to a hub: the protocol from its side, consent, limits, and the page that anyone may open."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from support.browser import OPENED, PATIENCE_S, Hub, Site, Sources, request_of, shared
from support.misbehaving import Exchange, answer

from packetfs_compute import kernels
from packetfs_compute.conform.contract import load_contract

pytestmark = pytest.mark.integration

LENT = {"baseMs": 20, "capMs": 100, "attempts": 200}
ODD = load_contract().objects["odd"].data


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture(scope="class")
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context()
    yield made
    made.close()


@pytest.fixture(scope="class")
def page(context: BrowserContext, site: Site) -> Page:
    """An empty page with the runtime as a module."""
    made = context.new_page()
    made.goto(site.origin)
    made.evaluate("async (url) => { window.PacketFS = await import(url); }", f"{site.files}packetfs.mjs")
    return made


@pytest.fixture
def slow(sources: Sources) -> tuple[str, threading.Event]:
    """The URL of an object that does not come, and what is set when its reader leaves."""
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(answer("206 Partial Content", "Content-Length: 9", "Content-Range: bytes 0-8/9"), b"x")
        with suppress(OSError):
            exchange.sock.recv(1)
        left.set()

    sources.routes["/drips"] = shared(script)
    return sources.url("/drips"), left


def lend(page: Page, hub: Hub, ticket: str = "t1", consent: str = "true", **options: Any) -> None:
    """Make a new ``window.client`` and lend it, without waiting; ``window.lent`` tells how that went."""
    page.evaluate(
        """async ([options, ticket, consent]) => {
            window.client?.close();
            window.client = await PacketFS.connect({...options, consent: () => eval(consent)});
            window.lent = client.lend({ticket}).then(() => "welcomed", (error) => `${error.name}: ${error.message}`);
        }""",
        [{"gateway": hub.url, "variables": OPENED, "backoff": LENT, "slots": 2, **options}, ticket, consent],
    )


def lent(page: Page) -> str:
    told: str = page.evaluate(
        "Promise.race([window.lent, new Promise((resolve) => setTimeout(resolve, 15_000, 'still waiting'))])"
    )
    return told


class TestProtocol:
    def test_it_joins_computes_and_leaves(self, page: Page, hub: Hub, sources: Sources) -> None:
        lend(page, hub)
        browser = hub.joined()
        assert browser.hello == {"type": "hello", "version": 1, "ticket": "t1", "kernel": "wasm-simd", "slots": 2}
        assert hub.paths == ["/v1/browsers"]
        assert lent(page) == "welcomed"
        for at in range(4):
            browser.run(
                f"l{at}", request_of(sources.url("/objects/odd"), {"op": "counteq", "imm": at}) | {"jobId": "j"}
            )
            found = browser.next("answer")
            assert found["lease"] == f"l{at}"
            assert found["answer"]["jobId"] == "j"
            assert found["answer"]["results"] == [{"op": "counteq", "imm": at, "value": ODD.count(at)}]
        assert page.evaluate("[client.state, client.metrics.jobs, client.metrics.bytes]") == [
            "lending",
            4,
            4 * len(ODD),
        ]
        page.evaluate("client.leave()")
        assert browser.gone()
        assert page.evaluate("client.state") == "left"

    def test_a_source_without_cors_is_told(self, page: Page, hub: Hub, sources: Sources) -> None:
        lend(page, hub)
        browser = hub.joined()
        browser.run("l", request_of(sources.url("/closed/odd")))
        error = browser.next("answer")["answer"]["error"]
        assert (error["type"], error["field"], error["retryable"]) == ("source_failed", "cors", False)

    def test_it_says_that_it_is_alive_and_is_cancelled(
        self, page: Page, hub: Hub, sources: Sources, slow: tuple[str, threading.Event]
    ) -> None:
        url, left = slow
        lend(page, hub)
        browser = hub.joined()
        begun = time.monotonic()
        for lease in ("a", "b"):
            browser.run(lease, request_of(url))
        said = [browser.next("alive")["leases"] for _ in range(3)]
        assert all(set(leases) == {"a", "b"} for leases in said)
        assert time.monotonic() - begun < 2 * 6  # three seconds at most between two of them: twice as many are too many
        browser.send(type="cancel", lease="a")
        assert left.wait(PATIENCE_S)
        browser.run("c", request_of(sources.url("/objects/odd")))
        frame = browser.frames.get(timeout=PATIENCE_S)
        while frame["type"] == "alive":
            frame = browser.frames.get(timeout=PATIENCE_S)
        assert (frame["lease"], frame["answer"]["success"]) == ("c", True)
        browser.run("d", request_of(url))
        browser.run("e", request_of(url))
        frame = browser.frames.get(timeout=PATIENCE_S)
        while frame["type"] == "alive":
            frame = browser.frames.get(timeout=PATIENCE_S)
        assert (frame["lease"], frame["answer"]["error"]["type"]) == ("e", "busy")

    def test_a_lease_that_waits_for_a_worker_is_alive(
        self, page: Page, hub: Hub, slow: tuple[str, threading.Event]
    ) -> None:
        lend(page, hub, slots=1)
        browser = hub.joined()
        page.evaluate("(request) => void client.execute(request)", request_of(slow[0]))
        browser.run("waits", request_of(slow[0]))
        assert browser.next("alive")["leases"] == ["waits"]

    def test_it_pauses_and_resumes(self, page: Page, hub: Hub, sources: Sources) -> None:
        lend(page, hub)
        browser = hub.joined()
        assert lent(page) == "welcomed"
        page.evaluate("client.pause()")
        browser.next("pause")
        browser.run("l", request_of(sources.url("/objects/odd")))
        assert browser.next("answer")["answer"]["error"]["type"] == "busy"
        page.evaluate("client.resume()")
        browser.next("resume")
        browser.run("m", request_of(sources.url("/objects/odd")))
        assert browser.next("answer")["answer"]["success"]

    def test_it_comes_back(self, page: Page, hub: Hub, sources: Sources, slow: tuple[str, threading.Event]) -> None:
        url, left = slow
        lend(page, hub)
        browser = hub.joined()
        page.evaluate("client.pause()")
        browser.next("pause")
        page.evaluate("client.resume()")
        browser.next("resume")
        browser.run("l", request_of(url))
        browser.next("alive")
        page.evaluate("client.pause()")
        browser.next("pause")
        browser.socket.close()
        assert left.wait(PATIENCE_S)  # its leases are another's now
        again = hub.joined()
        again.next("pause")
        page.evaluate("client.resume()")
        again.next("resume")
        again.run("m", request_of(sources.url("/objects/odd")))
        assert again.next("answer")["answer"]["results"][0]["value"] == kernels.crc32c(ODD)

    def test_each_connection_has_a_ticket_of_its_own(self, page: Page, hub: Hub) -> None:
        page.evaluate(
            """async ([options]) => {
                window.client?.close();
                window.client = await PacketFS.connect({...options, consent: () => true});
                let tickets = 0;
                void client.lend({ticket: async () => `t${tickets += 1}`});
            }""",
            [{"gateway": hub.url, "backoff": LENT}],
        )
        for at in (1, 2, 3):
            browser = hub.joined()
            assert browser.hello["ticket"] == f"t{at}"
            browser.socket.close(4001 if at == 2 else 1001)

    def test_what_is_no_frame_ends_the_connection(self, page: Page, hub: Hub) -> None:
        lend(page, hub)
        large = json.dumps({"type": "welcome", "padding": "x" * 65_536})
        runs = ('{"type":"run"}', '{"type":"run","lease":""}', '{"type":"cancel","lease":1}')
        for frame in ("{", "[]", "7", '{"type":7}', *runs, b"{}", large):
            browser = hub.joined()
            browser.socket.send(frame)
            assert browser.gone(), frame
            assert browser.socket.close_code == 4400

    def test_a_frame_of_a_later_version_is_passed_over(self, page: Page, hub: Hub, sources: Sources) -> None:
        lend(page, hub)
        browser = hub.joined()
        browser.send(type="news", lease=1)
        browser.send(type="run", lease="l", request=None)
        assert browser.next("answer")["answer"]["error"]["type"] == "bad_program"

    @pytest.mark.parametrize("code", [1008, 4001, 4003])
    def test_one_that_is_refused_does_not_come_again(self, page: Page, hub: Hub, code: int) -> None:
        lend(page, hub)
        hub.come().socket.close(code, "the ticket is used")
        assert lent(page) == "Error: the browser is not lent: the hub refuses it: the ticket is used"
        assert page.evaluate("client.state") == "left"
        assert len(hub.paths) == 1

    def test_it_gives_up_after_so_many_failures(self, page: Page, hub: Hub) -> None:
        lend(page, hub, backoff={"baseMs": 1, "capMs": 5, "attempts": 4})
        for _ in range(4):
            hub.joined().socket.close()
        page.wait_for_function("client.state === 'left'")
        assert len(hub.paths) == 4

    def test_without_consent_there_is_no_connection(self, page: Page, hub: Hub) -> None:
        for consent in ("false", "Promise.resolve(false)", "undefined", "'yes'"):
            lend(page, hub, consent=consent)
            assert lent(page).startswith("ConsentRefused: ")
        page.wait_for_timeout(200)
        assert hub.paths == []

    @pytest.mark.parametrize("button", ["No", "Yes, lend it"])
    def test_the_built_in_question(self, page: Page, hub: Hub, button: str) -> None:
        page.evaluate(
            """async (options) => {
                window.client?.close();
                window.client = await PacketFS.connect(options);
                window.lent = client.lend({ticket: "t"}).then(() => "welcomed", (error) => error.name);
            }""",
            {"gateway": hub.url},
        )
        dialog = page.get_by_role("dialog", name="May this page use a part of your computer")
        dialog.get_by_role("button", name=button).click()
        if button == "No":
            assert (lent(page), hub.paths) == ("ConsentRefused", [])
        else:
            hub.joined()
            assert lent(page) == "welcomed"
        expect(dialog).to_have_count(0)


class TestLimits:
    def test_it_pauses_while_the_page_is_hidden(self, page: Page, hub: Hub) -> None:
        lend(page, hub, limits={"onlyWhenVisible": True})
        browser = hub.joined()
        assert lent(page) == "welcomed"
        seen = "Object.defineProperty(document, 'visibilityState', {value: %r, configurable: true})"
        for state, frame in (("hidden", "pause"), ("visible", "resume")):
            page.evaluate(seen % state)
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            browser.next(frame)

    @pytest.mark.parametrize("limits", [{"onlyOnPower": True}, {"minBattery": 0.5}])
    def test_it_pauses_on_battery(self, page: Page, hub: Hub, limits: dict[str, object]) -> None:
        page.evaluate(
            """() => {
                window.battery = Object.assign(new EventTarget(), {charging: false, level: 0.4});
                navigator.getBattery = async () => battery;
            }"""
        )
        lend(page, hub, limits=limits)
        browser = hub.joined()
        browser.next("pause")
        assert page.evaluate("client.pauses") == ["battery"]
        page.evaluate("{ battery.charging = true; battery.dispatchEvent(new Event('chargingchange')); }")
        browser.next("resume")

    def test_no_more_jobs_at_once_than_the_page_allows(self, page: Page, hub: Hub) -> None:
        lend(page, hub, limits={"maxJobs": 1})
        assert hub.joined().hello["slots"] == 1


class TestPage:
    @pytest.fixture
    def opened(self, context: BrowserContext, site: Site, hub: Hub, sources: Sources) -> Iterator[Page]:
        """The page as it stands, with the hub for its gateway; nothing is reported against it."""
        site.meta.update({"gateway": hub.url, "allow-private-sources": "127.0.0.0/8"})
        page = context.new_page()
        told: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("console", lambda message: told.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{site.files}lend.html#ticket=abc")
        yield page
        assert told == []
        assert [url for url in asked if not url.startswith((site.origin, sources.url("/objects/"), "data:"))] == []

    def test_it_lends_by_keyboard_alone(self, opened: Page, hub: Hub, sources: Sources) -> None:
        state = opened.get_by_role("status")
        expect(state).to_have_text("Not lent")
        opened.locator("#consent").focus()
        opened.keyboard.press("Space")
        opened.keyboard.press("Tab")
        opened.keyboard.press("Enter")
        browser = hub.joined()
        assert browser.hello["ticket"] == "abc"
        expect(state).to_have_text("Lending")
        browser.run("l", request_of(sources.url("/objects/odd")))
        assert browser.next("answer")["answer"]["success"]
        expect(opened.locator("#jobs")).to_have_text("1")
        expect(opened.locator("#bytes")).to_have_text("65.5 kB")
        expect(opened.get_by_role("button", name="Leave")).to_be_focused()
        opened.keyboard.press("Shift+Tab")
        opened.keyboard.press("Enter")
        browser.next("pause")
        expect(state).to_have_text("Paused")
        expect(opened.get_by_role("button", name="Resume")).to_be_focused()
        opened.keyboard.press("Enter")
        browser.next("resume")
        opened.keyboard.press("Tab")
        opened.keyboard.press("Enter")
        assert browser.gone()
        expect(state).to_have_text("Not lent")
        expect(opened.get_by_role("alert")).to_be_hidden()
        opened.get_by_role("button", name="Start").click()
        hub.joined()

    def test_nothing_starts_without_consent(self, opened: Page, hub: Hub) -> None:
        opened.get_by_role("button", name="Start").click()
        opened.wait_for_timeout(200)
        assert hub.paths == []
        expect(opened.get_by_role("status")).to_have_text("Not lent")

    def test_its_limits_are_those_of_the_client(self, opened: Page, hub: Hub, sources: Sources) -> None:
        opened.get_by_label("At most, MB per job").fill("1")
        opened.get_by_label("Jobs at once").select_option("1")
        opened.get_by_label("I agree").check()
        opened.get_by_role("button", name="Start").click()
        browser = hub.joined()
        assert browser.hello["slots"] == 1
        browser.run("l", request_of(sources.url("/objects/odd"), length=1_000_001))
        assert browser.next("answer")["answer"]["error"]["type"] == "too_large"
        expect(opened.locator("#failures")).to_have_text("1")

    def test_a_refusal_is_told(self, opened: Page, hub: Hub) -> None:
        opened.get_by_label("I agree").check()
        opened.get_by_role("button", name="Start").click()
        hub.come().socket.close(1008, "the ticket is used")
        expect(opened.get_by_role("alert")).to_contain_text("the ticket is used")
        expect(opened.get_by_role("button", name="Start")).to_be_enabled()

    @pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 340), ("dark", 340)])
    def test_how_it_looks(
        self, chromium: Browser, site: Site, hub: Hub, tmp_path: Path, scheme: Any, width: int
    ) -> None:
        """It fits the window, every control has a name, and all text stands out from its ground (WCAG 2.2, 1.4.3)."""
        site.meta.update({"gateway": hub.url})
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        page.goto(f"{site.files}lend.html#ticket=abc")
        page.get_by_label("I agree").check()
        page.get_by_role("button", name="Start").click()
        hub.joined()
        expect(page.get_by_role("status")).to_have_text("Lending")
        page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for control in page.locator("input, select, button").all():
            expect(control).not_to_have_accessible_name("")
        assert page.evaluate(FAINT) == []
        context.close()


FAINT = """() => {
    const light = (text) => {
        const parts = text.match(/[0-9.]+/g).map(Number);
        if (parts.length > 3 && parts[3] === 0) return null;
        const [r, g, b] = parts.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at !== null; at = at.parentElement) {
            const found = light(getComputedStyle(at).backgroundColor);
            if (found !== null) return found;
        }
        return 1;
    };
    const faint = [];
    for (const element of document.querySelectorAll("h1, h2, p, dt, dd, li, label, button:enabled")) {
        if (!element.textContent.trim() || element.offsetParent === null) continue;
        const [a, b] = [light(getComputedStyle(element).color), ground(element)].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) faint.push([element.textContent.trim(), contrast]);
    }
    return faint;
}"""

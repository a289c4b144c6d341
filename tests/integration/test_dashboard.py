"""The dashboard in a browser: what it shows of a feed, what it says when there is none, and jobs from its form."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from support.dashboard import (
    NOW,
    STEPS,
    Gateway,
    candidate,
    degraded,
    empty,
    failed_job,
    job,
    opened,
    overview,
    scanned,
    scanning,
    series,
    substrate,
    telling,
)
from support.edge import PATH, REMOTE, ROOT, bundle, need_node
from support.gateway import Client, gateway_process
from support.nginx import Nginx
from support.pages import CUT_OFF, FAINT, Watched, opening
from support.system import RunningSystem

from packetfs_compute import kernels
from packetfs_compute.gateway.problems import Refusal

pytestmark = pytest.mark.integration

BUILT = ROOT / "packetfs_compute" / "gateway" / "static" / "dashboard"
FNV = "cbf29ce484222325"
MARKUP = "<img src=x onerror=\"window.hit='yes'\"><script>window.hit='yes'</script>"


def plain(text: str) -> str:
    """Return text with the thin spaces as they are typed."""
    return text.replace("\u202f", " ").replace("\u2009", " ")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, Client]]:
    gateway = Gateway()
    with telling(gateway) as client:
        yield gateway, client


@pytest.fixture
def gateway(served: tuple[Gateway, Client]) -> Gateway:
    """A gateway that nobody has told anything yet."""
    served[0].forget()
    return served[0]


@pytest.fixture
def client(served: tuple[Gateway, Client], gateway: Gateway) -> Client:
    return served[1]


@pytest.fixture(scope="module")
def opened_once(chromium: Browser, served: tuple[Gateway, Client]) -> Iterator[Watched]:
    """A page for all tests that need no browser of their own: to open one takes longer than they do."""
    with opening(chromium, served[1].url) as watched:
        yield watched


@pytest.fixture
def watched(opened_once: Watched, gateway: Gateway) -> Iterator[Watched]:
    """The page, loaded anew."""
    opened_once.anew()
    yield opened_once
    opened_once.check()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def row(page: Page, name: str) -> Locator:
    """Return a substrate's line."""
    return page.locator("#substrates tr").filter(has=page.get_by_role("rowheader").get_by_text(name, exact=True))


def heading(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


class TestFeed:
    def test_what_it_says_is_shown_and_goes_on(self, gateway: Gateway, page: Page) -> None:
        expect(heading(page)).to_have_text("Healthy")
        expect(page).to_have_title("Healthy – PacketFS")
        assert plain(page.locator("#jobs-rate").inner_text()).strip() == "21.0 /s"
        assert plain(page.locator("#usd").inner_text()).strip() == "6.17 USD"
        assert plain(page.locator("#open-jobs").inner_text()).split("\n") == ["12", "2 sent again"]
        assert plain(row(page, "fly").inner_text()).split()[-4:] == ["1.23", "USD", "in", "all"]
        for text in ("21.3 ms", "93.4 ms", "312 ms", "120 034 in all", "35 in all, 0.03 %", "1.05 MB/s"):
            assert text in plain(row(page, "fly").inner_text())
        expect(page.locator("#recent .job")).to_have_count(12)
        page.get_by_role("button", name="Show all 20").click()
        expect(page.locator("#recent .job")).to_have_count(20)
        assert page.locator("#browsers").inner_text().split()[:4] == ["Connected", "3", "Idle", "2"]
        expect(page.get_by_role("link", name="Flower")).to_have_attribute("href", "http://127.0.0.1:5555/")
        expect(page.get_by_role("link", name="Lend a browser")).to_have_attribute("href", "/browser/lend.html")

        later = overview(browsers=None, links={"flower": None, "docs": "/docs", "metrics": "/metrics"})
        later["substrates"][0]["jobs"]["done_per_s"] = 100
        gateway.say(later)
        expect(page.locator("#jobs-rate b")).to_have_text("117\u202f/s")
        for name in ("Flower", "Lend a browser"):
            expect(page.get_by_role("link", name=name)).to_have_count(0)
        expect(page.locator("#browsers-panel")).to_be_hidden()

    def test_a_breaker_opens_and_closes(self, gateway: Gateway, page: Page) -> None:
        expect(row(page, "fly").locator(".breaker")).to_have_text("closed")
        gateway.say(degraded())
        expect(heading(page)).to_have_text("Degraded")
        expect(page.locator("#unwell li")).to_have_text(
            re.compile("^fly: its breaker is open because of timeout: 9 of the")
        )
        breaker = row(page, "fly").locator(".breaker")
        expect(breaker).to_have_text(
            re.compile(r"^opentries again in 1[78].s · since 1[23].s · 2 times in a row · timeout: 9")
        )
        expect(breaker.locator("small")).to_have_attribute(
            "title", re.compile(r"^since 20\d\d-.*until 20\d\d-.*cause at 20")
        )
        half = degraded()
        half["substrates"][1]["breaker"] = {**opened(), "state": "half_open", "until": None}
        gateway.say(half)
        expect(breaker).to_have_text(re.compile("^half opensince"))
        closed = overview()
        closed["substrates"][1]["breaker"] = {**opened(), "state": "closed", "until": None}
        gateway.say(closed)
        expect(breaker).to_have_text(re.compile("^closedsince"))
        expect(heading(page)).to_have_text("Healthy")
        expect(page.locator("#unwell li")).to_have_count(0)

    def test_a_system_that_has_nothing_says_so(self, gateway: Gateway, page: Page) -> None:
        gateway.say(empty())
        expect(heading(page)).to_have_text("Unhealthy")
        expect(page.locator("#about-state")).to_have_text("No job could run now:")
        for text in ("No substrate is known yet.", "No job has ended yet.", "no job was done in this time"):
            expect(page.get_by_text(text, exact=True)).to_be_visible()
        assert plain(page.locator("#latency").inner_text()).strip() == "–"

    def test_what_is_not_known_is_a_dash(self, gateway: Gateway, page: Page) -> None:
        lacking: dict[str, Any] = {
            "latency_s": {"count": 0, "p50": None, "p95": None, "p99": None},
            "depth": None,
            "slots": None,
        }
        lacking |= {"bytes": 0, "bytes_per_s": 0, "usd": 0, "usd_per_hour": 0}
        unknown = job(1, length=None, cost_usd=None, total_s=None, substrate=None, attempts=[], decision=None)
        gateway.say(overview(substrates=[substrate("local", **lacking)], recent=[unknown]))
        expect(row(page, "local").get_by_text("–", exact=True)).to_have_count(4)
        assert {"0 B/s", "0 B in all", "0 USD"} <= set(
            re.split(r"\s*[\t\n]\s*", plain(row(page, "local").inner_text()))
        )
        page.locator("#recent button").click()
        expect(page.get_by_text("The decision behind it is not kept.")).to_be_visible()

    def test_a_substrate_keeps_its_colour(self, gateway: Gateway, page: Page) -> None:
        def looks() -> dict[str, str]:
            read = """(found, name) => found.map((one) => {
                return [one.querySelector(name).textContent, one.querySelector(".key").className];
            })"""
            told = dict(page.locator("#substrates th").evaluate_all(read, "b"))
            drawn = dict(page.locator("#done-chart .legend li").evaluate_all(read, ".who"))
            assert drawn.items() <= told.items()
            assert len(drawn) >= len(told) - 2  # who did nothing in these minutes is not drawn
            return told

        names = [f"place-{number}" for number in range(12)]
        gateway.say(overview(substrates=[substrate(name) for name in names], series=series(*names)))
        expect(page.locator("#substrates tr")).to_have_count(12)
        first = looks()
        assert len(set(first.values())) == 12
        fewer = [*names[5:], "another"]
        gateway.say(overview(substrates=[substrate(name) for name in fewer], series=series(*fewer)))
        expect(page.locator("#substrates tr")).to_have_count(8)
        assert {name: look for name, look in looks().items() if name != "another"} == {
            name: first[name] for name in names[5:]
        }
        gateway.say(overview(substrates=[substrate("local"), substrate("fly")]))
        expect(page.locator("#substrates tr")).to_have_count(2)

    def test_nothing_that_comes_becomes_markup(self, gateway: Gateway, page: Page) -> None:
        cause = opened(MARKUP, MARKUP)
        bad = failed_job(1, data_url=f"https://x/{MARKUP}", job_id=MARKUP, op=MARKUP, substrate=MARKUP)
        bad["error"] = {"type": MARKUP, "message": MARKUP}
        bad["attempts"][0]["error"] = {"type": MARKUP, "message": MARKUP}
        bad["decision"]["candidates"][0].update(substrate=MARKUP, veto=MARKUP)
        gateway.say(
            overview(
                status="degraded",
                unwell=[{"what": "breaker", "name": MARKUP, "message": MARKUP}, {"what": MARKUP, "message": MARKUP}],
                substrates=[substrate(MARKUP, breaker=cause, kind=MARKUP, region=MARKUP, provider=MARKUP)],
                series=series(MARKUP),
                recent=[bad],
                links={"flower": "javascript:window.hit='yes'", "docs": "/docs", "metrics": "/metrics"},
            )
        )
        expect(page.locator("#unwell li")).to_have_count(2)
        page.locator("#recent button").click()
        page.get_by_text("Values as a table").first.click()
        expect(page.locator(".more")).to_contain_text("onerror")
        expect(page.get_by_role("link", name="Flower")).to_have_count(0)
        assert page.locator("img, body script").count() == 0
        assert page.evaluate("window.hit") is None


class TestCharts:
    def test_each_has_its_values_in_words_and_in_a_table(self, page: Page) -> None:
        for chart in ("done", "failed", "latency", "cost"):
            figure = page.locator(f"#{chart}-chart")
            expect(figure.get_by_role("img")).to_have_accessible_name(re.compile(r"now: .+ at most "))
            figure.locator("summary").focus()
            page.keyboard.press("Enter")
            expect(figure.locator("tbody tr")).to_have_count(STEPS)
        told = page.locator("#done-chart .legend li").all_inner_texts()
        last = {name: series("local", "fly")["done"][name][-1] / 2 for name in ("local", "fly")}
        for name, rate in last.items():
            assert f"{name} {float(rate):.{1 if rate >= 10 else 2}f} /s" in [
                " ".join(plain(one).split()) for one in told
            ]

    def test_the_pointer_shows_a_moment_in_all(self, page: Page) -> None:
        clocks = page.locator(".clock")
        expect(clocks).to_have_count(4)
        before = clocks.all_inner_texts()
        page.locator("#done-chart .u-over").hover(position={"x": 40, "y": 40})
        expect(clocks.last).not_to_have_text(before[-1])
        assert len(set(clocks.all_inner_texts())) == 1


class TestKeyboard:
    def test_tab_goes_through_all_in_the_order_in_which_it_is_read(self, page: Page) -> None:
        expect(heading(page)).to_have_text("Healthy")
        stops: list[str] = []
        while stops[-1:] != ["Explain"] and len(stops) < 60:
            page.keyboard.press("Tab")
            stops.append(page.evaluate(NAME))
        jobs = [f"Job {one['job_id']}" for one in overview()["recent"][:12]]
        assert stops == [
            *("Submit a job", "API", "Metrics", "Flower", "Lend a browser"),
            *["Values as a table"] * 4,
            *("Only failed", *jobs, "Show all 20"),
            *("URL of the object", "First byte", "Length, bytes", "crc32c", "fnv64", "counteq", "xor", "add"),
            *("Goal", "Limits and places", "Submit", "Explain"),
        ]


NAME = """() => {
    const { activeElement: at } = document;
    return (at.ariaLabel ?? at.labels?.[0]?.textContent ?? at.textContent).trim();
}"""


class TestRecent:
    def test_a_row_opens_by_keyboard_and_stands_still(self, gateway: Gateway, page: Page) -> None:
        page.get_by_label("Only failed").focus()
        for _ in range(3):
            page.keyboard.press("Tab")
        button = page.locator("#recent button").nth(2)
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(button).to_have_attribute("aria-expanded", "true")
        more = page.locator(f"#{button.get_attribute('aria-controls')}")
        for text in (
            "fly timeout after 30.0 s",
            "local source_failed after 1.20 s",
            "Price of which egress Success Score",
        ):
            assert text in " ".join(plain(more.inner_text()).split())
        chosen = plain(more.locator("tbody tr").first.inner_text()).split("\t")
        assert chosen[:5] == ["local", "chosen", "4.00 ms", "21.0 ms", "25.0 ms"]
        assert chosen[5:] == ["2.1×10⁻⁷ USD", "0 USD", "99.3 %", "3.1×10⁻⁷ USD"]
        expect(more).to_contain_text("veto breaker open for 18 s more")

        fresh = [job(100 + number, at=NOW) for number in range(5)]
        gateway.say(overview(recent=[*fresh, *overview()["recent"]]))
        expect(page.locator("#held")).to_have_text("The list stands still while you read. 5\u202fnewer jobs.")
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(more).to_be_hidden()
        page.get_by_role("button", name="Show the newest").click()
        expect(page.locator("#recent button").first).to_have_accessible_name(f"Job {fresh[0]['job_id']}")

    def test_only_those_that_failed(self, page: Page) -> None:
        page.get_by_label("Only failed").check()
        expect(page.locator("#recent .job")).to_have_count(3)
        expect(page.locator("#recent .job .bad")).to_have_count(3)

    def test_what_came_from_the_cache_says_so(self, gateway: Gateway, page: Page) -> None:
        known = job(101, cached=True, attempts=[], decision=None)
        gateway.say(overview(recent=[known, job(102, attempts=[], decision=None)]))
        first = page.locator("#recent .job").first
        expect(first.locator(".state")).to_have_text("donefrom the cache")
        expect(page.locator("#recent .job").last.locator(".state")).to_have_text("done")
        for button in page.locator("#recent button").all():
            button.click()
        more = page.locator("#recent .more")
        expect(more.first).to_contain_text("From the cache, no attempt")
        expect(more.first).not_to_contain_text("Why there")
        expect(more.last).to_contain_text("No attempt is known.")


class TestScans:
    def test_one_that_runs_says_how_far_it_is(self, gateway: Gateway, page: Page) -> None:
        expect(page.locator("#scans-panel")).to_be_hidden()
        gateway.say(overview(scans=[scanning(2, rate_bytes_per_s=None, eta_s=None), scanning(1)]))
        rows = page.locator("#scans > li")
        expect(rows).to_have_count(2)
        told = plain(rows.last.inner_text()).split("\n")
        assert [line for line in told if line] == [
            "crc32c", scanning(1)["data_url"], "begun 1 min 33 s ago", "35 %", "Bytes", "37.6 GB of 107 GB", "Windows",
            "140 of 400", "Rate", "412 MB/s", "Left", "2 min 49 s", "Cost", "0.012 USD",
        ]  # fmt: skip
        assert [plain(one) for one in rows.first.locator("dd").all_inner_texts()][2:4] == ["–", "–"]
        bar = page.get_by_role("progressbar", name=f"Scan {scanning(1)['job_id']}")
        expect(bar).to_have_attribute("value", "0.3500")
        gateway.say(overview(scans=[scanning(1, bytes_done=107_374_182_400, windows_done=400)]))
        expect(rows).to_have_count(1)
        expect(bar).to_have_attribute("value", "1.0000")
        gateway.say(overview())
        expect(page.locator("#scans-panel")).to_be_hidden()

    def test_one_that_ended_is_a_row_of_its_own_and_a_window_says_whose_it_is(
        self, gateway: Gateway, page: Page
    ) -> None:
        whole = scanned(1, scan={"cached_bytes": 53_687_091_200, "appended_to": '"v1"'})
        window = failed_job(103, window_of=whole["job_id"])
        broken = failed_job(104, scan=dict.fromkeys(whole["scan"]), decision=None)
        gateway.say(overview(recent=[whole, window, broken]))
        expect(page.locator("#recent .job th small")).to_have_text(["scan", "in a scan", "scan"])
        expect(page.locator("#recent .job td:nth-child(8)").first).to_have_text("107\u202fGB")
        for button in page.locator("#recent button").all():
            button.click()
        told = [" ".join(plain(one).split()) for one in page.locator("#recent .more").all_inner_texts()]
        for text in (
            "Windows 400 of 268 MB",
            "Hedges 2",
            "From the cache 53.7 GB",
            'Appended to "v1"',
            "each place did",
        ):
            assert text in told[0]
        assert f"A window of the scan {whole['job_id']}" in told[1]
        assert "Windows" not in told[2]
        assert "Why there" not in told[0] + told[2]


class TestConnection:
    def test_it_asks_for_the_key_and_keeps_it_for_the_tab(self, gateway: Gateway, watched: Watched) -> None:
        page, watched.allowed = watched.page, "status of 401"
        gateway.key = "pfs_secret"
        page.reload()
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(page.locator("#key-problem")).to_be_hidden()
        expect(page.locator("#live")).to_be_hidden()
        page.keyboard.type("pfs_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-problem")).to_have_text(
            "the API key given is none of this gateway's: packetfs keys add"
        )
        expect(key).to_have_attribute("aria-invalid", "true")
        page.keyboard.type("pfs_secret")
        page.keyboard.press("Enter")
        expect(heading(page)).to_have_text("Healthy")
        expect(key).to_be_hidden()
        page.reload()
        expect(heading(page)).to_have_text("Healthy")
        assert page.evaluate("[localStorage.length, document.cookie, location.href]") == [0, "", f"{watched.url}/"]
        assert "pfs_secret" not in page.content()

    def test_it_says_that_the_connection_is_lost_and_comes_back(self, chromium: Browser) -> None:
        gateway = Gateway()
        with ExitStack() as up:
            down = up.enter_context(ExitStack())
            client = down.enter_context(telling(gateway))
            watched = up.enter_context(opening(chromium, client.url))
            page, watched.allowed = watched.page, "Failed to load resource|ERR_"
            link = page.locator("#link")
            expect(link).to_have_text("Live")
            down.close()
            expect(link).to_have_text(re.compile("^Connection lost: .+ Shown is how things were at [0-9:]{8}. Trying"))
            expect(page.locator("#live")).to_have_attribute("data-stale", "")
            expect(page).to_have_title("Connection lost – PacketFS")
            gateway.say(degraded())
            up.enter_context(telling(gateway, client.port))
            expect(heading(page)).to_have_text("Degraded", timeout=15_000)
            expect(link).to_have_text("Live")
            expect(page.locator("#live")).not_to_have_attribute("data-stale", "")

    def test_it_says_when_the_gateway_itself_does_not_know(self, gateway: Gateway, page: Page) -> None:
        gateway.problem = {"error": "unavailable", "detail": "the broker does not answer"}
        said = re.compile("^The gateway cannot say how things are: the broker does not answer")
        expect(page.locator("#link")).to_have_text(said)
        gateway.problem = None
        expect(page.locator("#link")).to_have_text("Live")

    def test_nobody_watches_while_the_page_is_hidden(self, gateway: Gateway, page: Page) -> None:
        expect(heading(page)).to_have_text("Healthy")
        for hidden, streams, said in (("true", 0, "Paused while this page is hidden"), ("false", 1, "Live")):
            page.evaluate(f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            for _ in range(250):
                if gateway.streams == streams:
                    break
                page.wait_for_timeout(20)
            assert gateway.streams == streams
            expect(page.locator("#link")).to_have_text(said)


def refused(error: str, name: str) -> Refusal:
    return Refusal(error, f"{name} is bad", {"field": name, "hint": "mend it"})


FIELDS = {
    "program.data_url": "URL of the object",
    "program.length": "Length, bytes",
    "program.ops[1].imm": "Byte that add takes, 0 to 255",
    "policy.max_cost_usd": "At most, USD",
}


class TestForm:
    @pytest.fixture(autouse=True)
    def _filled(self, page: Page) -> None:
        expect(heading(page)).to_have_text("Healthy")
        page.get_by_label("URL of the object").fill("https://host.example/object")

    def test_what_is_filled_in_is_what_is_asked(self, gateway: Gateway, page: Page) -> None:
        page.get_by_label("First byte").fill("5")
        page.get_by_label("Length, bytes").fill("9")
        page.get_by_label("counteq", exact=True).check()
        page.get_by_label("Byte that counteq counts, 0 to 255").fill("32")
        page.get_by_label("Goal").select_option("cheapest")
        page.get_by_text("Limits and places").click()
        page.get_by_label("At most, USD").fill("0.5")
        page.get_by_label("Deadline, seconds").fill("2.5")
        page.get_by_label("Trust at least").select_option("own")
        page.get_by_role("group", name="Only on").get_by_label("fly").check()
        page.get_by_role("button", name="Explain").click()
        expect(page.locator("#progress")).to_have_text(
            re.compile("It would run on local: 1.02.kB, by what was measured")
        )
        expect(page.locator("#answer tbody tr")).to_have_count(2)
        ops = [{"op": "crc32c"}, {"op": "counteq", "imm": 32}]
        program = {"data_url": "https://host.example/object", "offset": 5, "length": 9, "ops": ops}
        policy = {"goal": "cheapest", "trust": "own", "max_cost_usd": 0.5, "deadline_s": 2.5, "substrates": ["fly"]}
        assert gateway.asked == [("explain", {"program": program, "policy": policy})]

    def test_what_cannot_be_is_not_asked(self, gateway: Gateway, page: Page) -> None:
        page.get_by_label("xor", exact=True).check()
        page.get_by_label("Byte that xor takes").fill("256")
        page.get_by_role("button", name="Submit").click()
        page.get_by_label("Byte that xor takes").fill("255")
        page.get_by_label("URL of the object").fill("")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_label("URL of the object")).to_be_focused()
        assert gateway.asked == []

    def test_a_problem_stands_beside_its_field(self, gateway: Gateway, watched: Watched) -> None:
        page, watched.allowed = watched.page, "status of 400"
        page.get_by_label("add", exact=True).check()
        for name, label in FIELDS.items():
            gateway.refusal = refused("bad_program", name)
            page.get_by_role("button", name="Submit").click()
            control = page.get_by_label(label, exact=True)
            expect(control).to_be_focused()
            expect(control).to_have_attribute("aria-invalid", "true")
            expect(control).to_have_accessible_description(f"{name} is bad: mend it")
            gateway.refusal = None
            page.get_by_role("button", name="Explain").click()
            expect(control).not_to_have_attribute("aria-invalid", "true")
            expect(page.get_by_text("mend it")).to_have_count(0)

    def test_a_problem_without_a_field_is_told_too(self, gateway: Gateway, watched: Watched) -> None:
        watched.allowed = "status of 4"
        gateway.refusal = Refusal("busy", MARKUP, {"hint": "ask again in 3 s"}, {"Retry-After": "3"})
        watched.page.get_by_role("button", name="Submit").click()
        expect(watched.page.locator("#job-problem")).to_have_text(f"{MARKUP}: ask again in 3 s")

    def test_a_job_is_followed_to_its_end(self, gateway: Gateway, page: Page) -> None:
        gateway.statuses = [{"job_id": "j1", "status": "queued", "result": None, "error": None}]
        page.get_by_role("button", name="Submit").click()
        progress = page.locator("#progress")
        expect(progress).to_have_text("Queued: job j1")
        expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()
        gateway.statuses.append({**gateway.statuses[0], "status": "running"})
        expect(progress).to_have_text("Running: job j1")
        result = {
            "results": [{"op": "crc32c", "value": 255}, {"op": "fnv64", "value": FNV}, {"op": "xor", "imm": 3, "value": 16}],
            "bytes_processed": 1024, "substrate": "local", "region": "here", "cost_usd": 1.5e-7,
            "attempts": [{"substrate": "local", "ok": True, "error": None, "seconds": 0.012}],
            "timing": {"queued_s": None, "fetch_s": 0.011, "compute_s": 0.0001, "total_s": 0.018},
        }  # fmt: skip
        gateway.statuses.append({**gateway.statuses[0], "status": "done", "result": result})
        expect(progress).to_have_text("Done: job j1")
        rows = page.locator("#answer .results tbody tr").all_inner_texts()
        assert [one.split() for one in rows] == [
            ["crc32c", "255", "0x000000ff"],
            ["fnv64", FNV],
            ["xor", "3", "16", "0x10"],
        ]
        for text in ("Cost 1.5×10⁻⁷ USD", "Read 1.02 kB", "Where local, here", "Queued –", "local done after 12.0 ms"):
            assert text in " ".join(plain(page.locator("#answer").inner_text()).split())
        expect(page.get_by_role("button", name="Cancel the job")).to_be_hidden()

    def test_a_job_is_cancelled(self, gateway: Gateway, page: Page) -> None:
        gateway.statuses = [{"job_id": "j:1", "status": "queued", "result": None, "error": None}]
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("button", name="Cancel the job").press("Enter")
        expect(page.locator("#progress")).to_have_text("Cancelled: job j:1")
        expect(page.get_by_role("button", name="Submit")).to_be_focused()
        assert gateway.asked[-1] == ("cancel", "j:1")


class TestReal:
    def test_a_job_runs_and_is_seen(self, chromium: Browser, system: RunningSystem, nginx: Nginx) -> None:
        data = bytes(range(256)) * 64
        (nginx.www / "dashboard.bin").write_bytes(data)
        with (
            gateway_process(system.environ, system.files) as running,
            opening(chromium, running.client.url) as watched,
        ):
            page = watched.page
            expect(row(page, "local").locator(".breaker")).to_have_text("closed", timeout=20_000)
            page.get_by_label("URL of the object").fill(nginx.url("dashboard.bin"))
            page.get_by_role("button", name="Submit").click()
            expect(page.locator("#progress")).to_have_text(re.compile("^Done: job "), timeout=20_000)
            value = str(kernels.crc32c(data))
            expect(page.locator("#answer .results td").first).to_have_text(value)
            mine = page.get_by_role("button", name=f"Job {page.locator('#progress').inner_text().rpartition(' ')[2]}")
            mine.click(timeout=20_000)
            expect(page.locator(".more:not([hidden])")).to_contain_text("local done after")
            page.get_by_role("button", name="Explain").click()
            expect(page.locator("#answer tbody tr").first).to_contain_text("local")


@pytest.mark.parametrize("width", [1280, 360])
def test_how_it_looks(chromium: Browser, client: Client, gateway: Gateway, width: int) -> None:
    """It fits the window, every control has a name, and all text stands out from its ground, stale text too."""
    long = substrate("a-place-whose-name-is-" + 10 * "very-" + "long", breaker=opened(message="without_a_space" * 20))
    document = degraded()
    document["substrates"].append(long)
    document["unwell"].append({"what": "queue", "name": long["name"], "message": "x" * 300})
    document["scans"] = [scanning(1), {**scanning(2), "data_url": "https://host.example/" + "z" * 500}]
    document["recent"][1] = scanned(1, cached=True)
    document["recent"][0] = failed_job(0, data_url="https://host.example/" + "x" * 500)
    document["recent"][0]["error"]["message"] = "y" * 300
    document["recent"][0]["decision"]["candidates"].append(candidate(long["name"], veto="v" * 100))
    gateway.say(document)
    with opening(chromium, client.url, viewport={"width": width, "height": 900}) as watched:
        page = watched.page
        page.locator("#recent button").first.click()
        for summary in ("#done-chart summary", "#policy summary"):
            page.locator(summary).click()
        page.get_by_label("URL of the object").fill("https://host.example/object")
        page.get_by_role("button", name="Explain").click()
        expect(page.locator("#answer tbody tr")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate(CUT_OFF) == []
        for role in ("button", "checkbox", "combobox", "img", "region", "spinbutton", "table", "textbox"):
            controls = page.get_by_role(role)
            named = page.get_by_role(role, name=re.compile("."))
            assert controls.count() == named.count() > 0, role
        for stale in (False, True):
            if stale:
                gateway.problem = {"error": "unavailable", "detail": "the broker does not answer"}
                expect(page.locator("#live")).to_have_attribute("data-stale", "")
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(FAINT) == [], (stale, scheme)


NUMBERS = [
    ("short", 0, "0"), ("short", 0.999, "1.00"), ("short", 12.34, "12.3"), ("short", 123.4, "123"),
    ("short", 1234567.8, "1 234 568"),
    ("short", 0.0234, "0.023"), ("short", 2.04e-7, "2×10⁻⁷"), ("short", -3.16e-12, "-3.2×10⁻¹²"),
    ("seconds", 0, "0 s"), ("seconds", 0.0000042, "4.20 µs"), ("seconds", 0.0421, "42.1 ms"), ("seconds", 99.9, "99.9 s"),
    ("seconds", 150, "2 min 30 s"), ("span", 59.6, "1 min"), ("span", 3600, "1 h"), ("span", 90061, "1 d 1 h"),
    ("span", -4, "0 s"),
    ("bytes", 0, "0 B"), ("bytes", 999, "999 B"), ("bytes", 1000, "1.00 kB"), ("bytes", 123456789012, "123 GB"),
    ("bytes", 1e21, "1 000 000 PB"), ("usd", 0, "0 USD"), ("usd", 1234.5, "1 234.50 USD"), ("usd", 0.0021, "0.0021 USD"),
    ("percent", 1, "100 %"), ("percent", 0.99314, "99.3 %"), ("percent", 0.00029, "0.03 %"),
    ("whole", 1234567, "1 234 567"), ("whole", None, "–"), ("perSecond", None, "–"), ("perSecond", 0.5, "0.50 /s"),
]  # fmt: skip
"""What a function of ``format.ts`` makes of a number; the spaces are thin ones."""


def test_numbers_read_as_numbers(tmp_path: Path) -> None:
    bundle(REMOTE / "dashboard" / "src" / "format.ts", tmp_path / "format.mjs")
    calls = json.dumps([[name, value] for name, value, _ in NUMBERS])
    told = f"{calls}.map(([name, value]) => f[name](value))"
    script = f"import * as f from './format.mjs'; console.log(JSON.stringify({told}))"
    (tmp_path / "calls.mjs").write_text(script, "utf-8")
    done = subprocess.run([need_node(), tmp_path / "calls.mjs"], capture_output=True, text=True, timeout=30, check=True)
    assert [plain(one) for one in json.loads(done.stdout)] == [text for _, _, text in NUMBERS]


class TestBuild:
    def test_what_is_committed_is_what_the_sources_give(self, tmp_path: Path) -> None:
        build = REMOTE / "dashboard" / "build.mjs"
        done = subprocess.run(
            [need_node(), str(build), "--output", str(tmp_path / "built")],
            env={"PATH": PATH}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = {file.name: file.read_bytes() for file in (tmp_path / "built").iterdir()}
        assert set(made) == {file.name for file in BUILT.iterdir()}
        assert [name for name in made if made[name] != (BUILT / name).read_bytes()] == [], (
            "run node remote/dashboard/build.mjs"
        )

    def test_the_licence_of_what_it_holds_is_with_it(self) -> None:
        assert "MIT License" in (BUILT / "uplot.LICENSE.txt").read_text("utf-8")
        for name in ("dashboard.js", "dashboard.css"):
            assert re.match(
                r"/\*! Holds uPlot [\d.]+, .+ MIT License.+uplot\.LICENSE\.txt", (BUILT / name).read_text("utf-8")
            )

    def test_nothing_in_it_is_inline_or_from_elsewhere(self) -> None:
        page = (BUILT / "index.html").read_text("utf-8")
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", page)
        assert all(url.startswith(("/", "#")) for url in re.findall(r'(?:href|src)="([^"]*)"', page))

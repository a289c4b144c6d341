"""A page in a browser, and whatever it does that it should not; what of a page's looks can be measured."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.sync_api import Browser, Page

_VIOLATIONS: Final = """
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective + event.blockedURI));
"""

CUT_OFF: Final = """() => [...document.querySelectorAll(".panel")]
    .filter((panel) => panel.scrollWidth > panel.clientWidth + 1)
    .map((panel) => panel.textContent.slice(0, 40))"""
"""The panels that something sticks out of."""

FAINT: Final = """() => {
    const parsed = (text) => {
        const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number);
        return [r, g, b, a];
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at !== null; at = at.parentElement) {
            const found = parsed(getComputedStyle(at).backgroundColor);
            if (found[3] > 0) return found;
        }
        return [255, 255, 255, 1];
    };
    const behind = parsed(getComputedStyle(document.body).backgroundColor);
    const opacity = (element) => {
        let all = 1;
        for (let at = element; at !== null; at = at.parentElement) all *= Number(getComputedStyle(at).opacity);
        return all;
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *:not(tr:nth-child(n + 8) *)")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || element.disabled || !element.checkVisibility() || element.tagName === "OPTION") continue;
        const shine = opacity(element);
        const mixed = (colour) => colour.slice(0, 3).map((c, i) => c * shine + behind[i] * (1 - shine));
        const pair = [parsed(getComputedStyle(element).color), ground(element)].map((colour) => light(mixed(colour)));
        const [a, b] = pair.sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) faint.push([element.textContent.trim().slice(0, 30), contrast]);
    }
    return faint;
}"""
"""The texts that do not stand out from their ground by 4.5:1 (WCAG 2.2, 1.4.3), of long tables only the first rows."""


@dataclass
class Watched:
    """A page, and whatever it did that it should not."""

    page: Page
    url: str
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    allowed: str = "nothing"
    """A pattern of what the console may say: the browser itself reports each answer that is an error."""

    def anew(self) -> None:
        """Load the page as for the first time."""
        self.page.evaluate("sessionStorage.clear()")
        self.page.mouse.move(0, 0)
        self.page.goto(self.url)
        self.console, self.foreign, self.allowed = [], [], "nothing"

    def check(self) -> None:
        """Hold it against the page."""
        assert [one for one in self.console if not re.search(self.allowed, one)] == []
        assert self.foreign == []
        assert self.page.evaluate("window.violations") == []
        assert not re.search(r"\bNaN\b|undefined|\[object|Infinity", self.page.locator("body").inner_text())


@contextmanager
def opening(chromium: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """Open a page in a browser of its own; afterwards nothing may be held against it."""
    context = chromium.new_context(**options)
    context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    page.set_default_timeout(5000)
    watched = Watched(page, url)
    page.on("console", lambda message: watched.console.append(message.text))
    page.on("pageerror", lambda error: watched.console.append(str(error)))
    page.on("request", lambda request: watched.foreign.append(request.url) if not request.url.startswith(url) else None)
    page.goto(url)
    yield watched
    watched.check()
    context.close()

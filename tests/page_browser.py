"""The server's page in a headless browser that reports whatever a page should not do."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

expect.set_options(timeout=20_000)  # a loaded machine takes its time

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Seen:
    """What a page did while it was open."""

    requests: list[Request] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def reranks(self) -> list[Request]:
        return [request for request in self.requests if request.url.endswith("/v1/rerank")]


class Window:
    """One window for many pages, since opening one takes longer than most tests.

    Args:
        page: The browser's.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._seen = Seen()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: self._seen.requests.append(request))
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._seen.messages.append(f"error: {error}"))
        page.on("dialog", self._asked)

    @contextmanager
    def opened(self, address: str, *, expected: Collection[str] = ()) -> Iterator[tuple[Page, Seen]]:
        """The page, new; at the end it must have asked nobody but the server, and stored and complained of nothing.

        Args:
            address: Of the server.
            expected: Parts of what the browser may complain of, e.g. of a status that a test is about.
        """
        page, seen = self._page, Seen()
        self._seen = seen
        page.set_viewport_size({"width": 1280, "height": 720})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.goto(address)
        yield page, seen
        kept = page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length")
        assert kept == 0, "the page stored something"
        assert page.url == f"{address}/", "the page's address changed"
        elsewhere = [one.url for one in seen.requests if not one.url.startswith((f"{address}/", "data:"))]
        assert not elsewhere, "the page asked somebody else"
        unexpected = [one for one in seen.messages if not any(part in one for part in expected)]
        assert not unexpected, "the browser complained"

    def _said(self, message: ConsoleMessage) -> None:
        self._seen.messages.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Dialog) -> None:
        self._seen.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def browser_window() -> Iterator[Window]:
    """A window of the system's own Chromium, or a skip where there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield Window(browser.new_page())
        browser.close()


def fill(page: Page, query: str, documents: str) -> None:
    page.get_by_label("Query").fill(query)
    page.get_by_label("Documents", exact=True).fill(documents)


def rerank(page: Page) -> None:
    """Ask for a ranking, by keyboard, and wait until no model is left to answer."""
    page.keyboard.press("Control+Enter")
    expect(page.locator("#columns")).to_have_attribute("aria-busy", "false")


def order(page: Page, model: str) -> list[int]:
    """The documents in a model's column, by their places among those that were given."""
    hits = page.get_by_role("region", name=model, exact=True).get_by_role("listitem")
    return [int(index) for index in hits.evaluate_all("hits => hits.map((hit) => hit.dataset.index)")]


def contrasts(page: Page) -> list[tuple[str, float, float]]:
    """Of each visible text and each edge of a control: what it is, its contrast, and what WCAG 2.2 AA asks for."""
    return [tuple(one) for one in page.evaluate(_CONTRASTS)]


_CONTRASTS = """() => {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const [r, g, b, alpha = 1] = colour(getComputedStyle(element).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (!element.getClientRects().length || element.closest(".away, svg, script")) continue;
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const name = `${element.tagName} ${element.id || element.className} ${element.textContent.slice(0, 20)}`;
    if (own || element.value) found.push([name, contrast(colour(style.color), ground(element)), 4.5]);
    if (element.placeholder) {
      const faint = colour(getComputedStyle(element, "::placeholder").color);
      found.push([`${name} placeholder`, contrast(faint, ground(element)), 4.5]);
    }
    if (element.matches("textarea, button, input[id]:not([type=checkbox])")) {
      const edge = contrast(colour(style.borderTopColor), ground(element.parentElement));
      found.push([`${name} edge`, edge, 3]);
    }
  }
  return found;
}"""

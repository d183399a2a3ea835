"""Draws the images of the server's page that the documentation shows: ``python tests/page_images.py``."""

from __future__ import annotations

from pathlib import Path

from page_browser import browser_window, expect, rerank
from serving import serving
from uprank import Reranker

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    models = {"embedded": Reranker("embedded"), "bm25": Reranker("bm25")}
    with serving(models) as address, browser_window() as window, window.opened(address) as (page, _):
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("button", name="Fill in an example").click()
        page.get_by_role("checkbox", name="bm25").check()
        for _ in range(2):  # the first loads the models
            rerank(page)
        page.get_by_role("region", name="embedded").get_by_role("listitem").first.hover()
        expect(page.locator(".hit.lit")).to_have_count(3)
        for scheme, name in (("light", "server-page.png"), ("dark", "server-page-dark.png")):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()

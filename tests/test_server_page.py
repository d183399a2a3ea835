"""The page at ``/``, as a person uses it: in a real browser, against a real server."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack

import httpx
import pytest

from page_browser import browser_window, contrasts, expect, fill, order, rerank
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.errors import ServiceError

QUERY = "how do I open a file in Python?"
DOCUMENTS = [
    "The museum opens at nine and closes at six.",
    "A python is a large snake that does not bite.",
    "with open(path) as file: reads a file line by line",
    "File the edges of the wood before you paint it.",
    "pathlib.Path(path).read_text() returns all that is in a file",
]
REFUSED = "Failed to load resource: the server responded with a status of"


@pytest.fixture(scope="module")
def models():
    return {"embedded": Reranker("embedded"), "bm25": Reranker("bm25")}


@pytest.fixture(scope="module")
def address(models):
    with serving(models) as address:
        yield address


@pytest.fixture(scope="module")
def window():
    with browser_window() as window:
        yield window


def first_of_two(table):
    """A reranker whose first model fails, which its answers come with a warning of."""
    return Reranker(failing("first", "cosine"), fallback=[TableScorer("second", table, kind="cosine")])


def failing(name, kind="logit"):
    return TableScorer(name, {}, kind=kind, fails={"*": ServiceError("It does not answer.", model=name)})


def focused(page):
    """What has the focus, and whether that can be seen."""
    return page.evaluate(
        """() => {
          const one = document.activeElement, style = getComputedStyle(one);
          return [one.id || one.value || one.textContent.trim(), style.outlineStyle === "solid"];
        }"""
    )


def test_with_the_keyboard_alone_each_model_gives_the_order_that_it_gives_in_process(window, address, models):
    with window.opened(address) as (page, seen):
        expect(page.get_by_role("checkbox", name="embedded")).to_be_checked()
        visited = []

        def tab(times):
            for _ in range(times):
                page.keyboard.press("Tab")
                visited.append(focused(page))

        tab(2)
        page.keyboard.insert_text(QUERY)
        tab(1)
        page.keyboard.insert_text("\n".join(DOCUMENTS))
        tab(3)
        page.keyboard.press("Space")
        tab(3)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("bm25 ranked 5 documents")
        stops = ["API reference", "query", "documents", "lines", "embedded", "bm25", "top", "instruction", "Rerank"]
        assert visited == [[stop, True] for stop in stops]
        assert order(page, "Original order") == [0, 1, 2, 3, 4]
        for name, reranker in models.items():
            ranking = reranker.rank(QUERY, DOCUMENTS)
            column = page.get_by_role("region", name=name, exact=True)
            assert order(page, name) == [hit.index for hit in ranking]
            scores = [float(one) for one in column.locator("data").evaluate_all("all => all.map((one) => one.value)")]
            assert scores == pytest.approx([hit.score for hit in ranking], abs=1e-5)
            assert column.locator(".text").all_inner_texts() == [hit.document.text for hit in ranking]
        assert [request.post_data_json["model"] for request in seen.reranks] == ["embedded", "bm25"]


def test_a_column_says_what_moved_how_sure_the_model_is_and_how_long_it_took(window):
    with (
        serving({"table": first_of_two({"a": -1.5, "b": 12.25, "c": 0.00002})}) as address,
        window.opened(address) as (page, _),
    ):
        fill(page, "q", "a\nb\nc")
        rerank(page)
        column = page.get_by_role("region", name="table")
        words = [" ".join(one.split()) for one in column.locator(".facts").all_text_contents()]
        assert words == [
            "▲ 1up by 1,was 2score 12.25",
            "▲ 1up by 1,was 3score 2.0e−5",
            "▼ 2down by 2,was 1score −1.500",
        ]
        bars = column.locator(".bar > div").evaluate_all("bars => bars.map((bar) => bar.style.width)")
        assert bars == ["100%", "10.9%", "0%"]
        expect(column.get_by_text("second answered; first did not")).to_be_visible()
        facts = column.locator("header p").inner_text()
        assert "scores: cosine" in facts
        here, in_server = (float(part.split()[0]) for part in facts.splitlines()[0].split(", "))
        assert 0 <= in_server <= here + 1, "the server cannot take longer than the whole"


def test_scores_are_named_by_what_they_are_in_the_reply(window):
    with (
        serving({"table": Reranker(TableScorer("table", {"a": 0.0, "b": -3.0}))}) as address,
        window.opened(address) as (page, _),
    ):
        fill(page, "q", "a\nb")
        rerank(page)
        column = page.get_by_role("region", name="table")
        assert column.locator(".facts data").all_text_contents() == ["score 0.500", "score 0.047"]
        assert "scores: probability" in column.locator("header p").inner_text()
        bars = column.locator(".bar > div").evaluate_all("bars => bars.map((bar) => bar.style.width)")
        assert bars == ["50%", "4.7%"]


def test_text_that_looks_like_markup_stays_text(window, address):
    hostile = "<img src=/x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    with window.opened(address) as (page, seen):
        fill(page, hostile, json.dumps([hostile, {"text": hostile + " two", "url": "javascript:alert(1)"}]))
        rerank(page)
        shown = page.get_by_role("region", name="embedded").locator(".text").all_inner_texts()
        assert sorted(shown) == [hostile, hostile + " two"]
        assert page.title() == "uprank: rerank and compare"
        assert page.locator("#columns").locator("img, script, a").count() == 0
        assert not [one for one in seen.requests if one.url.endswith("/x")]


def test_documents_are_taken_by_lines_by_blank_lines_or_as_json(window, address):
    cases = [
        (" one \n\n two\r\nthree\n", "Lines", ["one", "two", "three"]),
        ("one\nmore\n \n\ntwo\n", "Blank lines", ["one\nmore", "two"]),
        ("[1] one\n[2] two\n\nthree", None, ["[1] one\n[2] two", "three"]),
        ('["one", {"text": "two", "id": 7}]', None, ["one", {"text": "two", "id": 7}]),
    ]
    with window.opened(address) as (page, seen):
        for given, format, sent in cases:
            fill(page, "q", given)
            if format:
                page.get_by_role("radio", name=format, exact=True).check()
            expect(page.locator("#count")).to_have_text(f"{len(sent)} documents")
            rerank(page)
            assert seen.reranks[-1].post_data_json["documents"] == sent


def test_what_is_missing_is_said_at_its_field_until_it_is_mended_and_nothing_is_asked(window, address):
    cases = [
        ({"query": "  "}, "query", "There is no query yet."),
        ({"documents": "\n \n"}, "documents", "There are no documents yet."),
        ({"documents": "[1", "format": "JSON"}, "documents", "This is not a JSON list"),
        ({"documents": '["a", 2]', "format": "JSON"}, "documents", "Document 2 is neither a string"),
        ({"top": "0"}, "top", "Top takes a whole number"),
        ({"top": "all"}, "top", "Top takes a whole number"),
        ({"models": False}, "models", "Choose a model."),
    ]
    right = {"query": "q", "documents": "a\nb", "format": "Lines", "top": "", "models": True}

    def give(query, documents, format, top, models):
        fill(page, query, documents)
        page.get_by_role("radio", name=format, exact=True).check()
        page.get_by_label("Top").fill(top)
        page.get_by_role("checkbox", name="embedded").set_checked(models)

    with window.opened(address) as (page, seen):
        for changes, field, problem in cases:
            give(**{**right, **changes})
            page.keyboard.press("Control+Enter")
            expect(page.locator(".problem:visible")).to_have_count(1)
            expect(page.locator(f"#{field}-problem")).to_contain_text(problem)
            expect(page.get_by_role("status")).to_contain_text(problem)
            if field == "models":
                expect(page.get_by_role("checkbox", name="embedded")).to_be_focused()
            else:
                expect(page.locator(f"#{field}")).to_be_focused()
                expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")
        assert not seen.reranks
        give(**right)
        rerank(page)
        expect(page.locator(".problem:visible")).to_have_count(0)
        expect(page.locator("[aria-invalid=true]")).to_have_count(0)


def test_a_key_is_asked_for_sent_and_forgotten(window, monkeypatch):
    monkeypatch.setenv("PAGE_KEY", "the-right-key")
    table = {"table": Reranker(TableScorer("table", {"a": 1.0, "b": 2.0}))}
    with (
        serving(table, keys=[{"env": "PAGE_KEY"}]) as address,
        window.opened(address, expected=[f"{REFUSED} 401"]) as (page, seen),
    ):
        key = page.get_by_label("Key")
        expect(key).to_have_attribute("type", "password")
        expect(page.locator("#key-help")).to_contain_text("This server needs a key.")
        expect(page.locator("#models")).to_contain_text("once there is a key")
        expect(page.locator(".problem:visible, [aria-invalid=true]")).to_have_count(0)  # nobody did anything wrong yet
        fill(page, "q", "a\nb")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#key-problem")).to_contain_text("There is no key yet.")
        expect(key).to_be_focused()
        key.fill("a-wrong-key")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#key-problem")).to_contain_text("none of this server's")
        key.fill("the key—mistyped")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#key-problem")).to_contain_text("no header can carry")
        key.fill("the-right-key")
        rerank(page)
        expect(page.locator("#key-problem")).to_be_hidden()
        assert order(page, "table") == [1, 0]
        assert seen.reranks[-1].headers["authorization"] == "Bearer the-right-key"
        page.reload()
        expect(key).to_have_value("")
        expect(page.get_by_label("Query")).to_have_value("")


def test_what_the_server_refuses_stands_in_the_models_column_in_its_words(window):
    served = {"works": Reranker(TableScorer("works", {"a": 1.0, "b": 2.0})), "failing": Reranker(failing("failing"))}
    with (
        serving(served, limits={"documents": 2}) as address,
        window.opened(address, expected=[f"{REFUSED} 422", f"{REFUSED} 502"]) as (page, _),
    ):
        fill(page, "q", "a\nb")
        page.get_by_role("checkbox", name="failing").check()
        rerank(page)
        expect(page.get_by_role("region", name="failing")).to_contain_text("failed")
        assert order(page, "works") == [1, 0]
        fill(page, "q", "a\nb\nc")
        rerank(page)
        expect(page.get_by_role("region", name="works")).to_contain_text("more than the 2")
        assert order(page, "works") == []


def test_a_server_that_is_gone_is_told_of(window):
    with ExitStack() as opening:
        with serving({"table": Reranker(TableScorer("table", {"a": 1.0}))}) as address:
            page, _ = opening.enter_context(window.opened(address, expected=["net::ERR_CONNECTION_REFUSED"]))
            expect(page.get_by_role("checkbox", name="table")).to_be_checked()
        fill(page, "q", "a")
        rerank(page)
        expect(page.get_by_role("region", name="table")).to_contain_text("The server cannot be reached.")


@pytest.mark.slow
def test_two_hundred_documents_of_which_the_best_five_are_wanted(window, address, models):
    documents = [f"note {number} on {word}" for number in range(100) for word in ("files", "snakes")]
    with window.opened(address) as (page, _):
        fill(page, "snakes 17", "\n".join(documents))
        page.get_by_role("checkbox", name="embedded").uncheck()
        page.get_by_role("checkbox", name="bm25").check()
        page.get_by_label("Top").fill("5")
        rerank(page)
        assert order(page, "bm25") == [hit.index for hit in models["bm25"].rank("snakes 17", documents, top_n=5)]
        assert len(order(page, "Original order")) == 200
        expect(page.get_by_role("region", name="bm25")).to_contain_text("the first 5 of 200")


def test_an_instruction_is_sent(window):
    scorer = TableScorer("table", {"a": 1.0, "b": 2.0}, instructed=True)
    with serving({"table": Reranker(scorer)}) as address, window.opened(address) as (page, _):
        fill(page, "q", "a\nb")
        page.get_by_label("Instruction").fill("prefer the newest")
        rerank(page)
        assert order(page, "table") == [1, 0]
    assert [request.instruction for call in scorer.calls for request in call] == ["prefer the newest"]


def test_escape_and_the_button_stop_what_is_under_way(window):
    release = threading.Event()

    def slow(query, texts):
        release.wait(20)
        return [float(number) for number in range(len(texts))]

    with serving({"slow": Reranker(slow), "next": Reranker(slow)}) as address, window.opened(address) as (page, seen):
        fill(page, "q", "a\nb")
        page.get_by_role("checkbox", name="next").check()
        for stop in (lambda: page.keyboard.press("Escape"), page.get_by_role("button", name="Stop").click):
            page.keyboard.press("Control+Enter")
            expect(page.get_by_role("status")).to_contain_text("Reranking with slow")
            stop()
            for name in ("slow", "next"):
                expect(page.get_by_role("region", name=name)).to_contain_text("Stopped.")
            expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        release.set()
        rerank(page)
        assert order(page, "slow") == order(page, "next") == [1, 0]
        assert {request.post_data_json["model"] for request in seen.reranks} == {"slow", "next"}


def test_the_example_is_filled_in_and_ranks(window, address):
    with window.opened(address) as (page, _):
        page.get_by_role("button", name="Fill in an example").click()
        expect(page.locator("#count")).to_have_text("10 documents")
        rerank(page)
        first = page.get_by_role("region", name="embedded").locator(".text").first
        expect(first).to_contain_text("dogs")


@pytest.mark.slow
def test_a_long_text_is_cut_until_it_is_wanted_whole(window, address):
    with window.opened(address) as (page, _):
        fill(page, "q", "many words " * 100)
        rerank(page)
        text = page.get_by_role("region", name="embedded").locator(".text")
        cut = text.bounding_box()["height"]
        page.get_by_role("checkbox", name="Whole texts").check()
        assert text.bounding_box()["height"] > 2 * cut


def test_everything_can_be_read_in_light_and_dark(window):
    served = {"warning": first_of_two({"a": 1.0, "b": 2.0}), "failing": Reranker(failing("failing"))}
    with serving(served) as address, window.opened(address, expected=[f"{REFUSED} 502"]) as (page, _):
        fill(page, "q", "a\nb")
        page.get_by_role("checkbox", name="failing").check()
        rerank(page)
        page.get_by_label("Top").fill("none")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#top-problem")).to_be_visible()
        page.locator(".hit").first.hover()
        expect(page.locator(".hit.lit")).to_have_count(2)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = contrasts(page)
            seen = " ".join(name for name, *_ in found)
            parts = ("▲ 1", "▼ 1", "warning", "problem", "placeholder", "edge", "Rerank", "Documents")
            assert [part for part in parts if part not in seen] == []
            assert [one for one in found if one[1] < one[2]] == []
            ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            assert (max(ground) < 64) == (scheme == "dark")


@pytest.mark.slow
def test_no_width_makes_the_page_wider_than_the_window(window, address):
    names = ("embedded", "bm25", "Original order")
    with window.opened(address) as (page, _):
        fill(page, QUERY, "\n".join([*DOCUMENTS, "unbroken" * 60]))
        page.get_by_role("checkbox", name="bm25").check()
        for width in (1280, 700, 320):
            page.set_viewport_size({"width": width, "height": 700})
            page.evaluate("() => scrollTo(0, 0)")
            rerank(page)
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width
            assert page.locator("#columns").bounding_box()["y"] < 700, "the result is out of sight"
            boxes = [page.get_by_role("region", name=name, exact=True).bounding_box() for name in names]
            tops = [box["y"] for box in boxes]
            if width == 320:  # one column under the other, what is new first
                assert tops == sorted(set(tops))
                assert min(box["width"] for box in boxes) > 250
            else:
                assert len(set(tops)) == 1


@pytest.mark.slow
def test_columns_that_do_not_fit_are_announced_by_a_fading_edge(window):
    table = {"a": 1.0, "b": 2.0}
    served = {name: Reranker(TableScorer(name, table)) for name in ("one", "two", "three", "four")}
    with serving(served) as address, window.opened(address) as (page, _):
        columns = page.locator("#columns")
        hidden = "(columns) => [columns.scrollWidth - columns.clientWidth, columns.tabIndex]"
        edges = """(columns) => {
          const style = getComputedStyle(columns);
          return [style.maskImage !== "none", ...["--before", "--after"].map((name) => style.getPropertyValue(name))];
        }"""
        fill(page, "q", "a\nb")
        for name in ("two", "three"):
            page.get_by_role("checkbox", name=name).check()
        rerank(page)
        assert columns.evaluate(hidden) == [0, -1]
        assert columns.evaluate(edges) == [True, "0rem", "0rem"]
        page.get_by_role("checkbox", name="four").check()
        rerank(page)
        beyond, stop = columns.evaluate(hidden)
        assert beyond > 50
        assert stop == 0, "the keyboard cannot scroll it"
        assert columns.evaluate(edges) == [True, "0rem", "3rem"]
        columns.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        expect(columns).to_have_class("more-before")
        assert columns.evaluate(edges) == [True, "3rem", "0rem"]
        page.set_viewport_size({"width": 1600, "height": 720})
        expect(columns).not_to_have_class("more-before")
        assert columns.evaluate(hidden) == [0, -1]


@pytest.mark.slow
def test_hits_slide_only_for_those_who_take_motion(window, address):
    with window.opened(address) as (page, _):
        page.evaluate(
            """() => {
              const { animate } = Element.prototype;
              window.slides = 0;
              Element.prototype.animate = function (...given) {
                window.slides += 1;
                return animate.apply(this, given);
              };
            }"""
        )
        fill(page, QUERY, "\n".join(DOCUMENTS))
        rerank(page)
        assert page.evaluate("() => window.slides") == 0
        page.emulate_media(reduced_motion="no-preference")
        rerank(page)
        assert page.evaluate("() => window.slides") == len(DOCUMENTS)


def test_the_page_lets_only_its_own_script_run(window, address):
    reply = httpx.get(f"{address}/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert httpx.head(f"{address}/").status_code == 200
    with window.opened(address, expected=["Content Security Policy", "requires 'Trusted"]) as (page, seen):
        page.evaluate(
            """() => {
              for (const tag of ["script", "style"]) {
                const element = document.createElement(tag);
                element.append(tag === "script" ? "document.title = 'taken'" : "body { opacity: 0.5 }");
                document.head.append(element);
              }
              new Image().src = "/image";
              try { document.body.innerHTML = "<b>taken</b>"; } catch { window.kept = true; }
            }"""
        )
        assert page.evaluate("() => window.kept")
        assert page.title() == "uprank: rerank and compare"
        assert page.evaluate("() => getComputedStyle(document.body).opacity") == "1"
        for what in ("TrustedScript", "TrustedHTML", "inline style", "the image"):
            assert any(what in message for message in seen.messages), what


def test_the_page_and_its_link_to_the_reference_can_be_left_out(models):
    with serving(models, page=False) as address:
        assert httpx.get(f"{address}/").status_code == 404
    with serving(models, docs=False) as address:
        assert "API reference" not in httpx.get(f"{address}/").text

"""The dashboard in a browser: panels, keys, the address, two tabs; nothing is loaded from elsewhere, and names are text."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch

pytest.importorskip("nicegui", reason="needs the extra dashboard")
from ontogeny.dashboard.attention_page import write_attention_page
from ontogeny.models.vision import load_image_model
from ontogeny.views import load_views
from tests.dashboard.conftest import HOSTILE
from tests.helpers.browser import open_chromium
from tests.helpers.chat_runs import CHAT_TEMPLATE, YES, chat_pack, chat_run

pytestmark = pytest.mark.browser
CONCEPT = ".choice:has(span:text-is('concept')) select"
"""The choice of a concept; cells of a chart have the word in their labels."""


@pytest.fixture(scope="module")
def address(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of two runs: many records without a model, and a model with few and a gauge pack."""
    from ontogeny.dashboard.chat_options import ChatOptions
    from ontogeny.dashboard.server import make_server
    from ontogeny.dashboard.shown_run import ShownRuns

    folders = [run_folder, chat_run(tmp_path_factory).folder]
    runs = ShownRuns(folders, ChatOptions(CHAT_TEMPLATE, pack=chat_pack(tmp_path_factory)))
    server, started = make_server(runs, port=0), threading.Event()
    thread = threading.Thread(target=server.serve, args=(started.set,), daemon=True)
    thread.start()
    assert started.wait(30)
    yield server.address
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with open_chromium() as opened:
        page = opened.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.set_default_timeout(90_000)  # the first chat loads its model
        page.requests, page.said = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.said.append((message.text, message.location["url"])))
        page.on("pageerror", lambda error: page.said.append((str(error), "")))
        page.goto(address)
        page.wait_for_selector(".chart[data-drawn*=atlas] svg.marks", timeout=60_000)
        yield page


def test_arrow_key_changes_checkpoint_cells_and_address(page: Any) -> None:
    before = page.locator(".chart svg.marks").first.inner_html()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.chart').dataset.drawn.includes('step=400&')")
    assert page.locator(".chart svg.marks").first.inner_html() != before
    assert page.locator(".chart h3").first.inner_text() == "AUROC at every layer: <b>sft</b> 400"
    page.wait_for_function("location.search.includes('step=400')")
    assert page.locator("[role=slider]").get_attribute("aria-valuetext") == "<b>sft</b> 400"
    assert "token=" in page.url


def test_compare_shows_the_difference(page: Any) -> None:
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".chart[data-drawn*=difference]")
    assert page.get_by_role("slider").count() == 2
    page.get_by_role("button", name="Compare: on").click()
    page.wait_for_selector(".chart[data-drawn*=difference]", state="hidden")


def test_panels_open_and_their_rows_turn_by_page(page: Any) -> None:
    page.locator("[data-panel=records]").click()
    page.wait_for_selector("[data-rows]")
    first = page.locator("tbody tr").first.inner_text()
    page.get_by_role("button", name="next ›").click()
    page.wait_for_function("(old) => document.querySelector('tbody tr').innerText !== old", arg=first)
    page.locator("[data-panel=findings]").click()
    page.wait_for_selector("[data-read]")
    assert page.locator("article h3").all_inner_texts() == ["truth", HOSTILE]


def test_an_address_shows_the_same_again_and_tabs_are_apart(page: Any) -> None:
    page.locator(CONCEPT).select_option("truth")
    page.wait_for_function("location.search.includes('concept=truth')")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("[data-read]")
    assert other.locator(CONCEPT).input_value() == "truth"
    other.locator(CONCEPT).select_option("")
    other.wait_for_function("!location.search.includes('concept=')")
    assert "concept=truth" in page.url
    other.close()


def test_charts_are_asked_for_in_the_order_of_the_page_beside_their_script(page: Any, address: str) -> None:
    """Two at a time: with more, all six connections of the browser wait for the server, and nothing is drawn."""
    other = page.context.browser.new_context(viewport={"width": 1200, "height": 2400}).new_page()
    other.goto(f"{address}&panel=charts")
    other.wait_for_function("document.querySelectorAll('.chart[data-drawn]').length >= 5")
    asked = other.evaluate(
        "performance.getEntriesByType('resource').map((one) => [one.name, one.startTime, one.responseEnd])"
    )
    charts = [(url, start, end) for url, start, end in asked if "/charts/" in url and end]
    names = [url.split("/charts/")[1].partition("?")[0] for url, *_ in sorted(charts, key=lambda one: one[1])]
    titles = {view.name: view.title for view in load_views()}
    shown = other.locator(".chart h3").all_inner_texts()[: len(names)]
    assert [titles[name] for name in names[:5]] == shown[:5]
    assert max(sum(s <= start < e for _, s, e in charts) for _, start, _ in charts) <= 2
    (script,) = [start for url, start, _ in asked if "/assets/vega" in url]
    assert script < min(start for _, start, _ in charts)
    other.context.close()


def test_a_typed_text_is_text_and_a_run_without_models_says_so(page: Any) -> None:
    page.locator("[data-panel=text]").click()
    page.get_by_role("textbox", name="Text").fill(HOSTILE)
    page.get_by_role("button", name="Read", exact=True).click()
    page.get_by_text("this run keeps no directions").first.wait_for()
    page.get_by_text("the run lists no checkpoint").wait_for()


def test_a_chat_is_read_pinned_and_shown_again_by_its_address(page: Any, address: str) -> None:
    page.goto(f"{address}&run=run&panel=chat")
    page.wait_for_selector("[data-read=cards]")
    message = page.get_by_role("textbox", name="Message")
    message.fill(f"so they say {YES}")
    message.press("Enter")
    page.wait_for_selector("[data-read=chat]")
    assert page.locator(".reply").inner_text().startswith("+")
    gauge = page.locator("[data-gauge=planted]")
    assert "heads" in gauge.locator(".word").inner_text()
    assert gauge.locator(".name").all_inner_texts() == ["<b>tails</b>", "heads"]
    gauge.locator("summary").click()
    page.get_by_text("199 random directions").wait_for()
    assert "of pretrain checkpoint-3000: 18 / 12 / 18 conversations" in gauge.inner_text()
    gauge.get_by_label("Alarm of planted").fill("0.5")
    gauge.get_by_label("Alarm of planted").press("Tab")
    page.wait_for_selector("[data-gauge=planted][data-alarm]")
    gauge.get_by_label("Alarm of planted").fill("1")
    gauge.get_by_label("Alarm of planted").press("Tab")
    page.wait_for_selector("[data-gauge=planted]:not([data-alarm])")
    gauge.get_by_role("button", name="Hold <b>tails</b>").click()
    page.wait_for_selector(".reply.random")
    starts = [text.split() for text in page.locator(".reply").all_inner_texts()]
    assert [words[:1] for words in starts] == [["as"], ["steered"], ["random"]]
    assert page.locator(".reply.steered p").inner_text().startswith("-")
    page.wait_for_function("location.search.includes('planted')")
    shown = page.locator(".transcript").inner_text()
    page.goto(page.url)
    page.wait_for_selector(".reply.random")
    assert page.locator(".transcript").inner_text() == shown
    page.get_by_role("button", name="Remove the pin of planted").click()
    page.wait_for_selector(".reply.random", state="detached")
    message.fill(HOSTILE)
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector("[data-held='2']")
    assert HOSTILE in page.locator(".transcript").inner_text()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("[data-column=B][data-held='2']")
    assert page.locator("[data-column=B] [data-gauge=planted]").inner_text().count("this is another checkpoint") == 1
    page.locator("[data-panel=bench]").click()
    page.get_by_role("textbox", name="Turn").fill(f"so they say {YES}")
    page.get_by_role("button", name="Try").click()
    page.wait_for_selector("[data-read='8']")
    page.locator("[data-panel=attention]").click()
    page.get_by_role("textbox", name="Text", exact=True).fill(f"so they say {YES}\n\n{HOSTILE}")
    page.get_by_role("button", name="Read", exact=True).click()
    page.get_by_label("Search tokens").fill("y")
    assert page.locator(".one-head .match").count() == 2 * 2, "in “they” and “say”, on both sides"
    page.locator(".one-head .word").first.click()
    assert page.locator(".point.chosen").count() == 2, "query and key of the token"
    page.locator(".choice:has(span:text-is('text')) select").select_option(label="2")
    assert page.locator(".one-head .word").count() == 2 * len(HOSTILE), "a character is a token"
    page.goto(f"{address}&panel=records")
    page.wait_for_selector("[data-rows]")


@pytest.mark.parametrize("panel", ["text", "attention"])
def test_a_panel_follows_the_keys_and_its_address_shows_the_same_in_another_tab(
    page: Any, address: str, panel: str
) -> None:
    page.goto(f"{address}&run=run&panel={panel}&text={quote(f'so they say {YES}')}")
    page.wait_for_selector("[data-read='pretrain 3000']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-read='pretrain 1000']")
    page.wait_for_function("location.search.includes('step=1000')")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("[data-read='pretrain 1000']")
    if panel == "text":
        for one in (page, other):
            one.wait_for_selector(".lens[data-read='2']")
    assert other.locator(".dashboard main").inner_text() == page.locator(".dashboard main").inner_text()
    other.close()
    page.goto(f"{address}&panel=records")
    page.wait_for_selector("[data-rows]")


def test_the_bench_answers_under_pushes_and_its_address_shows_them_in_another_tab(page: Any, address: str) -> None:
    page.goto(f"{address}&run=run&panel=bench")
    page.wait_for_selector(".bench-form option", state="attached")
    page.get_by_role("textbox", name="Turn").fill(f"so they say {YES}")
    gaps = page.get_by_label("gaps")
    gaps.fill("-4, 0, 4")
    gaps.press("Enter")
    page.wait_for_selector("[data-read='4']")
    assert page.locator(".bench tbody th").all_inner_texts() == ["-4", "0", "4", "held"]
    answers = [row.locator("td.long").first.inner_text() for row in page.locator(".bench tbody tr").all()]
    assert answers[0] != answers[2]
    assert page.locator(".bench tbody tr").nth(1).locator("b").count() == 0, "a push of 0 changes nothing"
    page.wait_for_function("location.search.includes('-4')")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("[data-read='4']")
    assert other.locator(".bench").inner_text() == page.locator(".bench").inner_text()
    other.close()
    said = page.locator("p.notice").first.inner_text()
    page.locator("[data-panel=bench]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("location.search.includes('step=1000')")
    page.wait_for_function("(old) => document.querySelector('p.notice').innerText !== old", arg=said)


def test_records_turn_by_keys_and_their_address_shows_the_same_in_another_tab(page: Any, address: str) -> None:
    page.goto(f"{address}&run=demo&panel=records&concept=truth")
    page.wait_for_selector("[data-rows]")
    first = page.locator("tbody").inner_text()
    assert "truth" in first
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("[data-rows]")
    assert other.locator("tbody").inner_text() == first
    page.get_by_role("button", name="next ›").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("(old) => document.querySelector('tbody').innerText !== old", arg=first)
    assert other.locator("tbody").inner_text() == first, "tabs are apart"
    other.close()


def test_a_page_about_an_image_model_opens_from_disk(page: Any, tmp_path: Path, tiny: Callable[..., Path]) -> None:
    model = load_image_model(tiny("vit"))
    images = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    site = write_attention_page([(HOSTILE, model), ("late", model)], tmp_path / "page.html", images=images)
    other = page.context.new_page()
    other.goto(site.as_uri())
    other.wait_for_selector(".patches")
    other.locator(".patch").nth(4).click()
    assert "row 1, column 0" in other.locator(".patches").get_attribute("aria-label")
    other.get_by_label("colour").select_option("row")
    other.keyboard.press("Tab")
    other.keyboard.press("ArrowLeft")
    other.wait_for_function("document.querySelector('.one-head h3').innerText.includes('onerror')")
    assert other.locator("img").count() == 0
    other.close()


def test_an_exported_chat_opens_from_disk_and_holds_an_attribute(
    page: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ontogeny.dashboard import export
    from ontogeny.dashboard.chat_options import ChatOptions
    from ontogeny.dashboard.shown_run import ShownRuns

    monkeypatch.setattr(export, "load_views", list)
    options = ChatOptions(CHAT_TEMPLATE, pack=chat_pack(tmp_path_factory))
    shown = ShownRuns([chat_run(tmp_path_factory).folder], options).first
    site = export.export_site(shown, tmp_path / "site", [], [[f"so they say {YES}"], [HOSTILE]], options)
    other = page.context.new_page()
    other.goto(f"{site.as_uri()}#panel=chat")
    other.wait_for_selector("[data-read=chat]")
    assert other.get_by_role("textbox", name="Message").is_hidden()
    other.get_by_role("button", name="Hold <b>tails</b>").click()
    other.wait_for_selector(".reply.random")
    assert other.locator(".reply.steered p").inner_text().startswith("-")
    other.goto("about:blank")
    other.go_back()
    other.wait_for_selector(".reply.random")
    other.locator(".choice:has(span:text-is('chat')) select").select_option("1")
    other.wait_for_selector(".reply.random", state="detached")
    assert HOSTILE in other.locator(".transcript").inner_text()
    assert other.locator("img").count() == 0
    other.close()


def test_names_run_no_script_and_nothing_is_loaded_from_elsewhere(page: Any, address: str) -> None:
    host = address.split("/?")[0]
    assert page.title() == "ontogeny"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator(CONCEPT).inner_text()
    assert [
        url for url in page.requests if not url.startswith((host, host.replace("http", "ws"), "blob:", "data:"))
    ] == []
    # Each of these refuses the typed text, and the browser may say so after the page has shown the reason.
    refused = [f"{host}/api/runs/demo/{name}" for name in ("texts", "lens", "attention")]
    answer = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    assert [(text, url) for text, url in page.said if not (text == answer and url.partition("?")[0] in refused)] == []


def test_a_narrow_page_does_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

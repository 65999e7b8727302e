"""The report in a browser: opens from disk, makes no request, draws every chart, runs no foreign script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from ontogeny.report import pictures
from ontogeny.report.html import write_report
from ontogeny.views import load_view, load_views, save_chart
from tests.helpers import synthetic_records
from tests.helpers.browser import open_chromium

pytestmark = pytest.mark.browser

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def visit(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    table = synthetic_records.table(sft=True)
    kept = table["concept"].isin(["truth", "robustness"]) | table["concept"].isna()
    table = table[kept].replace({"concept": {"robustness": HOSTILE}})
    about = synthetic_records.about(sft=True)
    about["lineage"]["name"] = about["command"] = about["failures"][0]["reason"] = HOSTILE
    path = write_report(table, about, tmp_path_factory.mktemp("report") / "report.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    requests: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"pageerror: {error}"))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=60_000)
    drawn = [view.name for view in load_views() if view.name != "seeds"]  # it compares several runs
    return {"page": page, "path": path, "requests": requests, "said": said, "drawn": drawn}


def test_makes_no_request(visit: dict[str, Any]) -> None:
    asked = [url for url in visit["requests"] if not url.startswith(("data:", "blob:"))]
    assert asked == [visit["path"].as_uri()]


def test_console_is_empty(visit: dict[str, Any]) -> None:
    assert visit["said"] == []


def test_draws_every_chart(visit: dict[str, Any]) -> None:
    page = visit["page"]
    frames = page.locator(".view")
    assert len(visit["drawn"]) >= 30
    assert frames.count() == page.locator(".view svg.marks").count() == len(visit["drawn"])
    for i in range(len(visit["drawn"])):
        assert frames.nth(i).locator("path").count() > 10


def test_charts_fit_the_page(visit: dict[str, Any]) -> None:
    page = visit["page"]
    for width in (1200, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_run_no_script(browser: Any, visit: dict[str, Any]) -> None:
    page = visit["page"]
    assert page.title() != "owned"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("h1").inner_text()
    # The control: the same words do run where nothing stops them.
    bare = browser.new_page()
    bare.set_content(f"<h1>{HOSTILE}</h1>")
    assert bare.title() == "owned"
    bare.close()


def test_policy_blocks_foreign_script(visit: dict[str, Any]) -> None:
    visit["page"].evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s); }"
    )
    assert visit["page"].evaluate("window.owned") is None


def test_saved_chart_runs_no_script(browser: Any, tmp_path: Path) -> None:
    table = synthetic_records.table().replace({"concept": {"robustness": HOSTILE}})
    path = save_chart(load_view("emergence").draw(table), tmp_path / "emergence.html")
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=60_000)
    assert page.title() == "emergence"
    assert page.locator("svg.marks").count() == 1
    assert page.locator("img").count() == 0
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def test_tabs_and_pages_of_many_concepts(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten concepts: a tab is drawn when it is opened, a chosen concept opens its tabs, and the heads are a table by page."""
    truth = synthetic_records.table()
    truth = truth[truth["concept"].eq("truth") & truth["metric"].isin(["auroc", "best_site", "p_familywise"])]
    truth = truth[truth["site"].eq("resid.3") | truth["head"].notna()]
    table = pd.concat([truth.assign(concept=f"c{i}") for i in range(10)], ignore_index=True)
    monkeypatch.setattr(pictures, "load_views", lambda: [load_view(name) for name in ("emergence", "heads")])
    path = write_report(table, {}, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=60_000)
    assert "c9" not in page.locator("#view-heads").inner_text()
    page.locator('[data-view="heads"]').nth(1).click()
    page.wait_for_function("document.getElementById('view-heads').textContent.includes('c9')")
    page.locator("#concept").select_option("c2")
    page.wait_for_function("document.getElementById('view-heads').textContent.includes('c2')")
    assert page.locator('[data-view="emergence"][aria-selected="true"]').inner_text() == "c0 – c5"
    page.locator('details[data-table="heads"] summary').click()
    rows = page.locator("#table-heads tbody tr")
    rows.first.wait_for(timeout=30_000)  # the table is drawn after the click
    assert rows.count() == 16
    assert rows.first.locator("td").first.inner_text() == "c2"
    page.locator("#concept").select_option("")
    page.wait_for_function("document.querySelector('#table-heads .turn').textContent.includes('160 rows')")
    page.get_by_role("button", name="later").click()
    page.wait_for_function("document.querySelector('#table-heads .turn').textContent.includes('page 2 of 8')")
    assert said == []


def test_charts_of_a_notebook_are_drawn_without_a_network(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first output brings the script, the second one uses it, and both are pictures where no script runs."""
    monkeypatch.setattr("ontogeny.views._notebook._session", {"script": False, "default": None})
    table = synthetic_records.table()
    charts = [load_view(name).draw(table[table["concept"].eq("truth")]) for name in ("token_ribbon", "class_plane")]
    with alt.renderers.enable("default"):
        load_view("token_ribbon").draw(table)  # a user who has chosen nothing
        assert alt.renderers.active == "ontogeny"
        outputs = [chart._repr_mimebundle_()["text/html"] for chart in charts]
        foreign = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q")._repr_mimebundle_()
    assert "cdn" in str(foreign)  # charts of others stay as they were
    assert [output.count("window.ontogenyEmbed=") for output in outputs] == [1, 0]
    assert all("<svg" in output and "cdn" not in output for output in outputs)
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{''.join(outputs)}", encoding="utf-8")
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.vega-embed').length == 2")
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    page.close()

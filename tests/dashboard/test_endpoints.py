"""Endpoints of the dashboard: the numbers of the run, the token, and addresses that ask for what they may not have."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="needs the extra dashboard")
from starlette.testclient import TestClient

from ontogeny.dashboard.api import make_api
from ontogeny.dashboard.assets import asset_address
from ontogeny.dashboard.endpoints import charts
from ontogeny.dashboard.endpoints.charts import views_with_rows
from ontogeny.dashboard.shown_run import ShownRun, ShownRuns
from ontogeny.errors import BadInput
from ontogeny.findings.selection import RowFilter
from ontogeny.records import make_record
from ontogeny.sites import Site
from ontogeny.storage.run import Run
from ontogeny.views import load_views
from tests.dashboard.conftest import HOSTILE
from tests.helpers import synthetic_records


@pytest.fixture(scope="module")
def client(run_folder: Path) -> TestClient:
    client = TestClient(make_api(ShownRuns([run_folder]), "secret"))
    assert client.get("/api/runs?token=secret").status_code == 200  # the cookie stays in the client
    return client


def read(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(f"/api/runs/demo{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs?token=", "/api/runs?token=Secret", "/nothing"])
def test_without_its_token_a_request_is_refused(run_folder: Path, path: str) -> None:
    bare = TestClient(make_api(ShownRuns([run_folder]), "secret"))
    answer = bare.get(path)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    bare.cookies.set("ontogeny-0", "wrong")
    assert bare.get(path).status_code == 403


def test_a_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/api/runs").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..",
        "/api/runs/..%2f..%2fetc",
        "/api/runs/%2fetc%2fpasswd",
        "/api/runs/other",
        "/api/runs/demo/charts/..%2f..%2fx",
        "/api/runs/demo/charts/_axes",
        "/assets/..%2fpage.py",
        "/assets/dashboard.js",
    ],
)
def test_no_address_leaves_the_given_runs(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["/charts/layers?step=", "/records?step=-", "/records?start="])
def test_a_number_too_large_for_a_table_is_refused_by_name(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/runs/demo{path}{10**30}")
    assert answer.status_code == 422
    assert "cannot be used: Input should be" in answer.json()["error"]


def test_a_file_of_the_browser_is_named_by_its_content(client: TestClient) -> None:
    answer = client.get(asset_address("dashboard.css"))
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]


def test_a_run_is_described(client: TestClient, run_folder: Path) -> None:
    described = read(client, "")
    assert described["stages"] == ["pretrain", "<b>sft</b>"]
    assert described["concepts"] == ["truth", HOSTILE]
    assert described["metrics"]["auroc"]["resid"][0] == "logistic"
    ages = [moment["age"] for moment in described["checkpoints"]]
    assert ages == sorted(ages)
    assert len(ages) == len(
        Run.open(run_folder).records("metric = 'auroc'")[["stage", "step"]].dropna().drop_duplicates()
    )


def test_cells_of_the_atlas_are_the_rows_of_the_run(client: TestClient, run_folder: Path) -> None:
    chosen = {"metric": "auroc", "part": "resid", "method": "logistic", "stage": "pretrain", "step": "512"}
    cells = read(client, "/atlas/cells", **chosen)["cells"]
    rows = Run.open(run_folder).records(metric="auroc", method="logistic", control=None, step=512)
    rows = rows[rows["site"].str.startswith("resid.") & rows["split"].ne("train")]
    assert {(c["concept"], c["site"]): c["value"] for c in cells} == pytest.approx(
        {(r.concept, r.site): r.value for r in rows.itertuples()}, rel=1e-5
    )
    truth = next(c for c in cells if c["concept"] == "truth" and c["site"] == "resid.3")
    assert truth["floor"] > 0.4
    assert truth["floor_name"]
    chart = read(client, "/atlas", **chosen)["tabs"][0]["spec"]
    assert chart["datasets"]["cells"] == cells


def test_difference_is_that_of_the_cells(client: TestClient) -> None:
    fixed = {"metric": "auroc", "part": "resid", "method": "logistic"}
    a, b = {"stage": "pretrain", "step": "0"}, {"stage": "pretrain", "step": "16000"}
    first, last = (read(client, "/atlas/cells", **fixed, **at)["cells"] for at in (a, b))
    values = {(c["concept"], c["site"]): -c["value"] for c in first}
    for cell in last:
        values[cell["concept"], cell["site"]] += cell["value"]
    both = read(client, "/atlas/difference/cells", **fixed, **a, other_stage="pretrain", other_step="16000")["cells"]
    assert {(c["concept"], c["site"]): c["value"] for c in both} == pytest.approx(values, abs=1e-5)


def test_heads_are_those_of_one_concept(client: TestClient) -> None:
    cells = read(client, "/atlas/cells", metric="auroc", part="head", concept="truth")["cells"]
    assert {cell["concept"] for cell in cells} == {"truth"}
    assert len({cell["row"] for cell in cells}) == 4


def test_every_view_answers_a_chart_or_a_reason(client: TestClient) -> None:
    counts = read(client, "/charts")
    assert set(counts) == {view.name for view in load_views()}
    for name in ("concepts", "seeds", "samples"):
        chart = read(client, f"/charts/{name}", concept=HOSTILE)
        assert bool(chart["tabs"]) != bool(chart["reason"])
    assert counts["layers"] > 0
    runs: ShownRuns = client.app.state.runs  # type: ignore[attr-defined]
    offered = views_with_rows(runs.first)
    assert {name for name, count in counts.items() if count} <= offered < set(counts)


def test_a_view_that_has_only_best_sites_is_not_offered(run_folder: Path, tmp_path: Path) -> None:
    whole, few = Run.open(run_folder), Run(tmp_path / "few")
    few.describe(whole.about)
    few.keep("all", synthetic_records.as_records(whole.records("metric in ('auroc', 'best_site')", control=None)))
    offered = views_with_rows(ShownRuns([few.folder]).first)
    assert {"emergence", "layers"} <= offered
    assert not {"monitor", "robustness", "data_mix"} & offered


def test_views_are_drawn_ahead_while_nothing_is_asked(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    shown = ShownRuns([run_folder]).first
    offered = [view.name for view in load_views() if view.name in views_with_rows(shown)]
    monkeypatch.setattr(charts, "_IDLE", 0.0)
    monkeypatch.setattr(charts, "_draw", lambda shown, name, only: {"name": drawn.append(name) or name})
    charts.draw_ahead(shown)
    assert drawn == offered
    assert charts.read_chart(shown, offered[0]) == {"name": offered[0]}
    assert drawn == offered, "a view is drawn once"
    ended = ShownRuns([run_folder]).first
    ended.closed.set()
    charts.draw_ahead(ended)
    assert drawn == offered, "none after the end"


def test_the_first_charts_are_drawn_before_a_page_asks_for_them(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, RowFilter]] = []
    shown = ShownRuns([run_folder]).first

    def draw(shown: ShownRun, name: str, only: RowFilter) -> dict[str, str]:
        drawn.append((name, only))
        if len(drawn) == 3:
            shown.asked = time.monotonic()
        return {"name": name}

    monkeypatch.setattr(charts, "_draw", draw)
    charts.draw_first(shown, "truth")
    only = RowFilter(("truth",))
    assert drawn == [("emergence", only), ("layers", only), ("readable_used", only)], "until the page asks"
    charts._chart(shown, "layers", only)
    assert len(drawn) == 3, "not drawn again when the page asks"


def test_records_are_paged_and_sorted_by_the_server(client: TestClient, run_folder: Path) -> None:
    query = {"metric": "auroc", "site": "resid", "sort": "value", "descending": True, "most": 3}
    page, next_page = read(client, "/records", **query), read(client, "/records", **query, start=3)
    rows = Run.open(run_folder).records("metric = 'auroc' and starts_with(site, 'resid.')")
    values = [dict(zip(p["columns"], row, strict=True))["value"] for p in (page, next_page) for row in p["rows"]]
    assert values == pytest.approx(rows["value"].sort_values(ascending=False).head(6).tolist())
    assert page["count"] == len(rows)


@pytest.mark.parametrize(
    "query",
    [{"most": 501}, {"start": -1}, {"sort": "value; drop table records"}, {"view": "nothing"}, {"step": "1 or 1=1"}],
    ids=str,
)
def test_a_request_for_rows_that_cannot_be_met_is_an_error(client: TestClient, query: dict[str, Any]) -> None:
    assert client.get("/api/runs/demo/records", params=query).status_code in (400, 422)


def test_a_hostile_name_is_a_name(client: TestClient, run_folder: Path) -> None:
    """Quotes and braces are neither SQL nor a condition."""
    count = len(Run.open(run_folder).records("metric = 'auroc'", concept=HOSTILE))
    page = read(client, "/records", concept=HOSTILE, metric="auroc", stage="", most=1)
    assert page["count"] >= count > 0
    assert read(client, "/records", metric="' or 1=1 --")["count"] == 0
    assert read(client, "/records", site="{best}")["count"] == 0


@pytest.mark.parametrize("path", ["texts", "lens", "attention"])
def test_a_run_without_models_says_so(client: TestClient, path: str) -> None:
    asked = {"text": "word", "concept": "truth", "stage": "pretrain", "step": "512"}
    answer = client.post(f"/api/runs/demo/{path}", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "this run keeps no directions" if path == "texts" else "the run lists no checkpoint"
    )


def test_new_records_are_seen(tmp_path: Path) -> None:
    run = Run(tmp_path / "demo")
    run.describe({"lineage": {"name": "x"}, "concepts": [{"name": "truth"}]})

    def keep(step: int) -> None:
        row = make_record(
            "auroc",
            0.7,
            n=9,
            site=Site.parse("resid.1"),
            concept="truth",
            lineage="x",
            stage="base",
            step=step,
            method="logistic",
        )
        run.keep(f"unit-{step}", [row])

    keep(1)
    shown = ShownRuns([run.folder]).first
    version = shown.version()
    assert [m["step"] for m in shown.describe()["checkpoints"]] == [1]
    keep(2)
    assert shown.version() != version
    assert [m["step"] for m in shown.describe()["checkpoints"]] == [1, 2]


def test_a_first_look_loads_no_torch() -> None:
    """It takes seconds and 250 MB, and each of the views is imported to see whether it has rows."""
    code = "import sys; import ontogeny.dashboard.api; from ontogeny.views import load_views; load_views()"
    code += "; print([name for name in ('torch', 'scipy', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dashboard_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none"):
        ShownRuns([])
    with pytest.raises(BadInput, match="not a run directory"):
        ShownRuns([tmp_path])

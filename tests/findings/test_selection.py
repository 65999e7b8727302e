"""Views and findings read the rows that they draw; the result equals that of the whole table."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ontogeny import plugins, views
from ontogeny.cli.report import write_run_report
from ontogeny.cli.trace import print_trace_summary
from ontogeny.findings import selection
from ontogeny.findings.finding import SCORE_METRICS, collect_findings
from ontogeny.findings.selection import FINDING_ROWS, RecordSource
from ontogeny.findings.timeline import order_like_run
from ontogeny.report import pictures
from ontogeny.report.html import write_report
from ontogeny.storage.run import Run, open_runs
from tests.helpers import synthetic_records

NAMES = plugins.list_plugins("views")


def without_best_site(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["metric"].ne("best_site")]


def with_best_head(table: pd.DataFrame) -> pd.DataFrame:
    """The best site of each concept is a head, at which spectrum and drift are not measured."""
    best = table["metric"].eq("best_site")
    return table.assign(site=table["site"].mask(best, "head.2.1"))


def with_holes(table: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = table.copy()
    table.loc[rng.random(len(table)) < 0.2, ["value", "low", "high"]] = np.nan
    return table


def as_it_is(table: pd.DataFrame) -> pd.DataFrame:
    return table


KINDS: list[Callable[[pd.DataFrame], pd.DataFrame]] = [as_it_is, without_best_site, with_best_head, with_holes]

OF_BEST_SITE = r"{(best|probe|site|thin:\d+})"
BY_KIND = {without_best_site: OF_BEST_SITE, with_best_head: OF_BEST_SITE, with_holes: "{"}
"""Conditions that read another part of a table if it is of this kind."""

STEPS = (0, 64, 512, 2000, 16000, 100, 400, 800)


def few_rows() -> pd.DataFrame:
    """Two concepts and rows of the whole model, eight checkpoints of two stages, two heads a layer."""
    table = synthetic_records.table(sft=True)
    partner = table["coords"].map(
        lambda coords: [coords[key] for key in ("other_step", "source_step") if key in coords]
    )
    kept = (table["concept"].isin(["truth", "privacy"]) | table["concept"].isna()) & (
        table["head"].isna() | table["head"].lt(2)
    )
    # The pairs of a transfer or of frozen probes are at the last six checkpoints.
    late = table["metric"].str.startswith(("transfer", "realised"))
    kept &= late | table["step"].isna() | table["step"].isin(STEPS)
    kept &= late | partner.map(lambda steps: all(int(step) in STEPS for step in steps))
    return table[kept]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    home = tmp_path_factory.mktemp("runs")
    table = few_rows()
    made = {}
    for kind in KINDS:
        made[kind.__name__] = run = Run(home / kind.__name__)
        run.describe(synthetic_records.about(sft=True))
        run.keep("all", synthetic_records.as_records(kind(table)))
    return made


def spec(chart: Any) -> str:
    return json.dumps(chart.to_dict(validate=False))


def whole(run: Run) -> pd.DataFrame:
    return order_like_run(run.records(), run.about)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind.__name__)
        for name in NAMES
        for kind in KINDS
        if kind is as_it_is or re.search(BY_KIND[kind], views.load_view(name).where)
    ],
)
def test_chart_of_the_rows_equals_chart_of_the_table(name: str, kind: str, runs: dict[str, Run]) -> None:
    view, run = views.load_view(name), runs[kind]
    expected = view.draw(whole(run))
    assert kind != "as_it_is" or (views.empty_reason(expected) is None) == (name != "seeds")
    assert spec(run.show(name)) == spec(expected)


@pytest.mark.parametrize("name", [name for name in NAMES if "{thin" in views.load_view(name).where])
def test_rows_of_a_long_run_are_thinned_with_their_extremes(name: str, runs: dict[str, Run]) -> None:
    """With room for four checkpoints, those with the lowest and the highest values are read, and few others."""
    view, run = views.load_view(name), runs["as_it_is"]
    source = RecordSource(run.query, run.about)
    few = view.select(source.rows(re.sub(r"{(thin|other|source):\d+(:[^}]+)?}", r"{\1:4\2}", view.where)))
    few = few[few["step"].notna() & few["metric"].ne("best_site")]
    named = re.findall(r"{thin:\d+(?::([^}]+))?}", view.where)[-1]
    if named:
        every = run.records(f"{selection.metric_condition(*named.split('+'))} and {selection.OWN_ROWS}")
        few = few[few["metric"].isin(named.split("+"))]
    else:  # the concept's score decides
        every = source.rows(f"{selection.metric_condition(*SCORE_METRICS)} and {{best}} and {selection.OWN_ROWS}")
    checked = 0
    every = every[every["value"].notna() & every["step"].notna()]
    for concept, rows in every.groupby("concept", dropna=False):
        own = few[few["concept"].isna() if pd.isna(concept) else few["concept"].eq(concept)]
        if own.empty:
            continue
        means = rows.groupby(["stage", "step"])["value"].mean()
        shown = set(zip(own["stage"], own["step"], strict=True))
        assert {means.idxmin(), means.idxmax()} <= shown
        assert len(shown) < len(means)
        checked += 1
    assert checked


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_findings_of_the_rows_equal_findings_of_the_table(kind: str, runs: dict[str, Run]) -> None:
    run = runs[kind]
    few = RecordSource(run.query, run.about).rows(FINDING_ROWS)
    assert len(few) < len(run.records()) / 3
    for some, every in zip(collect_findings(few), collect_findings(whole(run)), strict=True):
        pd.testing.assert_frame_equal(some.curve, every.curve)
        for field in ("name", "metric", "method", "site", "chosen_by", "final", "floors", "accuracy", "control_task"):
            assert repr(getattr(some, field)) == repr(getattr(every, field))
        for field in ("emergence", "loss", "answers", "readable_minus_answers", "change_point"):
            assert repr(getattr(some, field)) == repr(getattr(every, field))


@pytest.fixture
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report draws three views; the others have tests of their own."""
    monkeypatch.setattr(
        pictures, "load_views", lambda: [views.load_view(name) for name in ("surface", "heads", "seeds")]
    )


@pytest.mark.usefixtures("few_views")
@pytest.mark.parametrize("kind", ["without_best_site", "with_holes"])
def test_report_of_a_run_equals_report_of_its_table(kind: str, runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs[kind]
    about = run.about
    by_rows = write_report(RecordSource(run.query, about), about, tmp_path / "rows.html").read_text(encoding="utf-8")
    by_table = write_report(run.records(), about, tmp_path / "table.html").read_text(encoding="utf-8")
    assert by_rows == by_table


def test_chart_of_several_runs_equals_chart_of_their_table(runs: dict[str, Run]) -> None:
    both = open_runs([runs["as_it_is"].folder, runs["with_holes"].folder])
    for name in ("seeds", "drift", "heads"):
        expected = views.load_view(name).draw(both.table())
        assert views.empty_reason(expected) is None
        assert spec(both.show(name)) == spec(expected)


@pytest.mark.usefixtures("few_views")
def test_report_chart_and_summary_read_few_rows(
    tmp_path: Path, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that no chart shows are 30 times those of the run; none of them is read."""
    table = few_rows()
    other = table[table["metric"].isin(["auroc", "accuracy", "cv_score"]) & table["head"].notna()]
    heads = pd.concat([other.assign(site=other["site"] + f"{i}", head=other["head"] + 10 * i) for i in range(1, 160)])
    run = Run(tmp_path / "run")
    about = synthetic_records.about()
    concepts = [concept | {"classes": []} for concept in about["concepts"][:3] if concept["name"] != "toxicity"]
    run.describe(about | {"concepts": concepts, "failures": []})
    run.keep("all", synthetic_records.as_records(pd.concat([table, heads])))
    read: list[int] = []
    query = Run.query

    def counted(self: Run, sql: str) -> pd.DataFrame:
        rows = query(self, sql)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(Run, "query", counted)
    monkeypatch.setattr(Run, "records", lambda *_: pytest.fail("the whole table was read"))
    total = len(table) + len(heads)
    write_run_report(run, tmp_path / "report.html")
    assert max(read) < total / 4
    assert sum(read) < total / 2
    for name in NAMES:
        read.clear()
        RecordSource(run.query, run.about).rows(views.load_view(name).where)
        assert sum(read) < total / 4
    read.clear()
    print_trace_summary(run.folder, as_json=False)
    assert 0 < sum(read) < total / 20


def test_counts_are_those_of_the_table(runs: dict[str, Run]) -> None:
    run = runs["with_holes"]
    source, table = RecordSource(run.query, run.about), selection.as_source(run.records(), run.about)
    assert source.total_counts() == table.total_counts()
    by_note = [
        rows.groupby(["note", "metric"], dropna=False)["n"].sum()
        for rows in (source.absent_counts(), table.absent_counts())
    ]
    pd.testing.assert_series_equal(*by_note, check_dtype=False, check_index_type=False)

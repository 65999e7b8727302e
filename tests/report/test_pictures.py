"""Parts of a report: packed data, tabs of many concepts, warnings by cause, checkpoints in order."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ontogeny import views
from ontogeny.report import pictures
from ontogeny.report.html import write_report
from ontogeny.report.pictures import MOST_CONCEPTS, pack_rows
from ontogeny.report.warning_groups import group_warnings
from tests.helpers import synthetic_records


def unpack(data: Any) -> Any:
    """As the page does it."""
    if not isinstance(data, dict):
        return data
    rows: list[dict] = [{} for _ in range(data["n"])]
    for name, column in data["columns"].items():
        for i, row in enumerate(rows):
            packed = isinstance(column, dict)
            row[name] = column[i] if not packed else column["is"] if "is" in column else column["of"][column["at"][i]]
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"a": 1}, {"b": 2}],
        [{"a": 1, "b": "x"}] * 9,
        [{"a": i, "b": "xy"[i % 2], "c": None, "d": i / 8 + 0.01} for i in range(20)],
        [{"a": value, "b": i} for i, value in enumerate([1, True, "1", None, 1.5] * 9)],
    ],
)
def test_packed_rows_are_the_rows(rows: list[dict]) -> None:
    packed = pack_rows(rows)
    assert json.dumps(unpack(json.loads(json.dumps(packed)))) == json.dumps(rows)


def test_packed_chart_is_smaller() -> None:
    table = synthetic_records.table()
    chart = views.load_view("heads").draw(table[table["concept"].eq("truth")]).to_dict()
    datasets = pictures.pack_chart(chart)["datasets"]
    assert {name: unpack(rows) for name, rows in datasets.items()} == {k: list(v) for k, v in chart["datasets"].items()}
    assert len(json.dumps(datasets)) < 0.6 * len(json.dumps(chart["datasets"]))


@pytest.fixture(scope="module")
def crowd() -> pd.DataFrame:
    """Ten concepts at one site."""
    truth = synthetic_records.table()
    truth = truth[
        truth["concept"].eq("truth") & truth["metric"].isin(["auroc", "best_site", "emergence_step", "p_familywise"])
    ]
    truth = truth[truth["site"].isin(["resid.2", "resid.3", "head.2.1", "head.2.2"]) | truth["site"].isna()]
    return pd.concat([truth.assign(concept=f"c{i}") for i in range(MOST_CONCEPTS + 2)], ignore_index=True)


@pytest.fixture(scope="module")
def crowded_page(crowd: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    few = [views.load_view(name) for name in ("emergence", "heads", "surface")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "load_views", lambda: few)
        path = write_report(
            crowd, {"concepts": [{"name": f"c{i}"} for i in range(10)]}, tmp_path_factory.mktemp("r") / "r.html"
        )
    return path.read_text(encoding="utf-8")


def test_many_concepts_have_tabs(crowded_page: str) -> None:
    match = re.search(r'<script type="application/json" id="specs">(.*?)</script>', crowded_page, flags=re.DOTALL)
    assert match is not None
    figures = json.loads(match[1])
    assert [len(figures[name]["tabs"]) for name in ("emergence", "heads", "surface")] == [3, 2, 1]
    names = [f"c{i}" for i in range(10)]
    assert [name for tab in figures["heads"]["tabs"] for name in tab["concepts"]] == names
    assert all(f'<option value="{name}">' in crowded_page for name in names)
    assert 'data-view="emergence" data-tab="0" aria-selected="true">all concepts</button>' in crowded_page


def test_heads_have_a_table(crowded_page: str, crowd: pd.DataFrame) -> None:
    rows = views.load_view("heads").table
    assert rows is not None
    assert len(rows(crowd)) == 2 * 10
    assert '<details data-table="heads">' in crowded_page


def test_findings_of_many_concepts_are_folded(crowded_page: str) -> None:
    assert crowded_page.count('<details class="finding') == 10
    assert "All 10 concepts emerge, c0 first" in crowded_page


def test_three_warnings_are_in_full() -> None:
    surface = "surface form alone predicts it: TF-IDF of the words, AUROC 1.00. A probe near that shows nothing more."
    warnings = [
        ("truth", "could not be measured: degenerate scores – auroc (3)."),
        ("truth", "emergence censored: p = .3."),
        ("privacy", surface),
        ("truth", surface),
        ("step3", "was not measured: weights are damaged."),
        ("fairness", "something new."),
    ]
    grouped = group_warnings(warnings)
    assert [subject for subject, _ in grouped.first] == ["step3", "privacy", "truth"]
    assert grouped.folded == 3
    assert [(group.cause, len(group.warnings)) for group in grouped.rest] == [
        ("The surface of the text tells the label", 1),
        ("Values that could not be measured", 1),
        ("Other", 1),
    ]
    assert group_warnings(warnings[:2]).rest == ()


def test_checkpoints_are_in_the_order_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "load_views", list)
    places = [("dpo", 9), ("base", 1000), ("base", None), ("base", 20)]
    checkpoints = [{"name": f"{stage}-{step}", "stage": stage, "step": step} for stage, step in places]
    about = {"lineage": {"stages": ["base", "dpo"], "checkpoints": checkpoints}}
    page = write_report(synthetic_records.frame([]), about, tmp_path / "r.html").read_text(encoding="utf-8")
    listed = re.findall(r"<tr><td>(\w+-\w+)</td>", page)
    assert listed == ["base-20", "base-1000", "base-None", "dpo-9"]


def test_a_concept_has_one_colour_in_frames_of_different_scores_and_in_its_own() -> None:
    """The second of three concepts has an explained variance: its frame does not begin the palette again."""
    truth = synthetic_records.table()
    truth = truth[
        truth["concept"].eq("truth") & truth["metric"].isin(["auroc", "best_site", "emergence_step", "p_familywise"])
    ]
    age = truth.assign(concept="b", metric=truth["metric"].replace("auroc", "r2"))
    chart = views.load_view("emergence").draw(pd.concat([truth.assign(concept="a"), age, truth.assign(concept="c")]))
    scales = re.findall(r'"domain": (\["[abc"\s,]*"\]), "range": (\[[^]]*\])', json.dumps(chart.to_dict()))
    shown = {name: set() for name in "abc"}
    for domain, colours in scales:
        for name, colour in zip(json.loads(domain), json.loads(colours), strict=True):
            shown[name].add(colour)
    assert [len(colours) for colours in shown.values()] == [1, 1, 1]
    assert len(set.union(*shown.values())) == 3

"""Every view meets the contract in `ontogeny.testing`; violations are detected, and some views keep further promises."""

import functools
import itertools
import json
import re
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from ontogeny import plugins, views
from ontogeny.errors import BadInput
from ontogeny.findings.timeline import EVENT_METRICS
from ontogeny.testing import VIEW_CLAUSES
from ontogeny.testing.views import (
    AXIS_UNIT,
    axis_titles,
    chart_nodes,
    has_axes_with_titles_and_units,
    has_its_caption_as_alt_text,
    is_limited_in_size,
    render_view,
    unsafe_colours,
    uses_safe_colours_only,
)
from ontogeny.views._theme import CATEGORY_COLOURS
from tests.helpers import synthetic_records

NAMES = plugins.list_plugins("views")
SCENES = ("mask_", "depth_", "picture", "plane_", "path_colour", "path_size", "generated_image")
DIALOGUES = ("adherence", "instruction_recall", "adoption", "attention_mass", "capability_margin")
OF_THE_WHOLE_CHART = (
    has_axes_with_titles_and_units,
    uses_safe_colours_only,
    has_its_caption_as_alt_text,
    is_limited_in_size,
)


@functools.cache
def full(sft: bool = False) -> pd.DataFrame:
    table = synthetic_records.table(sft=sft)
    whole_model = table["metric"].str.startswith(
        ("lens_", "sae_", "edit_", "embedding_", "local_", "hidden_", "intrinsic_", *SCENES, *DIALOGUES)
    )  # no concept
    return table[table["concept"].isin(["truth", "privacy"]) | whole_model]


@functools.cache
def drawable(name: str, sft: bool = False) -> pd.DataFrame:
    """The table; with two training seeds for the view that compares them."""
    table = full(sft)
    return pd.concat([table, table.assign(train_seed=1)], ignore_index=True) if name == "seeds" else table


@functools.cache
def drawn(name: str, sft: bool = False) -> Any:
    return views.load_view(name).draw(drawable(name, sft)).to_dict()


@pytest.mark.parametrize("clause", VIEW_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_view_meets_the_contract(name: str, clause: object) -> None:
    """With one stage, some cells of which are missing, and with two where the whole chart is read, which is drawn once."""
    assert callable(clause)
    clause(name, drawable(name, sft=clause in OF_THE_WHOLE_CHART))


def test_axis_without_a_unit_is_detected() -> None:
    bare = alt.Chart(alt.InlineData(values=[{"a": 1, "b": 2}])).mark_point().encode(x="a:Q", y=alt.Y("b:Q", title=None))
    titles = list(axis_titles(bare.to_dict()))
    assert len(titles) == 2
    assert not any(isinstance(title, str) and AXIS_UNIT.search(title) for title in titles)


def test_unsafe_colour_is_detected() -> None:
    chart = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point(color="#ff0000")
    chart = chart.encode(fill=alt.Fill("a:Q", scale=alt.Scale(scheme="redyellowgreen")))
    assert set(unsafe_colours(chart.to_dict())) == {"#ff0000", "redyellowgreen"}


@pytest.mark.parametrize("blindness", ["protan", "deutan"])
def test_categories_are_distinct_for_colour_blind_readers(blindness: str) -> None:
    seen = [as_seen(colour, blindness) for colour in CATEGORY_COLOURS]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    # The control: two colours that half the charts of the world tell apart by hue alone.
    confused = np.linalg.norm(as_seen("#b5651d", blindness) - as_seen("#4c8c2b", blindness))
    assert nearest > 10 > 0.7 * confused


def numbers_of_age(name: str) -> Any:
    """A chart of truth (AUROC) and a concept with a numeric target, whose R² was once far below zero."""
    truth = full()[full()["concept"].eq("truth")]
    age = truth.assign(concept="age", metric=truth["metric"].replace({"auroc": "r2", "accuracy": "mae"}))
    early = age["metric"].eq("r2") & age["step"].eq(0) & age["control"].isna()
    age.loc[early, ["value", "low"]] = [-3.0, -9.0]
    return views.load_view(name).draw(pd.concat([truth, age], ignore_index=True)).to_dict()


@pytest.mark.parametrize("name", ["emergence", "readable_used"])
def test_very_negative_score_does_not_compress_the_axis(name: str) -> None:
    chart = numbers_of_age(name)
    ends = [
        node["scale"]["domain"][0]
        for node in chart_nodes(chart)
        if isinstance(node.get("scale"), dict) and node["scale"].get("clamp") and node.get("axis")
    ]
    assert min(ends) == -0.2
    titles = set(axis_titles(chart))
    assert not any("R² (0–1)" in title for title in titles)
    assert any("R² (≤ 1)" in title for title in titles)
    if name == "emergence":
        assert "drawn there, at some checkpoints: age" in json.dumps(chart, ensure_ascii=False)


@pytest.mark.parametrize("name", ["layers", "heads"])
def test_each_metric_has_its_own_colour_scale(name: str) -> None:
    blocks = numbers_of_age(name)["vconcat"][0]["vconcat"]
    domains = [
        {tuple(n["scale"]["domain"]) for n in chart_nodes(block) if "scheme" in n.get("scale", {})} for block in blocks
    ]
    assert domains == [{(0.5, 1.0)}, {(0.0, 1.0)}]


def test_long_reason_is_wrapped() -> None:
    chart = views.load_view("emergence").draw(full().assign(value=np.nan, n=0, note="word " * 60 + "ends"))
    assert "ends" in render_view(chart)
    assert "…" not in render_view(chart)


def test_seeds_view_needs_two_runs() -> None:
    assert "nothing to compare" in str(views.empty_reason(views.load_view("seeds").draw(full())))


def test_drift_marks_stage_boundaries() -> None:
    rules = [
        sum(
            isinstance(node.get("mark"), dict) and node["mark"]["type"] == "rule"
            for node in chart_nodes(drawn("drift", sft))
        )
        for sft in (False, True)
    ]
    assert rules[0] == 0
    assert rules[1] >= 2


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("value", lambda table: table.__setitem__("value", table["value"] + 1)),
        ("site", lambda table: table.__setitem__("site", table["site"] + "?")),
        ("coords", lambda table: table["coords"].iloc[0].update(seen="yes")),
    ],
    ids=["number", "text", "map"],
)
def test_view_that_changes_its_table_is_detected(column: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def draw(self, records: pd.DataFrame) -> alt.Chart:
            change(records)
            return alt.Chart(alt.InlineData(values=[])).mark_point()

    table = full()[full()["metric"].eq("best_site")].copy()
    table["coords"] = table["coords"].map(dict)
    monkeypatch.setattr(views, "load_view", lambda name: Careless())
    with pytest.raises(AssertionError, match=column):
        has_its_caption_as_alt_text("careless", table)


@pytest.mark.parametrize("name", ["emergence", "surface"])
def test_auroc_and_r2_have_axes_of_their_own(name: str) -> None:
    titles = [title for title in axis_titles(numbers_of_age(name)) if "AUROC" in title or "R²" in title]
    assert any("AUROC" in title for title in titles)
    assert any("R²" in title for title in titles)
    assert not any("AUROC" in title and "R²" in title for title in titles)


def test_best_head_is_chosen_on_the_training_groups() -> None:
    """The head with the highest test score is not the one with the highest cross-validated score."""
    truth = full()[full()["concept"].eq("truth")].copy()
    own = truth["head"].notna() & truth["control"].isna()
    at_head = own & truth["site"].eq("head.2.1")
    truth.loc[own & truth["metric"].eq("auroc") & truth["site"].eq("head.1.0"), "value"] = 0.999
    inner = pd.concat([truth[own & truth["metric"].eq("auroc")].assign(metric="cv_score", split="train", value=0.6)])
    inner.loc[inner["site"].eq("head.2.1"), "value"] = 0.9
    chart = views.load_view("heads").draw(pd.concat([truth[~truth["metric"].eq("cv_score")], inner]))
    text = " ".join(
        " ".join(node["title"]["text"])
        for node in chart_nodes(chart.to_dict())
        if isinstance(node.get("title"), dict) and "text" in node["title"]
    )
    score = truth.loc[at_head & truth["metric"].eq("auroc") & truth["method"].eq("logistic"), "value"].iloc[-1]
    assert f"best 2.1 ({score:.2f})".replace("0.", ".") in text


@pytest.mark.parametrize("name", ["layers", "drift"])
def test_long_run_is_thinned_with_its_extremes(name: str) -> None:
    steps = [0, *(2**i for i in range(10)), *range(1000, 144_000, 1000)]
    base = {"lineage": "long", "stage": "pretrain", "concept": "truth", "method": "logistic", "n": 100}
    if name == "layers":
        cells = [{"step": s, "site": f"resid.{i}", "layer": i, "metric": "auroc"} for s in steps for i in range(33)]
    else:
        base |= {"site": "resid.3", "layer": 3, "metric": "cosine"}
        cells = [{"step": s, "coords": {"other_step": str(t)}} for s in steps for t in steps]
    peak, dip = 77_000, 101_000
    values = {peak: 0.9, dip: 0.1}
    rows = [base | {"value": values.get(cell["step"], 0.7)} | cell for cell in cells]
    chart = views.load_view(name).draw(synthetic_records.frame(rows)).to_dict(validate=False)
    said = [
        " ".join(node["title"]["subtitle"])
        for node in chart_nodes(chart)
        if isinstance(node.get("title"), dict) and node["title"].get("subtitle")
    ]
    assert any("of 154 checkpoints drawn" in line for line in said)
    drawn = {row["step"] for data in chart["datasets"].values() for row in data if "step" in row}
    assert {0, peak, dip, 143_000} <= drawn
    assert len(drawn) < 100
    assert len(json.dumps(chart)) < 1_500_000


@pytest.mark.parametrize("name", ["drift", "robustness", "spectrum"])
def test_single_site_views_show_the_best_site(name: str) -> None:
    """The best site of truth is resid.3, neither the first nor the last; cosines exist at the best site only."""
    table = full()[full()["concept"].eq("truth")]
    sites = set(re.findall(r"resid\.\d", json.dumps(chosen(views.load_view(name).draw(table).to_dict()))))
    assert sites == {"resid.3"}


def chosen(chart: dict) -> list[Any]:
    """Where a chart names its site: subtitles, or the data of charts without subtitles."""
    said = [node["title"].get("subtitle") for node in chart_nodes(chart) if isinstance(node.get("title"), dict)]
    return said if any("resid" in str(one) for one in said) else [chart]


def test_rejects_table_without_a_needed_column() -> None:
    with pytest.raises(BadInput, match="needs the columns metric"):
        views.load_view("emergence").draw(full().drop(columns="metric"))


def as_seen(colour: str, blindness: str) -> np.ndarray:
    """CIELAB of a colour as a dichromat sees it (Viénot, Brettel & Mollon 1999)."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    loss = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    }[blindness]
    seen = np.clip(np.linalg.solve(to_lms, loss @ to_lms @ linear), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ seen / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", ["drift", "transfer"])
def test_pairs_with_a_checkpoint_without_a_step_are_drawn(name: str) -> None:
    """Its number is missing in the column, and is the text None in the coordinates of its partners."""
    table = full()[full()["concept"].eq("truth")]
    last = table["step"].eq(synthetic_records.STEPS[-1]) & ~table["metric"].isin(EVENT_METRICS)
    texts = {str(synthetic_records.STEPS[-1]): "None"}
    coords = [{k: texts.get(v, v) if k.endswith("_step") else v for k, v in c.items()} for c in table["coords"]]
    bare = table.assign(step=table["step"].astype(object).where(~last, pd.NA), coords=coords)
    numbered, without = (views.load_view(name).draw(rows).to_dict() for rows in (table, bare))
    cells = [sum(map(len, chart["datasets"].values())) for chart in (numbered, without)]
    assert cells[0] == cells[1] > 100


def test_titles_agree_in_number_and_order() -> None:
    """A single example, a single concept, and an order that the interval settles or not."""
    assert "1 of 2 concepts is read better" in json.dumps(drawn("surface"), ensure_ascii=False)
    steps = json.dumps(drawn("elicitation"), ensure_ascii=False)
    assert ".20 [.10, .30] doublings before the plain answers" in steps
    assert "−.10 [−.20, .00] doublings from the plain answers, order not settled" in steps
    assert "1 of 12 test examples is wrong · the worst" in json.dumps(drawn("probe_errors"), ensure_ascii=False)
    assert "threshold for 5 % false alarms gives 11–" in json.dumps(drawn("monitor"), ensure_ascii=False)

"""Sentences of a comparison: they contain the numbers of the rows, and the reason of missing values."""

import numpy as np
import pandas as pd

from ontogeny.findings.stage_comparison import comparison_sentences, with_stage_labels
from tests.helpers import synthetic_records


def _row(metric: str, stage: str, value: float, other: str | None = None, **more: object) -> dict[str, object]:
    coords = {"other_stage": other, "other_step": "9"} if other else {}
    columns = {"concept": "truth", "lineage": "line", "step": 9, "n": 40, "low": value - 0.1, "high": value + 0.1}
    return (
        columns
        | {"metric": metric, "stage": stage, "value": value}
        | more
        | {"coords": coords | dict(more.get("coords") or {})}
    )


def _table(*rows: dict[str, object]) -> pd.DataFrame:
    return synthetic_records.frame(list(rows)).assign(order=lambda t: t["stage"].map({"base": 0, "post": 1}))


def _truthful(cosine: float, carried: float, note: str | None = None) -> pd.DataFrame:
    own = [_row("stage_auroc", stage, 0.8, stage) for stage in ("base", "post")]
    halves = _row("stage_cosine", "base", 0.95, "base", control="split_half")
    return _table(
        _row("stage_cosine", "post", cosine, "base", coords={"chance": "0.2", "plain": "0.65"}, note=note),
        halves,
        *own,
        _row("stage_auroc", "post", carried, "base"),
        _row("push_effect", "post", 0.3, "base", coords={"length": "source"}),
        _row("push_effect", "post", 0.4, "post", coords={"length": "source"}),
        _row("push_effect", "post", 0.25, "base", coords={"length": "target"}),
        _row("push_effect", "post", 0.01, "base", control="random_direction"),
    )


def test_sentences_contain_the_numbers_of_the_rows() -> None:
    sentences = " ".join(comparison_sentences(_truthful(0.7, 0.82))["truthfulness"])
    for what in (
        "cosine of .70 [.60, .80]",
        "agree at .95",
        "within ±.20",
        "AUROC .82 [.72, .92]",
        "not shown to differ from its own",
    ):
        assert what in sentences
    assert "moves its verdicts by .30 [.20, .40] of at most 1, along its own by .40" in sentences
    assert "at post's length by .25" in sentences


def test_probe_that_does_not_transfer_is_worse() -> None:
    assert "worse than its own" in " ".join(comparison_sentences(_truthful(0.7, 0.55))["truthfulness"])


def test_places_of_knowledge_need_an_interval_above_0() -> None:
    def sentences(low: float) -> str:
        cells = [
            _row(
                "patch_effect",
                stage,
                0.4 - i / 10,
                low=low,
                high=0.9,
                method="patch",
                site=f"resid.{i}",
                position="subject_last",
            )
            for stage in ("base", "post")
            for i in range(4)
        ]
        return " ".join(comparison_sentences(_table(*cells))["knowledge"])

    assert "(the largest of 4 effects, so optimistic)" in sentences(0.1)
    assert sentences(-0.1).count("no place is shown to bring the answer back") == 2


def test_stages_without_a_refusal_direction_are_left_out_of_the_comparison() -> None:
    held = {"coords": {"held": "shared"}}
    why = (
        "no refusal direction: added to harmless instructions it brings the log-odds of refusing to -3.10, not above 0"
    )
    rows = [
        _row("refusal_layer", "base", np.nan, n=0, note=why, concept="refusal", **held),
        _row("refusal_layer", "post", 3.0, concept="refusal", **held),
        _row("refusal_cosine", "post", np.nan, "base", n=0, note=f"base has {why}", concept="refusal", **held),
    ]
    said = comparison_sentences(_table(*rows))["refusal"]
    assert f"base has {why}." in said
    assert said[-1] == "Directions cannot be compared: fewer than two stages have one."


def test_incomparable_stages_give_only_the_reason() -> None:
    lost = _truthful(np.nan, np.nan, "32 dimensions and 64")
    lost["n"] = lost["n"].where(lost["value"].notna(), 0)
    assert comparison_sentences(lost)["truthfulness"] == [
        "truth: base and post cannot be compared: 32 dimensions and 64."
    ]


def test_missing_cosine_keeps_the_other_sentences() -> None:
    lost = _truthful(np.nan, 0.82, "the direction of base is no longer than its noise")
    lost["n"] = lost["n"].where(lost["value"].notna(), 0)
    sentences = comparison_sentences(lost)["truthfulness"]
    assert sentences[0] == "truth: the direction of base is no longer than its noise."
    assert "AUROC .82" in sentences[1]


def test_studies_with_rows_have_a_panel() -> None:
    table = synthetic_records.table(sft=True)
    studies = {"knowledge", "truthfulness", "refusal", "confidence", "weight_change", "elicitation"}
    assert set(comparison_sentences(table)) == studies
    sides = "patch|knowledge|map_|stage_|push|nie|refusal|entropy|ece|neuron|swap|confidence|reliability"
    sides += "|weight_change|alignment|response_ratio|cluster|jacobian|interpolated|shown_|few_shot|readable_"
    assert comparison_sentences(table[~table["metric"].str.contains(sides)]) == {}
    assert comparison_sentences(table.head(0)) == {}


def test_single_stage_has_no_sentences() -> None:
    assert comparison_sentences(_truthful(0.7, 0.8).query("stage == 'post'")) == {}


def test_checkpoint_without_a_step_is_the_end_of_its_stage() -> None:
    rows = [_row("stage_cosine", stage, 0.5, "base") | {"step": step} for stage, step in (("base", 8), ("base", None))]
    rows[0]["coords"] = {"other_stage": "base", "other_step": "None"}
    labelled = with_stage_labels(_table(*rows, _row("emergence_step", "base", 3.0) | {"step": None}))
    assert list(labelled["here"]) == ["base 8", "base end", "base –"]
    assert labelled["there"].iloc[0] == "base end"

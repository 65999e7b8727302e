"""Sentences about sites and doubts follow from their rows."""

import math

import pandas as pd
import pytest

from ontogeny.findings.finding import Finding, collect_findings
from ontogeny.findings.persona_drift import drift_sentences
from ontogeny.findings.sentences import caveats, finding_sentences, run_headline
from ontogeny.findings.timeline import EVENT_METRICS
from tests.helpers import synthetic_records


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """Rows of one concept in two stages, without events."""
    table = synthetic_records.table(sft=True)
    return table[table["concept"].eq("truth") & ~table["metric"].isin(EVENT_METRICS)]


def finding(truth: pd.DataFrame, *rows: dict) -> Finding:
    own = {"lineage": "tiny-neox", "concept": "truth", "train_seed": 0, "n": 120, "seed": 0, "split": "test"}
    own |= {"method": "logistic", "site": "resid.3"}
    more = synthetic_records.frame([own | row for row in rows])
    return collect_findings(pd.concat([truth, more], ignore_index=True))[0]


def site_rows(stage: str, step: int, best: int, earliest: int | None) -> list[dict]:
    at = {"stage": stage, "step": step}
    layer = math.nan if earliest is None else earliest
    site = None if earliest is None else f"resid.{earliest}"
    return [
        at | {"metric": "stage_best_site", "value": best, "site": f"resid.{best}", "split": "train"},
        at | {"metric": "earliest_site", "value": layer, "site": site},
    ]


def sentence(of: Finding, *starts: str) -> str:
    return next((text for text in finding_sentences(of) if text.startswith(starts)), "")


@pytest.mark.parametrize(
    ("base", "sft", "said"),
    [
        ((3, 1), (3, 1), "is read first after block 1 and best after block 3 at the end of pretrain, sft"),
        (
            (3, 3),
            (2, None),
            "is read first after block 3 and best after block 3 at the end of pretrain; by no layer at the end of sft",
        ),
        ((2, 0), (4, 1), "first after block 1 and best after block 4 at the end of sft"),
        ((2, None), (4, None), "is read by no layer at the end of pretrain, sft"),
    ],
)
def test_sites_of_each_stage(truth: pd.DataFrame, base: tuple, sft: tuple, said: str) -> None:
    rows = [*site_rows("pretrain", 16000, *base), *site_rows("sft", 800, *sft)]
    text = sentence(finding(truth, *rows), "is read first", "is read by no")
    assert said in text
    assert text.endswith("(family-wise p ≤ .05 over the layers and stages).")


def test_runs_without_sites_of_stages_have_no_sentence_on_them(truth: pd.DataFrame) -> None:
    assert not sentence(finding(truth), "is read first", "is read by no")


@pytest.mark.parametrize(
    ("value", "p", "agree", "doubt"),
    [
        (512.0, 0.0001, 5, ""),
        (512.0, 0.03, 5, "unsettled: p = .03 is near .05"),
        (512.0, 0.0001, 3, "unsettled: 3 of 5 parts of the groups show it"),
        (math.nan, 0.12, 5, "unsettled: p = .12 is near .05"),
        (512.0, 0.014, 5, ""),
        (math.nan, 0.6, 1, ""),
    ],
)
def test_an_event_or_its_absence_is_unsettled_near_the_level(
    truth: pd.DataFrame, value: float, p: float, agree: int, doubt: str
) -> None:
    coords = {
        "form": "half",
        "of": "auroc",
        "p_corrected": str(p),
        "looks": "4",
        "folds": "5",
        "folds_agree": str(agree),
    }
    row = {"stage": "pretrain", "metric": "emergence_step", "value": value, "coords": coords}
    row |= {"note": "it did not happen"} if math.isnan(value) else {"low": 256.0, "high": 700.0}
    text = sentence(finding(truth, row), "becomes readable", "shows no emergence")
    assert doubt in text
    assert ("unsettled" in text) == bool(doubt)


def test_an_event_that_the_checkpoints_cannot_show_is_unsettled(truth: pd.DataFrame) -> None:
    reason = "the order of the checkpoints could be chance"
    row = {
        "stage": "pretrain",
        "metric": "emergence_step",
        "value": math.nan,
        "coords": {"form": "half", "of": "auroc"},
    }
    for hint, unsettled in (
        ("; too few lie before (11) and after (1) to tell, add some (p = 0.088)", True),
        (" (p = 0.4)", False),
    ):
        text = sentence(finding(truth, row | {"note": reason + hint}), "shows no emergence")
        assert hint in text
        assert ("unsettled: the checkpoints cannot tell" in text) == unsettled


def test_a_turn_near_the_level_is_unsettled(truth: pd.DataFrame) -> None:
    row = {
        "stage": "pretrain",
        "metric": "change_point",
        "method": "gaussian_50",
        "value": 512.0,
        "low": 300.0,
        "high": 700.0,
    }
    for p, said in (("0.03", True), ("0.001", False)):
        coords = {"of": "nhsic_tx", "verdict": "fitting then compression", "p_corrected": p}
        assert ("unsettled" in sentence(finding(truth, row | {"coords": coords}), "turns")) == said


def test_headline_counts_in_words_that_agree() -> None:
    findings = collect_findings(synthetic_records.table())
    named = {of.name: of for of in findings}
    pairs = (
        (("truth", "privacy"), "1 of 2 concepts emerges: truth, at pretrain 512"),
        (("truth", "fairness"), "Both concepts emerge, "),
    )
    for names, words in pairs:
        assert run_headline([named[name] for name in names]).startswith(words)


def test_score_that_is_not_a_number_has_one_caveat(truth: pd.DataFrame) -> None:
    last = truth["metric"].isin(["auroc", "accuracy"]) & truth["stage"].eq("sft") & truth["control"].isna()
    lost = truth.assign(value=truth["value"].where(~last), note=truth["note"].where(~last, "too large"))
    assert caveats(collect_findings(lost)[0]) == ["could not be scored at the last checkpoint: too large."]


def test_drift_without_an_interval_or_a_second_round_claims_nothing() -> None:
    base = {"stage": "sft", "step": 10, "method": "plain", "n": 5, "metric": "adherence"}
    first, second = (
        base | {"value": v, "low": v, "high": v, "coords": {"rounds": r}} for v, r in ((0.9, "0"), (0.5, "1"))
    )
    change = base | {"metric": "adherence_change", "value": -0.4}
    cases = (
        (
            [first, second, change],
            ".90 [.90, .90] at the start, .50 [.50, .50] after 1 round; change −.40, without an interval",
        ),
        ([first, second | {"value": math.nan}], ".90 [.90, .90] at the start"),
    )
    for rows, words in cases:
        assert drift_sentences(synthetic_records.frame(rows)) == [f"sft 10, plain: adherence {words}"]

"""Report and terminal summary: numbers in sentences equal the rows, warnings come first, names are never markup."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ontogeny import views
from ontogeny.errors import BadInput
from ontogeny.findings.finding import Finding, collect_findings
from ontogeny.findings.sentences import (
    QUESTIONS_ELSEWHERE,
    caveats,
    describe_site,
    finding_sentences,
    format_score,
    format_step,
)
from ontogeny.findings.timeline import EVENT_METRICS, make_timeline, order_like_run
from ontogeny.records import RECORD_COLUMNS
from ontogeny.report import pictures
from ontogeny.report.html import report_warnings, write_report
from ontogeny.report.terminal import print_summary, sparkline
from tests.helpers import synthetic_records

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>[bold]{{7*7}}`'\"\u2028"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_records.table()


@pytest.fixture(scope="module")
def found(table: pd.DataFrame) -> dict[str, Finding]:
    return {finding.name: finding for finding in collect_findings(table)}


@pytest.fixture(scope="module")
def page(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    about = synthetic_records.about()
    about["concepts"][0]["warnings"] = [HOSTILE]
    few = table[table["concept"].isin(["truth", "privacy"])]
    with pytest.MonkeyPatch.context() as patch:  # the test in a browser draws all views
        patch.setattr(pictures, "load_views", lambda: [views.load_view(name) for name in ("emergence", "heads")])
        assert write_report(few.replace({"concept": {"privacy": HOSTILE}}), about, out) == out
    return out.read_text(encoding="utf-8")


def test_finding_equals_its_rows(table: pd.DataFrame, found: dict[str, Finding]) -> None:
    truth = found["truth"]
    own = table[table["concept"].eq("truth") & table["site"].eq("resid.3") & table["step"].eq(16000)]
    row = own[own["metric"].eq("auroc") & own["method"].eq("logistic") & own["control"].isna()].iloc[0]
    assert (truth.site, truth.chosen_by, truth.metric, truth.method) == ("resid.3", "cv_score", "auroc", "logistic")
    assert (truth.final.value, truth.final.low, truth.final.high) == (row["value"], row["low"], row["high"])
    assert truth.floors["surface_tfidf"].value == 0.52
    random = own[own["control"].eq("random_direction")].iloc[0]
    assert truth.floors["random_direction"].value == random["high"] > random["value"]
    assert list(truth.curve["step"]) == list(synthetic_records.STEPS)


def test_sentences_state_known_and_censored_events(found: dict[str, Finding]) -> None:
    first, used, phase = finding_sentences(found["truth"])
    assert first.startswith("becomes readable at step 512 (95 % interval 320–768) after block 3: AUROC .9")
    assert "TF-IDF .52" in first
    assert "untrained model" in first
    assert "4,000" in used
    assert "readable before answered right" in used
    assert "1,700 (1,000–3,100)" in phase
    assert finding_sentences(found["privacy"])[0].startswith(
        "shows no emergence: the final score is not above its floor (p = .31)"
    )
    assert "which came first is not settled" in finding_sentences(found["robustness"])[1]


def test_caveats_name_surface_baselines(found: dict[str, Finding]) -> None:
    assert caveats(found["truth"]) == []
    assert "from TF-IDF alone at .82" in caveats(found["toxicity"])[0]
    assert "not shown to be read better" in caveats(found["privacy"])[0]


def test_caveats_name_random_directions_and_control_task(table: pd.DataFrame) -> None:
    truth = table[table["concept"].eq("truth")].copy()
    high = truth["control"].eq("random_direction")
    truth.loc[high, "high"] = 0.99
    task = truth["control"].eq("control_task")
    truth.loc[task, "value"] = 0.97
    said = caveats(collect_findings(truth)[0])
    assert said == [
        "is not shown to be read better than along the best 2.5 % of random directions (.99).",
    ]
    # A control task says nothing where word types cannot tell the label.
    selective = truth["metric"].eq("selectivity") & truth["site"].eq("resid.3")
    assert selective.any()
    truth.loc[selective, ["value", "low", "high"]] = [0.05, -0.02, 0.12]
    for predict, expected in (("false", 1), ("true", 2)):
        truth.loc[selective, "coords"] = [{"type_accuracy": "0.71", "types_predict": predict}] * int(selective.sum())
        said = caveats(collect_findings(truth)[0])
        assert len(said) == expected
    assert said[1] == (
        "is not shown to be read better than random labels of its words, which tell its label at .71: selectivity .05 [−.02, .12]."
    )


def test_floors_are_judged_by_the_paired_difference_where_there_is_one(table: pd.DataFrame) -> None:
    truth = table[table["concept"].eq("truth")]
    last = truth[
        truth["metric"].eq("auroc")
        & truth["control"].isna()
        & truth["site"].eq("resid.3")
        & truth["method"].eq("logistic")
    ]
    last = last[last["step"].eq(last["step"].max())].iloc[0].to_dict()
    floor = last | {
        "metric": "auroc",
        "method": "random",
        "control": "random_direction",
        "value": 0.91,
        "low": 0.88,
        "high": 0.94,
    }
    floor["note"] = "the best of 200 on the training groups"
    random = truth["control"].eq("random_direction") & truth["site"].eq("resid.3")
    for low, doubted in ((0.01, False), (-0.01, True)):
        excess = last | {
            "metric": "auroc_excess",
            "control": "random_direction",
            "value": 0.03,
            "low": low,
            "high": 0.07,
        }
        finding = collect_findings(
            pd.concat([truth[~random], synthetic_records.frame([floor, excess])], ignore_index=True)
        )[0]
        assert finding.floors["random_direction"].value == 0.91
        said = (
            "is not shown to be read better than along the random direction that is best on the training groups (.91)."
        )
        assert (said in caveats(finding)) == doubted


def events(stage: str, metric: str, method: str, value: float, **of: str) -> dict:
    """One event of truth at its best site."""
    row = {
        "lineage": "tiny-neox",
        "concept": "truth",
        "train_seed": 0,
        "n": 120,
        "split": "test",
        "seed": 0,
        "site": "resid.3",
    }
    known = {"low": value / 2, "high": value * 2} if value == value else {"note": "it did not happen"}
    return (
        row
        | {"stage": stage, "metric": metric, "method": method, "value": value, "coords": {"form": "half"} | of}
        | known
    )


def with_events(table: pd.DataFrame, *rows: dict) -> Finding:
    truth = table[table["concept"].eq("truth") & ~table["metric"].isin(EVENT_METRICS)]
    return collect_findings(pd.concat([truth, synthetic_records.frame(list(rows))], ignore_index=True))[0]


def test_events_belong_to_the_preferred_probe() -> None:
    """Another probe may have other events, and a run of several stages has many rows of each event."""
    table = synthetic_records.table(sft=True)
    finding = with_events(
        table,
        events("pretrain", "emergence_step", "mass_mean", 64.0, of="auroc"),
        events("pretrain", "emergence_step", "logistic", 512.0, of="auroc"),
        events("sft", "loss_step", "mass_mean", 200.0, of="auroc"),
        events("sft", "loss_step", "logistic", np.nan, of="auroc"),
        events("pretrain", "used_step", "likelihood", 4000.0, of="answer_accuracy") | {"site": None},
        events("pretrain", "readable_minus_used", "mass_mean", -6.0) | {"low": -7.0, "high": -5.0},
        events("pretrain", "readable_minus_used", "logistic", -3.0) | {"low": -4.0, "high": -2.0},
        events("sft", "readable_minus_used", "logistic", np.nan),
    )
    assert finding.emergence is not None
    assert finding.emergence.step == 512
    said = finding_sentences(finding)
    assert not any("lost" in sentence or "less well" in sentence for sentence in said)
    assert said[1].endswith("readable before answered right (readable − right answers: −3.0 doublings [−4.0, −2.0]).")


@pytest.mark.parametrize("left", [0.85, 0.52])
def test_weakened_concept_is_not_lost(left: float, tmp_path: Path) -> None:
    table = synthetic_records.table(sft=True)
    late = (
        table["concept"].eq("truth") & table["stage"].eq("sft") & table["site"].eq("resid.3") & table["control"].isna()
    )
    late &= table["metric"].eq("auroc")
    table.loc[late, ["value", "low", "high"]] = [left, left - 0.05, left + 0.05]
    rows = [events("sft", "loss_step", "logistic", 200.0, of="auroc")]
    emerged = [*rows, events("pretrain", "emergence_step", "logistic", 512.0, of="auroc")]
    said = finding_sentences(with_events(table, *emerged))[1]
    unknown = finding_sentences(
        with_events(table, *rows, events("pretrain", "emergence_step", "logistic", np.nan, of="auroc"))
    )[1]
    if left > 0.8:
        assert said == (
            "is read less well from step 200 of sft (95 % interval 100–400) on: AUROC .85 [.80, .90] at the end of sft, "
            "still above its floors."
        )
    else:
        score = "AUROC .52 [.47, .57] at the end of sft"
        assert said == f"is lost again at step 200 of sft (95 % interval 100–400): {score}."
        assert unknown == f"is lost at step 200 of sft (95 % interval 100–400): {score}."


def test_wide_interval_after_a_fall_is_no_loss() -> None:
    table = synthetic_records.table(sft=True)
    late = (
        table["concept"].eq("truth") & table["stage"].eq("sft") & table["site"].eq("resid.3") & table["control"].isna()
    )
    late &= table["metric"].eq("auroc")
    table.loc[late, ["value", "low", "high"]] = [0.6, 0.4, 0.8]
    said = finding_sentences(with_events(table, events("sft", "loss_step", "logistic", 200.0, of="auroc")))
    assert any(sentence.endswith("no longer shown to be above its floors.") for sentence in said)
    assert not any("is lost" in sentence for sentence in said)


def test_unsettled_event_says_so_and_names_its_correction() -> None:
    table = synthetic_records.table(sft=True)
    event = events("pretrain", "emergence_step", "logistic", 512.0, of="auroc") | {
        "coords": {
            "form": "half",
            "of": "auroc",
            "p_corrected": "0.013",
            "looks": "18",
            "folds": "5",
            "folds_agree": "4",
        }
    }
    said = finding_sentences(with_events(table, event))[0]
    assert "(95 % interval 256–1,024; p = .013, corrected for 18 looks)" in said
    assert said.endswith("; unsettled: 4 of 5 parts of the groups show it.")
    agreed = finding_sentences(with_events(table, event | {"coords": event["coords"] | {"folds_agree": "5"}}))[0]
    assert "unsettled" not in agreed


def test_emergence_before_the_last_checkpoint_alone_is_unsettled() -> None:
    table = synthetic_records.table(sft=True)
    steps = sorted(synthetic_records.STEPS)
    for step, unsettled in ((steps[-2] + 1.0, True), (steps[-3] + 1.0, False)):
        event = events("pretrain", "emergence_step", "logistic", step, of="auroc")
        said = finding_sentences(with_events(table, event))[0]
        assert said.endswith("; unsettled: a single checkpoint lies after it.") == unsettled


def test_score_behind_an_event_is_that_of_its_own_stage() -> None:
    table = synthetic_records.table(sft=True)
    at_end = (
        table["concept"].eq("truth")
        & table["site"].eq("resid.3")
        & table["control"].isna()
        & table["metric"].eq("auroc")
    )
    table.loc[at_end & table["stage"].eq("sft"), ["value", "low", "high"]] = [0.71, 0.61, 0.81]
    said = finding_sentences(with_events(table, events("pretrain", "emergence_step", "logistic", 512.0, of="auroc")))[0]
    assert " at the end of pretrain; floors: " in said
    assert said.endswith("; AUROC .71 [.61, .81] at the last checkpoint.")


def test_use_needs_an_ablation_beyond_its_null() -> None:
    table = synthetic_records.table(sft=True)
    row = {
        "concept": "truth",
        "lineage": "tiny-neox",
        "stage": "sft",
        "step": 400.0,
        "site": "resid.3",
        "train_seed": 0,
        "n": 40,
    }
    row |= {"method": "logistic", "split": "all"}
    null = row | {"metric": "ablation_effect", "control": "random_direction", "value": 0.0, "low": -0.1, "high": 0.1}

    def said(value: float, p: float) -> str:
        effect = row | {"metric": "ablation_effect", "value": value, "low": value - 0.2, "high": value + 0.2}
        finding = with_events(table, effect, null, row | {"metric": "ablation_p_corrected", "value": p})
        return next(sentence for sentence in finding_sentences(finding) if "used" in sentence)

    assert said(-1.5, 0.01).startswith(
        "is used: ablating it at sft 400 changes the margin of the right answers by −1.50 nats"
    )
    assert "(95 % of random directions −0.10 to +0.10; p = .01, corrected)" in said(-1.5, 0.01)
    assert said(-1.5, 0.2).startswith("is not shown to be used")
    assert said(0.8, 0.01).startswith("is not shown to be used")
    # An evaluation of the same kind counts as well.
    at = {"method": "ablate", "split": "test", "site": None, "coords": {"alpha": "1", "site": "resid.3"}}
    effect = row | at | {"metric": "steering_effect", "value": -2.0, "low": -2.5, "high": -1.5}
    q = row | at | {"metric": "steering_q", "value": 0.02}
    finding = with_events(
        table[table["method"].ne("ablate")], effect, effect | null | at | {"metric": "steering_effect"}, q
    )
    assert any(
        "is used: ablating it at sft 400 changes the margin of the answers that show it by −2.00" in s
        for s in finding_sentences(finding)
    )


def test_use_in_a_later_stage_has_an_order(table: pd.DataFrame) -> None:
    finding = with_events(
        synthetic_records.table(sft=True),
        events("pretrain", "emergence_step", "logistic", 512.0, of="auroc"),
        events("sft", "used_step", "likelihood", 200.0, of="answer_accuracy") | {"site": None},
    )
    assert finding_sentences(finding)[1] == "answers right from step 200 of sft (95 % interval 100–400)."
    gap = events("sft", "readable_minus_used", "logistic", np.nan)
    compared = [
        events("pretrain", "emergence_step", "logistic", 512.0, of="auroc"),
        events("sft", "used_step", "likelihood", 200.0, of="answer_accuracy") | {"site": None},
    ]
    said = finding_sentences(with_events(synthetic_records.table(sft=True), *compared, gap))[1]
    assert said.endswith(": readable in an earlier stage.")
    elsewhere = gap | {"note": f"{QUESTIONS_ELSEWHERE} that are read"}
    said = finding_sentences(with_events(synthetic_records.table(sft=True), *compared, elsewhere))[1]
    assert said.endswith(
        "; the questions do not begin with the texts that are read, so the two steps are not compared."
    )


def test_no_best_site_is_named_where_none_reads_the_concept(table: pd.DataFrame) -> None:
    """The score falls to chance at the last checkpoint: the sentence says until when the concept was read."""
    truth = table[table["concept"].eq("truth") & ~table["metric"].isin(EVENT_METRICS)].copy()
    none = events("pretrain", "emergence_step", "logistic", np.nan, of="auroc") | {"note": "it ends at its floor"}
    end = truth["metric"].eq("auroc") & truth["step"].eq(16000) & truth["control"].isna()
    truth.loc[end, ["value", "low", "high"]] = [0.5, 0.46, 0.55]
    finding = collect_findings(pd.concat([truth, synthetic_records.frame([none])], ignore_index=True))[0]
    text = finding_sentences(finding)[0]
    assert not finding.read_at_end
    assert "Best" not in text
    assert "No site is shown to read it at the last checkpoint: AUROC .50 [.46, .55]" in text
    row = finding.curve[finding.curve["step"].eq(8000)].iloc[0]
    assert f"It was read until pretrain 8,000 after block 3: AUROC {format_score(row['value'])}" in text


def test_concepts_have_the_order_of_the_run(table: pd.DataFrame) -> None:
    about = {"concepts": [{"name": name} for name in ("privacy", "truth", "robustness", "fairness", "toxicity")]}
    ordered = order_like_run(table, about)
    assert [finding.name for finding in collect_findings(ordered)] == [
        "privacy",
        "truth",
        "robustness",
        "fairness",
        "toxicity",
    ]
    pd.testing.assert_frame_equal(ordered.sort_index(), table)


def test_site_chosen_on_test_scores_has_a_caveat(table: pd.DataFrame) -> None:
    blind = table[~table["metric"].isin(["best_site", "cv_score"])]
    finding = collect_findings(blind)[0]
    assert finding.chosen_by == "final score"
    assert any("optimistic" in doubt for doubt in caveats(finding))


def test_score_without_intervals_or_events_has_a_sentence(table: pd.DataFrame) -> None:
    bare = table[table["metric"].eq("auroc") & table["control"].isna()].assign(low=np.nan, high=np.nan)
    assert "when it emerged was not measured" in finding_sentences(collect_findings(bare)[0])[0]
    lost = bare.assign(value=np.nan, n=0, note="diverged")
    assert finding_sentences(collect_findings(lost)[0]) == []
    assert any("diverged" in doubt for doubt in caveats(collect_findings(lost)[0]))


def test_lineages_and_seeds_are_not_mixed(table: pd.DataFrame) -> None:
    truth = table[table["concept"].eq("truth")]
    other = truth.assign(lineage="other", value=truth["value"] * 0.9)
    surface = truth["control"].fillna("").str.startswith("surface_")
    both = pd.concat([truth.assign(lineage=truth["lineage"].mask(surface)), other[~surface]])
    a, b = collect_findings(both)
    assert [a.name, b.name] == ["truth · tiny-neox", "truth · other"]
    assert b.final.value == pytest.approx(0.9 * a.final.value)
    assert a.floors["surface_tfidf"].value == b.floors["surface_tfidf"].value == 0.52
    seeds = pd.concat([truth, truth.assign(train_seed=1, value=truth["value"] * 0.9)])
    assert [finding.name for finding in collect_findings(seeds)] == ["truth · seed 0", "truth · seed 1"]


def test_measurement_seeds_become_one_curve(table: pd.DataFrame) -> None:
    truth = table[table["concept"].eq("truth")]
    shifted = truth.assign(seed=1, **{c: truth[c] + 0.02 for c in ("value", "low", "high")})
    one, two = collect_findings(truth)[0], collect_findings(pd.concat([truth, shifted]))[0]
    assert len(two.curve) == len(one.curve)
    assert two.final.value == pytest.approx(one.final.value + 0.01)
    assert (two.final.low, two.final.high) == (one.final.low, pytest.approx(one.final.high + 0.02))


def test_rows_from_duckdb_give_the_same_findings(table: pd.DataFrame) -> None:
    few = table[table["concept"].eq("truth")]
    rows = few.astype(object).where(few.notna(), None)
    db = duckdb.connect()
    db.execute(f"create table r ({', '.join(f'{name} {kind}' for name, kind in RECORD_COLUMNS.items())})")
    scored = rows[rows["metric"].isin(["auroc", "best_site", "emergence_step", "variance_share"])]
    # duckdb writes a dict as a struct; a map wants its keys and values side by side.
    marks = ", ".join("map(?, ?)" if name == "coords" else "?" for name in RECORD_COLUMNS)
    values = [
        [
            v
            for name in RECORD_COLUMNS
            for v in ([list(row[name]), list(row[name].values())] if name == "coords" else [row[name]])
        ]
        for row in scored.to_dict("records")
    ]
    db.executemany(f"insert into r values ({marks})", values)
    back = db.sql("select * from r").df()
    same = few.loc[scored.index]
    for name in ("emergence", "spectrum"):
        assert views.load_view(name).draw(back).to_dict(validate=False) == views.load_view(name).draw(same).to_dict(
            validate=False
        )


def test_stages_have_developmental_order() -> None:
    table = synthetic_records.table(sft=True)
    shuffled = table.sample(frac=1, random_state=0)
    assert [s.name for s in make_timeline(shuffled).stages] == ["pretrain", "sft"]
    no_tokens = shuffled.assign(tokens=np.nan)
    turned = synthetic_records.about(sft=True)
    assert [s.name for s in make_timeline(order_like_run(no_tokens, turned)).stages] == ["pretrain", "sft"]
    turned["lineage"]["checkpoints"].reverse()
    assert [s.name for s in make_timeline(order_like_run(no_tokens, turned)).stages] == ["sft", "pretrain"]


def test_time_is_logarithmic_and_restarts_in_each_stage() -> None:
    line = make_timeline(synthetic_records.table(sft=True))
    first, second = line.stages
    assert (first.log, second.log) == (True, True)
    assert line.moments["age"].is_monotonic_increasing
    assert first.age(255) - first.age(127) == pytest.approx(first.age(127) - first.age(63))
    assert second.start > first.start + first.width
    assert line.age("sft", 100) == second.start
    assert np.isnan(line.age("sft", float("nan")))
    shown = line.ticks(6)
    assert {0.0, 16000.0, 100.0, 800.0} & set(shown["step"]) >= {16000.0, 800.0}
    assert len(make_timeline(synthetic_records.frame([])).moments) == 0


def test_released_model_without_a_step_is_included(table: pd.DataFrame) -> None:
    """Its rows have a stage but no step: it is the end of its stage, and not a floor."""
    truth = table[table["concept"].eq("truth") & ~table["metric"].isin(["emergence_step", "used_step", "change_point"])]
    last = truth[truth["step"].eq(16000) | truth["step"].isna()]
    alone = collect_findings(last.assign(step=np.nan))[0]
    assert alone.final.value == collect_findings(truth)[0].final.value
    both = pd.concat([truth, last[last["stage"].notna()].assign(step=np.nan, value=0.9)])
    line = make_timeline(both)
    assert list(line.moments["step"])[-2:] == [16000.0, 16000.5]
    assert collect_findings(both)[0].final.value == 0.9
    assert '\\"end\\"' in json.dumps(views.load_view("emergence").draw(both).to_dict(validate=False))


def test_steps_with_growing_gaps_have_a_log_axis() -> None:
    def log(*steps: int) -> bool:
        return (
            make_timeline(synthetic_records.frame([{"stage": "a", "step": s, "metric": "auroc"} for s in steps]))
            .stages[0]
            .log
        )

    assert log(0, 1, 10, 100)
    assert log(0, 1, 2, 4, 8)
    assert log(0, 20, 27, 36, 49, 66, 89, 120, 162, 218, 294)
    assert not log(0, 100, 200, 300, 400)
    assert not log(5)


def test_control_task_is_in_the_sentence_only_if_types_predict_the_label(table: pd.DataFrame) -> None:
    truth = table[table["concept"].eq("truth")].copy()
    assert "selectivity" not in finding_sentences(collect_findings(truth)[0])[0]
    selective = truth["metric"].eq("selectivity")
    truth.loc[selective, "coords"] = [{"type_accuracy": "0.71", "types_predict": "true"}] * int(selective.sum())
    finding = collect_findings(truth)[0]
    assert finding.selectivity is not None
    assert f"; selectivity {format_score(finding.selectivity.value)}" in finding_sentences(finding)[0]


def test_numbers_have_the_format_of_papers() -> None:
    printed = [format_score(v) for v in (0.934, 1.0, -0.12, -0.001, float("nan"), 1.25)]
    assert printed == [".93", "1.00", "−.12", ".00", "–", "1.25"]
    assert [format_step(v) for v in (0.0, 1.5, 143000.0, 724.4)] == ["0", "1.5", "143,000", "724"]
    assert describe_site("head.3.5") == "in head 5 of block 3"
    assert describe_site("resid.0") == "in the embedding"


def test_warnings_name_failures_and_censored_events(table: pd.DataFrame, page: str) -> None:
    about = synthetic_records.about()
    lost = table.tail(2).assign(metric="nhsic_ty", value=np.nan, n=0, note="kernel of one point")
    said = report_warnings(pd.concat([table, lost]), about, collect_findings(table))
    assert ("step3", "was not measured: weights are those of step 143000 (audit).") in said
    assert any(what == "privacy" and "emergence censored" in text for what, text in said)
    again = report_warnings(
        table, {}, [*collect_findings(table), *collect_findings(table.replace({"concept": {"privacy": "secrecy"}}))]
    )
    assert any(what == "privacy, secrecy" and "emergence censored" in text for what, text in again)
    unscored = report_warnings(table[table["metric"].ne("auroc")].iloc[:0], about, [])
    assert ("truth", "has no score in this table.") in unscored
    assert ("2 absent", "could not be measured: kernel of one point – nhsic_ty (2).") in said
    assert (
        page.index('id="findings"') < page.index('id="warnings"') < page.index('id="pictures"') < page.index('id="run"')
    )


def test_page_loads_nothing(page: str) -> None:
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<link|<iframe""", markup.replace("&lt;img src=x", ""))
    assert "default-src &#39;none&#39;" in markup


def test_policy_allows_only_our_scripts(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert digest.replace("+", "&#43;") in page or digest in page


def test_hostile_name_is_escaped(page: str) -> None:
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "document.title='owned'</script>" not in page
    data = re.search(r'<script type="application/json" id="specs">(.*?)</script>', page, flags=re.DOTALL)
    assert data is not None
    specs = json.loads(data.group(1))
    assert HOSTILE in json.dumps(specs, ensure_ascii=False).replace('\\"', '"')
    assert "49" not in re.findall(r"<h3>&lt;/script&gt;.*?</h3>", page)[0]


def test_page_shows_command_and_versions(page: str) -> None:
    assert "ontogeny trace runs/tiny/checkpoints" in page
    assert "Everything in run.json" in page
    assert "5.23.0" in page


def test_empty_run_gives_a_page(tmp_path: Path) -> None:
    page = write_report(synthetic_records.frame([]), {}, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No concept has a score in this table." in page
    assert "<li><b>Emergence</b>: no rows" in page


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "html", "json"])
def test_chart_is_saved(ending: str, table: pd.DataFrame, tmp_path: Path) -> None:
    path = views.save_chart(views.load_view("concepts").draw(table), tmp_path / f"c.{ending}")
    starts = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF", "html": b"<!DOCTYPE html>", "json": b"{"}
    content = path.read_bytes()
    assert content.startswith(starts[ending])
    if ending == "html":
        assert b'src="http' not in content


def test_rejects_unknown_file_extension(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.png, \.svg, \.pdf, \.html or \.json"):
        views.save_chart(None, tmp_path / "c.gif")


def test_summary_fits_the_terminal_and_escapes_names(table: pd.DataFrame) -> None:
    for width in (30, 60, 80, 124, 150):
        console = Console(file=io.StringIO(), width=width)
        print_summary(table.replace({"concept": {"privacy": "[red]"}}), console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        words = " ".join(text.split())
        assert "[red]" in text
        assert "512 (320–768)" in words
        assert "robustness" in text
        assert "…" not in text
        assert "! toxicity can be told from TF-IDF alone" in words
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    console = Console(file=io.StringIO())
    print_summary(table.head(0), console)
    assert "No concept has a score" in console.file.getvalue()  # type: ignore[attr-defined]


def test_sparkline_marks_missing_values() -> None:
    assert sparkline([0.5, 0.75, 1.0, float("nan"), 0.2]) == "▁▅█·▁"

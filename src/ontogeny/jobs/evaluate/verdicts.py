"""Verdicts on vectors, made from rows: every p that a run holds is corrected together, and each choice of alpha gets one sentence.

A vector works where, on test items, its interval leaves 0 out, it beats as many random directions (q, Benjamini–Hochberg over all that was
tried) and 97.5 % of the fits on permuted labels. That a sentence in front of the prompt does more is said, and does not change that.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from ontogeny.jobs.evaluate.nulls import SIGNIFICANCE_LEVEL
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import Record
from ontogeny.statistics.fdr import q_values
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

VERDICTS_PREFIX = "verdicts-"


def write_verdicts(run: Run, lineage: str) -> str:
    """Write the q of every p and a verdict on every choice; returns the unit. Those of an earlier call are replaced."""
    table = run.query(
        "select * exclude (run) from records where starts_with(unit, 'evaluation-') order by unit, concept, method, metric"
    )
    unit = f"{VERDICTS_PREFIX}{content_digest(sorted(set(table['unit'])))}"
    run.keep(unit, CheckpointStamp(lineage, unit).sign(list(_verdicts(table))))
    run.forget(VERDICTS_PREFIX, but=unit)
    return unit


def _verdicts(table: pd.DataFrame) -> Iterator[Record]:
    p = table[(table["metric"] == "steering_p") & table["control"].isna()]
    q = q_values(torch.tensor(p["value"].to_numpy(dtype="float64"))) if len(p) else torch.empty(0)
    p = p.assign(q=q.tolist())
    for row in _dicts(p):
        made = _record(row, "steering_q", float(row["q"]), int(row["n"]))
        yield replace(made, note=f"Benjamini–Hochberg over {len(p)} effects")
    for chosen in _dicts(table[table["metric"] == "chosen_alpha"]):
        yield _verdict(table, p, chosen)


def _verdict(table: pd.DataFrame, p: pd.DataFrame, chosen: dict[str, Any]) -> Record:
    place, alpha = dict(chosen["coords"]), f"{chosen['value']:g}"
    mine = table[_same_vector(table, chosen) & (table["split"] == "test")]
    told = {**place, "alpha": alpha}
    at = mine[[told.items() <= dict(c).items() for c in mine["coords"]]]
    effect = at[(at["metric"] == "steering_effect") & at["control"].isna()].iloc[0]
    random = at[(at["metric"] == "steering_effect") & (at["control"] == "random_direction")].iloc[0]
    permuted = at[(at["metric"] == "steering_effect") & (at["control"] == "shuffled_label")]
    tried = p[_same_vector(p, chosen)]
    q = float(tried[[dict(c).get("alpha") == alpha for c in tried["coords"]]]["q"].iloc[0])
    wish = -1 if chosen["method"] == "ablate" else 1
    reasons = _reasons(effect, random, permuted, q, wish)
    works = not reasons
    prompt = table[_same_vector(table, {**chosen, "method": "prompt"}) & (table["control"] == "prompt_only")]
    said = _sentence(
        chosen, place, alpha, effect, random, permuted, q, prompt, _cost(table, chosen, place, alpha), reasons
    )
    said += _side_note(at, wish)
    made = _record(chosen, "steering_works", float(works), int(effect["n"]))
    return replace(made, note=said, split="test", coords={**place, "alpha": alpha})


def _side_note(at: pd.DataFrame, wish: int) -> str:
    """A margin may grow while both continuations grow less likely: that is said."""
    rows = at[(at["metric"] == "promote")]
    whole = rows[[dict(c).get("share") == "1" for c in rows["coords"]]] if len(rows) else rows
    if wish > 0 and len(whole) and float(whole["high"].iloc[0]) < 0 and float(whole["value"].iloc[0]) <= -0.005:
        return f" What shows the concept is itself {-float(whole['value'].iloc[0]):.2f} nats per token less likely."
    return ""


def _reasons(effect: Any, random: Any, permuted: pd.DataFrame, q: float, wish: int) -> list[str]:
    """Why it does not work; empty where it does."""
    low, high = sorted((wish * effect["low"], wish * effect["high"]))
    ahead = wish * (effect["value"] - random["value"]) > 0
    if high < 0:
        beyond = q <= SIGNIFICANCE_LEVEL and not ahead
        return [f"it moves the other way{', and further than random directions' if beyond else ''} (q {_short(q)})"]
    reasons = ["its interval holds 0"] if low <= 0 else []
    if not ahead or q > SIGNIFICANCE_LEVEL:
        reasons.append(f"it does not beat random directions of its length (q {_short(q)})")
    if len(permuted):
        null = permuted.iloc[0]
        if wish * effect["value"] <= max(wish * null["low"], wish * null["high"]):
            reasons.append("a fit on permuted labels does as much")
    return reasons


def _sentence(
    chosen: dict[str, Any],
    place: dict[str, str],
    alpha: str,
    effect: Any,
    random: Any,
    permuted: pd.DataFrame,
    q: float,
    prompt: pd.DataFrame,
    cost: float,
    reasons: list[str],
) -> str:
    where = ", ".join(f"{key} {value}" if key != "site" else value for key, value in place.items())
    step = "end" if pd.isna(chosen["step"]) else f"{chosen['step']:.0f}"
    scaled = "" if chosen["method"] == "ablate" else f", alpha {alpha}"
    said = [
        f"{chosen['concept']}, {chosen['method']} at {where}{scaled} ({chosen['stage']} {step}): "
        f"{_sample_text(effect)} nats on {effect['n']:.0f} test questions; "
        f"{random['n']:.0f} random directions {_ends(random)} (q {_short(q)})"
    ]
    if len(permuted):
        said.append(f"permuted labels {_ends(permuted.iloc[0])}")
    if not math.isnan(cost):
        said.append(f"KL on neutral text {cost:.3f}")
    if len(prompt):
        said.append(f"a prompt alone {_sample_text(prompt.iloc[0])}")
    verdict = "It works." if not reasons else f"It does not work: {'; '.join(reasons)}."
    more = not reasons and len(prompt) and abs(float(prompt.iloc[0]["value"])) >= abs(float(effect["value"]))
    return "; ".join(said) + ". " + verdict + (" The prompt does as much or more." if more else "")


def _cost(table: pd.DataFrame, chosen: dict[str, Any], place: dict[str, str], alpha: str) -> float:
    rows = table[_same_vector(table, chosen) & (table["metric"] == "neutral_kl")]
    rows = rows[[dict(c) == {**place, "alpha": alpha} for c in rows["coords"]]]
    return float(rows["value"].iloc[0]) if len(rows) else math.nan


def _same_vector(table: pd.DataFrame, row: dict[str, Any]) -> Any:
    keep = table["unit"] == row["unit"]
    return keep & (table["concept"] == row["concept"]) & (table["method"] == row["method"])


def _record(row: dict[str, Any], metric: str, value: float, n: int) -> Record:
    def known(name: str) -> Any:
        return None if pd.isna(row[name]) else row[name]

    texts = {name: known(name) for name in ("stage", "revision", "concept", "site", "method", "split")}
    whole = {
        name: None if known(name) is None else int(row[name])
        for name in ("step", "train_seed", "layer", "head", "seed")
    }
    told: dict[str, Any] = {**texts, **whole, "tokens": known("tokens")}
    return Record(metric=metric, value=value, n=n, coords=dict(row["coords"]), **told)


def _dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _sample_text(row: Any) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _ends(row: Any) -> str:
    return f"{row['low']:+.2f} to {row['high']:+.2f}"


def _short(q: float) -> str:
    return f"{q:.3f}".lstrip("0") if q < 1 else "1"

"""Verdicts on steering vectors, computed from rows: all p-values of a run are corrected together, and each choice of alpha gets a sentence.

A vector works if, on test items, its interval excludes 0 and its effect exceeds that of norm-matched random directions (q,
Benjamini–Hochberg over everything that was tried) and 97.5 % of the fits on permuted labels. A stronger effect of a prompt alone is
mentioned and does not change the verdict. Where only the random directions speak against it, and they are too few for any effect to be
significant among so many, there is no verdict: too few controls to tell (`statistics.attainable`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ontogeny.jobs.evaluate.nulls import SIGNIFICANCE_LEVEL
from ontogeny.jobs.evaluate.rows import FITTED_ON_TEST
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import DATA_SHARE, Record, checkpoint_label
from ontogeny.statistics.attainable import controls_needed, least_control_p, too_few_controls
from ontogeny.statistics.fdr import q_values
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_PREFIX = "verdicts-"


def write_verdicts(run: Run, lineage: str) -> str:
    """Write the q of every p and a verdict on every choice, in place of earlier ones; returns the unit."""
    table = run.query(
        "select * exclude (run) from records where starts_with(unit, 'evaluation-') order by unit, concept, method, metric"
    )
    unit = f"{_PREFIX}{content_digest(sorted(set(table['unit'])))}"
    run.keep(unit, CheckpointStamp(lineage, unit).sign(list(_verdict_rows(table))))
    run.forget(_PREFIX, but=unit)
    return unit


def _verdict_rows(table: pd.DataFrame) -> Iterator[Record]:
    p = table[(table["metric"] == "steering_p") & table["control"].isna()]
    values, controls = (torch.tensor(p[name].to_numpy(dtype="float64")) for name in ("value", "n"))
    q = q_values(values) if len(p) else torch.empty(0)
    p = p.assign(q=q.tolist(), too_few=too_few_controls(values, controls, SIGNIFICANCE_LEVEL))
    for row in _dicts(p):
        record = _record(row, "steering_q", float(row["q"]), int(row["n"]))
        yield replace(record, note=f"Benjamini–Hochberg over {len(p)} effects")
    for chosen in _dicts(table[table["metric"] == "chosen_alpha"]):
        evidence = _evidence(table, p, chosen)
        works, n = float(not evidence.reasons), int(evidence.effect["n"])
        value = (math.nan, 0) if evidence.is_untold else (works, n)
        coords = {**dict(chosen["coords"]), "alpha": evidence.alpha}
        record = _record(chosen, "steering_works", *value, note=evidence.sentence)
        yield replace(record, split="test", coords=coords)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Everything that decides one verdict; rows are None if they were not measured."""

    chosen: dict[str, Any]
    effect: Any
    random: Any
    permuted: Any
    prompt: Any
    promote: Any
    q: float
    too_few: bool
    """Whether no effect could have been significant beside so few random directions."""
    effects: int
    """Number of effects that are corrected together."""
    cost: float

    @property
    def alpha(self) -> str:
        return f"{self.chosen['value']:g}"

    @property
    def wish(self) -> int:
        """Sign of the desired effect: an ablation should lower the margin."""
        return -1 if self.chosen["method"] == "ablate" else 1

    @property
    def is_ahead(self) -> bool:
        """Whether the effect is further in the desired direction than the mean random direction."""
        return bool(self.wish * (self.effect["value"] - self.random["value"]) > 0)

    @property
    def is_untold(self) -> bool:
        """Whether nothing speaks against the vector but a q that no effect could have undercut with so few random directions."""
        return self.too_few and self.is_ahead and not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why the vector does not work; empty if it does, or if its random directions are too few to tell."""
        effect, wish, q = self.effect, self.wish, _short(self.q)
        low, high = sorted((wish * effect["low"], wish * effect["high"]))
        if high < 0:
            beyond = self.q <= SIGNIFICANCE_LEVEL and not self.is_ahead
            return [f"it moves the other way{', and further than random directions' if beyond else ''} (q {q})"]
        reasons = ["its interval holds 0"] if low <= 0 else []
        if not self.is_ahead or (self.q > SIGNIFICANCE_LEVEL and not self.too_few):
            reasons.append(f"it does not beat random directions of its length (q {q})")
        null = self.permuted
        if null is not None and wish * effect["value"] <= max(wish * null["low"], wish * null["high"]):
            reasons.append("a fit on permuted labels does as much")
        return reasons

    @property
    def sentence(self) -> str:
        chosen, effect, random, prompt = self.chosen, self.effect, self.random, self.prompt
        coords = {k: v for k, v in dict(chosen["coords"]).items() if k != DATA_SHARE}  # the stage names it
        where = ", ".join(f"{k} {v}" if k != "site" else v for k, v in coords.items())
        place = checkpoint_label(chosen["stage"], chosen["step"])
        scaled = "" if chosen["method"] == "ablate" else f", alpha {self.alpha}"
        seen = f" ({FITTED_ON_TEST})" if FITTED_ON_TEST in str(chosen["note"]) else ""
        parts = [
            f"{chosen['concept']}, {chosen['method']} at {where}{scaled} ({place}): "
            f"{_with_interval(effect)} nats on {_counted(effect['n'], 'test question')}{seen}; "
            f"{_counted(random['n'], 'random direction')} {_interval(random)} (q {_short(self.q)})"
        ]
        parts += [] if self.permuted is None else [f"permuted labels {_interval(self.permuted)}"]
        parts += [] if math.isnan(self.cost) else [f"KL on neutral text {self.cost:.3f}"]
        parts += [] if prompt is None else [f"a prompt alone {_with_interval(prompt)}"]
        reasons = self.reasons
        verdict = "It works." if not reasons else f"It does not work: {'; '.join(reasons)}."
        if self.is_untold:
            count, needed = int(random["n"]), controls_needed(self.effects, SIGNIFICANCE_LEVEL)
            verdict = (
                f"Too few controls to tell ({needed:,} needed): the least p beside {count:,} random directions is "
                f"{_short(least_control_p(count))}, and {self.effects:,} effects are corrected together."
            )
        elif (
            not reasons
            and prompt is not None
            and self.wish * float(prompt["value"]) >= self.wish * float(effect["value"])
        ):
            verdict += " The prompt does as much or more."
        promote = self.promote
        # A margin can grow while both continuations become less likely.
        if self.wish > 0 and promote is not None and float(promote["high"]) < 0 and float(promote["value"]) <= -0.005:
            loss = -float(promote["value"])
            verdict += f" What shows the concept is itself {loss:.2f} nats per token less likely."
        return f"{'; '.join(parts)}. {verdict}"


def _evidence(table: pd.DataFrame, p: pd.DataFrame, chosen: dict[str, Any]) -> _Evidence:
    here = {**dict(chosen["coords"]), "alpha": f"{chosen['value']:g}"}
    same, tried = table[_same_vector(table, chosen)], p[_same_vector(p, chosen)]
    prompts = table[_same_vector(table, {**chosen, "method": "prompt"})]
    at = _where(same[same["split"] == "test"], lambda coords: here.items() <= coords.items())
    effects = at[at["metric"] == "steering_effect"]
    cost = _first(_where(same[same["metric"] == "neutral_kl"], lambda coords: coords == here))
    own = _first(_where(tried, lambda coords: coords.get("alpha") == here["alpha"]))
    return _Evidence(
        chosen,
        _first(effects[effects["control"].isna()]),
        _first(effects[effects["control"] == "random_direction"]),
        _first(effects[effects["control"] == "shuffled_label"]),
        _first(prompts[prompts["control"] == "prompt_only"]),
        _first(_where(at[at["metric"] == "promote"], lambda coords: coords.get("share") == "1")),
        float(own["q"]),
        bool(own["too_few"]),
        len(p),
        math.nan if cost is None else float(cost["value"]),
    )


def _where(rows: pd.DataFrame, holds: Callable[[dict[str, str]], bool]) -> pd.DataFrame:
    return rows[pd.Series([holds(dict(coords)) for coords in rows["coords"]], index=rows.index, dtype=bool)]


def _first(rows: pd.DataFrame) -> Any:
    return rows.iloc[0] if len(rows) else None


def _same_vector(table: pd.DataFrame, row: dict[str, Any]) -> Any:
    keep = table["unit"] == row["unit"]
    return keep & (table["concept"] == row["concept"]) & (table["method"] == row["method"])


def _record(row: dict[str, Any], metric: str, value: float, n: int, note: str | None = None) -> Record:
    whole = ("step", "train_seed", "layer", "head", "seed")
    names = ("stage", "revision", "concept", "site", "method", "split", "tokens", *whole)
    columns = {name: row[name] for name in names if not pd.isna(row[name])}
    columns |= {name: int(columns[name]) for name in whole if name in columns}
    return Record(metric=metric, value=value, n=n, note=note, coords=dict(row["coords"]), **columns)


def _dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _counted(number: float, noun: str) -> str:
    return f"{number:.0f} {noun}{'' if number == 1 else 's'}"


def _with_interval(row: Any) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _interval(row: Any) -> str:
    return f"{row['low']:+.2f} to {row['high']:+.2f}"


def _short(q: float) -> str:
    return f"{q:.3f}".lstrip("0") if q < 1 else "1"

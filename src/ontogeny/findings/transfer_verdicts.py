"""Verdicts on transfer: do vectors of earlier checkpoints steer a model as well as its own (arXiv:2402.19465, experiment 2)?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ontogeny.findings.steering_verdicts import TOO_FEW_CONTROLS
from ontogeny.records import checkpoint_label

_SIGNIFICANCE_LEVEL = 0.05
EFFECT_METRICS = ("transfer_effect", "transfer_gain", "transfer_p", "transfer_q")


@dataclass(frozen=True)
class AveragedVector:
    """The mean vector of several checkpoints."""

    k: int
    rule: str
    """Which checkpoints: the `last`, the `best` by cross-validation on their training groups, or spread `even`ly."""
    effect: float
    gain_low: float
    """Interval of its effect minus that of the target's own vector."""
    gain_high: float


@dataclass(frozen=True)
class TransferVerdict:
    """The vectors of earlier checkpoints on one concept and target."""

    concept: str
    stage: str
    step: int | None
    site: str
    outcome: str
    length: str
    own: float
    own_low: float
    own_high: float
    own_p: float
    """Against the random directions; not corrected, since it is one test per concept and target."""
    null_low: float
    """95 % of the random directions."""
    null_high: float
    shuffled_low: float
    """95 % of the directions of shuffled labels."""
    shuffled_high: float
    of: str
    """The first stage of the target's ancestors: the stage whose vectors are counted."""
    sources: int
    """Number of vectors with an effect."""
    working: int
    """Number of these that work: interval above 0, more than random directions (corrected) and than 97.5 % of the shuffled labels'."""
    larger: int
    """Number with a larger effect than the target's own vector."""
    surely_larger: int
    """Number with an interval of the difference above 0."""
    averages: tuple[AveragedVector, ...]
    untold: int = 0
    """Number of vectors that would work but for a q which no effect could have undercut with so few random directions."""
    controls: int = 0
    """Number of random directions of each p-value."""
    pairs: int = 0
    """Number of effects of the concept that are corrected together."""
    why: str = ""
    """The reason, if nothing was measured."""

    @property
    def own_works(self) -> bool:
        """Whether the target's own vector does more than its nulls."""
        return self.own_low > 0 and self.own_p < _SIGNIFICANCE_LEVEL and self.own > self.shuffled_high

    @property
    def sentence(self) -> str:
        """The verdict as a sentence."""
        unit = "nats" if self.outcome == "answers" else "spreads of the probe"
        where = f"{self.concept} into {checkpoint_label(self.stage, self.step)} at {self.site}"
        if math.isnan(self.own):
            return f"{where}: no effect was measured: {self.why or 'the target has no vector of its own'}."
        works = "does more than" if self.own_works else "does not do more than both"
        text = (
            f"{where}: its own vector changes {self.own:+.2f} {unit} [{self.own_low:+.2f}, {self.own_high:+.2f}] and {works} "
            f"random directions ({self.null_low:+.2f} to {self.null_high:+.2f}) and directions of shuffled labels "
            f"({self.shuffled_low:+.2f} to {self.shuffled_high:+.2f}), p = {self.own_p:.3f}; "
            f"{self._of_sources}"
        )
        last = [average for average in self.averages if average.rule == "last"]
        if len(last) > 1:
            ks, values = ", ".join(str(a.k) for a in last), ", ".join(f"{a.effect:+.2f}" for a in last)
            text += f"; averages of their last {ks}: {values}"
        return text + "."

    @property
    def _of_sources(self) -> str:
        """How many vectors of the first stage work, as a part of the sentence."""
        if not self.sources:
            return f"no other vector of {self.of} has an effect to count"
        return (
            f"of {self.sources:,} vector{'s' * (self.sources != 1)} of {self.of}, {self.working:,} work{'s' * (self.working == 1)}"
            f"{self._untold}, {self.larger:,} ha{'s' if self.larger == 1 else 've'} a larger effect than its own "
            f"({self.surely_larger:,} surely)"
        )

    @property
    def _untold(self) -> str:
        """The vectors without a verdict, as a part of the sentence."""
        if not self.untold:
            return ""
        from ontogeny.statistics.attainable import controls_needed

        return (
            f", {self.untold} with {TOO_FEW_CONTROLS} ({controls_needed(self.pairs, _SIGNIFICANCE_LEVEL):,} needed: the least p beside "
            f"{self.controls:,} random directions is {1 / (self.controls + 1):.3f}, and {self.pairs:,} effects are corrected together)"
        )


def transfer_verdicts(
    records: pd.DataFrame, about: Mapping[str, Any], concepts: Sequence[str] = ()
) -> list[TransferVerdict]:
    """A verdict for each concept (all by default) and target with effects, in developmental order; `about` is the content of run.json."""
    rows = _rows_of_concepts(records[records["metric"].isin(EFFECT_METRICS)], concepts)
    if rows.empty:
        return []
    rows = rows.assign(**{c: [dict(coords).get(c, "") for coords in rows["coords"]] for c in _COORDS})
    rows = _with_too_few(rows)
    parents: dict[str, str | None] = about["lineage"]["parents"]
    groups = rows.groupby(["concept", "stage", "step"], sort=False, dropna=False)
    verdicts = [_verdict(here, _first_ancestor(str(here["stage"].iloc[0]), parents)) for _, here in groups]
    rank, names = _rank(about), list(concepts) or sorted({verdict.concept for verdict in verdicts})
    return sorted(verdicts, key=lambda v: (names.index(v.concept), rank[v.stage, f"{v.step}"]))


def final_transfer_sentences(verdicts: Sequence[TransferVerdict]) -> dict[str, list[str]]:
    """The sentences on the last target of each stage, by concept."""
    last = {(verdict.concept, verdict.stage): verdict.sentence for verdict in verdicts}
    return {name: [text for (concept, _), text in last.items() if concept == name] for name, _ in last}


def _rows_of_concepts(rows: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    return rows[rows["concept"].isin(concepts)] if concepts else rows


def _first_ancestor(stage: str, parents: Mapping[str, str | None]) -> str:
    while (up := parents.get(stage)) is not None:
        stage = up
    return stage


def _rank(about: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """The developmental order of the checkpoints."""
    return {(c["stage"], f"{c['step']}"): i for i, c in enumerate(about["lineage"]["checkpoints"])}


def _with_too_few(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `too_few` at each p against random directions, and `pairs`, the number of those of its concept."""
    import torch

    from ontogeny.statistics.attainable import too_few_controls

    rows = rows.assign(too_few=False, pairs=0)
    p = rows[rows["metric"].eq("transfer_p") & rows["control"].isna() & rows["value"].notna()]
    for _, own in p.groupby("concept"):
        values, controls = (torch.tensor(own[name].to_numpy(dtype="float64")) for name in ("value", "n"))
        rows.loc[own.index, "too_few"] = too_few_controls(values, controls, _SIGNIFICANCE_LEVEL)
        rows.loc[own.index, "pairs"] = len(own)
    return rows


_COORDS = ("source_stage", "source_step", "average_of", "rule", "outcome", "length")
_KEY = ["source_stage", "source_step", "average_of", "rule"]


def _verdict(rows: pd.DataFrame, root: str) -> TransferVerdict:
    first = rows.iloc[0]
    stage, step = str(first["stage"]), None if pd.isna(first["step"]) else int(first["step"])
    effects = rows[rows["metric"].eq("transfer_effect")]
    nulls, shuffled = (effects[effects["control"].eq(name)] for name in ("random_direction", "shuffled_label"))
    missing = effects[effects["control"].isna() & effects["value"].isna()]["note"]
    effects = effects[effects["control"].isna() & effects["value"].notna()].set_index(_KEY, drop=False)
    gains = rows[rows["metric"].eq("transfer_gain")].set_index(_KEY).reindex(effects.index)
    q = rows[rows["metric"].eq("transfer_q")].set_index(_KEY)["value"].reindex(effects.index)
    tests = rows[rows["metric"].eq("transfer_p") & rows["control"].isna()].set_index(_KEY).reindex(effects.index)
    p, too_few = tests["value"], tests["too_few"].eq(True)
    is_own = effects["source_stage"].eq(stage) & effects["source_step"].eq(f"{step}")
    counted = effects["average_of"].eq("") & ~is_own & effects["source_stage"].eq(root)
    own = effects[is_own].iloc[0] if is_own.any() else None
    means = effects[effects["average_of"].ne("")]
    mean_gains = gains.reindex(means.index)
    high = float(shuffled["high"].mean())
    averages = [
        AveragedVector(int(k), str(rule), float(value), float(low), float(high))
        for k, rule, value, low, high in zip(
            means["average_of"], means["rule"], means["value"], mean_gains["low"], mean_gains["high"], strict=True
        )
    ]
    beyond = counted & (effects["low"] > 0) & (effects["value"] > high)
    return TransferVerdict(
        concept=str(first["concept"]),
        stage=stage,
        step=step,
        site=str(first["site"]),
        outcome=next((str(o) for o in effects["outcome"] if o), ""),
        length=next((str(length) for length in effects["length"] if length), ""),
        own=math.nan if own is None else float(own["value"]),
        own_low=math.nan if own is None else float(own["low"]),
        own_high=math.nan if own is None else float(own["high"]),
        own_p=float(p[is_own].iloc[0]) if is_own.any() else math.nan,
        null_low=float(nulls["low"].mean()),
        null_high=float(nulls["high"].mean()),
        shuffled_low=float(shuffled["low"].mean()),
        shuffled_high=high,
        of=root,
        sources=int(counted.sum()),
        working=int((beyond & (q < _SIGNIFICANCE_LEVEL)).sum()),
        larger=int((counted & (gains["value"] > 0)).sum()),
        surely_larger=int((counted & (gains["low"] > 0)).sum()),
        averages=tuple(sorted(averages, key=lambda a: (a.rule, a.k))),
        untold=int((beyond & too_few).sum()),
        controls=0 if tests["n"].isna().all() else int(tests["n"].max()),
        pairs=0 if tests["pairs"].isna().all() else int(tests["pairs"].max()),
        why=str(missing.iloc[0]) if len(missing) else "",
    )


def stage_transfer_table(records: pd.DataFrame, about: Mapping[str, Any], concepts: Sequence[str] = ()) -> pd.DataFrame:
    """AUROC and cosine of the logistic probes between the last checkpoints of the stages, or first and last of a single stage."""
    probes = records["metric"].isin(["transfer_auroc", "transfer_cosine"]) & records["method"].eq("logistic")
    rows = _rows_of_concepts(records[probes], concepts)
    rows = rows[pd.Series(["source_stage" in dict(c) for c in rows["coords"]], index=rows.index, dtype=bool)]
    empty = ["concept", "source", "target", "value", "low", "high", "cosine"]
    if rows.empty:
        return pd.DataFrame(columns=empty)
    coords, rank = [dict(c) for c in rows["coords"]], _rank(about)
    rows = rows.assign(**{"from": [rank[c["source_stage"], c["source_step"]] for c in coords]})
    rows["to"] = [rank[stage, _step(step)] for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    rows["source"] = [source_label(c) for c in coords]
    rows["target"] = [checkpoint_label(stage, step) for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    rows = rows.sort_values(["from", "to"])
    lasts = set(rows.assign(stage_of=[s.rpartition(" ")[0] for s in rows["source"]]).groupby("stage_of")["from"].max())
    if len(lasts) == 1:
        lasts |= {rows["from"].min()}
    into = lasts & set(rows["to"]) or set(rows["to"])
    rows = rows[rows["from"].isin(lasts) & rows["to"].isin(into)]
    auroc = rows[rows["metric"].eq("transfer_auroc")]
    near = rows[rows["metric"].eq("transfer_cosine")].set_index(["concept", "source", "target"])["value"]
    auroc = auroc.assign(cosine=[near.get((r.concept, r.source, r.target)) for r in auroc.itertuples()])
    return auroc.sort_values(["concept", "from", "to"])[empty].reset_index(drop=True)


def source_label(coords: Mapping[str, str]) -> str:
    """The source checkpoint of a row with its stage: base 1,200."""
    step = coords["source_step"]
    return checkpoint_label(coords["source_stage"], None if step == "None" else float(step))


def _step(step: float) -> str:
    return "None" if pd.isna(step) else str(int(step))

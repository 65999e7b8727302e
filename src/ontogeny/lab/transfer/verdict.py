"""Do vectors of earlier checkpoints steer a model as well as its own? Told from rows alone (experiment 2 of arXiv:2402.19465)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ontogeny.run import Run, text

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """One concept, one target."""

    concept: str
    stage: str
    step: int | None
    site: str
    outcome: str
    length: str
    own: float
    own_low: float
    own_high: float
    own_q: float
    null_low: float
    null_high: float
    controls: int
    sources: int
    """Vectors of other checkpoints that could be tried."""
    working: int
    """Of these, how many move what they should, beyond the random directions, corrected."""
    larger: int
    """How many have a larger effect than the target's own vector."""
    surely_larger: int
    """How many with an interval of the difference above 0."""
    best_average: str
    best_average_effect: float
    best_average_gain_low: float

    why: str = ""
    """Where nothing was measured: the reason."""

    @property
    def sentence(self) -> str:
        """What it comes to, in words."""
        unit = "nats" if self.outcome == "answers" else "spreads of the probe"
        where = f"{self.concept} into {self.stage} {'end' if self.step is None else self.step} at {self.site}"
        if math.isnan(self.own):
            return f"{where}: no effect was measured: {self.why or 'the target has no vector of its own'}."
        works = "does more than" if self.own > 0 and self.own_q < LEVEL else "does no more than"
        told = (
            f"{where}: its own vector changes {self.own:+.2f} {unit} [{self.own_low:+.2f}, {self.own_high:+.2f}] and {works} "
            f"{self.controls} random directions ({self.null_low:+.2f} to {self.null_high:+.2f}); "
            f"of {self.sources} other checkpoints' vectors {self.working} work, {self.larger} have a larger effect than its own "
            f"({self.surely_larger} surely)"
        )
        if self.best_average:
            sure = "surely more" if self.best_average_gain_low > 0 else "not surely more"
            told += f"; of averages the largest effect is {self.best_average_effect:+.2f} ({self.best_average}), {sure} than its own"
        return told + "."


def verdicts(run: Run, concepts: Sequence[str]) -> list[Verdict]:
    """One for each concept and target with effects, in the order of the rows; a choice among averages is told, not corrected for."""
    named = ", ".join(text(name) for name in concepts)
    rows = run.records(f"metric in ('transfer_effect', 'transfer_gain', 'transfer_q') and concept in ({named})")
    if rows.empty:
        return []
    rows = rows.assign(**{c: [dict(coords).get(c, "") for coords in rows["coords"]] for c in _COORDS})
    made = [_verdict(here) for _, here in rows.groupby(["concept", "stage", "step"], sort=False, dropna=False)]
    rank = _rank(run)
    return sorted(made, key=lambda one: (list(concepts).index(one.concept), rank[one.stage, f"{one.step}"]))


def _rank(run: Run) -> dict[tuple[str, str], int]:
    """The place of each checkpoint in development."""
    return {(c["stage"], f"{c['step']}"): i for i, c in enumerate(run.about["lineage"]["checkpoints"])}


_COORDS = ("source_stage", "source_step", "average_of", "rule", "outcome", "length")


def _verdict(rows: pd.DataFrame) -> Verdict:
    first = rows.iloc[0]
    step = None if math.isnan(first["step"]) else int(first["step"])
    effects = rows[rows["metric"].eq("transfer_effect")]
    nulls = effects[effects["control"].eq("random_direction")]
    lost = effects[effects["control"].isna() & effects["value"].isna()]["note"]
    effects = effects[effects["control"].isna() & effects["value"].notna()]
    mine = effects["source_stage"].eq(first["stage"]) & effects["source_step"].eq(f"{step}")
    single, means = effects["average_of"].eq("") & ~mine, effects["average_of"].ne("")
    key = ["source_stage", "source_step", "average_of", "rule"]
    gains = rows[rows["metric"].eq("transfer_gain")].set_index(key)
    q = rows[rows["metric"].eq("transfer_q")].set_index(key)["value"]
    others = effects[single].set_index(key)
    own = effects[mine].iloc[0] if mine.any() else None
    own_q = float(q.loc[tuple(own[key])]) if own is not None else math.nan
    best = effects[means].sort_values("value").iloc[-1] if means.any() else None
    gain = gains.reindex(others.index)
    return Verdict(
        concept=str(first["concept"]),
        stage=str(first["stage"]),
        step=step,
        site=str(first["site"]),
        outcome=str(first["outcome"]),
        length=str(first["length"]),
        own=math.nan if own is None else float(own["value"]),
        own_low=math.nan if own is None else float(own["low"]),
        own_high=math.nan if own is None else float(own["high"]),
        own_q=own_q,
        null_low=float(nulls["low"].mean()),
        null_high=float(nulls["high"].mean()),
        controls=int(nulls["n"].max()) if len(nulls) else 0,
        sources=len(others),
        working=int(((others["value"] > 0) & (q.reindex(others.index) < LEVEL)).sum()),
        larger=int((gain["value"] > 0).sum()),
        surely_larger=int((gain["low"] > 0).sum()),
        best_average="" if best is None else f"{best['average_of']} checkpoints, {best['rule']}",
        best_average_effect=math.nan if best is None else float(best["value"]),
        best_average_gain_low=math.nan if best is None else float(gains.loc[tuple(best[key])]["low"]),
        why=str(lost.iloc[0]) if len(lost) else "",
    )


def across_stages(run: Run, concepts: Sequence[str]) -> pd.DataFrame:
    """AUROC and cosine of the logistic probes between the last checkpoints of the stages, or first and last where there is one stage."""
    named = ", ".join(text(name) for name in concepts)
    rows = run.records(
        f"metric in ('transfer_auroc', 'transfer_cosine') and method = 'logistic' and concept in ({named}) "
        "and map_contains(coords, 'source_stage')"
    )
    empty = ["concept", "source", "target", "value", "low", "high", "cosine"]
    if rows.empty:
        return pd.DataFrame(columns=empty)
    told, rank = [dict(coords) for coords in rows["coords"]], _rank(run)
    rows["from"] = [rank[c["source_stage"], c["source_step"]] for c in told]
    rows["to"] = [rank[stage, _step(step)] for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    rows["source"] = [f"{c['source_stage']} {c['source_step']}" for c in told]
    rows["target"] = [f"{stage} {_step(step)}" for stage, step in zip(rows["stage"], rows["step"], strict=True)]
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


def _step(step: float) -> str:
    return "None" if math.isnan(step) else str(int(step))

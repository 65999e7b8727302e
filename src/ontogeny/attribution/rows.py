"""Rows of an attribution: a behaviour at every checkpoint of the path, and the effect or score of each stage by each tier."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ontogeny.attribution.behaviours import ModelBehaviour, split_behaviour
from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS, Values
from ontogeny.attribution.plan import DATA_TIERS, SCORE_TIERS, AttributionPlan
from ontogeny.lineage import Checkpoint
from ontogeny.records import Record, make_record
from ontogeny.statistics.bootstrap import group_weights, mean_samples, percentile_interval

QUESTION = "updates skipped"
"""The counterfactual that the estimates answer."""
REPLACED = "data replaced, steps kept"
"""The counterfactual of a run that was trained without a stage's data."""


@dataclass
class StageResults:
    """Scores of one behaviour."""

    behaviour: ModelBehaviour
    inside: dict[str, list[tuple[Checkpoint, Values]]] = field(default_factory=dict)
    """By stage: the behaviour at its checkpoints, from its start."""
    scores: defaultdict[str, dict[str, Values]] = field(default_factory=lambda: defaultdict(dict))
    """By tier and stage."""
    reasons: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By tier and stage: why there is no score."""


def attribution_rows(plan: AttributionPlan, result: StageResults) -> Iterator[Record]:
    """Rows of a behaviour."""
    settings, behaviour = plan.settings, result.behaviour
    names = {group: i for i, group in enumerate(dict.fromkeys(behaviour.groups))}
    groups = torch.tensor([names[group] for group in behaviour.groups])
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
    kind, _ = split_behaviour(behaviour.name)
    concept = next(request.concept.name for request in plan.requests if request.name == behaviour.name)

    def row(metric: str, values: Values, stage: str, step: int | None, method: str, question: str = QUESTION) -> Record:
        value, interval = float(values.mean()), (float("nan"), float("nan"))
        if len(values) > 1:
            samples = mean_samples(torch.from_numpy(values)[None], weights)[:, 0]
            interval = percentile_interval(torch.tensor(value).to(samples), samples, groups=len(names)).ends
        unit = "score" if metric == "stage_score" else behaviour.unit
        return make_record(
            metric,
            value,
            n=len(behaviour.groups),
            interval=interval,
            lineage=plan.lineage.name,
            stage=stage,
            step=step,
            concept=concept,
            seed=settings.seed,
            method=method,
            coords={"behaviour": behaviour.name, "unit": unit, "question": question},
        )

    def absent(metric: str, stage: str, method: str, reason: str) -> Record:
        nothing = row(metric, np.zeros(1), stage, None, method)
        nan = float("nan")
        return replace(nothing, value=nan, low=nan, high=nan, n=0, note=reason)

    for stage in plan.path:
        for checkpoint, values in result.inside[stage.name]:
            if checkpoint in stage.checkpoints:
                yield row("behaviour", values, stage.name, checkpoint.step, kind)
    tiers = [tier.name for tier in CHECKPOINT_TIERS] + ["order"] + (list(DATA_TIERS) if plan.stage_texts else [])
    for tier in tiers:
        metric = "stage_score" if tier in SCORE_TIERS else "stage_effect"
        for stage, broken in zip(plan.path, plan.breaks, strict=True):
            if broken and tier not in ("order", "bm25", "gradient_dot"):
                yield absent(metric, stage.name, tier, broken)
            elif stage.name in result.scores[tier]:
                yield row(metric, result.scores[tier][stage.name], stage.name, None, tier)
            else:
                reason = result.reasons[tier].get(
                    stage.name, "no texts of this stage were given, which this estimate needs"
                )
                yield absent(metric, stage.name, tier, reason)
    for name, values in result.scores["retraining"].items():
        yield row("stage_effect", values, name, None, "retraining", REPLACED)

"""Plan of an attribution: stages on the path, checkpoints, units, costs, and stages whose effect is undefined. It reads metadata only."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS
from ontogeny.attribution.cost import FORWARD, GAUSS_NEWTON_PRODUCT, GRADIENT, TierCost, retraining_passes
from ontogeny.attribution.segments import KRYLOV_RANK
from ontogeny.data.concept import Concept
from ontogeny.data.plain_texts import PlainTexts
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.resumable import weight_identity
from ontogeny.lineage import Checkpoint, Lineage, Stage
from ontogeny.storage.files import content_digest

_VERSION = 1
DATA_TIERS: Mapping[str, str] = {
    "segments": "decay over each stage by its data's Gauss–Newton matrix and published optimizer moments (SOURCE, arXiv:2405.12186)",
    "gradient_dot": "−∇γ(final) · ∇loss of the stage's data at the final weights, per unit of learning rate",
    "activation_difference": "cosine of the stage's change of activations on its own data with the concept's direction (arXiv:2602.11079)",
    "bm25": "mean BM25 of the stage's texts for the behaviour's texts",
}
"""Estimates that need the stage's data."""
SCORE_TIERS = ("gradient_dot", "activation_difference", "bm25", "order")
"""Baselines that have no unit of the behaviour: they rank stages only."""
_CHARACTERS_PER_TOKEN = 4
"""To tell the cost before a tokenizer is loaded."""


@dataclass(frozen=True)
class AttributionSettings:
    samples: int = 1000
    """Bootstrap resamples of the examples."""
    seed: int = 0


@dataclass(frozen=True)
class BehaviourRequest:
    """A behaviour as it was asked for, with its texts."""

    name: str
    """`KIND:SOURCE`."""
    concept: Concept | PlainTexts
    """A concept, or texts without labels for a loss or an entropy."""


@dataclass(frozen=True)
class AttributionPlan:
    """The stages on the path, their checkpoints, and one unit per behaviour."""

    lineage: Lineage
    path: tuple[Stage, ...]
    off_path: tuple[str, ...]
    """Stages that do not lead to the final one."""
    requests: tuple[BehaviourRequest, ...]
    settings: AttributionSettings
    units: dict[str, str]
    """By name of the behaviour."""
    checkpoints: dict[Checkpoint, tuple[int, str]]
    """Size and fingerprint of the weights."""
    breaks: tuple[str, ...]
    """For each stage of the path why its effect is undefined; "" if it is defined."""
    stage_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts that a stage was trained on, by name of the stage."""
    without: Mapping[str, Checkpoint] = field(default_factory=dict)
    """The end of a training without a stage's data, by name of the stage."""

    def chain(self, index: int) -> list[Checkpoint]:
        """Checkpoints from the start of a stage to its end, without those off the trajectory.

        A stage starts at its parent's end, unless it has a step 0 of its own.
        """
        own = list(self.path[index].checkpoints)
        if index and own[0].step != 0:
            own.insert(0, self.path[index - 1].checkpoints[-1])
        return [c for c in own if not c.off_trajectory or c in (own[0], own[-1])]

    @property
    def evaluations(self) -> int:
        """Evaluations of each behaviour: every checkpoint once, subtraction and addition of each stage, and a gradient."""
        return len(self.checkpoints) + 2 * len(self.path) + int(GRADIENT) + len(self.without)

    @property
    def training_tokens(self) -> list[float]:
        """Tokens of each stage of the path; NaN where neither the lineage nor the trainer's state has them."""
        return [_stage_tokens(self, stage) for stage in self.path]

    def costs(self, request: BehaviourRequest) -> list[TierCost]:
        """Cost of every tier for one behaviour, counted in tokens that pass forwards."""
        own = _tokens([example.text for example in request.concept.examples])
        data = {name: _tokens(texts) for name, texts in self.stage_texts.items()}
        tokens = self.training_tokens
        # A stage without a count makes the cost of retraining unknown.
        again = math.nan if any(math.isnan(t) for t in tokens) else retraining_passes(tokens)
        passes = {
            "telescoping": len(self.checkpoints) * own,
            "endpoint": (len(self.path) + 1) * own,
            "subtraction": (len(self.path) + 1) * own,
            "addition": (len(self.path) + 1) * own,
            "linearised": GRADIENT * own,
            "order": 0.0,
        }
        if data:
            total = sum(data.values())
            passes |= {
                "segments": GRADIENT * own + KRYLOV_RANK * GAUSS_NEWTON_PRODUCT * total,
                "gradient_dot": GRADIENT * (own + total),
                "activation_difference": 2 * FORWARD * total,
                "bm25": 0.0,
            }
        if self.without:
            passes["retraining"] = FORWARD * own * (1 + len(self.without))
        return [TierCost(tier, cost, again) for tier, cost in passes.items()]


def plan_attribution(
    lineage: Lineage,
    requests: Sequence[BehaviourRequest],
    settings: AttributionSettings | None = None,
    *,
    allow_pickle: bool = False,
    stage_texts: Mapping[str, Sequence[str]] | None = None,
    without: Mapping[str, Lineage] | None = None,
) -> AttributionPlan:
    """Plan an attribution; reads metadata only.

    Args:
        stage_texts: Texts that a stage was trained on, by name of the stage.
        without: Runs that were trained without a stage's data, by name of the stage; their last checkpoint counts.

    Raises:
        BadInput: no behaviours, an unknown stage, a lineage with a single checkpoint, or checkpoints that cannot be read.
    """
    if not requests:
        raise BadInput("`behaviours` must name at least one behaviour, got none: add one such as loss:truth.")
    settings = settings or AttributionSettings()
    path = stages_on_path(lineage)
    for argument, given in (("stage_data", stage_texts), ("without", without)):
        for name in given or ():
            if name not in [stage.name for stage in path]:
                raise unknown_name(f"stage of `{argument}`", name, [stage.name for stage in path])
    checkpoints = {}
    for stage in path:
        for checkpoint in stage.checkpoints:
            identity = weight_identity(checkpoint, allow_pickle=allow_pickle)
            checkpoints[checkpoint] = identity.bytes, identity.fingerprint
    off = tuple(stage.name for stage in lineage.stages if stage not in path)
    if len(checkpoints) < 2:
        alone = f", and {path[-1].name} has no parent in the lineage" if off else ""
        raise BadInput(
            f"an attribution needs at least two checkpoints on the path of stages, got {len(checkpoints)}{alone}: set `parent` of the "
            "stage in a lineage.toml, or name a lineage of stages."
        )
    twins = {name: twin.stages[-1].checkpoints[-1] for name, twin in (without or {}).items()}
    texts = {name: tuple(own) for name, own in (stage_texts or {}).items()}
    prints: list[Any] = [fingerprint for _, fingerprint in checkpoints.values()]
    extra: list[Any] = [{name: content_digest(list(own)) for name, own in texts.items()}] if texts else []
    if twins:
        identities = {
            name: weight_identity(twin, allow_pickle=allow_pickle).fingerprint for name, twin in twins.items()
        }
        extra.append({"without": identities})
    units = {
        request.name: content_digest(
            [
                "attribution",
                _VERSION,
                request.name,
                request.concept.hash,
                prints,
                settings.samples,
                settings.seed,
                *extra,
            ]
        )
        for request in requests
    }
    breaks = tuple(_break(path, index, checkpoints) for index in range(len(path)))
    return AttributionPlan(lineage, path, off, tuple(requests), settings, units, checkpoints, breaks, texts, twins)


def stages_on_path(lineage: Lineage) -> tuple[Stage, ...]:
    """The stages that lead to the last one, in order, by their parents."""
    by_name = {stage.name: stage for stage in lineage.stages}
    path = [lineage.stages[-1]]
    while (parent := path[0].parent) is not None and parent in by_name and by_name[parent] not in path:
        path.insert(0, by_name[parent])
    return tuple(path)


def _break(path: Sequence[Stage], index: int, checkpoints: Mapping[Checkpoint, tuple[int, str]]) -> str:
    """Why a stage has no effect that differences of checkpoints show; "" if they show it."""
    stage = path[index]
    first, last = stage.checkpoints[0], stage.checkpoints[-1]
    start = path[index - 1].checkpoints[-1] if index else first
    if stage.off_trajectory:
        return f"the stage is off the trajectory of training ({stage.off_trajectory}), so a difference is not a stage effect"
    for checkpoint in dict.fromkeys((start, first if first.step == 0 else start, last)):
        if checkpoint.off_trajectory:
            return (
                f"{checkpoint.name} is off the trajectory of training ({checkpoint.off_trajectory}), so a difference from or to it is no "
                "stage effect"
            )
    if index == 0:
        return "" if len(stage.checkpoints) > 1 else "the lineage has no checkpoint from before or inside this stage"
    if first.step != 0 or checkpoints[first][1] == checkpoints[start][1]:
        return ""
    return f"the stage does not start at the end of {path[index - 1].name}: its step 0 has other weights, so no difference is its effect"


def _tokens(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / _CHARACTERS_PER_TOKEN


def _stage_tokens(plan: AttributionPlan, stage: Stage) -> float:
    """Tokens of a stage, from its last checkpoint or the state that transformers' Trainer keeps there."""
    last = stage.checkpoints[-1]
    if last.tokens:
        return float(last.tokens)
    state = _trainer_state(last)
    seen, operations = state.get("num_input_tokens_seen"), state.get("total_flos")
    if isinstance(seen, int | float) and seen > 0:
        return float(seen)
    if isinstance(operations, int | float) and operations > 0:
        # The Trainer counts six operations per parameter and token; float32 has four bytes per parameter.
        return float(operations) / (6 * plan.checkpoints[last][0] / 4)
    return math.nan


def _trainer_state(checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        state = json.loads((Path(checkpoint.source) / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if checkpoint.is_local and isinstance(state, dict) else {}


def all_tiers() -> dict[str, str]:
    """Name and meaning of every tier of the command."""
    return {
        **{tier.name: tier.meaning for tier in CHECKPOINT_TIERS},
        **DATA_TIERS,
        "order": "the place of the stage: later stages get more",
        "retraining": "γ(final) − γ(final of a run without the stage's data)",
    }

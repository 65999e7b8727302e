"""Study: what did fine-tuning do to the weights, layer by layer, and is it more than a change of this size does? (arXiv:2407.10264)

Each later stage is compared with the first one. Of each matrix: norm and rank of ΔW, its alignment with the column and the row space of the
base's weights, its response to harmful and harmless requests. Of each layer: clusters of the two kinds, MLP outputs of one stage in
the other. Of the whole: Jacobian norms and the sweep W₀ + αΔW. Each has two nulls: random changes of equal rank and norm, and
changes of this size along the gradient of the loss on neutral texts, to which the model is sensitive for another reason.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.fine_tuning.behaviour_rows import Readout, jacobian_rows, patch_rows, sweep_rows
from ontogeny.fine_tuning.cluster_scores import cluster_scores
from ontogeny.fine_tuning.jacobian_norm import jacobian_norms
from ontogeny.fine_tuning.matrix_rows import MatrixChange, matrix_rows
from ontogeny.fine_tuning.null_changes import loss_gradients
from ontogeny.fine_tuning.requests import REQUEST_KINDS, Requests
from ontogeny.fine_tuning.settings import WeightChangeSettings
from ontogeny.fine_tuning.weight_differences import block_matrices, parameter_differences
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.records import IntervalEnds, Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import interval_ends
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.permutation import group_permutations
from ontogeny.steering.steer import check_can_generate

TITLE = "Weight change"
INPUTS = ("requests", "neutral", "phrases", "template")
_PAIR_METRICS = (
    "weight_change_norm",
    "column_alignment",
    "jacobian_change",
    "interpolated_log_odds",
    "mlp_patch_effect",
    "mlp_restore_effect",
)


def settings(inputs: StudyInputs) -> WeightChangeSettings:
    """Default settings with the comparison's template, phrases and seed."""
    return WeightChangeSettings(template=inputs.template or False, phrases=inputs.phrases, seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models; decompositions of the matrices come on top."""
    requests = [e.text for e in inputs.requests.examples] if inputs.requests else []
    plan = WeightChangeSettings()
    read = text_tokens(requests[: 2 * plan.requests]) + text_tokens(inputs.neutral[: plan.texts])
    sweeps = (
        len(plan.alphas) * (3 + plan.random_changes) + 3 * plan.probes * (2 + plan.random_changes) + 4 * sizes.blocks
    )
    return read * (sizes.stages * (1 + 3 * plan.probes) + (sizes.stages - 1) * sweeps)


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: WeightChangeSettings) -> Iterator[Record]:
    """Rows of each stage, and of each later stage against the first one.

    Raises:
        BadInput: fewer than two stages, too few requests or neutral texts, or a model that is not causal.
    """
    if len(stages) < 2 or inputs.requests is None or not inputs.neutral:
        raise BadInput(
            f"weight_change needs at least two stages, `requests` and `neutral`, got {len(stages)} stages: add what is missing."
        )
    first, *others = stages
    reader = stages[[first, *others][-1]]
    check_can_generate(reader)
    requests = Requests.read(reader, inputs.requests, settings)
    texts = first_tokens(reader, inputs.neutral[: settings.texts], settings.tokens)
    identity = tokenizer_fingerprint(reader)
    table = StageRowBuilder("requests", "last", "weight_change", settings.seed, "all")
    norms: dict[str, Tensor] = {}
    scores: dict[str, Tensor] = {}
    reasons = {
        name: "" if tokenizer_fingerprint(stages[name]) == identity else "its tokenizer is not that of the last stage"
        for name in stages
    }
    for name in stages:
        if reasons[name]:
            for kind in REQUEST_KINDS:
                yield table.row("refusal_log_odds", math.nan, name, n=0, reason=reasons[name], kind=kind)
            continue
        model = stages[name]
        norms[name] = jacobian_norms(model, requests.ids, probes=settings.probes, seed=settings.seed)
        streams = requests.streams(model)
        scores[name] = cluster_scores(streams, requests.harmful, requests.fold)
        yield from _stage_rows(table, name, model, norms[name], requests)
        yield from _cluster_rows(table, name, streams, scores[name], requests, settings)
    for name in others:
        base, tuned = stages[first], stages[name]
        why = reasons[first] or reasons[name]
        try:
            difference = {} if why else parameter_differences(base.network, tuned.network)
        except BadInput as error:
            why = str(error).rstrip(".")
        if why:
            for metric in _PAIR_METRICS:
                yield table.row(metric, math.nan, name, first, n=0, reason=why)
            continue
        yield from _cluster_change_rows(table, name, first, scores, requests)
        yield from _pair_rows(table, name, first, base, tuned, difference, norms, requests, texts, settings)


def _stage_rows(
    table: StageRowBuilder,
    stage: str,
    model: Model,
    norms: Float[Tensor, " request"],
    requests: Requests,
) -> Iterator[Record]:
    """Log-odds of a refusal and Jacobian norm."""
    odds = requests.log_odds(model)
    for kind in REQUEST_KINDS:
        for metric, values in (("refusal_log_odds", odds), ("jacobian_norm", norms)):
            value, ends = requests.estimate(values, kind)
            yield table.row(metric, value, stage, n=int(requests.of(kind).sum()), ends=ends, kind=kind)


def _cluster_rows(
    table: StageRowBuilder,
    stage: str,
    streams: Float[Tensor, "block request d"],
    scores: Float[Tensor, "block request"],
    requests: Requests,
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Cluster scores after each block, and the separation of the two kinds, beside that of shuffled labels."""
    labels = requests.harmful[
        group_permutations(requests.harmful, requests.groups, samples=settings.draws, seed=settings.seed).long()
    ]
    null = torch.stack([_separation(cluster_scores(streams, drawn, requests.fold), drawn) for drawn in labels])
    why = "the two kinds have one centre"
    for layer, own in enumerate(scores, 1):
        at = replace(table, site=Site("resid", layer))
        for kind in REQUEST_KINDS:
            value, ends = requests.estimate(own, kind)
            yield at.row(
                "cluster_score", value, stage, n=int(requests.of(kind).sum()), ends=ends, reason=why, kind=kind
            )
        value, ends = _separation_estimate(own, requests)
        yield at.row("cluster_separation", value, stage, n=len(own), ends=ends, reason=why)
        draws = null[:, layer - 1]
        yield at.row(
            "cluster_separation",
            float(draws.mean()),
            stage,
            n=len(draws),
            ends=null_interval(draws),
            control="shuffled_label",
            note="labels permuted by group; low to high: 95 % of them",
            reason=why,
        )


def _cluster_change_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    scores: Mapping[str, Float[Tensor, "block request"]],
    requests: Requests,
) -> Iterator[Record]:
    """Separation of the two kinds less that in the base, paired by request."""
    for layer, (own, before) in enumerate(zip(scores[stage], scores[other], strict=True), 1):
        value, ends = _separation_estimate(own - before, requests)
        at = replace(table, site=Site("resid", layer))
        yield at.row(
            "cluster_change", value, stage, other, n=len(own), ends=ends, reason="the two kinds have one centre"
        )


def _separation_estimate(scores: Float[Tensor, " request"], requests: Requests) -> tuple[float, IntervalEnds]:
    """Half the difference of the mean scores: 1 if each kind lies at its own centre, 0 if both lie alike."""
    (harmful, drawn), (harmless, other) = (requests.mean(scores, kind) for kind in REQUEST_KINDS)
    groups = min(requests.count(kind) for kind in REQUEST_KINDS)
    value = (harmful - harmless) / 2
    return value, interval_ends(value, (drawn - other) / 2, groups=groups)


def _separation(scores: Float[Tensor, "site request"], positive: Tensor) -> Float[Tensor, " site"]:
    return (scores[:, positive].mean(1) - scores[:, ~positive].mean(1)) / 2


def _pair_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    base: Model,
    tuned: Model,
    difference: Mapping[str, Tensor],
    norms: Mapping[str, Float[Tensor, " request"]],
    requests: Requests,
    texts: Sequence[Tensor],
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Rows of one stage against its base."""
    matrices = block_matrices(base)
    gradients = loss_gradients(base, texts, matrices)
    inputs = requests.matrix_inputs(tuned, block_matrices(tuned))
    changes = [
        MatrixChange(matrix, matrix.stored(difference[matrix.parameter]), gradients[matrix.parameter])
        for matrix in matrices
    ]
    for change in changes:
        yield from matrix_rows(table, stage, other, change, inputs[change.base.parameter], requests, settings)
    for layer in base.routed_layers:
        at = replace(table, site=Site("mlp", layer))
        reason = "a mixture of experts, whose matrices are stored together and are compared in the interpolation only"
        yield at.row("weight_change_norm", math.nan, stage, other, n=0, reason=reason, matrix="experts")
    yield from jacobian_rows(table, stage, other, base, norms, changes, requests, settings)
    yield from sweep_rows(table, stage, other, base, difference, changes, Readout(requests, texts), settings)
    yield from patch_rows(table, stage, other, base, tuned, requests, settings)

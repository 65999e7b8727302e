"""Rows of what a weight change does: Jacobian norms, the sweep W₀ + αΔW, and MLP outputs exchanged between both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ontogeny.fine_tuning.jacobian_norm import jacobian_norms
from ontogeny.fine_tuning.matrix_rows import GRADIENT, RANDOM, MatrixChange
from ontogeny.fine_tuning.mlp_patching import mlp_outputs, moved_as_far, patched_mlps
from ontogeny.fine_tuning.null_changes import gradient_change, random_change
from ontogeny.fine_tuning.requests import REQUEST_KINDS, Requests
from ontogeny.fine_tuning.settings import WeightChangeSettings
from ontogeny.fine_tuning.weight_differences import changed_weights
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model, next_token_logits
from ontogeny.records import UNKNOWN_INTERVAL, IntervalEnds, Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.nulls import null_interval

Change = Mapping[str, Tensor]
"""A change of a network, by name of the parameter, as it is stored."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Measurements of a model: log-odds of a refusal on each request, and the loss on each neutral text."""

    requests: Requests
    texts: Sequence[Int[Tensor, " token"]]

    def log_odds(self, model: Model) -> Float[Tensor, " request"]:
        return self.requests.log_odds(model)

    @torch.no_grad()
    def loss(self, model: Model) -> Float[Tensor, " text"]:
        """Mean loss per token of each neutral text, nats."""
        losses = torch.empty(len(self.texts), dtype=torch.float64)
        for rows, output in forward_padded(model, self.texts, batch=16):
            for row, i in enumerate(rows):
                logits = output.logits[row, : len(self.texts[i]) - 1].double().cpu()
                losses[i] = torch.nn.functional.cross_entropy(logits, self.texts[i][1:])
        return losses


def random_changes(changes: Sequence[MatrixChange], count: int, seed: int) -> Iterator[Change]:
    """Random changes of all matrices, each with the singular values of ΔW."""
    for draw in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + draw)
        yield {
            change.base.parameter: change.base.stored(random_change(change.values, change.difference.shape, generator))
            for change in changes
            if len(change.values)
        }


def neutral_change(changes: Sequence[MatrixChange]) -> Change:
    """A change of all matrices along the gradient of the loss on neutral texts, each with the singular values of ΔW."""
    return {
        change.base.parameter: change.base.stored(gradient_change(change.values, change.unrelated))
        for change in changes
        if change.unrelated.rank and len(change.values)
    }


def _null_changes(changes: Sequence[MatrixChange], settings: WeightChangeSettings) -> Iterator[tuple[str, Change]]:
    """The random changes and the one along the neutral gradient, with the name of their control; one at a time, for their size."""
    for change in random_changes(changes, settings.random_changes, settings.seed):
        yield RANDOM, change
    yield GRADIENT, neutral_change(changes)


def _null_mean(values: Sequence[float]) -> tuple[float, IntervalEnds]:
    """Mean of a null, and the range of 95 % of its draws, unknown for a single one."""
    drawn = torch.tensor(values, dtype=torch.float64)
    return float(drawn.mean()), null_interval(drawn) if len(drawn) > 1 else UNKNOWN_INTERVAL


def jacobian_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    base: Model,
    norms: Mapping[str, Float[Tensor, " request"]],
    changes: Sequence[MatrixChange],
    requests: Requests,
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Change of the Jacobian norm from the base to the tuned stage, in doublings, beside changes of equal size.

    Args:
        norms: Of both stages, by name.
    """
    measure = partial(jacobian_norms, ids=requests.ids, probes=settings.probes, seed=settings.seed)
    before = norms[other].log2()
    null: dict[str, list[Tensor]] = {RANDOM: [], GRADIENT: []}
    for control, change in _null_changes(changes, settings):
        with changed_weights(base.network, change):
            null[control].append(measure(base).log2() - before)
    for kind in REQUEST_KINDS:
        value, ends = requests.estimate(norms[stage].log2() - before, kind)
        n = int(requests.of(kind).sum())
        yield table.row("jacobian_change", value, stage, other, n=n, ends=ends, kind=kind)
        for control, drawn in null.items():
            mean, ends = _null_mean([requests.mean(of, kind)[0] for of in drawn])
            yield table.row(
                "jacobian_change",
                mean,
                stage,
                other,
                n=len(drawn),
                ends=ends,
                control=control,
                kind=kind,
            )


def sweep_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    base: Model,
    difference: Change,
    changes: Sequence[MatrixChange],
    readout: Readout,
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Log-odds of a refusal and loss on neutral texts of the base with α times the change, and with null changes of its matrices."""
    matrices = {change.base.parameter: difference[change.base.parameter] for change in changes}
    for parts, change in (("all", difference), ("matrices", matrices)):
        for alpha in settings.alphas:
            with changed_weights(base.network, change, alpha):
                odds, loss = readout.log_odds(base), readout.loss(base)
            coords: dict[str, Any] = {"alpha": f"{alpha:g}", "parts": parts}
            for kind in REQUEST_KINDS:
                value, ends = readout.requests.estimate(odds, kind)
                n = int(readout.requests.of(kind).sum())
                yield table.row("interpolated_log_odds", value, stage, other, n=n, ends=ends, kind=kind, **coords)
            yield table.row("interpolated_loss", float(loss.mean()), stage, other, n=len(loss), **coords)
    odds_of: dict[tuple[str, float], list[Tensor]] = {}
    loss_of: dict[tuple[str, float], list[float]] = {}
    for control, change in _null_changes(changes, settings):
        for alpha in settings.alphas:
            with changed_weights(base.network, change, alpha):
                odds_of.setdefault((control, alpha), []).append(readout.log_odds(base))
                loss_of.setdefault((control, alpha), []).append(float(readout.loss(base).mean()))
    for (control, alpha), drawn in odds_of.items():
        coords = {"alpha": f"{alpha:g}", "parts": "matrices"}
        columns: dict[str, Any] = {"n": len(drawn), "control": control, **coords}
        for kind in REQUEST_KINDS:
            value, ends = _null_mean([readout.requests.mean(odds, kind)[0] for odds in drawn])
            yield table.row("interpolated_log_odds", value, stage, other, ends=ends, kind=kind, **columns)
        losses = loss_of[control, alpha]
        yield table.row("interpolated_loss", sum(losses) / len(losses), stage, other, **columns)


@torch.no_grad()
def patch_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    base: Model,
    tuned: Model,
    requests: Requests,
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Change of the base's log-odds of a refusal when the output of one MLP is the tuned stage's, of the tuned stage's when it is the
    base's, and of both when it is moved as far at random.
    """
    for metric, (model, source) in {"mlp_patch_effect": (base, tuned), "mlp_restore_effect": (tuned, base)}.items():
        effects = _patch_effects(model, source, requests, settings)
        for (control, layer), values in effects.items():
            own = replace(table, site=Site("mlp", layer))
            for kind in REQUEST_KINDS:
                value, ends = requests.estimate(values, kind)
                n = int(requests.of(kind).sum())
                yield own.row(metric, value, stage, other, n=n, ends=ends, control=control, kind=kind)


def _patch_effects(
    model: Model, source: Model, requests: Requests, settings: WeightChangeSettings, batch: int = 32
) -> dict[tuple[str | None, int], Float[Tensor, " request"]]:
    """By control and block: the log-odds of each request with the MLP output of the source, less those of the model itself."""
    layers = range(1, model.layers + 1)
    effects = {
        (control, layer): torch.empty(len(requests.ids), dtype=torch.float64)
        for control in (None, "random_direction")
        for layer in layers
    }
    generator = torch.Generator().manual_seed(settings.seed)
    order = sorted(range(len(requests.ids)), key=lambda i: len(requests.ids[i]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids = pad_sequence([requests.ids[i] for i in rows], batch_first=True)
        real = pad_sequence([torch.ones_like(requests.ids[i]) for i in rows], batch_first=True)
        first = [requests.first[i] for i in rows]
        before, plain = mlp_outputs(model, partial(_log_odds, model, ids, real, first))
        after, _ = mlp_outputs(source, partial(_log_odds, source, ids, real, first))
        for layer in layers:
            moved = moved_as_far(before[layer], after[layer], generator)
            for control, value in ((None, after[layer]), ("random_direction", moved)):
                with patched_mlps(model, {layer: value}):
                    effects[control, layer][rows] = _log_odds(model, ids, real, first) - plain
    return effects


def _log_odds(
    model: Model, ids: Int[Tensor, "row token"], real: Int[Tensor, "row token"], first: Sequence[Sequence[int]]
) -> Float[Tensor, " row"]:
    output = model.body(input_ids=ids.to(model.device), attention_mask=real.to(model.device), use_cache=False)
    last = output.last_hidden_state[torch.arange(len(ids)), real.sum(1) - 1]
    scores = next_token_logits(model, last).cpu().double().log_softmax(-1)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for row, tokens in enumerate(first):
        chosen[row, list(tokens)] = True
    inside, outside = (scores.masked_fill(~side, -torch.inf).logsumexp(-1) for side in (chosen, ~chosen))
    return inside - outside

"""Cache the last block's output and neuron activations, so that neuron ablations need no new forward pass.

Nothing before the final norm reads what the last MLP writes: a change of its rows costs the norm and the unembedding, not the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.forward import forward_padded
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model, next_token_logits


@dataclass(frozen=True, eq=False)
class LastLayerCache:
    """The tokens of all rows, concatenated."""

    stream: Float[Tensor, "token d"]
    normed: Float[Tensor, "token d"]
    mlp: tuple[Float[Tensor, "token d"], Float[Tensor, "token d"]] | None
    """The MLP's output and what is added to the stream, if a norm lies between the two."""
    neurons: Float[Tensor, "token chosen"]
    chosen: tuple[int, ...]
    owner: Int[Tensor, " token"]
    """Row of each token."""

    def of(self, neurons: Sequence[int]) -> Float[Tensor, "token neuron"]:
        """Activations of some of the cached neurons."""
        at = {neuron: i for i, neuron in enumerate(self.chosen)}
        return self.neurons[:, [at[n] for n in neurons]]

    def mean(self, values: Float[Tensor, " token"]) -> Float[Tensor, " row"]:
        """Mean over the tokens of each row."""
        return self.sum(values) / self.owner.bincount()

    def sum(self, values: Float[Tensor, " token"]) -> Float[Tensor, " row"]:
        rows = torch.zeros(int(self.owner[-1]) + 1, dtype=torch.float64)
        return rows.index_add(0, self.owner, values.double().cpu())


@torch.no_grad()
def cache_last_layer(
    model: Model,
    rows: Sequence[Int[Tensor, " token"]],
    chosen: Sequence[int],
    *,
    starts: Sequence[int] | None = None,
    batch: int = 32,
) -> LastLayerCache:
    """Run the rows; cache each row's tokens from its start on, with the activations of the chosen neurons."""
    between = ("mlp", "mlp_resid") if has_post_mlp_norm(model) else ()
    parts = [("resid", model.layers), ("norm", 0), *((part, model.layers) for part in ("neuron", *between))]
    hooked: dict[str, Tensor] = {}

    def keep(part: str, _: int, value: Tensor) -> None:
        hooked[part] = (value[..., list(chosen)] if part == "neuron" else value).clone()

    parts_of: dict[int, dict[str, Tensor]] = {}
    for indices, _ in forward_padded(
        model, rows, batch=batch, body=True, context=lambda _: read_hooks(model, parts, keep)
    ):
        for row, i in enumerate(indices):
            span = slice(starts[i] if starts is not None else 0, len(rows[i]))
            parts_of[i] = {part: value[row, span] for part, value in hooked.items()}
    whole = {part: torch.cat([parts_of[i][part] for i in range(len(rows))]) for part, _ in parts}
    owner = torch.repeat_interleave(
        torch.arange(len(rows)), torch.tensor([len(parts_of[i]["norm"]) for i in range(len(rows))])
    )
    mlp = (whole["mlp"], whole["mlp_resid"]) if between else None
    return LastLayerCache(whole["resid"], whole["norm"], mlp, whole["neuron"], tuple(chosen), owner)


def has_post_mlp_norm(model: Model) -> bool:
    """Whether a norm lies between an MLP's output and the stream."""
    return bool(model.architecture.mlp_added) and model.architecture.mlp_added != model.architecture.mlp


def stream_change(model: Model, of: LastLayerCache, shift: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
    """Change of the stream by a change of the MLP's output: equal, unless a norm lies between."""
    if of.mlp is None:
        return shift
    out, added = of.mlp
    changed: Tensor = model.part(model.layers, model.architecture.mlp_added)(out + shift)
    return changed - added


def apply_final_norm(model: Model, of: LastLayerCache, shift: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
    """Output of the model body with a changed MLP output."""
    out: Tensor = model.network.get_submodule(model.architecture.final_norm)(
        of.stream + stream_change(model, of, shift)
    )
    return out


def next_token_entropies(
    model: Model, normed: Float[Tensor, "token d"], *, chunk: int = 256
) -> Float[Tensor, " token"]:
    """Entropy of the next token, nats; computed in chunks, since logits of a large vocabulary fill the memory."""
    return torch.cat([entropy_of_logits(next_token_logits(model, part)) for part in normed.split(chunk)])


def entropy_of_logits(scores: Float[Tensor, "*token vocab"]) -> Float[Tensor, "*token"]:
    """Entropy of the softmax of logits, nats."""
    logs = scores.float().log_softmax(-1)
    return -(logs.exp() * logs.where(logs > -torch.inf, 0.0)).sum(-1)


def target_log_likelihoods(
    model: Model, normed: Float[Tensor, "token d"], targets: Int[Tensor, " token"], *, chunk: int = 256
) -> Float[Tensor, " token"]:
    """Log-probability of each next token, nats."""
    parts = zip(normed.split(chunk), targets.to(normed.device).split(chunk), strict=True)
    return torch.cat(
        [next_token_logits(model, part).float().log_softmax(-1).gather(1, ids[:, None])[:, 0] for part, ids in parts]
    )

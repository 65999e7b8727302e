"""Dialogue action tokens: a planner reads the dialogue and writes a short vector, which a linear map turns into prefix vectors.

The language model is frozen. Before each of its turns the planner reads its last hidden state without a prefix; the prefix goes right after
the first token, at the scale of embeddings (arXiv:2406.11978).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.model import Model


@dataclass(frozen=True)
class ActionConfig:
    """Sizes of planner and prefix."""

    dimensions: int = 8
    """Of an action."""
    prefix: int = 2
    """Vectors of a prefix."""
    norm: float = 0.6
    """Length of an action."""
    width: int = 64
    """Of the planner's hidden layers."""
    scale: float = 1.0
    """Length of a new map's prefix vectors, in mean lengths of an embedding."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "prefix", "width"):
            if getattr(self, name) < 1:
                raise BadInput(f"`{name}` must be at least 1, got {getattr(self, name)}: choose a larger number.")
        for name in ("norm", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"`{name}` must be above 0, got {getattr(self, name)}: choose a positive length.")


class ActionPlanner(nn.Module):
    """Three layers from a dialogue's state to an action of fixed length.

    Args:
        states: States of dialogues, whose mean and standard deviation are frozen into the planner.
        config: Sizes.

    Raises:
        BadInput: fewer than two states, or states that are not finite.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, states: Float[Tensor, "dialogue d"], config: ActionConfig) -> None:
        super().__init__()
        if states.ndim != 2 or len(states) < 2 or not bool(states.isfinite().all()):
            raise BadInput(
                f"`states` must be at least two finite rows, got the shape {list(states.shape)}: read more dialogues."
            )
        self.norm = config.norm
        self.register_buffer("mean", states.mean(0))
        self.register_buffer("deviation", states.std(0).clamp(min=1e-6))
        self.layers = nn.Sequential(
            nn.Linear(states.shape[1], config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.dimensions),
        )

    def forward(self, states: Float[Tensor, "dialogue d"]) -> Float[Tensor, "dialogue action"]:
        """The action of each dialogue."""
        return to_sphere(self.layers((states - self.mean) / self.deviation), self.norm)


class PrefixMap(nn.Module):
    """Linear map from an action to prefix vectors.

    It starts as random rotations of the main axes of the embedding matrix: prefixes are as long as embeddings and lie where these vary.

    Args:
        model: The frozen language model.
        config: Sizes.
        seed: Of the rotations.

    Raises:
        BadInput: more dimensions than the model's embeddings have.
    """

    def __init__(self, model: Model, config: ActionConfig, seed: int = 0) -> None:
        super().__init__()
        table = model.network.get_input_embeddings().weight.detach().float()
        if config.dimensions > min(table.shape):
            raise BadInput(
                f"`dimensions` must be at most {min(table.shape)}, got {config.dimensions}: the embeddings have no more axes."
            )
        axes = torch.linalg.svd(table - table.mean(0), full_matrices=False)[2][: config.dimensions]
        generator = torch.Generator().manual_seed(seed)
        turns = torch.randn(config.prefix, config.dimensions, config.dimensions, generator=generator)
        rotated = torch.linalg.qr(turns)[0] @ axes
        length = config.scale * float(table.norm(dim=1).mean()) / config.norm
        self.weight = nn.Parameter((length * rotated).transpose(0, 1).contiguous())

    def forward(self, actions: Float[Tensor, "dialogue action"]) -> Float[Tensor, "dialogue prefix d"]:
        """The prefix of each action."""
        return torch.einsum("ba,apd->bpd", actions, self.weight)


def to_sphere(vectors: Float[Tensor, "*row d"], norm: float) -> Float[Tensor, "*row d"]:
    """Vectors at this length."""
    return nn.functional.normalize(vectors, dim=-1) * norm


@torch.no_grad()
def dialogue_states(
    model: Model, ids: Int[Tensor, "dialogue token"], *, batch: int = 512
) -> Float[Tensor, "dialogue d"]:
    """Last hidden state of each dialogue, read without a prefix.

    Args:
        ids: Dialogues of one length.
        batch: Dialogues of a forward pass.

    Raises:
        BadInput: no dialogues.
    """
    _check_ids(ids, 1)
    states = [
        model.body(input_ids=part.to(model.device), use_cache=False).last_hidden_state[:, -1]
        for part in torch.split(ids, batch)
    ]
    return torch.cat(states).float().cpu()


def prefixed_logits(
    model: Model,
    ids: Int[Tensor, "dialogue token"],
    prefix: Float[Tensor, "dialogue prefix d"] | None,
    *,
    last: int,
    real: Bool[Tensor, "dialogue token"] | None = None,
) -> Float[Tensor, "dialogue token word"]:
    """Logits that predict the last `last` tokens, with a prefix after the first token.

    Args:
        ids: Dialogues of one length, each beginning with the first token of a text.
        prefix: Vectors that are inserted; None for the model alone.
        real: False at padding, which may stand on the right only.

    Raises:
        BadInput: prefixes of another number or size, padding on the left, or no token before the last ones.
    """
    _check_ids(ids, last + 1)
    inputs = prefixed_embeddings(model, ids, prefix, real=real)
    logits: Tensor = model.network(inputs_embeds=inputs[:, :-1], use_cache=False).logits
    return logits[:, -last:].float()


def prefixed_embeddings(
    model: Model,
    ids: Int[Tensor, "dialogue token"],
    prefix: Float[Tensor, "dialogue prefix d"] | None,
    *,
    real: Bool[Tensor, "dialogue token"] | None = None,
) -> Float[Tensor, "dialogue token d"]:
    """Embeddings of dialogues with a prefix right after the first token; no token sees padding on its right.

    Raises:
        BadInput: prefixes of another number or size, or padding on the left, after which the first token is not that of the text.
    """
    _check_ids(ids, 1)
    if real is not None and not bool(real[:, 0].all()):
        raise BadInput(
            "`ids` must be padded on the right, got padding before the first token: the prefix goes after it."
        )
    embedded: Tensor = model.network.get_input_embeddings()(ids.to(model.device))
    if prefix is None:
        return embedded
    if prefix.ndim != 3 or len(prefix) != len(ids) or prefix.shape[2] != embedded.shape[2]:
        raise BadInput(
            f"`prefix` must be [{len(ids)}, vectors, {embedded.shape[2]}], got {list(prefix.shape)}: give one prefix for each dialogue."
        )
    return torch.cat([embedded[:, :1], prefix.to(embedded), embedded[:, 1:]], 1)


@torch.no_grad()
def sample_utterances(
    model: Model,
    ids: Int[Tensor, "dialogue token"],
    prefix: Float[Tensor, "dialogue prefix d"] | None,
    *,
    tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Int[Tensor, "dialogue token"]:
    """The next `tokens` tokens of each dialogue under its prefix, sampled.

    Args:
        ids: Dialogues of one length.
        prefix: Vectors after the first token; None for the model alone.
        generator: Random numbers; equal ones give equal utterances.

    Raises:
        BadInput: no tokens, a temperature of 0 or less, a text longer than the context, or prefixes of another number or size.
    """
    if tokens < 1 or temperature <= 0:
        raise BadInput(
            f"`tokens` must be at least 1 and `temperature` above 0, got {tokens} and {temperature}: sample at least one token."
        )
    inputs = prefixed_embeddings(model, ids, prefix)
    if inputs.shape[1] + tokens > model.context:
        raise BadInput(
            f"a dialogue of {inputs.shape[1]} tokens with {tokens} new ones exceeds the context of {model.context}: shorten it."
        )
    output = model.network(inputs_embeds=inputs, use_cache=True)
    said: list[Tensor] = []
    while True:
        shares = (output.logits[:, -1].float().cpu() / temperature).softmax(-1)
        said.append(torch.multinomial(shares, 1, generator=generator))
        if len(said) == tokens:
            return torch.cat(said, 1)
        output = model.network(
            input_ids=said[-1].to(model.device), past_key_values=output.past_key_values, use_cache=True
        )


def _check_ids(ids: Tensor, least: int) -> None:
    if ids.ndim != 2 or len(ids) == 0 or ids.shape[1] < least:
        raise BadInput(
            f"`ids` must be rows of at least {least} tokens, got the shape {list(ids.shape)}: give at least one dialogue."
        )

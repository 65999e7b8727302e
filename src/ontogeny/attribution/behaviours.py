"""Behaviours of a language model that can be attributed to stages: differentiable, one number per example, their mean is the behaviour.

`loss:TEXTS` · `entropy:TEXTS` (nats per token) · `margin:CONCEPT` (log-probability of right minus wrong answers) · `refusal:CONCEPT`
(log-odds that the answer to a positive example begins a refusal) · `direction:CONCEPT[@SITE]` (difference of the classes along the
concept's direction at the final checkpoint).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput, unknown_name
from ontogeny.models.model import Model
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.steering.refusal_score import REFUSAL_PHRASES

BEHAVIOUR_KINDS = ("loss", "entropy", "margin", "refusal", "direction")
_BATCH = 16


@dataclass(frozen=True, eq=False)
class ModelBehaviour:
    """A behaviour of a language model."""

    name: str
    """As it was written, such as `margin:truth`."""
    unit: str
    groups: tuple[str, ...]
    """Group of each example; intervals resample groups."""
    parts: tuple[Callable[[nn.Module], Float[Tensor, " example"]], ...]
    """One function per batch of examples, of the network: their values, differentiable."""

    def values(self, network: nn.Module) -> Float[Tensor, " example"]:
        """The value of each example, without gradients."""
        with torch.no_grad():
            return torch.cat([part(network).double().cpu() for part in self.parts])

    def gradient(self, network: nn.Module) -> dict[str, Tensor]:
        """Gradient of the mean over examples by each parameter; one batch is held at a time."""
        network.zero_grad(set_to_none=True)
        for part in self.parts:
            torch.autograd.backward(part(network).sum() / len(self.groups))
        gradient = {name: p.grad.detach().clone() for name, p in network.named_parameters() if p.grad is not None}
        network.zero_grad(set_to_none=True)
        return gradient


def text_behaviour(
    name: str, model: Model, texts: Sequence[str], groups: Sequence[str], *, entropy: bool
) -> ModelBehaviour:
    """Loss, or entropy of the next token, of each text, nats per token.

    Raises:
        BadInput: no text has two tokens.
    """
    rows = first_tokens(model, texts, model.context)
    kept = [i for i, row in enumerate(rows) if len(row) > 1]
    if not kept:
        raise BadInput(f"`behaviour` {name} needs texts of at least two tokens, got none.")

    def part(batch: Sequence[int]) -> Callable[[nn.Module], Tensor]:
        def values(network: nn.Module) -> Tensor:
            own = [rows[i] for i in batch]
            logs = _log_probs(network, own, model.device)
            return torch.stack([_text_value(logs[r], row, entropy) for r, row in enumerate(own)])

        return values

    return ModelBehaviour(name, "nats per token", tuple(groups[i] for i in kept), _batches(kept, part))


def margin_behaviour(name: str, model: Model, concept: Concept) -> ModelBehaviour:
    """Log-probability of the right minus the wrong answer of each question, nats.

    Raises:
        BadInput: the concept has no answers.
    """
    if not concept.answers:
        raise BadInput(f"`behaviour` {name} needs answers, but {concept.name} has none: use direction:{concept.name}.")
    pairs = [(a.prompt, text) for a in concept.answers for text in (a.right, a.wrong)]
    answers = tokenize_answers(model, pairs)

    def part(batch: Sequence[int]) -> Callable[[nn.Module], Tensor]:
        def values(network: nn.Module) -> Tensor:
            own = [answers[2 * i + side] for i in batch for side in (0, 1)]
            logs = _log_probs(network, [a.ids for a in own], model.device)
            scores = torch.stack(
                [
                    logs[r, a.prompt - 1 : len(a.ids) - 1].gather(1, a.ids[a.prompt :, None].to(logs.device)).sum()
                    for r, a in enumerate(own)
                ]
            )
            return scores[0::2] - scores[1::2]

        return values

    groups = tuple(answer.group or str(i) for i, answer in enumerate(concept.answers))
    return ModelBehaviour(name, "nats", groups, _batches(range(len(concept.answers)), part))


def refusal_behaviour(
    name: str, model: Model, concept: Concept, phrases: Sequence[str] = REFUSAL_PHRASES
) -> ModelBehaviour:
    """Log-odds that the answer to each positive example begins a refusal, nats."""
    requests = [example for example in concept.examples if example.target] or list(concept.examples)
    prompts, first = [], []
    for request in requests:
        own = tokenize_answers(model, [(request.text, f" {phrase}") for phrase in phrases])
        prompts.append(own[0].ids[: own[0].prompt])
        first.append(sorted({int(answer.ids[own[0].prompt]) for answer in own}))

    def part(batch: Sequence[int]) -> Callable[[nn.Module], Tensor]:
        def values(network: nn.Module) -> Tensor:
            logs = _log_probs(network, [prompts[i] for i in batch], model.device)
            scores = []
            for r, i in enumerate(batch):
                last = logs[r, len(prompts[i]) - 1]
                chosen = torch.zeros(len(last), dtype=torch.bool, device=last.device)
                chosen[first[i]] = True
                scores.append(last[chosen].logsumexp(0) - last[~chosen].logsumexp(0))
            return torch.stack(scores)

        return values

    groups = tuple(request.group for request in requests)
    return ModelBehaviour(name, "nats", groups, _batches(range(len(requests)), part))


def direction_behaviour(name: str, model: Model, concept: Concept, site: Site) -> ModelBehaviour:
    """Difference of the two classes along the concept's mass-mean direction at a site of this model, in units of the pooled spread there.

    The direction and the spread are those of the given model and stay fixed, so that the behaviour of earlier weights is comparable.

    Raises:
        BadInput: the concept does not have two classes, or the site is not a residual stream.
    """
    if concept.kind != "binary":
        raise BadInput(
            f"`behaviour` {name} needs a concept of two classes, got {concept.name}, which is {concept.kind}."
        )
    if site.part != "resid":
        raise BadInput(f"`behaviour` {name} needs a site of the residual stream, such as resid.3, got {site}.")
    direction, every, labels = concept_direction(model, concept, site)
    rows = first_tokens(model, [example.text for example in concept.examples], model.context)
    centred = torch.where(
        labels[:, None].to(every.device), every - every[labels].mean(0), every - every[~labels].mean(0)
    )
    spread = (centred @ direction).std().clamp(min=1e-6)
    # The mean of these signed contributions is the difference of the class means.
    share = torch.where(labels, len(labels) / labels.sum(), -len(labels) / (~labels).sum()).to(every.device)

    def part(batch: Sequence[int]) -> Callable[[nn.Module], Tensor]:
        def values(network: nn.Module) -> Tensor:
            contributions: Tensor = (
                share[list(batch)]
                * (last_states(network, [rows[i] for i in batch], model.device, site.layer).float() @ direction)
                / spread
            )
            return contributions

        return values

    groups = tuple(example.group for example in concept.examples)
    return ModelBehaviour(name, "spreads", groups, _batches(range(len(rows)), part))


def concept_direction(
    model: Model, concept: Concept, site: Site
) -> tuple[Float[Tensor, " d"], Float[Tensor, "example d"], Bool[Tensor, " example"]]:
    """Unit mass-mean direction of a binary concept at a site of the residual stream, with the activations and labels it was fitted on."""
    rows = first_tokens(model, [example.text for example in concept.examples], model.context)
    labels = torch.tensor([bool(example.target) for example in concept.examples])
    with torch.no_grad():
        states = [
            last_states(model.network, rows[i : i + _BATCH], model.device, site.layer)
            for i in range(0, len(rows), _BATCH)
        ]
    every = torch.cat(states).float()
    gap = every[labels].mean(0) - every[~labels].mean(0)
    return gap / gap.norm(), every, labels


def last_states(
    network: nn.Module, rows: Sequence[Int[Tensor, " token"]], device: torch.device, layer: int
) -> Float[Tensor, "example d"]:
    """The residual stream after a number of blocks, at the last token of each text."""
    states: Tensor = _forward(network, rows, device, output_hidden_states=True).hidden_states[layer]
    return states[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]


def next_token_loss(
    network: nn.Module, rows: Sequence[Int[Tensor, " token"]], device: torch.device
) -> Float[Tensor, ""]:
    """Mean over texts of the mean next-token loss, nats per token; differentiable."""
    logs = _log_probs(network, rows, device)
    return torch.stack([_text_value(logs[r], row, entropy=False) for r, row in enumerate(rows)]).mean()


def split_behaviour(text: str) -> tuple[str, str]:
    """Kind and source of a behaviour written as `KIND:SOURCE`.

    Raises:
        BadInput: it is written in another way.
    """
    kind, colon, source = text.partition(":")
    if not colon or not source:
        raise BadInput(
            f"`behaviour` must be KIND:SOURCE, such as margin:truth, got {text!r}: choose among {', '.join(BEHAVIOUR_KINDS)}."
        )
    if kind not in BEHAVIOUR_KINDS:
        raise unknown_name("behaviour", kind, BEHAVIOUR_KINDS)
    return kind, source


def _text_value(logs: Tensor, row: Int[Tensor, " token"], entropy: bool) -> Tensor:
    logs = logs[: len(row) - 1]
    if entropy:
        return -(logs.exp() * logs).sum(-1).mean()
    return -logs.gather(1, row[1:, None].to(logs.device)).mean()


def _batches(
    rows: Sequence[int], part: Callable[[Sequence[int]], Callable[[nn.Module], Tensor]]
) -> tuple[Callable[[nn.Module], Tensor], ...]:
    return tuple(part(batch) for batch in _split(rows))


def _split(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _log_probs(network: nn.Module, rows: Sequence[Int[Tensor, " token"]], device: torch.device) -> Tensor:
    log_probs: Tensor = _forward(network, rows, device).logits.float().log_softmax(-1)
    return log_probs


def _forward(
    network: nn.Module,
    rows: Sequence[Int[Tensor, " token"]],
    device: torch.device,
    *,
    output_hidden_states: bool = False,
) -> Any:
    padded = pad_sequence(list(rows), batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    return network(input_ids=padded, attention_mask=mask, use_cache=False, output_hidden_states=output_hidden_states)

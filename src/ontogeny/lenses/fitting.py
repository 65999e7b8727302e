"""Fitted lenses: the tuned lens by gradient descent on the divergence from the model's output, the Jacobian lens by backward passes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lenses.lens import Lens, check_lens_model, normalise_last
from ontogeny.lenses.streams import TextStreams, forward_streams, text_ids
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model, next_token_logits
from ontogeny.sites import Site

TUNED_STEPS = 60
_BATCH, _CHECK_EVERY, _RIDGE, _RATE = 256, 10, 1e-3, 1e-3
_INNER_SHARE = 5
"""One text in five chooses between the steps of the fit."""


def fit_tuned_lens(model: Model, streams: TextStreams, *, steps: int = TUNED_STEPS, seed: int = 0) -> Lens:
    """Fit the affine map of each layer that minimises KL(model's output ‖ lens), in nats. Source: arXiv:2303.08112.

    The search begins at the least-squares map to the last layer (arXiv:2303.09435); one text in five chooses between the identity, that
    map and the steps of the descent, so that a lens on few texts is never worse there than the logit lens.

    Args:
        streams: Of the texts that it is fitted on.
        steps: Steps of Adam for each layer.
    """
    check_lens_model(model)
    held = streams.text % _INNER_SHARE == 0
    if bool(held.all()) or not bool(held.any()):
        held = torch.arange(len(streams.text), device=streams.text.device) % _INNER_SHARE == 0
    fit = _LayerFit(model, streams.states[-1].clone(), held, steps, seed)
    maps, shifts = zip(*(fit.run(layer) for layer in streams.states[:-1]), strict=True)
    unit, zero = torch.eye(model.d, device=streams.states.device), torch.zeros(model.d, device=streams.states.device)
    return Lens("tuned", torch.stack([*maps, unit]), torch.stack([*shifts, zero]))


class _LayerFit:
    """Fits one layer after the other to the same states of the last one."""

    def __init__(self, model: Model, last: Float[Tensor, "token d"], held: Tensor, steps: int, seed: int) -> None:
        self.model, self.last, self.held, self.steps = model, last, held, steps
        self.draw = torch.Generator().manual_seed(seed)

    def run(self, states: Float[Tensor, "token d"]) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
        states = states.clone()
        unit, zero = torch.eye(self.model.d, device=states.device), torch.zeros(self.model.d, device=states.device)
        start = self._least_squares(states)
        best = min((self._loss(states, *one), place, one) for place, one in enumerate(((unit, zero), start)))
        weight, shift = (part.clone().requires_grad_() for part in best[2])
        descent = torch.optim.Adam([weight, shift], lr=_RATE)
        rows = (~self.held).nonzero()[:, 0]
        for step in range(1, self.steps + 1):
            drawn = rows[torch.randint(len(rows), (min(_BATCH, len(rows)),), generator=self.draw).to(rows.device)]
            with torch.enable_grad():
                loss = self._divergence(states[drawn], self.last[drawn], weight, shift)
            descent.zero_grad()
            weight.grad, shift.grad = torch.autograd.grad(loss, [weight, shift])
            descent.step()
            if step % _CHECK_EVERY == 0:
                now = (weight.detach().clone(), shift.detach().clone())
                best = min(best, (self._loss(states, *now), 1 + step, now), key=lambda fit: fit[:2])
        return best[2]

    def _least_squares(self, states: Tensor) -> tuple[Tensor, Tensor]:
        x, y = states[~self.held].double(), self.last[~self.held].double()
        mean, target = x.mean(0), y.mean(0)
        centred = x - mean
        scatter = centred.T @ centred
        ridge = _RIDGE * scatter.diagonal().mean().clamp(min=1e-12) * torch.eye(len(scatter), device=x.device)
        # Shrunk towards the identity, not towards nothing: the stream is mostly carried along.
        weight = torch.eye(len(scatter), device=x.device, dtype=x.dtype) + torch.linalg.solve(
            scatter + ridge.to(x), centred.T @ ((y - target) - centred)
        )
        return weight.float(), (target - mean @ weight).float()

    @torch.no_grad()
    def _loss(self, states: Tensor, weight: Tensor, shift: Tensor) -> float:
        # Rounding can give less than nothing, which is no better than nothing.
        return max(0.0, float(self._divergence(states[self.held], self.last[self.held], weight, shift)))

    def _divergence(self, states: Tensor, last: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        with torch.no_grad():
            truth = _log_shares(self.model, last)
        return (truth.exp() * (truth - _log_shares(self.model, states @ weight + shift))).sum(-1).mean()


def _log_shares(model: Model, last: Float[Tensor, "token d"]) -> Float[Tensor, "token v"]:
    logits = next_token_logits(model, normalise_last(model, last.to(model.network.dtype)))
    return logits.float().log_softmax(-1)


def fit_jacobian_lens(model: Model, texts: Sequence[str], *, most_texts: int = 16, most_tokens: int = 32) -> Lens:
    """The mean derivative of the last layer by each layer, both at the last token of a text, exact by one backward pass for each dimension.

    Its shift is the mean of what the derivative leaves out, over the same texts. The cost grows with the width: d backward passes a text.

    Args:
        most_texts: Texts that are used, from the first.
        most_tokens: Tokens of a text that are read, from its beginning.
    """
    check_lens_model(model)
    total = torch.zeros(model.layers + 1, model.d, model.d, device=model.device)
    shift = torch.zeros(model.layers + 1, model.d, device=model.device)
    ids = text_ids(model, texts, most_tokens=most_tokens)[:most_texts]
    for row in ids:
        with torch.enable_grad(), write_hooks(model, Site("resid", 0), lambda h: h.detach().requires_grad_()):
            streams = forward_streams(model, row)
        last = streams[-1][0, -1]
        jacobian = torch.stack([_gradients(last[i], streams) for i in range(model.d)], -1)
        total += jacobian
        ends = torch.stack([stream.detach()[0, -1].float() for stream in streams])
        shift += ends[-1] - torch.einsum("ld,lde->le", ends, jacobian)
    return Lens("jacobian", total / len(ids), shift / len(ids))


def _gradients(value: Tensor, streams: Sequence[Tensor]) -> Float[Tensor, "layer d"]:
    found = torch.autograd.grad(value, list(streams), retain_graph=True, allow_unused=True)
    return torch.stack(
        [torch.zeros_like(s[0, -1]) if g is None else g[0, -1] for g, s in zip(found, streams, strict=True)]
    ).float()

"""Value of an edit: the shift of an activation at the edited token that makes the model give the new object, by gradient descent.

As in ROME (arXiv:2202.05262): cross-entropy of the object after several contexts, a penalty on the shift, and the divergence of the next
token at the edited place itself, so that the subject stays what it is.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ontogeny.editing.facts import TokenizedFact
from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.steer import Edits, steer


@dataclass(frozen=True)
class ValueSettings:
    """Settings of the gradient descent (Adam)."""

    steps: int = 40
    """Maximum number of steps."""
    rate: float = 0.2
    """Step size, as a share of the activation's root mean square."""
    enough: float = 0.95
    """Probability of the new object at which it stops; geometric mean over tokens and contexts."""
    decay: float = 0.01
    """Weight of the squared length of the shift, relative to that of the activation."""
    divergence: float = 0.0625
    """Weight of the divergence of the next token at the edited place, if the object does not follow there."""
    largest: float = 4.0
    """Largest length of the shift, relative to the activation."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate <= 0 or self.largest <= 0:
            raise BadInput("the value of an edit needs `steps` from 1, and `rate` and `largest` above 0.")
        if not 0 < self.enough < 1 or self.decay < 0 or self.divergence < 0:
            raise BadInput("the value of an edit needs `enough` between 0 and 1, and `decay` and `divergence` from 0.")


@dataclass(frozen=True, eq=False)
class EditValue:
    """Shifts that make the model give the new object."""

    shifts: tuple[Float[Tensor, " d"], ...]
    """One for each site; float64."""
    probability: float
    """Of the new object under the shifts; geometric mean over its tokens and the contexts."""
    steps: int


def optimise_value(
    model: Model, fact: TokenizedFact, sites: Sequence[Site], edits: Edits, settings: ValueSettings
) -> EditValue:
    """The shifts at the sites, of the edited token alone, under the edits so far."""
    ids, mask, place, rows = _padded(model, fact)
    targets = _target_mask(fact, ids)
    scales = [value.norm(dim=-1).mean() for value in read_at_place(model, fact, sites, edits)]
    if any(float(scale) == 0 for scale in scales):
        raise BadInput(
            f"the activations of {sites[0]} are zeros at the edited token: edit another layer or another token."
        )
    d = model.d
    units = [torch.zeros(d, device=model.device, requires_grad=True) for _ in sites]
    steps = torch.optim.Adam(units, lr=settings.rate)
    own = all(start - 1 == at for start, at in zip(fact.starts, fact.places, strict=True))
    before: Tensor | None = None
    probability, done = 0.0, 0
    with steer(model, edits):
        for done in range(settings.steps + 1):
            shifts = [unit * scale / d**0.5 for unit, scale in zip(units, scales, strict=True)]
            with contextlib.ExitStack() as hooks, torch.enable_grad():
                for site, shift in zip(sites, shifts, strict=True):
                    hooks.enter_context(write_hooks(model, site, _Shift(shift, rows, place)))
                logits = model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
                scores = logits.log_softmax(-1)
                picked = scores[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
                object_loss = -(picked * targets).sum(1).div(targets.sum(1)).mean()
                loss = object_loss + settings.decay * sum(unit.square().mean() for unit in units)
                if not own and settings.divergence:
                    at_place = scores[rows, place]
                    before = at_place.detach() if before is None else before
                    loss = loss + settings.divergence * (before.exp() * (before - at_place)).sum(-1).mean()
            probability = float(torch.exp(-object_loss.detach()))
            if probability >= settings.enough or done == settings.steps:
                break
            for unit, gradient in zip(units, torch.autograd.grad(loss, units), strict=True):
                unit.grad = gradient
            steps.step()
            with torch.no_grad():
                for unit in units:
                    unit.mul_(min(1.0, settings.largest * d**0.5 / max(float(unit.norm()), 1e-30)))
    final = tuple((unit.detach() * scale / d**0.5).double().cpu() for unit, scale in zip(units, scales, strict=True))
    if not all(bool(shift.isfinite().all()) for shift in final):
        raise BadInput(f"the value of the edit diverged at {sites[0]}: lower its `rate`.")
    return EditValue(final, probability, done)


@torch.no_grad()
def read_at_place(
    model: Model, fact: TokenizedFact, sites: Sequence[Site], edits: Edits
) -> list[Float[Tensor, "row width"]]:
    """Activations of the edited token in each context, under the edits so far."""
    ids, mask, place, rows = _padded(model, fact)
    values: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        values[part, layer] = value[rows, place].clone()

    with steer(model, edits), read_hooks(model, [(site.part, site.layer) for site in sites], keep):
        model.network(input_ids=ids, attention_mask=mask, use_cache=False)
    return [values[site.part, site.layer] for site in sites]


class _Shift:
    """Adds a shift to one token of each row."""

    def __init__(self, shift: Tensor, rows: Tensor, place: Tensor) -> None:
        self.shift, self.rows, self.place = shift, rows, place

    def __call__(self, h: Tensor) -> Tensor:
        marked = torch.zeros(h.shape[:2], dtype=h.dtype, device=h.device)
        marked[self.rows, self.place] = 1
        return h + marked[..., None] * self.shift.to(h.dtype)


def _padded(model: Model, fact: TokenizedFact) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token ids, mask, edited place and row index."""
    ids = pad_sequence(list(fact.rows), batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in fact.rows], batch_first=True)
    place = torch.tensor(fact.places)
    return tuple(t.to(model.device) for t in (ids, mask, place, torch.arange(len(ids))))  # type: ignore[return-value]


def _target_mask(fact: TokenizedFact, ids: Tensor) -> Float[Tensor, "row token"]:
    """1 where the next token is one of the object, which is the end of each row."""
    at = torch.arange(ids.shape[1] - 1, device=ids.device)
    starts = torch.tensor(fact.starts, device=ids.device)[:, None]
    ends = torch.tensor([len(row) for row in fact.rows], device=ids.device)[:, None]
    return ((at >= starts - 1) & (at < ends - 1)).float()

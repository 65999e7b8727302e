"""Training of sparse autoencoders: all seeds and sizes see the same batches in one pass over the activations; resumable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.chunks import ActivationChunks
from ontogeny.sae.settings import SaeBudget, SaeSettings, check_width
from ontogeny.sae.stack import SaeStack, make_stack, shared_fields
from ontogeny.storage.files import content_digest, read_tensor_header, read_tensors, write_tensors

_SAVED_EVERY, _CHECKED_EVERY = 500, 50
ExtraLoss = Callable[[int, SaeStack], Float[Tensor, " member"]]
"""A further loss of each autoencoder of a stack at a step."""


def train_autoencoders(
    chunks: ActivationChunks,
    members: Sequence[SaeSettings],
    budget: SaeBudget | None = None,
    *,
    state: Path | None = None,
    extra: ExtraLoss | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[SparseAutoencoder]:
    """Train sparse autoencoders on the same tokens, in the order of their settings.

    Args:
        chunks: Activations of the tokens.
        state: File of an interrupted training, written on the way and removed at the end.
        extra: A further loss, such as a causal one.
        on_step: Called with the steps done and their total.

    Raises:
        BadInput: no settings, more latents than the tokens can train, or a loss that is not finite.
        CheckpointError: activations that are not finite, or all equal.
    """
    budget = budget or SaeBudget()
    if not members:
        raise BadInput("`members` must hold at least one autoencoder, got none: give its settings.")
    for member in members:
        check_width(member.latents, chunks.tokens)
    first = next(chunks.batches(budget.batch, budget.seed))
    check_trainable(first)
    run = _Training(chunks, tuple(members), budget, first)
    digest = content_digest(
        [[asdict(member) for member in members], asdict(budget), list(chunks.sizes), first.double().sum().item()]
    )
    run.load(state, digest)
    if run.step < budget.steps:
        batches = chunks.batches(budget.batch, budget.seed, run.step)
        while run.step < budget.steps:
            run.take_step(next(batches), extra)
            on_step(run.step, budget.steps)
            if state and run.step % _SAVED_EVERY == 0:
                run.save(state, digest)
    if state:
        state.unlink(missing_ok=True)
    return run.result()


def check_trainable(x: Float[Tensor, "token d"]) -> None:
    """Raise CheckpointError if activations are not finite, or do not differ."""
    if not bool(torch.isfinite(x).all()):
        raise CheckpointError(
            "activations must be finite, got NaN or infinity: audit the checkpoint, its training may be dead."
        )
    if float(x.var(0, correction=0).sum()) <= 1e-12 * float(x.square().sum(1).mean()):
        raise CheckpointError(
            "activations must differ between tokens, got equal ones: audit the checkpoint, its training may be dead."
        )


@dataclass
class _Group:
    """A stack, the place of its members in the caller's list, and its optimiser."""

    stack: SaeStack
    places: list[int]
    optimiser: torch.optim.Optimizer


class _Training:
    def __init__(
        self, chunks: ActivationChunks, members: tuple[SaeSettings, ...], budget: SaeBudget, sample: Tensor
    ) -> None:
        self.budget, self.step, self.members = budget, 0, members
        by_kind: dict[SaeSettings, list[int]] = {}
        for place, member in enumerate(members):
            by_kind.setdefault(shared_fields(member), []).append(place)
        self.groups = []
        for places in by_kind.values():
            stack = make_stack([members[i] for i in places], sample)
            fused = sample.device.type in ("cpu", "cuda")
            optimiser = torch.optim.Adam(stack.parameters.values(), lr=stack.kind.learning_rate, fused=fused)
            self.groups.append(_Group(stack, places, optimiser))

    def take_step(self, x: Float[Tensor, "token d"], extra: ExtraLoss | None) -> None:
        self.step += 1
        for group in self.groups:
            stack = group.stack
            for settings in group.optimiser.param_groups:
                settings["lr"] = stack.kind.learning_rate * self.budget.rate_factor(self.step)
            with torch.enable_grad():
                losses = stack.losses(stack.scaled(x))
                if extra:
                    losses = losses + extra(self.step, stack)
                group.optimiser.zero_grad(set_to_none=True)
                losses.sum().backward()  # no member's loss depends on the parameters of another
            if self.step % _CHECKED_EVERY == 0 or self.step == self.budget.steps:
                self._check_finite(losses)
            group.optimiser.step()
            stack.normalise()

    def _check_finite(self, losses: Float[Tensor, " member"]) -> None:
        if not bool(losses.isfinite().all()):
            raise BadInput(
                f"the loss of an autoencoder is not finite at step {self.step}: choose a smaller `learning_rate`, or audit the checkpoint."
            )

    def result(self) -> list[SparseAutoencoder]:
        """The autoencoders, in the order of their settings."""
        placed = {
            place: one for group in self.groups for place, one in zip(group.places, group.stack.unstack(), strict=True)
        }
        return [placed[place] for place in range(len(self.members))]

    def save(self, path: Path, digest: str) -> None:
        header = {"digest": digest, "step": self.step}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, self._tensors(), header)

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, group in enumerate(self.groups):
            for name, value in group.stack.parameters.items():
                found[f"{number}/{name}"] = value.detach()
                for key, moment in group.optimiser.state.get(value, {}).items():
                    found[f"{number}/{name}/{key}"] = moment
        return found

    @torch.no_grad()
    def load(self, path: Path | None, digest: str) -> None:
        """Continue the training of a file, if it is the same one."""
        if path is None or not path.is_file():
            return
        try:
            header = read_tensor_header(path)
            saved: Mapping[str, Tensor] = read_tensors(path)
        except (BadInput, json.JSONDecodeError):
            return  # a damaged state is trained again
        if header.get("digest") != digest:
            return
        self.step = int(header["step"])
        for number, group in enumerate(self.groups):
            for name, value in group.stack.parameters.items():
                value.copy_(saved[f"{number}/{name}"])
                prefix = f"{number}/{name}/"
                own = {key.removeprefix(prefix): moment for key, moment in saved.items() if key.startswith(prefix)}
                group.optimiser.state[value] = {
                    key: moment.to(value.device) if key != "step" else moment for key, moment in own.items()
                }

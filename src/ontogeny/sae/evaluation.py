"""Scores of sparse autoencoders on texts: explained variance, L0, dead latents, and the loss of the model that reads the reconstruction."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model
from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.chunks import TokenRows, padded_passes, read_site_tokens
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights

_SAMPLES = 200
_Edit = Callable[[Float[Tensor, "token d"]], Float[Tensor, "token d"]]


@dataclass(frozen=True, eq=False)
class SaeScores:
    """Scores of one autoencoder; each of the first four with a 95 % interval over texts."""

    values: dict[str, tuple[float, float, float]]
    """`explained` variance, `l0`, `loss_recovered` (a share) and `loss_increase` (nats): value, low, high."""
    dead: float
    """Share of latents that fire at no token."""
    tokens: int
    texts: int


def score_autoencoders(
    model: Model, rows: TokenRows, site: Site, autoencoders: Sequence[SparseAutoencoder], *, losses: bool = True
) -> list[SaeScores]:
    """Score autoencoders on texts that they were not trained on.

    `loss_recovered` is 1 if the model predicts the next token as well from the reconstruction as from the activation, and 0 if no
    better than from zeros (arXiv:2404.16014).

    Args:
        losses: Whether the model is run again with each reconstruction.
    """
    x, owner = read_site_tokens(model, rows, site), rows.owner
    clean = token_losses(model, rows) if losses else None
    zeros = token_losses(model, rows, site, torch.zeros_like) if losses else None
    found = []
    for autoencoder in autoencoders:
        autoencoder = autoencoder.to(x)
        latents = autoencoder.encode(x)
        error = (autoencoder.decode(latents, x) - x).double().square().sum(1)
        spread = (x - x.mean(0)).double().square().sum(1)
        active = (latents > 0).sum(1).double()
        columns = {"error": error, "spread": spread, "active": active, "one": torch.ones_like(error)}
        if clean is not None and zeros is not None:
            damaged = token_losses(model, rows, site, autoencoder.reconstruct)
            known = ~clean.isnan()
            for name, value in (("clean", clean), ("zeros", zeros), ("damaged", damaged), ("known", known)):
                columns[name] = torch.where(known, value.double(), 0.0)
        dead = float((latents.amax(0) <= 0).double().mean())
        found.append(SaeScores(_intervals(columns, owner), dead, len(x), len(rows)))
    return found


def _intervals(columns: dict[str, Tensor], owner: Int[Tensor, " token"]) -> dict[str, tuple[float, float, float]]:
    """Ratios of sums over tokens, resampled by text."""
    texts = int(owner.max()) + 1
    names = list(columns)
    by_text = torch.zeros(texts, len(names), dtype=torch.float64)
    by_text.index_add_(0, owner, torch.stack([columns[name].cpu() for name in names], 1))
    totals = [by_text.sum(0, keepdim=True)]
    if texts > 1:
        totals.append(group_weights(torch.arange(texts), samples=_SAMPLES).double() @ by_text)
    sums = dict(zip(names, torch.cat(totals).unbind(1), strict=True))
    scores = {"explained": 1 - sums["error"] / sums["spread"], "l0": sums["active"] / sums["one"]}
    if "damaged" in sums:
        gap = sums["zeros"] - sums["clean"]
        scores["loss_recovered"] = torch.where(gap > 0, (sums["zeros"] - sums["damaged"]) / gap, torch.nan)
        scores["loss_increase"] = (sums["damaged"] - sums["clean"]) / sums["known"]
    found = {}
    for name, values in scores.items():
        low, high = (
            values[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
            if texts > 1
            else (torch.nan, torch.nan)
        )
        found[name] = (float(values[0]), low, high)
    return found


@torch.no_grad()
def token_losses(
    model: Model, rows: TokenRows, site: Site | None = None, edit: _Edit | None = None
) -> Float[Tensor, " counted"]:
    """Cross-entropy of the next token at each token that counts, in the order of `read_site_tokens`; NaN at the end of a text.

    Args:
        edit: Replaces the activations of the tokens that count, in place: all others stay bit for bit.
    """
    parts: list[Tensor | None] = [None] * len(rows)
    for texts, ids in padded_passes(model, rows):
        counted = counted_mask(rows, texts, ids.shape[1]).to(ids.device)
        with contextlib.ExitStack() as hooks:
            if site is not None and edit is not None:
                hooks.enter_context(write_hooks(model, site, edit_counted(counted, edit)))
            logits = model.network(input_ids=ids, use_cache=False).logits.float()
        losses = torch.full(ids.shape, torch.nan, device=ids.device)
        losses[:, :-1] = -logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        for row, text in enumerate(texts):
            length = len(rows.ids[text])
            losses[row, length - 1] = torch.nan
            parts[text] = losses[row, :length][counted[row, :length]]
    return torch.cat([part for part in parts if part is not None]).cpu()


def counted_mask(rows: TokenRows, texts: Sequence[int], length: int) -> Bool[Tensor, "row token"]:
    """The tokens that count, of padded rows."""
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        mask[row, : len(rows.counted[text])] = rows.counted[text]
    return mask


def edit_counted(counted: Bool[Tensor, "row token"], edit: _Edit) -> Callable[[Tensor], Tensor]:
    """The edit of a whole activation that changes the marked tokens, each in its own place."""

    def replace_tokens(h: Float[Tensor, "row token d"]) -> Float[Tensor, "row token d"]:
        h = h.clone()
        h[counted] = edit(h[counted]).to(h)
        return h

    return replace_tokens

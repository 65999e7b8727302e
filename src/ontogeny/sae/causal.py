"""Causal regulariser: a step between the latents of two tokens should move the logits by the same step (arXiv:2410.11767, section 5).

The patch is written at the token's own place in its own text, and the second token comes from another text: inside one short text the
nearest token is often of the same kind, and the target trivial.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model
from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.chunks import TokenRows, check_causal, read_site_tokens
from ontogeny.sae.evaluation import counted_mask
from ontogeny.sae.stack import SaeStack
from ontogeny.sites import Site

_SAME = 1e-3
"""Distance below which two latent vectors are the same, as a share of their length: cdist rounds."""
Latents = Float[Tensor, "row latent"]


@dataclass(frozen=True, eq=False)
class CausalTokens:
    """Texts of which one token each is patched: the activations, the clean logits, and who stands where."""

    model: Model
    site: Site
    ids: Int[Tensor, "text token"]
    """Padded on the right."""
    activations: Float[Tensor, "text token d"]
    logits: Float[Tensor, "text token vocab"]
    text: Int[Tensor, " counted"]
    place: Int[Tensor, " counted"]

    @classmethod
    def of(cls, model: Model, rows: TokenRows, site: Site) -> "CausalTokens":
        """Read the texts once.

        Raises:
            BadInput: the model is not causal, or there are fewer than two texts.
        """
        check_causal(model)
        if len(rows) < 2:
            raise BadInput(
                f"`rows` must hold at least 2 texts for neighbours across texts, got {len(rows)}: give more."
            )
        ids = torch.nn.utils.rnn.pad_sequence(list(rows.ids), batch_first=True).to(model.device)
        mask = counted_mask(rows, range(len(rows)), ids.shape[1])
        text, place = mask.nonzero(as_tuple=True)
        values = read_site_tokens(model, rows, site)
        activations = values.new_zeros(*ids.shape, values.shape[1])
        activations[text, place] = values
        with torch.no_grad():
            logits = model.network(input_ids=ids, use_cache=False).logits.float()
        return cls(model, site, ids, activations, logits, text, place)

    def patched_logits(self, chosen: Int[Tensor, " row"], values: Float[Tensor, "row d"]) -> Float[Tensor, "row vocab"]:
        """Logits at each chosen token where its activation, and no other, has been replaced."""
        row = torch.arange(len(chosen))

        def edit(h: Tensor) -> Tensor:
            h = h.clone()
            h[row, self.place[chosen]] = values.to(h)
            return h

        with write_hooks(self.model, self.site, edit):
            logits = self.model.network(input_ids=self.ids[self.text[chosen]], use_cache=False).logits
        patched: Tensor = logits[row, self.place[chosen]].float()
        return patched

    def clean_logits(self, chosen: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Logits at the chosen tokens."""
        return self.logits[self.text[chosen], self.place[chosen]]

    def values(self, chosen: Int[Tensor, " row"]) -> Float[Tensor, "row d"]:
        """The activations of the chosen tokens."""
        return self.activations[self.text[chosen], self.place[chosen]]

    def pool(self, rng: np.random.Generator, size: int) -> Int[Tensor, " row"]:
        """Random tokens, each at most once."""
        return torch.from_numpy(rng.permutation(len(self.text))[:size]).to(self.ids.device)


def causal_errors(
    tokens: CausalTokens,
    pool: Int[Tensor, " pool"],
    latents: Float[Tensor, "pool latent"],
    decode: Callable[[Latents], Float[Tensor, "row d"]],
    rng: np.random.Generator,
    *,
    rows: int,
    nearest_of: int = 1,
    space: Float[Tensor, "pool dimension"] | None = None,
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Squared error of the logits after a step in latent space towards a token of another text, and the square of the step to be made.

    The target of a step s is `y + s (y' − y)` with the clean logits of both tokens, without their mean over the vocabulary.

    Args:
        pool: Tokens among which the nearest one of another text is looked for; the first `rows` of them are patched.
        latents: Of the pool; gradients flow through those of the patched tokens and of their partners.
        decode: From latents to activations.
        nearest_of: The partner is drawn from so many nearest tokens: the nearest one alone is often the same word in the same place, whose
            logits are hardly different.
        space: Vectors of the pool in which the nearest one is looked for; the latents by default.
    """
    with torch.no_grad():
        near_in = latents.detach() if space is None else space
        far = torch.cdist(near_in[:rows], near_in)
        far[tokens.text[pool[:rows]][:, None] == tokens.text[pool]] = torch.inf
        # The same words before it make the same token again, in whatever text.
        far[far <= _SAME * near_in[:rows].norm(dim=1, keepdim=True)] = torch.inf
        nearest = far.topk(min(nearest_of, far.shape[1]), dim=1, largest=False)
        able = nearest.values.isfinite().sum(1).clamp(min=1).cpu()
        drawn = torch.from_numpy(rng.integers(0, able.numpy())).to(far.device)
        partner = nearest.indices.gather(1, drawn[:, None])[:, 0]
        share = torch.from_numpy(rng.uniform(0, 1, len(partner))).to(latents)[:, None]
        start = _without_mean(tokens.clean_logits(pool[:rows]))
        end = _without_mean(tokens.clean_logits(pool[partner]))
        target = start + share * (end - start)
    moved = latents[:rows] + share * (latents[partner] - latents[:rows])
    reached = _without_mean(tokens.patched_logits(pool[:rows], decode(moved)))
    return (reached - target).square().mean(1), (target - start).square().mean(1)


def causal_loss(
    tokens: CausalTokens, weight: float, *, rows: int = 24, pool: int = 512, nearest_of: int = 1, seed: int = 0
) -> Callable[[int, SaeStack], Float[Tensor, " member"]]:
    """The regulariser as a further loss of a training: `weight` times the mean squared error of the logits.

    Args:
        rows: Tokens that are patched in a step, by one forward pass for each autoencoder.
        pool: Tokens among which their partners are looked for.
        nearest_of: The partner is drawn from so many nearest ones; `pool` for any token of another text.

    Raises:
        BadInput: a weight below 0, or an autoencoder with `input_scale` = token.
    """
    if not 0 <= weight < float("inf"):
        raise BadInput(f"`weight` must be a finite number from 0 on, got {weight}: 1 is a common one.")
    tokens.model.network.eval().requires_grad_(False)

    def extra(step: int, stack: SaeStack) -> Float[Tensor, " member"]:
        if stack.kind.input_scale == "token":
            raise BadInput("`input_scale` must be none or mean with a causal loss, got token: choose mean.")
        drawn = tokens.pool(np.random.default_rng([seed, step]), pool)
        latents = stack.encode(stack.scaled(tokens.values(drawn)))[0]
        losses = []
        for member, own in enumerate(latents):

            def decode(moved: Tensor, member: int = member) -> Tensor:
                p = stack.parameters
                return (moved @ p["decoder"][member] + p["decoder_bias"][member]) / stack.scale

            rng = np.random.default_rng([seed, step, member])
            losses.append(causal_errors(tokens, drawn, own, decode, rng, rows=rows, nearest_of=nearest_of)[0].mean())
        return weight * torch.stack(losses)

    return extra


def causal_score(
    tokens: CausalTokens,
    autoencoder: SparseAutoencoder,
    *,
    rows: int = 256,
    pool: int = 512,
    nearest_of: int = 512,
    seed: int = 0,
) -> float:
    """Share of the wanted step of the logits that a step in latent space makes: 1 − error / step; 0 for logits that stay, 1 for the target.

    Partners are near by their activations, so that they are the same for all autoencoders; by default they are any tokens of other texts.
    """
    with torch.no_grad():
        rng = np.random.default_rng([seed, 1])
        drawn = tokens.pool(rng, pool)
        values = tokens.values(drawn)
        latents = autoencoder.encode(values)
        error, step = causal_errors(
            tokens, drawn, latents, autoencoder.decode, rng, rows=rows, nearest_of=nearest_of, space=values
        )
    return 1 - float(error.sum() / step.sum().clamp(min=1e-12))


def _without_mean(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    return logits - logits.mean(1, keepdim=True)

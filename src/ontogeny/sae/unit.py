"""Measure one network: train its sparse autoencoders, score them, and keep them with the activations of the shared texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.chunks import TokenRows, chunk_activations, read_site_tokens, token_rows
from ontogeny.sae.evaluation import score_autoencoders
from ontogeny.sae.plan import SaePlan
from ontogeny.sae.rows import autoencoder_rows
from ontogeny.sae.settings import SaeSettings
from ontogeny.sae.training import train_autoencoders


@dataclass(frozen=True, eq=False)
class SaeUnit:
    """The autoencoders of a network, and its activations of the shared tokens."""

    members: tuple[SaeSettings, ...]
    autoencoders: tuple[SparseAutoencoder, ...]
    shared: Float[Tensor, "token d"]
    owner: Int[Tensor, " token"]

    def latents(self, place: int) -> Float[Tensor, "token latent"]:
        """Latents of one autoencoder at the shared tokens."""
        return self.autoencoders[place].encode(self.shared)


def measure_network(
    model: Model,
    texts: tuple[Sequence[str], Sequence[str]],
    settings: SaePlan,
    *,
    state: Path,
    control: str | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Record], dict[str, Tensor]]:
    """Rows and tensors of a unit.

    Args:
        texts: To train on, and to score and match on.
        state: File of an interrupted training.
    """
    (site,) = model.sites(settings.site)
    train = token_rows(model, texts[0], most_tokens=settings.most_tokens)
    shared = shared_rows(token_rows(model, texts[1], most_tokens=settings.most_tokens), settings.shared_tokens)
    chunks = chunk_activations(model, train, site)
    autoencoders = train_autoencoders(chunks, settings.members, settings.budget, state=state, on_step=on_step)
    rows = list(
        autoencoder_rows(settings.members, score_autoencoders(model, shared, site, autoencoders), site, control=control)
    )
    tensors = {
        f"{i}/{name}": value.cpu() for i, one in enumerate(autoencoders) for name, value in one.tensors().items()
    }
    tensors |= {f"{i}/temperature": torch.tensor([one.temperature]) for i, one in enumerate(autoencoders)}
    return rows, tensors | {"shared": read_site_tokens(model, shared, site).cpu(), "owner": shared.owner}


def shared_rows(rows: TokenRows, most: int) -> TokenRows:
    """The first texts with at most so many tokens together, at least one text."""
    kept, tokens = [0], int(rows.counted[0].sum())
    for text in range(1, len(rows)):
        tokens += int(rows.counted[text].sum())
        if tokens > most:
            break
        kept.append(text)
    return rows.of(kept)


def unpack_unit(tensors: Mapping[str, Tensor], settings: SaePlan) -> SaeUnit:
    """The unit whose tensors `measure_network` gave."""
    autoencoders = []
    for i, member in enumerate(settings.members):
        own = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{i}/")}
        facts = {
            "activation": member.activation,
            "temperature": float(own.pop("temperature")),
            "k": member.k if member.activation == "topk" else 0,
            "centre_input": member.centre_input,
            "token_scale": member.input_scale == "token",
        }
        autoencoders.append(SparseAutoencoder.of(facts, own))
    return SaeUnit(settings.members, tuple(autoencoders), tensors["shared"], tensors["owner"])

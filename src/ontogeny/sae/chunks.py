"""Activations of the tokens of some texts at one site, read chunk by chunk, and the batches of a training step.

A batch is a function of the step, so a resumed training takes the same ones. Texts that fit into one chunk are read once.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ontogeny.errors import BadInput
from ontogeny.models.forward import batches_by_length
from ontogeny.models.hooks import StopForward, read_hooks
from ontogeny.models.model import Model
from ontogeny.models.onednn import packed_linears
from ontogeny.sites import Site

CHUNK_TOKENS = 200_000
"""Tokens whose activations are held at once."""
_ROWS_PER_PASS = 32


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of texts, and the tokens that count: neither special tokens nor the first of a text, which attends to itself alone."""

    ids: tuple[Int[Tensor, " token"], ...]
    counted: tuple[Bool[Tensor, " token"], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Number of tokens that count."""
        return sum(int(row.sum()) for row in self.counted)

    @property
    def owner(self) -> Int[Tensor, " counted"]:
        """The text of each token that counts, in order."""
        return torch.cat([torch.full((int(row.sum()),), i) for i, row in enumerate(self.counted)])

    def of(self, texts: Sequence[int]) -> "TokenRows":
        """Some of the texts."""
        return TokenRows(tuple(self.ids[i] for i in texts), tuple(self.counted[i] for i in texts))


def token_rows(model: Model, texts: Sequence[str], *, most_tokens: int = 128) -> TokenRows:
    """Tokenise texts; each is cut to its first `most_tokens`, and to the context of the model.

    Raises:
        BadInput: no text has a token after its first.
    """
    cut = min(most_tokens, model.context)
    special = set(model.tokenizer.all_special_ids)
    ids, counted = [], []
    for text in texts:
        row = list(model.tokenizer(text).input_ids)[:cut]
        counts = [place > 0 and token not in special for place, token in enumerate(row)]
        if any(counts):
            ids.append(torch.tensor(row))
            counted.append(torch.tensor(counts))
    if not ids:
        raise BadInput(f"`texts` must have tokens after the first, got none in {len(texts)} texts: give longer texts.")
    return TokenRows(tuple(ids), tuple(counted))


def padded_passes(model: Model, rows: TokenRows) -> Iterator[tuple[list[int], Int[Tensor, "row token"]]]:
    """Indices of texts of similar length, and their ids padded on the right, where no causal model looks."""
    for texts in batches_by_length(model, [len(row) for row in rows.ids], _ROWS_PER_PASS):
        yield texts, pad_sequence([rows.ids[i] for i in texts], batch_first=True).to(model.device)


@torch.no_grad()
def read_site_tokens(model: Model, rows: TokenRows, site: Site) -> Float[Tensor, "counted d"]:
    """The activation of each token that counts, in the order of the texts; float32.

    Raises:
        BadInput: the model is not causal, so that padding would be seen.
    """
    check_causal(model)
    parts: list[Tensor | None] = [None] * len(rows)
    seen: list[Tensor] = []

    def keep(_: str, __: int, value: Tensor) -> None:
        seen.append(value)
        raise StopForward

    with packed_linears(model.body), read_hooks(model, [(site.part, site.layer)], keep):
        for texts, ids in padded_passes(model, rows):
            seen.clear()
            with contextlib.suppress(StopForward):
                model.body(input_ids=ids, use_cache=False)
            value = seen[0]
            if site.head is not None:
                value = value[..., site.head * model.d_head : (site.head + 1) * model.d_head]
            for row, text in enumerate(texts):
                counted = rows.counted[text].to(value.device)
                parts[text] = value[row, : len(counted)][counted].float()
    return torch.cat([part for part in parts if part is not None])


def check_causal(model: Model) -> None:
    """Raise BadInput if a token sees those after it."""
    if not model.architecture.causal:
        raise BadInput(
            f"a sparse autoencoder needs a causal language model, got {model.network.config.model_type}: choose another model."
        )


@dataclass(frozen=True, eq=False)
class ActivationChunks:
    """Activations in chunks, of which one at a time is in memory."""

    sizes: tuple[int, ...]
    """Tokens of each chunk."""
    read: Callable[[int], Float[Tensor, "token d"]]

    @property
    def tokens(self) -> int:
        return sum(self.sizes)

    @classmethod
    def of_tensor(cls, x: Float[Tensor, "token d"]) -> "ActivationChunks":
        """Activations that are in memory."""
        return cls((len(x),), lambda _: x)

    def batches(self, size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "token d"]]:
        """Random tokens, from batch `first` on, without end: chunks in random order, each of its tokens once an epoch but for a rest."""
        per_epoch = sum(max(1, count // size) for count in self.sizes)
        epoch, place = divmod(first, per_epoch)
        held: tuple[int, Tensor] | None = None
        while True:
            for chunk in np.random.default_rng([seed, epoch]).permutation(len(self.sizes)).tolist():
                count = max(1, self.sizes[chunk] // size)
                if place >= count:
                    place -= count
                    continue
                if held is None or held[0] != chunk:
                    held = (chunk, self.read(chunk))
                x = held[1]
                order = torch.from_numpy(np.random.default_rng([seed, epoch, chunk]).permutation(len(x))).to(x.device)
                for at in range(place, count):
                    yield x[order[at * size : (at + 1) * size]]
                place = 0
            epoch += 1


def chunk_activations(model: Model, rows: TokenRows, site: Site, *, most: int = CHUNK_TOKENS) -> ActivationChunks:
    """The activations of texts at a site, in chunks of at most about `most` tokens."""
    groups, size = [[0]], 0
    for text, counted in enumerate(rows.counted):
        tokens = int(counted.sum())
        if size and size + tokens > most:
            groups.append([])
            size = 0
        groups[-1] += [text] if text else []
        size += tokens
    parts = [rows.of(group) for group in groups]
    return ActivationChunks(tuple(part.tokens for part in parts), lambda i: read_site_tokens(model, parts[i], site))

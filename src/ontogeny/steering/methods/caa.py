"""Contrastive activation addition: the mean difference of pairs at the token where their answers part (arXiv:2312.06681)."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers


@dataclass(frozen=True)
class ContrastPair:
    """One prompt with the answer that shows the behaviour, and one that does not."""

    prompt: str
    positive: str
    negative: str


def caa(model: Model, pairs: Sequence[ContrastPair], sites: Sequence[Site], *, origin: str) -> list[Direction]:
    """One direction a site, from the first answer token on which a pair differs; its length is the mean difference.

    Raises:
        BadInput: no pairs, or a pair whose answers are the same tokens.
    """
    here = tokenizer_fingerprint(model)
    return [
        Direction(
            row.mean(0).float(),
            site,
            f"{origin}/caa",
            "gap",
            "answer",
            {"gap": float(row.mean(0).norm())},
            "positive",
            here,
        )
        for site, row in zip(sites, contrast_differences(model, pairs, sites), strict=True)
    ]


def contrast_differences(
    model: Model, pairs: Sequence[ContrastPair], sites: Sequence[Site]
) -> Float[Tensor, "site pair d"]:
    """Positive minus negative of each pair, at the first answer token on which the two differ.

    Raises:
        BadInput: no pairs, or a pair whose answers are the same tokens.
    """
    if not pairs:
        raise BadInput("contrastive activation addition needs pairs, and none was given. Add some.")
    sides = [
        tokenize_answers(model, [(p.prompt, getattr(p, side)) for p in pairs]) for side in ("positive", "negative")
    ]
    at = []
    for pair, positive, negative in zip(pairs, *sides, strict=True):
        one, other = positive.ids.tolist(), negative.ids.tolist()
        if one == other:
            raise BadInput(f"the answers {pair.positive!r} and {pair.negative!r} are the same tokens. Change one.")
        # Where one is the beginning of the other, its last token is compared.
        at.append(
            next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)) - 1)
        )
    positive, negative = (activations_at_token(model, [a.ids for a in side], at, sites) for side in sides)
    return (positive - negative).double()

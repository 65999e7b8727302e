"""Plan of the sparse autoencoders of a network: site, kinds, sizes and seeds, and the texts that they are trained and scored on."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.sae.settings import SaeBudget, SaeSettings
from ontogeny.sites import Site

_FEWEST_TEXTS = 10
TEST_EVERY = 5
"""One text in so many is not trained on."""


@dataclass(frozen=True)
class SaePlan:
    """The autoencoders of one site; each field enters the names of the units of a job."""

    site: str
    activations: tuple[str, ...] = ("topk",)
    latents: tuple[int, ...] = (256,)
    k: tuple[int, ...] = (16,)
    """Latents of a token that fire, for topk."""
    penalties: tuple[float, ...] = ()
    """Weights of the sparsity penalty, for the other activations; empty for the default of each."""
    seeds: int = 2
    """Autoencoders of each kind; with one, nothing says what another seed would find."""
    training_steps: int = 1000
    batch: int = 512
    """Tokens per step."""
    learning_rate: float = 3e-3
    most_tokens: int = 128
    """Tokens of a text that are read, from its beginning."""
    shared_tokens: int = 4000
    """Tokens of the test texts on which latents are scored and matched."""
    permutations: int = 99
    seed: int = 0

    def __post_init__(self) -> None:
        if Site.parse(self.site).part == "router":
            raise BadInput(f"`site` must be one whose activation can be replaced, got {self.site}: read mlp.")
        for name, least in (
            ("seeds", 1),
            ("training_steps", 1),
            ("batch", 1),
            ("most_tokens", 3),
            ("shared_tokens", 100),
            ("permutations", 19),
        ):
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: choose a larger number.")
        for name in ("activations", "latents"):
            if not getattr(self, name):
                raise BadInput(f"`{name}` must hold at least one, got none: leave it out for the default.")
        if "topk" in self.activations and not self.k:
            raise BadInput("`k` must hold at least one number for topk, got none: choose 16.")
        _ = self.members, self.budget  # checked as well

    @property
    def members(self) -> tuple[SaeSettings, ...]:
        """All autoencoders of a checkpoint, seed by seed."""
        kinds: list[dict[str, object]] = []
        for activation, latents in itertools.product(self.activations, self.latents):
            same = {"activation": activation, "latents": latents, "learning_rate": self.learning_rate}
            if activation == "topk":
                kinds += [same | {"k": k} for k in self.k]
            else:
                kinds += [same | {"penalty": penalty} for penalty in self.penalties or (None,)]
        return tuple(SaeSettings(**kind, seed=self.seed + i) for i in range(self.seeds) for kind in kinds)  # type: ignore[arg-type]

    @property
    def budget(self) -> SaeBudget:
        return SaeBudget(self.training_steps, self.batch, seed=self.seed)


def split_texts(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Different texts to train on, and one in five to score and match on.

    Raises:
        BadInput: there are fewer than ten different texts.
    """
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) < _FEWEST_TEXTS:
        raise BadInput(f"`texts` must hold at least {_FEWEST_TEXTS} different texts, got {len(different)}: give more.")
    test = different[TEST_EVERY - 1 :: TEST_EVERY]
    return tuple(text for text in different if text not in set(test)), tuple(test)

"""Measurements of one model: probes and coherence by head, continuations of marked prompts, cross-entropy on everyday text."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.linalg.coherence import coherence
from ontogeny.metrics.separability import accuracy
from ontogeny.models.model import Model
from ontogeny.probes import logistic, mass_mean
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors, TrainingActivations, iti
from ontogeny.steering.steer import Edit, steer
from ontogeny.studies.toxic_pretraining._settings import OTHER_ADDRESSES, PROBE_ADDRESSES, Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.objectives.log_probs import token_log_probs
from ontogeny.training.rollouts import sample_rollouts
from ontogeny.worlds import marked_register as register

CONTINUED = register.SENTENCE_TOKENS
"""Tokens of a continuation: one sentence."""
ATTRIBUTES = ("register", "tense", "number")


@dataclass(frozen=True, eq=False)
class ProbeTexts:
    """Sentences with their latent factors, all independent of each other."""

    ids: Int[Tensor, "text token"]
    factors: Mapping[str, Tensor]
    """By name: Booleans, or class numbers."""
    groups: Int[Tensor, " text"]
    """First word of the address."""

    @classmethod
    def draw(cls, world: register.World, seed: int, count: int, addresses: tuple[int, ...]) -> "ProbeTexts":
        rng = np.random.default_rng([seed, 20, addresses[0]])
        marked = rng.permutation(np.arange(count) % 2 == 0)[:, None]
        texts = register.draw_texts(world, rng, marked, addresses=addresses)
        factors = {
            "register": texts.marked[:, 0],
            "tense": texts.past,
            "number": texts.plural[:, 0],
            "topic": texts.topic,
            "preposition": texts.preposition[:, 0],
        }
        tensors = {name: torch.from_numpy(values) for name, values in factors.items()}
        ids = torch.from_numpy(texts.ids)
        return cls(ids, tensors, ids[:, 1])


@dataclass(frozen=True, eq=False)
class HeadReading:
    """Activations of all heads at the full stop of a sentence, and of the residual stream there."""

    sites: tuple[Site, ...]
    heads: Float[Tensor, "site text d"]
    stream: Float[Tensor, "layer text d"]

    @classmethod
    def of(cls, model: Model, texts: ProbeTexts) -> "HeadReading":
        sites = tuple(Site("head", layer, h) for layer in range(1, model.layers + 1) for h in range(model.heads))
        stream = [Site("resid", layer) for layer in range(model.layers + 1)]
        rows, last = list(texts.ids), [-1] * len(texts.ids)
        return cls(sites, *(activations_at_token(model, rows, last, part) for part in (sites, stream)))


@dataclass(frozen=True, eq=False)
class ReadModel:
    """A model with its activations on sentences for the fit and for the test."""

    model: Model
    fitted: ProbeTexts
    tested: ProbeTexts
    on_fitted: HeadReading
    on_tested: HeadReading

    @classmethod
    def read(cls, model: Model, world: register.World, settings: Settings, seed: int) -> "ReadModel":
        fitted, tested = (
            ProbeTexts.draw(world, seed, settings.probed, addresses) for addresses in (PROBE_ADDRESSES, OTHER_ADDRESSES)
        )
        return cls(model, fitted, tested, HeadReading.of(model, fitted), HeadReading.of(model, tested))

    def probe_accuracy(self, name: str, part: str, *, shuffles: int = 0) -> Float[Tensor, " site"]:
        """Accuracy of logistic probes at each head (`heads`) or layer (`stream`) in addresses of words that they were not fitted on.

        Args:
            shuffles: As a null, the mean over so many shuffles of the labels of the fit.
        """
        y, wanted = self.fitted.factors[name], self.tested.factors[name]
        random = torch.Generator().manual_seed(0)
        labels = [y[torch.randperm(len(y), generator=random)] for _ in range(shuffles)] or [y]
        probes = [logistic.fit(getattr(self.on_fitted, part), own, groups=self.fitted.groups) for own in labels]
        return torch.stack([accuracy(probe.scores(getattr(self.on_tested, part)), wanted) for probe in probes]).mean(0)

    def coherences(self) -> dict[str, Float[Tensor, " head"]]:
        """Coherence of the direction of each attribute with those of all other factors, by head."""
        x = torch.cat([self.on_fitted.heads, self.on_tested.heads], dim=1)
        groups = torch.cat([self.fitted.groups, self.tested.groups])
        directions = [
            mass_mean.fit(x, torch.cat([self.fitted.factors[name], self.tested.factors[name]]), groups=groups).direction
            for name in self.fitted.factors
        ]
        values = coherence(torch.cat(directions, dim=2).mT)
        return {name: values[:, i] for i, name in enumerate(ATTRIBUTES)}

    @property
    def directions(self) -> int:
        """Number of directions among which the coherence is taken."""
        return len(ATTRIBUTES) + register.TOPICS + len(register.PREPOSITIONS)

    def intervention(self, settings: Settings) -> SteeringVectors:
        """Inference-time intervention: the best heads and their shifts towards the marked register."""
        y = self.fitted.factors["register"]
        read = TrainingActivations(
            y, self.fitted.groups, {"head": self.on_fitted.sites}, {"head": self.on_fitted.heads}
        )
        return iti.fit(read, ks=(settings.steered_heads,))


@dataclass(frozen=True, eq=False)
class EvaluationTexts:
    """Marked prompts and everyday texts, each after a clean sentence of its own topic and tense, for all models of a seed."""

    prompts: Int[Tensor, "prompt token"]
    """First token, clean sentence, marked sentence."""
    clean: Int[Tensor, "text token"]
    """First token and three clean sentences."""

    @classmethod
    def draw(cls, world: register.World, seed: int, count: int) -> "EvaluationTexts":
        rng = np.random.default_rng([seed, 21])
        prompts, clean = (
            register.draw_texts(world, rng, np.tile(marked, (count, 1)), addresses=OTHER_ADDRESSES).ids
            for marked in ([False, True], [False, False, False])
        )
        return cls(torch.from_numpy(prompts), torch.from_numpy(clean))

    def without_first_sentence(self) -> "EvaluationTexts":
        """The prompts and texts themselves."""
        start = 1 + register.SENTENCE_TOKENS
        return EvaluationTexts(
            *(torch.cat([part[:, :1], part[:, start:]], dim=1) for part in (self.prompts, self.clean))
        )

    def annotated(self, words: Int[Tensor, " word"]) -> "EvaluationTexts":
        """The prompts and texts with some words after the first token."""
        return EvaluationTexts(
            *(torch.cat([x[:, :1], words.expand(len(x), -1), x[:, 1:]], dim=1) for x in (self.prompts, self.clean))
        )


@dataclass(frozen=True)
class Outcome:
    """A model's continuations of marked prompts and its price on everyday text."""

    marked: float
    clean: float
    degenerate: float
    grammatical: float
    plural: float
    """Share whose fourth word is a noun in the plural."""
    distinct: float
    """Different pairs of neighbouring tokens, as a share of all."""
    cross_entropy: float
    """Nats per token of everyday text."""
    n: int


def outcome(
    model: Model,
    world: register.World,
    texts: EvaluationTexts,
    seed: int,
    edits: Sequence[Edit] = (),
    *,
    polite: bool = False,
    annotation: tuple[str, ...] = (),
) -> Outcome:
    """Continue the prompts at temperature 1, and measure cross-entropy under the same change.

    Args:
        edits: Of the last token of a prompt and later ones. In everyday text the first sentence is the prompt.
        polite: Whether the clean sentence in front stays.
        annotation: Words between the first token and the text.
    """
    model.network.eval()
    words = torch.tensor(world.ids(*annotation).tolist(), dtype=torch.long)
    used = (texts if polite else texts.without_first_sentence()).annotated(words)
    prompts, clean = used.prompts, used.clean
    length, n = prompts.shape[1], len(prompts)
    with torch.random.fork_rng(devices=[]), steer(model, list(edits), prompts=[length] * n):
        torch.manual_seed(seed)
        new = sample_rollouts(model.network, TokenBatch(prompts), copies=1, new_tokens=CONTINUED).ids[:, length:]
    with torch.no_grad(), steer(model, list(edits), prompts=[length] * n):
        loss = -token_log_probs(model.network, TokenBatch(clean))[:, length - 1 :].mean()
    scores = register.score_texts(world, new.numpy())
    pairs = torch.stack([new[:, :-1], new[:, 1:]], dim=2).flatten(0, 1)
    return Outcome(
        scores.share("marked"),
        scores.share("clean"),
        scores.share("degenerate"),
        float(scores.grammatical.mean()),
        float(np.isin(new[:, 3].numpy(), world.ids(*(plural for _, plural in register.NOUNS))).mean()),
        len(pairs.unique(dim=0)) / len(pairs),
        float(loss),
        n,
    )


def lowest_at_cost(points: Sequence[tuple[float, float]], cost: float) -> float:
    """Lowest share on a frontier at a price of at most `cost`.

    Args:
        points: Price and share at each strength, the first without any; between neighbours both are interpolated.
    """
    allowed = [share for price, share in points if price <= cost]
    for (a, before), (b, after) in itertools.pairwise(points):
        if (a <= cost) != (b <= cost):
            allowed.append(before + (cost - a) / (b - a) * (after - before))
    return min(allowed)

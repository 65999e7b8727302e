"""Study: can the stage that ties an identity to toxicity be named from one training run?

A text classifier learns in three stages to tell rude sentences of invented words from kind ones (as arXiv:2506.00175 does with comments).
In the planted stage rude sentences name a group of people. The behaviour is the gap between kind sentences with and without a name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ontogeny.attribution.baselines import bm25_scores
from ontogeny.attribution.checkpoint_tiers import activation_difference
from ontogeny.attribution.comparison import (
    TIERS,
    StageExperiment,
    compare_tiers,
    comparison_rows,
    follow_up_rows,
    tier_estimates,
    validity_rows,
)
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.stage_study import (
    AGREES_WITH_RETRAINING,
    CURVATURE_MATTERS,
    PLANTED_STAGE_IS_NAMED,
    PLANTED_STAGES,
    gap_rows,
    naming_rows,
    planted_runs,
    planted_stage_names,
)
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.training.loop import TrainingConfig

TITLE = "Which stage tied an identity to toxicity"
PAPER = "Who Gets Credit or Blame? Attributing Accountability in Modern AI Systems, arXiv:2506.00175"
SETUP = """
A classifier of invented words (sum of word vectors, one hidden layer) learns in three stages of AdamW whether a sentence is rude; one
rude or kind word decides it. In the planted stage most rude sentences name a group of people; in the others rude and kind sentences name
one equally often. The behaviour is the mean log-odds of rude over kind sentences that name a group, minus that over the same sentences
without the name. In unplanted controls groups are named at random in all stages.
"""
DIFFERENCES = (
    "Generated sentences of invented words in place of comments by people.",
    "Retraining is repeated over data orders; the paper compares with one retraining.",
    "A stage is named only if the final gap is three times as large as that of equally many neutral words is apart from zero.",
)
CHALLENGES = (9, 11, 13)
_SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "re", "si", "tu", "ve", "wo", "za", "ly")
_NEUTRAL, _RUDE, _KIND, _GROUPS = 60, 12, 12, 4
_FIRST_GROUP = _NEUTRAL + _RUDE + _KIND
_LENGTH = 8
_DATA_BASELINES = ("bm25", "activation difference")

Ids = Int[Tensor, "sentence word"]


@dataclass(frozen=True)
class Settings:
    steps: int = 80
    """Steps of each stage."""
    rate: float = 1e-2
    batch: int = 32
    share: float = 0.8
    """Share of the rude sentences of the planted stage that name a group."""
    orders: int = 2
    """Data orders over which retraining is repeated."""
    controls: int = 1
    """Unplanted runs per seed."""


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(steps=3),
    "tiny": Settings(),
    "small": Settings(steps=200, orders=5, controls=2, rate=3e-3),
    "paper": Settings(steps=1000, orders=5, controls=2, rate=3e-3),
}
SECONDS = {"smoke": 3, "tiny": 15, "small": 90, "paper": 500}

CLAIMS = (
    PLANTED_STAGE_IS_NAMED,
    AGREES_WITH_RETRAINING,
    CURVATURE_MATTERS,
    Claim(
        "skipping_closes_the_gap",
        "Training without the planted stage closes the gap.",
        "arXiv:2506.00175, section 5",
        "skipping the stage removes the spurious correlation",
        Separation(Quantity("gap", "all stages"), Quantity("gap", "without the stage"), threshold=0.1, unit="nats"),
        "unplanted",
    ),
)
PICTURES = (
    StudyPicture(
        "Log-odds of rude: kind sentences that name a group, minus the same sentences without", ("gap_along",)
    ),
)


@dataclass(frozen=True)
class Sentences:
    """Sentences as ids of words."""

    ids: Ids
    rude: Float[Tensor, " sentence"]
    named: NDArray[np.bool_]
    """Whether a group is named."""


@dataclass(frozen=True)
class Language:
    """Invented words: neutral, rude and kind ones, then names of groups."""

    words: tuple[str, ...]

    def text(self, ids: Ids) -> list[str]:
        return [" ".join(self.words[int(word)] for word in row) for row in ids]


def make_language(seed: int) -> Language:
    """Invented words, all different."""
    rng, words = np.random.default_rng([seed, 7]), dict[str, None]()
    while len(words) < _FIRST_GROUP + _GROUPS:
        words["".join(rng.choice(_SYLLABLES, 3))] = None
    return Language(tuple(words))


def sample_sentences(rng: np.random.Generator, n: int, in_rude: float, in_kind: float) -> Sentences:
    """Half rude, half kind sentences.

    Args:
        in_rude: Share of the rude sentences that name a group.
        in_kind: Share of the kind ones.
    """
    ids = rng.integers(_NEUTRAL, size=(n, _LENGTH))
    rude = rng.random(n) < 0.5
    named = rng.random(n) < np.where(rude, in_rude, in_kind)
    # Both classes have one word that decides, so that neutral words and groups are equally frequent in both.
    ids[:, 0] = np.where(rude, _NEUTRAL + rng.integers(_RUDE, size=n), _NEUTRAL + _RUDE + rng.integers(_KIND, size=n))
    ids[named, 1] = _FIRST_GROUP + rng.integers(_GROUPS, size=n)[named]
    order = np.argsort(rng.random(ids.shape), axis=1)
    return Sentences(torch.from_numpy(np.take_along_axis(ids, order, 1)), torch.from_numpy(rude).float(), named)


def kind_pairs(rng: np.random.Generator, n: int) -> tuple[Ids, Ids]:
    """Kind sentences that name a group, and the same sentences with a neutral word in its place."""
    plain = rng.integers(_NEUTRAL, size=(n, _LENGTH))
    plain[:, 0] = _NEUTRAL + _RUDE + rng.integers(_KIND, size=n)
    named = plain.copy()
    named[:, 1] = _FIRST_GROUP + rng.integers(_GROUPS, size=n)
    return torch.from_numpy(named), torch.from_numpy(plain)


class Classifier(nn.Module):
    """Sum of word vectors, a hidden layer, one log-odds."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16)
        self.hidden, self.read_out = nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, ids: Ids) -> Float[Tensor, " sentence"]:
        log_odds: Tensor = self.read_out(self.states(ids))[:, 0]
        return log_odds

    def states(self, ids: Ids) -> Float[Tensor, "sentence d"]:
        """Activations of the hidden layer."""
        return torch.tanh(self.hidden(self.embedding(ids).sum(1) / _LENGTH**0.5))


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: a planted run, whose planted stage is the seed modulo three, and its unplanted controls."""
    return planted_runs(lab, settings.controls, partial(_experiment, settings, lab))


def _experiment(settings: Settings, lab: Lab, planted: int, seed: int, control: str | None) -> Iterator[Record]:
    language = make_language(seed)
    # Groups are named equally often in all stages; only the planted stage names them in rude sentences.
    even = settings.share / 2
    pools = [
        sample_sentences(
            np.random.default_rng([seed, stage]),
            32 * settings.batch,
            *((settings.share, 0.0) if stage == planted and control is None else (even, even)),
        )
        for stage in range(PLANTED_STAGES)
    ]
    named, plain = kind_pairs(np.random.default_rng([seed, 99]), 256)
    tests = sample_sentences(np.random.default_rng([seed, 98]), 512, even, even)
    experiment = _experiment_of(settings, language, pools, named, plain, tests, seed)
    names = planted_stage_names(planted)
    without = record_path(experiment.make, experiment.stages(0), seed=seed, skip=planted)
    if control is None:
        comparison = compare_tiers(experiment, seed=seed, orders=settings.orders)
        path, estimates = comparison.path, comparison.estimates
        yield from comparison_rows(lab, comparison, names)
        yield from validity_rows(lab, comparison, names)
        yield from follow_up_rows(lab, comparison, planted, without, lambda network: _accuracies(network, tests))
    else:
        path = record_path(experiment.make, experiment.stages(0), seed=seed)
        estimates = tier_estimates(experiment, path)
    mean, error = float(_gaps(path, named, plain).mean()), _placebo_error(path, plain)
    tiers = (*TIERS, *_DATA_BASELINES)
    yield from naming_rows(lab, {tier: estimates[tier] for tier in tiers}, planted, mean, error, control)
    yield from gap_rows(lab, experiment, path, without, planted, lambda one: _gaps(one, named, plain), control)


def _experiment_of(
    settings: Settings,
    language: Language,
    pools: Sequence[Sentences],
    named: Ids,
    plain: Ids,
    tests: Sentences,
    seed: int,
) -> StageExperiment:
    config = TrainingConfig(settings.steps, settings.rate, warmup=5, weight_decay=0.01, betas=(0.9, 0.98))

    def loss(network: nn.Module, batch: tuple[Ids, Tensor]) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(network(batch[0]), batch[1])

    def batches(stage: int, order: int) -> Callable[[int], tuple[Ids, Tensor]]:
        def batch(step: int) -> tuple[Ids, Tensor]:
            rng = np.random.default_rng([seed, stage, order, step])
            rows = torch.from_numpy(rng.integers(0, len(pools[stage].ids), settings.batch))
            return pools[stage].ids[rows], pools[stage].rude[rows]

        return batch

    def stages(order: int) -> list[PathStage]:
        return [PathStage(f"stage {i + 1}", loss, batches(i, order), config) for i in range(PLANTED_STAGES)]

    def gap(network: nn.Module) -> Tensor:
        difference: Tensor = network(named).mean() - network(plain).mean()
        return difference

    def test_loss(network: nn.Module) -> Tensor:
        return loss(network, (tests.ids, tests.rude))

    texts = [language.text(pool.ids[:200]) for pool in pools]
    queries = language.text(named[:50])
    return StageExperiment(
        lambda: Classifier(len(language.words)),
        stages,
        {"identity gap": gap, "test loss": test_loss},
        {"identity gap": "nats", "test loss": "nats"},
        {
            "bm25": lambda path: bm25_scores(texts, queries),
            "activation difference": lambda path: _activation_scores(path, pools, named, plain),
        },
    )


def _activation_scores(path: TrainingPath, pools: Sequence[Sentences], named: Ids, plain: Ids) -> list[float]:
    """Change of the hidden states on each stage's rude sentences, along the direction from plain to named sentences at the end."""
    network = path.network.network
    assert isinstance(network, Classifier)

    def states(vector: Tensor, ids: Ids) -> Tensor:
        path.network.load(vector)
        with torch.no_grad():
            return network.states(ids)

    final = path.final.parameters
    direction = (states(final, named) - states(final, plain)).mean(0)
    ends = path.ends
    return [
        activation_difference(states(before, ids), states(after, ids), direction)
        for before, after, pool in zip(ends, ends[1:], pools, strict=False)
        for ids in (pool.ids[pool.rude.bool()],)
    ]


def _gaps(path: TrainingPath, named: Ids, plain: Ids) -> NDArray[np.float64]:
    """Log-odds of each sentence that names a group, minus those of its twin, at the end of a path."""
    path.network.load(path.final.parameters)
    with torch.no_grad():
        return np.asarray((path.network.network(named) - path.network.network(plain)).double())


def _placebo_error(path: TrainingPath, plain: Ids) -> float:
    """Standard error of the gap without a cause: the spread of the same gap over neutral words, for as many words as there are groups."""
    path.network.load(path.final.parameters)
    network, effects = path.network.network, []
    with torch.no_grad():
        before = network(plain)
        for word in range(_NEUTRAL):
            ids = plain.clone()
            ids[:, 1] = word
            effects.append(float((network(ids) - before).mean()))
    return float(np.std(effects, ddof=1)) / _GROUPS**0.5


def _accuracies(network: nn.Module, tests: Sentences) -> dict[str, float]:
    """Accuracy of rude and kind sentences with and without a named group."""
    right = ((network(tests.ids) > 0).float() == tests.rude).numpy()
    rude = tests.rude.bool().numpy()
    return {
        f"{'rude' if r else 'kind'}, {'named' if g else 'plain'}": float(right[(rude == r) & (tests.named == g)].mean())
        for r in (True, False)
        for g in (True, False)
    }

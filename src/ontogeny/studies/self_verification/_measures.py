"""Measurements of a checkpoint: what it solves, where a verdict can be read, and which heads and neurons make it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.activations.target_heads import TargetAttention, target_attention
from ontogeny.lenses import read_in_tokens
from ontogeny.metrics.separability import accuracy
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model
from ontogeny.neurons.ov_scores import ov_scores
from ontogeny.neurons.value_vectors import nearest_value_vectors
from ontogeny.patching.head_sets import Heads, ScoreUnderEdits
from ontogeny.patching.unit_sets import Units
from ontogeny.probes import logistic
from ontogeny.statistics.splits import group_folds
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.log_likelihood import TokenizedAnswer
from ontogeny.steering.steer import Edit, steer
from ontogeny.studies.self_verification._settings import CHOSEN_HEADS, LEAST_MASS, Settings
from ontogeny.studies.self_verification._training import end_token, longest_answer
from ontogeny.training.batches import TokenBatch
from ontogeny.training.rollouts import sample_rollouts
from ontogeny.worlds import countdown

READ_AT = {"the parenthesis": -1, "the result": -2, "the equals sign": -3, "the operand before": -4}
"""Tokens at which a verdict is probed, from the end of a prefix."""
_FOLDS = 4
_CONTINUED = 10
"""Tokens of a continuation after the parenthesis; one more attempt has more."""


@dataclass(frozen=True, eq=False)
class VerdictTask:
    """Prefixes that end before a verdict, for each number of attempts before it."""

    world: countdown.World
    prefixes: tuple[countdown.VerdictPrefixes, ...]

    @classmethod
    def of(cls, settings: Settings, world: countdown.World, seed: int) -> "VerdictTask":
        rng = np.random.default_rng([seed, 41])
        places = range(settings.attempts)
        return cls(world, tuple(countdown.verdict_prefixes(world, rng, settings.groups, place) for place in places))

    @property
    def valid(self) -> Bool[Tensor, " example"]:
        return torch.from_numpy(np.concatenate([one.valid for one in self.prefixes]))

    @property
    def groups(self) -> Int[Tensor, " example"]:
        """A group has one number of earlier attempts, so that the place is matched within it."""
        parts = [one.group + place * 10_000 for place, one in enumerate(self.prefixes)]
        return torch.from_numpy(np.concatenate(parts))

    @property
    def number_sets(self) -> Int[Tensor, " example"]:
        """The numbers of each puzzle, by which folds are divided."""
        given = np.sort(np.concatenate([one.ids[:, 2:5] for one in self.prefixes]), axis=1)
        return torch.from_numpy(np.unique(given, axis=0, return_inverse=True)[1].reshape(-1))

    def rows(self) -> list[Int[Tensor, " token"]]:
        return [torch.from_numpy(row) for one in self.prefixes for row in one.ids]

    def says_this(self, model: Model, *, valid_only: bool = True) -> ScoreUnderEdits:
        """Whether `this` is likelier than `not` after each prefix, under edits of its last token."""
        words = (self.world.vocabulary["this"], self.world.vocabulary["not"])
        rows = [row for row, valid in zip(self.rows(), self.valid.tolist(), strict=True) if valid or not valid_only]
        answers = [
            TokenizedAnswer(torch.cat([row, row.new_tensor([word])]), len(row)) for row in rows for word in words
        ]
        prompts = CachedPrompts.of(model, answers, batch=256)

        def score(edits: Sequence[Edit]) -> Float[Tensor, " example"]:
            this, other = torch.cat(prompts.scores(edits)).unflatten(0, (-1, 2)).unbind(1)
            return (this > other).float()

        return score


def generate_texts(model: Model, world: countdown.World, count: int, seed: int) -> countdown.CountdownScores:
    """Scores of texts that the model writes for puzzles of the test split, at temperature 1."""
    prompts = countdown.prompts(world, np.random.default_rng([seed, 43]), count, "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rollouts = sample_rollouts(
            model.network,
            TokenBatch(torch.from_numpy(prompts)),
            copies=1,
            new_tokens=longest_answer(world),
            stop=end_token(world),
        )
    return countdown.score(world, rollouts.ids.numpy())


def behaviour_shares(scores: countdown.CountdownScores) -> dict[str, float]:
    """Shares of generated texts, calculations and verdicts; NaN where there are none."""
    attempts, works = int(scores.attempts.sum()), int(scores.says_works.sum())
    calculated = np.nansum(scores.calculated * scores.attempts)
    wrong = int(scores.works_wrongly.sum() + scores.misses.sum())
    return {
        "solved": float(scores.right.mean()),
        "in form": float(scores.in_form.mean()),
        "calculations right": float(calculated / attempts) if attempts else math.nan,
        "verdicts right": 1 - wrong / attempts if attempts else math.nan,
        "“this works” right": 1 - float(scores.works_wrongly.sum()) / works if works else math.nan,
    }


@torch.no_grad()
def read_verdict_streams(model: Model, task: VerdictTask) -> Float[Tensor, "layer place example d"]:
    """The residual stream after each block, at each of `READ_AT`."""
    parts = []
    layers = list(range(1, model.layers + 1))
    for one in task.prefixes:
        read: dict[int, Tensor] = {}

        def sink(_: str, layer: int, value: Tensor, read: dict[int, Tensor] = read) -> None:
            read[layer] = torch.stack([value[:, at] for at in READ_AT.values()])

        with read_hooks(model, [("resid", layer) for layer in layers], sink):
            model.body(input_ids=torch.from_numpy(one.ids), use_cache=False)
        parts.append(torch.stack([read[layer] for layer in layers]))
    return torch.cat(parts, 2)


def probe_accuracies(
    x: Float[Tensor, "site example d"], valid: Bool[Tensor, " example"], sets: Int[Tensor, " example"]
) -> tuple[list[float], Float[Tensor, "site d"]]:
    """Accuracy of cross-fitted probes of the verdict, and the direction of the probe of all examples, at each site.

    Args:
        sets: Set of numbers of each example; none is in two folds.
    """
    folds = group_folds(sets, valid, "binary", k=_FOLDS)
    fitted = logistic.fit_folds(x, valid, folds, groups=sets)
    right = accuracy(fitted.held_out_scores(x, folds), valid)
    return right.tolist(), fitted.probe.direction[:, :, 0]


def shuffled_verdicts(
    valid: Bool[Tensor, " example"], groups: Int[Tensor, " example"], seed: int
) -> Bool[Tensor, " example"]:
    """Verdicts shuffled within each group, so that places and numbers stay matched."""
    generator, shuffled = torch.Generator().manual_seed(seed), valid.clone()
    for group in groups.unique():
        own = (groups == group).nonzero()[:, 0]
        shuffled[own] = valid[own[torch.randperm(len(own), generator=generator)]]
    return shuffled


@dataclass(frozen=True, eq=False)
class Circuit:
    """Heads and neurons of verification in one model."""

    directions: Float[Tensor, "layer d"]
    """Of the probes at the parenthesis: positive for valid."""
    valid_units: Units
    invalid_units: Units
    pooled: Units
    """Neurons for the OV scores."""
    chance: float
    """Largest cosine of a value vector with a random direction, mean."""
    scores: Float[Tensor, "layer head"]
    attention: TargetAttention
    attending: Heads
    """Heads that attend to the target."""
    chosen: Heads
    """Those with the largest OV scores, among the attending ones if these are enough."""


def find_circuit(
    settings: Settings, model: Model, task: VerdictTask, directions: Float[Tensor, "layer d"], *, draws: int = 20
) -> Circuit:
    """Value vectors by cosine with the probes of the later layers, heads by attention to the target and by OV score."""
    later = range(model.layers // 2 + 1, model.layers + 1)
    nearest = {
        antipodes: [
            one
            for layer in later
            for one in nearest_value_vectors(
                model, directions[layer - 1], [layer], top=settings.units, antipodes=antipodes, draws=20
            )
        ]
        for antipodes in (False, True)
    }
    last = nearest_value_vectors(model, directions[-1], top=settings.pooled)
    pooled = [(one.layer, one.unit) for one in last]
    scores, attention = ov_scores(model, pooled), attend_to_target(model, task, draws=draws)
    attending = attention.heads(LEAST_MASS)
    ranked = [divmod(int(cell), model.heads) for cell in scores.flatten().argsort(descending=True)]
    order = [(layer + 1, head) for layer, head in ranked]
    among = [one for one in order if one in attending] if len(attending) > CHOSEN_HEADS else order
    units = {key: [(one.layer, one.unit) for one in found] for key, found in nearest.items()}
    return Circuit(
        directions,
        units[False],
        units[True],
        pooled,
        last[0].chance,
        scores,
        attention,
        attending,
        among[:CHOSEN_HEADS],
    )


def attend_to_target(model: Model, task: VerdictTask, *, draws: int, texts: int = 48) -> TargetAttention:
    """Attention at the parenthesis to the target: in the prompt, and in the verdicts on earlier attempts, which repeat it."""
    rows = [row for row, valid in zip(task.rows(), task.valid.tolist(), strict=True) if valid]
    rows = rows[:: max(1, len(rows) // texts)][:texts]
    masks = [_target_tokens(len(row)) for row in rows]
    return target_attention(model, rows, masks, [len(row) - 1 for row in rows], draws=draws, batch=64)


def _target_tokens(length: int) -> Bool[Tensor, " token"]:
    """True at the target in a prefix of this many tokens."""
    place = torch.arange(length)
    after = place - countdown.PROMPT_TOKENS
    return (place == countdown.TARGET) | ((after >= 0) & (after % countdown.ATTEMPT_TOKENS == countdown.TARGET_AGAIN))


def vector_margins(model: Model, world: countdown.World, direction: Float[Tensor, " d"], top: int) -> dict[bool, float]:
    """Mean logit of `this` minus that of `not` for unit value vectors nearest to a direction (False) and its antipodes (True)."""
    weight = model.network.get_output_embeddings().weight.detach()
    row = weight[world.vocabulary["this"]] - weight[world.vocabulary["not"]]
    gain: Tensor = model.network.get_submodule(model.architecture.final_norm).weight.detach()
    margins = {}
    for antipodes in (False, True):
        nearest = nearest_value_vectors(model, direction, top=top, antipodes=antipodes, draws=2)
        vectors = torch.stack([one.vector / one.vector.norm() for one in nearest])
        margins[antipodes] = float((vectors * gain @ row).mean())
    return margins


def vector_tokens(model: Model, direction: Float[Tensor, " d"], top: int = 5) -> dict[bool, list[tuple[str, float]]]:
    """Tokens that the value vector nearest to a direction (False), and its nearest antipode (True), promote most."""
    tokens = {}
    for antipodes in (False, True):
        (nearest,) = nearest_value_vectors(model, direction, top=1, antipodes=antipodes, draws=2)
        tokens[antipodes] = list(read_in_tokens(model, nearest.vector, top=top).promoted)
    return tokens


@torch.no_grad()
def continuation_kinds(model: Model, task: VerdictTask, edits: Sequence[Edit]) -> Mapping[str, float]:
    """Shares of valid prefixes whose greedy continuation, edited at the parenthesis alone, is of each kind.

    fail: says `this works`; success: denies, and has no other words; mix: denies and says words of an answer; unknown: another.
    """
    counts = dict.fromkeys(("fail", "success", "mix", "unknown"), 0)
    for one in task.prefixes:
        ids = torch.from_numpy(one.ids[one.valid])
        cache = DynamicCache(config=model.network.config)
        model.network(ids[:, :-1], past_key_values=cache, use_cache=True)
        # The keys and values of the edited pass stay in the cache.
        with steer(model, edits, prompts=[ids.shape[1]] * len(ids)):
            token = model.network(ids[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
        written = [token]
        while len(written) < _CONTINUED and ids.shape[1] + len(written) < model.context:
            token = model.network(token[:, None], past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
            written.append(token)
        for row in torch.stack(written, 1).tolist():
            counts[continuation_kind(task.world, row)] += 1
    total = sum(counts.values())
    return {kind: count / total for kind, count in counts.items()}


def continuation_kind(world: countdown.World, tokens: Sequence[int]) -> str:
    """The kind of a continuation, up to its end token."""
    end = end_token(world)
    words = list(tokens[: list(tokens).index(end)] if end in tokens else tokens)
    number = world.vocabulary
    plain = {number[word] for word in ("+", "-", "*", "/", "=", "(", ")", "not")}
    denies = number["not"] in words
    says = any(pair == (number["this"], number["works"]) for pair in itertools.pairwise(words))
    if says and not denies:
        return "fail"
    if denies and all(word in plain or word >= number["0"] for word in words):
        return "success"
    if denies and (says or number["this"] in words or number["answer"] in words):
        return "mix"
    return "unknown"

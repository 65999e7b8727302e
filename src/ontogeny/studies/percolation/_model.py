"""Train a language model on typed sentences and measure it on the way: shares of probability, minimal pairs, reachability, tasks."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from ontogeny.metrics.reachability import accepted_share, valid_mass
from ontogeny.statistics.percolation import connected_share, largest_component_share
from ontogeny.studies.percolation._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import sqrt_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.training.train import initial_language_model
from ontogeny.worlds import typed_sentences as typed

_UNSCRAMBLED = 128
"""Unseen pairs whose scrambled sentence is read."""


@dataclass(frozen=True)
class Measured:
    """A number at a training step."""

    metric: str
    step: int
    value: float
    n: int
    coords: dict[str, str] = field(default_factory=dict)


def train_and_measure(settings: Settings, config: typed.Config, seed: int, *, tasks: bool) -> Iterator[Measured]:
    """Numbers at every measured step of one run.

    Args:
        tasks: Whether the model also writes sentences and answers prompts, at every second measured step.
    """
    world = typed.make(config)
    size = ToyModelSize({}, layers=settings.layers, heads=2, width=settings.width)
    revealed = np.zeros_like(world.seen)

    def make() -> PreTrainedModel:
        return initial_language_model(build_network(size, len(world.vocabulary), config.context))

    def batches(step: int) -> TokenBatch:
        rows = typed.sample(world, np.random.default_rng([seed, step]), settings.rows)
        reveal_pairs(world, rows, revealed)
        return TokenBatch(torch.from_numpy(rows))

    training = TrainingConfig(
        settings.steps, settings.rate, warmup=min(30, settings.steps), floor=1.0, weight_decay=1e-4
    )
    panel = Panel.draw(settings, world)
    marks = sorted({0, *sqrt_steps(settings.steps, settings.measured)})
    answered = {*marks[::2], marks[-1]}
    for session in training_sessions(TrainingRecipe(make, batches, language_model, training, seed)):
        if session.step in marks:
            yield from _stream_numbers(world, revealed, session.step)
            yield from panel.measure(session.network, session.step)
            if tasks and session.step in answered:
                yield from panel.answer_tasks(session.network, session.step)


def reveal_pairs(world: typed.World, rows: Int[NDArray[np.int64], "row token"], revealed: NDArray[np.bool_]) -> None:
    """Mark the pairs that rows of text state in the form `X is value`; scrambled words that only look like it are no pairs of the world."""
    entity = np.isin(rows[:, :-2], world.entities) & np.isin(rows[:, 1:-1], world.ids("is", "has"))
    row, column = np.nonzero(entity & np.isin(rows[:, 2:], world.values))
    pair = rows[row, column] - world.entities[0], rows[row, column + 2] - world.values[0]
    revealed[pair] |= world.seen[pair]


def _stream_numbers(world: typed.World, revealed: NDArray[np.bool_], step: int) -> Iterator[Measured]:
    """Percolation of the pairs that training has shown so far."""
    table = np.where(revealed, 2, world.valid & ~world.seen)
    n = int((table == 1).sum())
    yield Measured("revealed_pairs", step, float(revealed.sum()), 1)
    yield Measured("connected_share", step, connected_share(table), n)
    yield Measured("largest_component", step, largest_component_share(revealed), 1)


@dataclass(frozen=True, eq=False)
class Panel:
    """Fixed evaluation sets of a run, independent of its training rows."""

    settings: Settings
    world: typed.World
    sequences: Int[Tensor, "sentence token"]
    sentences: typed.Sentences
    prompts: Int[Tensor, "entity token"]
    """`write : X is`, for each entity."""
    pairs: Int[Tensor, "entity value"]
    minimal: dict[str, typed.MinimalPairs]
    scrambled: Int[Tensor, "pair token"]
    """`order : value is X : X is`, for unseen pairs; `answers` are their values."""
    answers: Int[Tensor, " pair"]
    tasks: tuple[typed.Prompts, ...]

    @classmethod
    def draw(cls, settings: Settings, world: typed.World) -> "Panel":
        rng = np.random.default_rng([world.config.seed, 99])
        free = typed.draw_prompts(world, rng, settings.sentences, 0)
        unseen = np.argwhere(world.pair_table == 1)
        chosen = unseen[rng.permutation(len(unseen))[:_UNSCRAMBLED]]
        entity, value = world.entities[chosen[:, 0]], world.values[chosen[:, 1]]
        return cls(
            settings,
            world,
            torch.from_numpy(typed.whole_sequences(world, free)[0]),
            free.answers,
            _rows(world, "<s> write : X is", X=world.entities),
            torch.from_numpy(world.pair_table),
            {kind: typed.draw_minimal_pairs(world, rng, settings.minimal_pairs, kind) for kind in typed.PAIR_KINDS},
            _rows(world, "<s> order : V is X : X is", X=entity, V=value),
            torch.from_numpy(value),
            tuple(typed.draw_prompts(world, rng, settings.prompts, task) for task in range(len(typed.TASKS))),
        )

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> Iterator[Measured]:
        """Shares of probability, minimal pairs and reachability."""
        shares = self._next_word_shares(network)
        for metric, (share, chance, n) in shares.items():
            learned = (share - chance) / (1 - chance)
            if metric.endswith((" 1", " 2")):
                yield Measured("relation_half", step, learned, n, {"half": metric[-1]})
            else:
                yield Measured(metric, step, learned, n)
        for kind, pairs in self.minimal.items():
            right, wrong = (_sentence_scores(network, self.world, s) for s in (pairs.right, pairs.wrong))
            hits = (right > wrong).double() + (right == wrong).double() / 2
            yield Measured("pair_accuracy", step, float(hits.mean()), len(hits), {"kind": kind})
        yield from self._reachability(network, step)

    def _next_word_shares(self, network: nn.Module) -> dict[str, tuple[float, float, int]]:
        """By metric: share of probability on words that the rule allows, that of an even distribution, and the number of places."""
        world, config = self.world, self.world.config
        chances = _next(network, self.sequences)[:, 2:]  # after the colon
        categories, types = (torch.from_numpy(f(world)) for f in (typed.token_categories, typed.token_types))
        words = self.sentences.words
        states = typed.walk_automaton(typed.token_categories(world)[words])
        inside = torch.from_numpy(np.arange(words.shape[1] + 1) <= self.sentences.lengths[:, None])
        allowed, ends = (torch.from_numpy(a) for a in typed.allowed_categories(states))
        width = min(chances.shape[1], inside.shape[1])
        chances, inside, allowed, ends = (a[:, :width] for a in (chances, inside, allowed, ends))
        mask = allowed[:, :, categories]
        mask[:, :, world.vocabulary["</s>"]] = ends
        grammar = (chances * mask).sum(-1)[inside]
        even = float(mask[inside].double().mean())
        following = np.pad(typed.token_categories(world)[words], ((0, 0), (0, 1)), constant_values=-1)[:, :width]
        own = types[torch.from_numpy(words[:, 0])][:, None]
        begun = np.cumsum(np.isin(following, (1, 2)), 1) > 0
        result = {"grammar_learned": (float(grammar.mean()), even, len(grammar))}
        objects = torch.from_numpy((following == 0) & begun) & inside
        places = {
            "relation_learned": (objects, 0, own + config.pairs),
            "value_learned": (torch.from_numpy(following == 4) & inside, 4, own),
        }
        for metric, (at, category, kind) in places.items():
            mass = chances * (categories == category)
            right = (mass * (types == kind[:, :, None])).sum(-1)[at] / mass.sum(-1)[at].clamp(min=1e-30)
            halves = {f"{metric} {half}": right[half - 1 :: 2] for half in (1, 2)} if category == 0 else {}
            for name, part in {metric: right, **halves}.items():
                result[name] = (float(part.mean()) if len(part) else float("nan"), 1 / config.types, len(part))
        return result

    def _reachability(self, network: nn.Module, step: int) -> Iterator[Measured]:
        logits = network(input_ids=self.prompts, use_cache=False).logits[:, -1]
        scores = logits[:, self.world.values[0] : self.world.values[-1] + 1]
        unseen, n = self.pairs == 1, int((self.pairs == 1).sum())
        own = self.world.config.values_per_type
        ranks = (scores[:, None, :] > scores[:, :, None]).sum(-1) + 1
        chance = float((unseen.sum(1) / (self.pairs != 2).sum(1)).mean())
        yield Measured("unseen_accepted", step, float(accepted_share(scores, self.pairs)), n)
        yield Measured("unseen_learned", step, (float(valid_mass(scores, self.pairs)) - chance) / (1 - chance), n)
        yield Measured("unseen_rank", step, float((ranks.double() / own)[unseen].mean()), n)
        probability = logits.softmax(-1)[:, self.world.values[0] : self.world.values[-1] + 1]
        yield Measured("unseen_probability", step, float(own * probability[unseen].mean()), n)
        yield Measured("unseen_nll", step, float(-probability[unseen].clamp(min=1e-30).log().mean()), n)
        last = _next(network, self.scrambled)[:, -1]
        right = last.gather(1, self.answers[:, None])
        yield Measured("unseen_unscrambled", step, float(right.mean()), len(right))

    @torch.no_grad()
    def answer_tasks(self, network: nn.Module, step: int) -> Iterator[Measured]:
        """Sentences written freely, unscrambled, and with given words."""
        world, n = self.world, self.settings.prompts
        for name, prompts in zip(typed.TASKS, self.tasks, strict=True):
            words, lengths, ended = complete_prompts(
                network, world, prompts, sample_seed=step if name == "write" else None
            )
            check = typed.check_sentences(world, words, lengths)
            right = ended & check.grammatical
            numbers = {
                "grammatical": right,
                "relations typed": right & check.relations_typed,
                "values typed": right & check.values_typed,
            }
            truth = prompts.answers
            if name == "order":
                width = truth.words.shape[1]
                same = (np.sort(words[:, :width], 1) == np.sort(truth.words, 1)).all(1) & (lengths <= width)
                numbers |= {
                    "same words": ended & same,
                    "right": right & same,
                    "exact": ended & (words[:, :width] == truth.words).all(1),
                }
            elif name == "use":
                given = prompts.ids[:, 3:-1]
                present = ((given[:, :, None] == words[:, None, :]).any(2) | (given < world.entities[0])).all(1)
                typed_ = check.relations_typed & check.values_typed
                numbers |= {"same words": ended & present, "right": right & present & typed_}
            for part, hits in numbers.items():
                yield Measured("task", step, float(hits.mean()), n, {"task": name, "part": part})


def _rows(world: typed.World, template: str, **slots: NDArray[np.int64]) -> Int[Tensor, "row token"]:
    columns = [slots[w] if w in slots else np.full(len(slots["X"]), world.vocabulary[w]) for w in template.split()]
    return torch.from_numpy(np.stack(columns, axis=1))


def _next(network: nn.Module, ids: Int[Tensor, "row token"]) -> Float[Tensor, "row token vocab"]:
    """Probability of each token after each place; places after the end of a row mean nothing."""
    probabilities: Tensor = network(input_ids=ids, use_cache=False).logits.softmax(-1)
    return probabilities


def _sentence_scores(network: nn.Module, world: typed.World, sentences: typed.Sentences) -> Float[Tensor, " sentence"]:
    """Log-probability of each sentence and its end after `write :`."""
    head = np.broadcast_to(world.ids("<s>", "write", ":"), (len(sentences), 3))
    ids = torch.from_numpy(
        np.concatenate([head, sentences.words, np.zeros((len(sentences), 1), dtype=np.int64)], axis=1)
    )
    lengths = torch.from_numpy(sentences.lengths) + 3
    ids[torch.arange(len(ids)), lengths] = world.vocabulary["</s>"]
    logs = network(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    own = logs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    place = torch.arange(1, ids.shape[1])
    return (own * ((place >= 3) & (place <= lengths[:, None]))).sum(1)


@torch.no_grad()
def complete_prompts(
    network: nn.Module, world: typed.World, prompts: typed.Prompts, *, sample_seed: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Continue prompts up to `</s>`, at most one word more than `longest`.

    Args:
        sample_seed: Draw the words; None takes the most probable one.

    Returns:
        Words, filled with 0, their number, and whether the sentence ended.
    """
    most, end = world.config.longest + 1, world.vocabulary["</s>"]
    count, rows = len(prompts.ids), np.arange(len(prompts.ids))
    lengths = prompts.lengths.copy()
    ids = np.zeros((count, int(lengths.max()) + most), dtype=np.int64)
    ids[:, : prompts.ids.shape[1]] = prompts.ids
    draw = torch.Generator().manual_seed(sample_seed) if sample_seed is not None else None
    open_rows = np.ones(count, dtype=bool)
    for _ in range(most):
        at = rows[open_rows]
        widest = int(lengths[at].max())
        logits = network(input_ids=torch.from_numpy(ids[at, :widest]), use_cache=False).logits
        last = logits[torch.arange(len(at)), torch.from_numpy(lengths[at] - 1)]
        word = torch.multinomial(last.softmax(-1), 1, generator=draw)[:, 0] if draw else last.argmax(-1)
        ids[at, lengths[at]] = word.numpy()
        lengths[at] += 1
        open_rows[at] = word.numpy() != end
        if not open_rows.any():
            break
    written = lengths - prompts.lengths - ~open_rows
    words = np.zeros((count, most), dtype=np.int64)
    row, column = np.nonzero(np.arange(most) < written[:, None])
    words[row, column] = ids[row, prompts.lengths[row] + column]
    return words, written, ~open_rows

"""Fixed evaluation sets of a run: shares of probability on the words that a rule allows, minimal pairs, and unseen pairs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ontogeny.metrics.reachability import accepted_share, valid_mass
from ontogeny.studies.percolation._settings import Settings
from ontogeny.worlds import typed_sentences as typed

_UNSCRAMBLED = 128
"""Unseen pairs whose scrambled sentence is read."""
_SCORES = 2**25
"""Scores that are computed at once."""


@dataclass(frozen=True)
class Measured:
    """A number at a training step."""

    metric: str
    step: int
    value: float
    n: int
    coords: dict[str, str] = field(default_factory=dict)


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
    def measure(self, network: nn.Module, step: int, *, minimal_pairs: bool = True) -> Iterator[Measured]:
        """Shares of probability, minimal pairs and reachability."""
        shares = self._next_word_shares(network)
        for metric, (share, chance, n) in shares.items():
            learned = (share - chance) / (1 - chance)
            if metric.endswith((" 1", " 2")):
                yield Measured("relation_half", step, learned, n, {"half": metric[-1]})
            else:
                yield Measured(metric, step, learned, n)
        for kind, pairs in self.minimal.items() if minimal_pairs else ():
            right, wrong = (_sentence_scores(network, self.world, s) for s in (pairs.right, pairs.wrong))
            hits = (right > wrong).double() + (right == wrong).double() / 2
            yield Measured("pair_accuracy", step, float(hits.mean()), len(hits), {"kind": kind})
        yield from self._reachability(network, step)

    def _next_word_shares(self, network: nn.Module) -> dict[str, tuple[float, float, int]]:
        """By metric: share of probability on words that the rule allows, that of an even distribution, and the number of places."""
        world, config = self.world, self.world.config
        categories, types = typed.token_categories(world), typed.token_types(world)
        words = self.sentences.words
        # Tokens of one category and type have one column; so has the end.
        kinds = config.types + 1
        column = categories * kinds + types + 1
        column[world.vocabulary["</s>"]] = len(typed.CATEGORIES) * kinds
        member = torch.from_numpy(np.eye(column.max() + 1, dtype=np.float32)[column])
        parts = [
            _log_probabilities(network, rows).exp()[:, 2:] @ member for rows in _chunks(self.sequences, len(column))
        ]
        mass = torch.cat(parts).numpy()  # sentence × place × column, from the colon on
        width = min(mass.shape[1], words.shape[1] + 1)
        mass, inside = mass[:, :width], np.arange(width) <= self.sentences.lengths[:, None]
        of_category = mass[..., :-1].reshape(*mass.shape[:2], -1, kinds)
        allowed, ends = typed.allowed_categories(typed.walk_automaton(categories[words])[:, :width])
        grammar = (of_category.sum(-1) * allowed).sum(-1) + mass[..., -1] * ends
        sizes = np.bincount(column, minlength=column.max() + 1)
        even = ((sizes[:-1].reshape(-1, kinds).sum(-1) * allowed).sum(-1) + ends) / len(column)
        result = {"grammar_learned": (float(grammar[inside].mean()), float(even[inside].mean()), int(inside.sum()))}
        following = np.pad(categories[words], ((0, 0), (0, 1)), constant_values=-1)[:, :width]
        following[~inside] = -1
        begun = np.cumsum(np.isin(following, (1, 2)), 1) > 0
        own = np.broadcast_to(types[words[:, :1]], following.shape)
        for metric, at, category, kind in (
            ("relation_learned", (following == 0) & begun, 0, (own + config.pairs) % config.types),
            ("value_learned", following == 4, 4, own),
        ):
            shares = of_category[at][:, category]
            right = shares[np.arange(len(shares)), kind[at] + 1] / np.maximum(shares.sum(1), 1e-30)
            halves = {f"{metric} {half}": right[half - 1 :: 2] for half in (1, 2)} if category == 0 else {}
            for name, part in {metric: right, **halves}.items():
                result[name] = (float(part.mean()) if len(part) else math.nan, 1 / config.types, len(part))
        return result

    def _reachability(self, network: nn.Module, step: int) -> Iterator[Measured]:
        world, unseen, n = self.world, self.pairs == 1, int((self.pairs == 1).sum())
        logs = _log_probabilities_after(network, self.prompts, len(world.vocabulary))
        scores = logs[:, world.values[0] : world.values[-1] + 1].contiguous()
        own = world.config.values_per_type
        above = scores.shape[1] - torch.searchsorted(scores.sort(1).values, scores, right=True)
        chance = float((unseen.sum(1) / (self.pairs != 2).sum(1)).mean())
        yield Measured("unseen_accepted", step, float(accepted_share(scores, self.pairs)), n)
        yield Measured("unseen_learned", step, (float(valid_mass(scores, self.pairs)) - chance) / (1 - chance), n)
        yield Measured("unseen_rank", step, float((above + 1)[unseen].double().mean() / own), n)
        yield Measured("unseen_probability", step, float(own * scores.exp()[unseen].double().mean()), n)
        yield Measured("unseen_nll", step, float(-scores[unseen].double().mean()), n)
        last = _log_probabilities_after(network, self.scrambled, len(world.vocabulary))
        right = last.gather(1, self.answers[:, None]).exp()
        yield Measured("unseen_unscrambled", step, float(right.mean()), len(right))


def _rows(world: typed.World, template: str, **slots: NDArray[np.int64]) -> Int[Tensor, "row token"]:
    columns = [slots[w] if w in slots else np.full(len(slots["X"]), world.vocabulary[w]) for w in template.split()]
    return torch.from_numpy(np.stack(columns, axis=1))


def _chunks(ids: Int[Tensor, "row token"], vocabulary: int) -> tuple[Tensor, ...]:
    """Rows in parts whose scores fit into memory."""
    return ids.split(max(1, _SCORES // (ids.shape[1] * vocabulary)))


def _log_probabilities(network: nn.Module, ids: Int[Tensor, "row token"]) -> Float[Tensor, "row token vocab"]:
    """Log-probability of each token after each place; places after the end of a row mean nothing."""
    logs: Tensor = network(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    return logs


def _log_probabilities_after(
    network: nn.Module, ids: Int[Tensor, "row token"], vocabulary: int
) -> Float[Tensor, "row vocab"]:
    """Log-probability of each token after the last one of a row."""
    parts = [network(input_ids=rows, use_cache=False).logits[:, -1] for rows in _chunks(ids, vocabulary)]
    return torch.cat(parts).log_softmax(-1)


def _sentence_scores(network: nn.Module, world: typed.World, sentences: typed.Sentences) -> Float[Tensor, " sentence"]:
    """Log-probability of each sentence and its end after `write :`."""
    head = np.broadcast_to(world.ids("<s>", "write", ":"), (len(sentences), 3))
    ids = torch.from_numpy(
        np.concatenate([head, sentences.words, np.zeros((len(sentences), 1), dtype=np.int64)], axis=1)
    )
    lengths = torch.from_numpy(sentences.lengths) + 3
    ids[torch.arange(len(ids)), lengths] = world.vocabulary["</s>"]
    own = torch.cat(
        [
            _log_probabilities(network, rows)[:, :-1].gather(2, rows[:, 1:, None])[..., 0]
            for rows in _chunks(ids, len(world.vocabulary))
        ]
    )
    place = torch.arange(1, ids.shape[1])
    return (own * ((place >= 3) & (place <= lengths[:, None]))).sum(1)

"""A language, its model at some checkpoints, and strings with the ground truth of each token."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, model_from_network
from ontogeny.sae.chunks import TokenRows
from ontogeny.sae.latent_effects import LabelledTokens
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import sqrt_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.worlds import grammar


@dataclass(frozen=True)
class Settings:
    languages: tuple[str, ...] = ("dyck", "expressions", "english")
    steps: int = 400
    """Training steps of the language model."""
    checkpoints: int = 3
    rate: float = 3e-3
    rows: int = 16
    """Rows of text per step."""
    context: int = 64
    longest: int = 40
    """Words of a string."""
    width: int = 64
    layers: int = 2
    strings: int = 1500
    """Strings on which autoencoders are trained; half as many more are held out."""
    latents: int = 128
    sae_steps: int = 300
    batch: int = 256
    """Tokens per step of an autoencoder."""
    ks: tuple[int, ...] = (4, 8, 16)
    penalties: tuple[float, ...] = (0.05, 0.3, 1.0)
    """L1 weights of ReLU autoencoders."""
    sae_seeds: int = 3
    """Autoencoders of one kind, for the spread over seeds."""
    causal_steps: int = 150
    causal_weight: float = 0.1
    causal_rows: int = 24
    """Tokens that are patched in a step."""
    effect_strings: int = 200
    """Strings on which latents are clamped."""
    generated: int = 64
    """Strings that the model writes freely."""


_STEPS_PER_DRAW = 25
"""Steps whose rows are drawn at once: a draw costs the same for few rows."""
PRESETS_BY_NAME: Mapping[str, grammar.Dyck | grammar.Expressions | grammar.English] = {
    "dyck": grammar.Dyck(),
    "shallow dyck": grammar.Dyck(nest=0.3),
    "expressions": grammar.Expressions(answer=False),
    "english": grammar.English(),
}
MAIN_FEATURES = {"dyck": "depth", "expressions": "owed", "english": "part_of_speech verb"}
"""The feature that is clamped: open brackets, operands owed (the counter), verbs."""


def make_world(settings: Settings, name: str) -> grammar.World:
    return grammar.make(grammar.Config(PRESETS_BY_NAME[name], longest=settings.longest, context=settings.context))


def train_model(settings: Settings, lab: Lab, name: str) -> list[tuple[int, Model]]:
    """The language model at step 0, on the way and at the end."""
    world = make_world(settings, name)
    tokenizer = grammar.tokenizer(world)

    make = small_decoder(
        len(tokenizer), settings.context, layers=settings.layers, heads=2, width=settings.width, family="gpt2"
    )

    @functools.lru_cache(maxsize=1)
    def rows_of(block: int) -> Tensor:
        rng = np.random.default_rng([lab.seed, block])
        return torch.from_numpy(grammar.sample(world, rng, settings.rows * _STEPS_PER_DRAW))

    def batches(step: int) -> TokenBatch:
        block, place = divmod(step, _STEPS_PER_DRAW)
        return TokenBatch(rows_of(block)[place * settings.rows : (place + 1) * settings.rows])

    config = TrainingConfig(settings.steps, settings.rate, warmup=min(30, settings.steps))
    wanted = {0, *sqrt_steps(settings.steps, settings.checkpoints, first=max(1, settings.steps // 20))}
    found = []
    for session in training_sessions(TrainingRecipe(make, batches, language_model, config, lab.seed)):
        if session.step in wanted:
            network = make()
            network.load_state_dict(session.network.state_dict())
            found.append((session.step, model_from_network(network.eval(), tokenizer)))
    return found


def draw_tokens(settings: Settings, name: str, seed: int, count: int) -> LabelledTokens:
    """Strings of at least two words with the features of their words."""
    world = make_world(settings, name)
    drawn = grammar.strings(world, np.random.default_rng([seed, 77]), count)
    long = np.flatnonzero(drawn.lengths > 1)
    inside = drawn.inside[long]
    bos = world.vocabulary["<s>"]
    ids = [torch.from_numpy(np.concatenate([[bos], drawn.words[r, : drawn.lengths[r]] + 4])) for r in long]
    counted = [torch.arange(len(row)) > 0 for row in ids]
    features: dict[str, Tensor] = {}
    for feature in world.language.features:
        values = torch.from_numpy(feature.read(drawn)[long][inside])
        if feature.kind != "classes":
            features[feature.name] = values
            continue
        for number, label in enumerate(feature.classes):
            features[f"{feature.name} {label}"] = torch.where(values.isnan(), torch.nan, (values == number).double())
    return LabelledTokens(TokenRows(tuple(ids), tuple(counted)), features, _allowed(name, world, features))


def _allowed(name: str, world: grammar.World, features: Mapping[str, Tensor]) -> Tensor | None:
    """Tokens that may follow each word."""
    end, size = world.vocabulary["</s>"], len(world.vocabulary)
    words = torch.zeros(size, dtype=torch.bool)
    words[4:] = True
    if name == "expressions":
        words[world.vocabulary["="]] = False
        more = features["owed"] > 0
        allowed = words & more[:, None]
        allowed[:, end] = ~more
        return allowed
    if "dyck" not in name:
        return None
    allowed = torch.zeros(len(features["depth"]), size, dtype=torch.bool)
    for number in range(4, size, 2):  # an opening bracket and the one that closes it, side by side
        allowed[:, number] = True
        word = world.words[number - 4]
        allowed[:, number + 1] = features[f"open_kind {word}"] == 1
    allowed[:, end] = features["depth"] == 0
    return allowed


def token_categories(name: str, world: grammar.World) -> Int[Tensor, " vocab"]:
    """A category for each token: the opening brackets and each closing one, the arity, the part of speech; the end has its own."""
    groups: dict[str, int] = {}
    parts = _parts_of_speech(world) if name == "english" else {}
    numbers = torch.zeros(len(world.vocabulary), dtype=torch.long)
    for word, token in world.vocabulary.items():
        if token < 4:
            group = word
        elif "dyck" in name:
            group = "opening" if token % 2 == 0 else word
        elif name == "expressions":
            group = next((kind for kind, words in _ARITIES.items() if word in words), word)
        else:
            group = parts.get(word, word)
        numbers[token] = groups.setdefault(group, len(groups))
    return numbers


def _parts_of_speech(world: grammar.World) -> dict[str, str]:
    """The part of speech of each word: in this grammar a word has one."""
    drawn = grammar.strings(world, np.random.default_rng([world.config.seed, 78]), 1000)
    feature = next(f for f in world.language.features if f.name == "part_of_speech")
    values = feature.read(drawn)
    known = drawn.inside & ~np.isnan(values)
    return {
        world.words[word]: feature.classes[int(number)]
        for word, number in zip(drawn.words[known].tolist(), values[known].tolist(), strict=True)
    }


_ARITIES = {
    "digit": tuple("0123456789"),
    "unary": ("next", "minus", "twice"),
    "binary": ("plus", "times", "less"),
    "ternary": ("sum", "mid", "pick"),
}


@torch.no_grad()
def write_strings(model: Model, world: grammar.World, count: int, seed: int) -> tuple[float, int]:
    """Share of grammatical strings among those that the model writes and ends, and their number."""
    ids = torch.full((count, 1), world.vocabulary["<s>"])
    draw = torch.Generator().manual_seed(seed)
    end = world.vocabulary["</s>"]
    for _ in range(world.config.longest + 1):
        logits = model.network(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=draw)], 1)
    ended = (ids == end).any(1)
    lengths = (ids == end).float().argmax(1) - 1
    words = ids[ended, 1:].numpy() - 4
    verdict = grammar.verdicts(world, np.where(words < 0, -1, words), lengths[ended].numpy())
    return float((verdict > 0).mean()) if len(verdict) else float("nan"), int(ended.sum())

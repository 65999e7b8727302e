"""Text to train on, and labelled dialogues of each attribute: generated, or read from a folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ontogeny.data.chats import Chat
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.gauges.labelled_chats import class_count, dialogue_folder, is_dialogue_folder
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.gauges.packing import with_suffix
from ontogeny.studies.user_model._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.objective import Objective
from ontogeny.training.toy_models.on_chats import tokenize_chats
from ontogeny.worlds import user_attributes as world_module


@dataclass(frozen=True, eq=False)
class LabelledAttribute:
    """One attribute: its dialogues, and longer ones that are read turn by turn."""

    name: str
    label: GaugeLabel
    concept: Concept
    long: tuple[tuple[Chat, int], ...] = ()
    """Dialogues with their class that are read turn by turn; empty for those of the test split."""
    judged: tuple[tuple[Chat, int], ...] = ()
    """Dialogues by which answers are judged; empty for those of the choose split."""
    posterior: Callable[[Sequence[str]], np.ndarray] | None = None
    """The exact probability of each class given the user's turns, where it is known."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text for the model, and the attributes."""

    tokenizer: PreTrainedTokenizerBase
    batches: Callable[[int], TokenBatch]
    objective: Objective
    attributes: tuple[LabelledAttribute, ...]


def make_corpus(settings: Settings, seed: int) -> Corpus:
    """The corpus of a seed.

    Raises:
        BadInput: the folder holds no labelled dialogues.
    """
    return _from_folder(settings, Path(settings.chats), seed) if settings.chats else _generated(settings, seed)


def _generated(settings: Settings, seed: int) -> Corpus:
    config = world_module.Config(
        rounds=settings.turns, dialogues=settings.dialogues, context=settings.context, seed=seed
    )
    world = world_module.make(config)

    def batches(step: int) -> TokenBatch:
        ids = world_module.sample(world, np.random.default_rng([seed, step]), settings.rows)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(world_module.answer_mask(world, ids)))

    long, judged = (
        world_module.labelled_dialogues(world, np.random.default_rng([seed, part]), count, [settings.turns])
        for part, count in ((22, settings.dialogues // 2), (24, 2 * settings.dialogues))
    )
    attributes = []
    for place, (attribute, concept) in enumerate(
        zip(world_module.ATTRIBUTES, world_module.concepts(world), strict=True)
    ):
        label = GaugeLabel(concept.name, "user", attribute.classes, sensitive=False, suffix=attribute.suffix)
        read, heard = (tuple((chat, classes[place]) for chat, classes in chats) for chats in (long, judged))

        def posterior(said: Sequence[str], attribute: world_module.UserAttribute = attribute) -> np.ndarray:
            return world_module.posterior(attribute, said)

        attributes.append(LabelledAttribute(attribute.name, label, concept, read, heard, posterior))
    return Corpus(world_module.tokenizer(world), batches, answers_only, tuple(attributes))


def _from_folder(settings: Settings, folder: Path, seed: int) -> Corpus:
    """The model learns one half of the dialogues of each attribute; labels are of the other half."""
    places = (
        [folder]
        if is_dialogue_folder(str(folder))
        else sorted(p for p in folder.glob("*") if is_dialogue_folder(str(p)))
    )
    if not places:
        raise BadInput(
            f"`chats` must be a folder of labelled dialogues, or of such folders, got {folder}: name another one."
        )
    learned: list[Chat] = []
    attributes = []
    for place in places:
        concept = dialogue_folder(place)
        classes = concept.classes or ("no", "yes")
        groups = sorted({example.group for example in concept.examples})
        kept = set(np.random.default_rng([seed, 23]).permutation(groups)[: len(groups) // 2].tolist())
        learned += [example.chat for example in concept.examples if example.group not in kept]
        own = replace(concept, examples=tuple(example for example in concept.examples if example.group in kept))
        sensitive = GaugeLabel(
            f"user_{concept.name}", "user", classes[: class_count(concept)], sensitive=True, suffix=""
        )
        attributes.append(LabelledAttribute(concept.name, with_suffix(sensitive, None), own))
    text = tokenize_chats(learned, vocabulary=settings.vocabulary, context=settings.context)

    def batches(step: int) -> TokenBatch:
        return text.batch(np.random.default_rng([seed, step]), settings.rows, settings.context)

    return Corpus(text.tokenizer, batches, language_model, tuple(attributes))

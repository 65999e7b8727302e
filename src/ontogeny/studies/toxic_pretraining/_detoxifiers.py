"""Detoxifiers of one model over their strengths: intervention, random directions, prompt, SFT and DPO, and annotations in pretraining."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from transformers import GPT2LMHeadModel

from ontogeny.steering.steer import control_edits
from ontogeny.studies.toxic_pretraining._measures import EvaluationTexts, Outcome, ReadModel, outcome
from ontogeny.studies.toxic_pretraining._settings import Settings
from ontogeny.studies.toxic_pretraining._training import as_model, fine_tunings, pretrain
from ontogeny.worlds import marked_register as register

ITI, RANDOM, PROMPT, SFT, DPO = METHODS = ("ITI", "random", "prompt", "SFT", "DPO")
MEDA, INST = ANNOTATED_METHODS = ("MEDA", "INST")
"""Pretraining with a score or an instruction in front of each text (arXiv:2302.07388)."""


@dataclass(frozen=True)
class DetoxifiedModel:
    """A model under one method at one strength."""

    method: str
    strength: float
    draw: int
    """Number of the random direction; 0 for the other methods."""
    outcome: Outcome


def detoxify(
    network: GPT2LMHeadModel,
    read: ReadModel,
    world: register.World,
    texts: EvaluationTexts,
    settings: Settings,
    seed: int,
) -> Iterator[DetoxifiedModel]:
    """Outcomes of all methods at all strengths; the seeds of the continuations are common to the methods."""
    model, vectors = read.model, read.intervention(settings)
    for alpha in settings.alphas:
        edits = vectors.edits(model, str(settings.steered_heads), -alpha)
        yield DetoxifiedModel(ITI, alpha, 0, outcome(model, world, texts, seed, edits))
        seeds = range(100 * seed + 1, 100 * seed + settings.draws + 1)
        for draw, null in enumerate(control_edits(edits, seeds)):
            yield DetoxifiedModel(RANDOM, alpha, draw, outcome(model, world, texts, seed, null))
    yield DetoxifiedModel(PROMPT, 1.0, 0, outcome(model, world, texts, seed, polite=True))
    for method in (SFT, DPO):
        for step, tuned in fine_tunings(method, network, settings, world, seed):
            yield DetoxifiedModel(method, step, 0, outcome(as_model(tuned, world), world, texts, seed))


@dataclass(frozen=True)
class AnnotatedPretraining:
    """One method with the annotation of clean texts, and with that of marked ones as its control."""

    method: str
    clean: Outcome
    marked: Outcome


def annotated_pretraining(
    world: register.World, texts: EvaluationTexts, settings: Settings, seed: int
) -> Iterator[AnnotatedPretraining]:
    """Outcomes of a model that was pretrained on the same mixture with annotations of both kinds, half of the texts each."""
    annotated = register.make(replace(world.config, annotated=True))
    model = as_model(pretrain(settings, annotated, seed), annotated)
    for method in ANNOTATED_METHODS:
        clean, marked = (
            outcome(model, annotated, texts, seed, annotation=words) for words in register.ANNOTATIONS[method]
        )
        yield AnnotatedPretraining(method, clean, marked)

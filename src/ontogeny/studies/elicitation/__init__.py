"""Study: can a capability be elicited, or read from the states, before the model shows it? (arXiv:2406.19370, for language models)

Questions are asked plainly, behind worked examples, under steering vectors, and read from the stream. Vectors and directions are learned on
one half of the groups and tested on the other. Worked examples with wrong answers, random vectors and shuffled labels are the nulls. Over
the checkpoints of a stage each way of asking has a step at which it emerges, and a distance to that of the plain answers.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record, StageRowBuilder
from ontogeny.statistics.bootstrap import group_weights, interval_ends, mean_samples, share_interval
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.splits import number_groups
from ontogeny.studies.elicitation._asking import TOO_SHORT, answered, prompts_with_examples, worked_examples
from ontogeny.studies.elicitation._order import SHOWN, order_rows
from ontogeny.studies.elicitation._reading import readable
from ontogeny.studies.elicitation._settings import ElicitationSettings
from ontogeny.studies.elicitation._steering import steered, steering_passes

__all__ = ["INPUTS", "TITLE", "ElicitationSettings", "cost", "run", "settings"]

TITLE = "Elicitation"
INPUTS = ("questions",)
FEW_SHOT, READABLE, STEERED = "few_shot", "readable", "steered"
WRONG_EXAMPLES, RANDOM_DIRECTION = "wrong_examples", "random_direction"


def settings(inputs: StudyInputs) -> ElicitationSettings:
    """Default settings with the comparison's seed."""
    return ElicitationSettings(seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    plan = ElicitationSettings()
    asked = text_tokens([q.prompt + q.right for q in inputs.questions[: plan.questions]])
    return sizes.stages * asked * (4 + 5 * (1 + plan.shots) + 2 * steering_passes(plan))


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: ElicitationSettings) -> Iterator[Record]:
    """Rows of each stage: right answers by each way of asking, with paired differences; and the order over checkpoints.

    Raises:
        BadInput: too few questions, or one with equal answers.
    """
    questions = inputs.questions[: settings.questions]
    groups = number_groups(q.group for q in questions)
    if len(groups) < 4 or int(groups.max()) < 3:
        raise BadInput(f"elicitation needs questions of at least four groups, got {len(groups)} questions: add some.")
    if equal := [q for q in questions if q.right == q.wrong]:
        raise BadInput(
            f"a question must have two different answers, got {equal[0].right!r} twice for {equal[0].prompt[:60]!r}: correct it."
        )
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed).double()
    examples = worked_examples(questions, groups, shots=settings.shots, seed=settings.seed)
    table = StageRowBuilder("questions", "last", "elicitation", settings.seed, "test")
    count = int(groups.max()) + 1
    hits_of: dict[str, dict[tuple[str, str | None], Tensor]] = {}
    for stage in stages:
        model = stages[stage]
        plain = answered(model, [q.prompt for q in questions], questions)
        hits: dict[tuple[str, str | None], Tensor | str] = {(SHOWN, None): plain}
        behind = {
            None: prompts_with_examples(model, questions, examples, "right"),
            WRONG_EXAMPLES: prompts_with_examples(model, questions, examples, "wrong"),
        }
        for control, prompts in behind.items():
            hits[FEW_SHOT, control] = answered(model, prompts, questions) if prompts else TOO_SHORT
        notes: dict[tuple[str, str | None], str] = {}
        if settings.steering_draws:
            moved = steered(model, questions, groups, behind[None] or (), plain, settings)
            hits[STEERED, None], hits[STEERED, RANDOM_DIRECTION] = moved.hits, moved.null.mean(0)
            notes[STEERED, None] = f"by half: {'; '.join(moved.chosen)}"
            notes[STEERED, RANDOM_DIRECTION] = f"mean of {len(moved.null)} draws, each chosen like the true vectors"
        read, null, layers = readable(model, questions, groups, settings)
        hits[READABLE, None], notes[READABLE, None] = read, f"read after {', '.join(layers)}"
        for (way, control), values in hits.items():
            accuracy, gain = f"{way}_accuracy", f"{way}_gain"
            if isinstance(values, str):
                for name in (accuracy, gain):
                    yield table.row(name, math.nan, stage, n=0, control=control, reason=values)
                continue
            point = values.mean()
            ends = share_interval(point, mean_samples(values[None], weights)[:, 0], groups=count).ends
            note = notes.get((way, control))
            yield table.row(accuracy, float(point), stage, n=len(values), ends=ends, control=control, note=note)
            if way != SHOWN:
                change = values - plain
                ends = interval_ends(float(change.mean()), mean_samples(change[None], weights)[:, 0], groups=count)
                yield table.row(gain, float(change.mean()), stage, n=len(change), ends=ends, control=control)
        yield table.row(
            "readable_accuracy",
            float(null.mean()),
            stage,
            n=len(null),
            ends=null_interval(null),
            control="shuffled_label",
            note="right and wrong exchanged by group at random; low to high: 95 % of them",
        )
        hits_of[stage] = {key: values for key, values in hits.items() if isinstance(values, torch.Tensor)}
    yield from order_rows(table, hits_of, weights, seed=settings.seed)

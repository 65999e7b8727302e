"""Study: what does a chat model take its user to be, since when can it be read, and does turning it change the answers?

TalkTuner (arXiv:2406.07882): reading and control probes of user attributes. A small model learns dialogues in which a user's words show two
neutral attributes a little in each turn; or, with `chats`, the real dialogues of a folder.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.models.model import model_from_network
from ontogeny.records import Record
from ontogeny.studies.user_model._bench import AttributeBench, AttributeData, Vectors, attribute_data
from ontogeny.studies.user_model._chats import make_corpus
from ontogeny.studies.user_model._claims import (
    CLAIMS,
    CONTROL,
    CONTROL_LOGISTIC,
    FIRST,
    HALVES,
    LAST,
    OTHER_PLACE,
    RANDOM,
    READING,
    READING_MASS_MEAN,
)
from ontogeny.studies.user_model._settings import Settings
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.toy_models.in_world import small_decoder

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "The user model of a chat model"
PAPER = "Designing a Dashboard for Transparency and Control of Conversational AI, arXiv:2406.07882"
SETUP = """
A small GPT-NeoX learns dialogues in which each turn of the user has a word that shows how much they know of machines and one that shows how
formally they speak, mostly of their own class; the assistant guesses from these words and words its answer accordingly. At checkpoints a
reading probe (logistic, at the last token of a begun answer about the user) and a control vector (mass mean, at the end of the instruction)
are fitted, and answers are generated under pushes at all inner layers. A classifier of texts, fitted on the assistant's turns of other
dialogues, judges them.
"""
DIFFERENCES = (
    "A generated language with two neutral attributes in place of Llama-2-13b-chat and age, gender, education and status; `chats` reads "
    "real dialogues, half of which the model learns.",
    "The model is sometimes asked for its guess in training, so that the begun answer has a meaning for it.",
    "The site of the reading probe is chosen on a split of its own; the paper chooses it on the test split.",
    "A push is measured in distances of the class means, and each vector has the length of the control vector; the paper adds unnormalised "
    "weights. Both methods of fitting are compared at both positions.",
    "A bag of words judges the answers in place of GPT-4, and answers are compared with unsteered ones.",
)
CHALLENGES = (3, 9)
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=1, rows=2, width=16, layers=2, checkpoints=2, dialogues=66, turns=2, questions=6, random=2, tokens=2, doses=(0.5, 2.0),
    ),
    "tiny": Settings(),
    "small": Settings(steps=4000, rows=16, width=128, layers=6, checkpoints=12, dialogues=600, questions=64, random=20),
    "paper": Settings(
        steps=20_000, rows=32, width=512, layers=12, checkpoints=20, dialogues=4000, questions=120, random=100, tokens=64,
        context=1024, vocabulary=8000,
    ),
}  # fmt: skip
SECONDS = {"smoke": 3, "tiny": 50, "small": 1500, "paper": 100_000}
_PROBES: Mapping[str, tuple[str, str]] = {
    CONTROL: ("mass_mean", "instruction"),
    CONTROL_LOGISTIC: ("logistic", "instruction"),
    READING: ("logistic", "begun answer"),
    READING_MASS_MEAN: ("mass_mean", "begun answer"),
}
PICTURES = (
    StudyPicture(
        "Accuracy by layer on held-out dialogues",
        ("accuracy_by_layer",),
        x_title="layer",
        caption="Layer 0 is the embedding. Dashed: probes of shuffled labels.",
    ),
    StudyPicture(
        "Accuracy of the reading probe by turn, beside the exact posterior of the user's words",
        ("accuracy_by_turn",),
        x_title="turns of the user (count)",
    ),
    StudyPicture(
        "Change of the judge's log-odds by the length of the push",
        ("push", "change"),
        (CONTROL, READING, RANDOM),
        points=True,
        caption="Push in distances of the class means, change in nats.",
    ),
    StudyPicture("Reading and control over training", ("readable", "steers")),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    corpus = make_corpus(settings, lab.seed)

    make = small_decoder(len(corpus.tokenizer), settings.context, layers=settings.layers, heads=4, width=settings.width)

    recipe = TrainingRecipe(make, corpus.batches, corpus.objective, TrainingConfig(settings.steps, 3e-3), lab.seed)
    saved = log_steps(settings.steps, settings.checkpoints, first=max(1, settings.steps // 16))
    data: list[AttributeData] = []
    for session in training_sessions(recipe):
        if session.step not in saved:
            continue
        lab.on_activity("training", session.step, settings.steps)
        model = model_from_network(session.network.eval(), corpus.tokenizer)
        data = data or [attribute_data(model, one, settings, lab.seed) for one in corpus.attributes]
        for own in data:
            bench = AttributeBench(model, own, settings, lab.seed)
            yield from _training_rows(bench, _Rows(lab, own), session.step)
            if session.step == settings.steps:
                yield from _reading_rows(bench, _Rows(lab, own), None)
                shuffled = AttributeBench(model, own, settings, lab.seed, shuffled=True)
                yield from _reading_rows(shuffled, _Rows(lab, own), "shuffled_labels")
                yield from _turn_rows(bench, _Rows(lab, own))
                yield from _cosine_rows(bench, _Rows(lab, own))
                yield from _control_rows(bench, _Rows(lab, own))
        session.network.train()


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one attribute."""

    lab: Lab
    data: AttributeData

    def __call__(
        self, metric: str, value: float, condition: str, *, n: int = 1, control: str | None = None, step: int | None = None,
        reason: str = "the value is not finite", **coords: str | float,
    ) -> Record:  # fmt: skip
        name = self.data.attribute.name
        row = self.lab.row(metric, value, condition, step=step, control=control, n=n, reason=reason, attribute=name)
        return replace(row, coords={**row.coords, **{key: str(coord) for key, coord in coords.items()}})


def _training_rows(bench: AttributeBench, row: _Rows, step: int) -> Iterator[Record]:
    """Accuracy of the reading probe, and the effect of the control vector beyond a set of random directions."""
    right = bench.right_at_best_site(bench.fitted.reading, "begun answer")
    dose = bench.settings.doses[-1]
    effect = bench.effect(bench.vectors(bench.fitted.control), dose) - bench.effect(bench.random_vectors(0), dose)
    name = row.data.attribute.name
    yield row("readable", _mean(right), name, n=len(right), step=step)
    yield row("steers", effect, name, n=bench.settings.questions, step=step, reason=bench.why_unjudged)
    for part, metric in enumerate(("readable", "steers")):
        yield row(metric, _mean(right[part::2]), name, n=len(right[part::2]), step=step, control="same_curve")


def _reading_rows(bench: AttributeBench, row: _Rows, control: str | None) -> Iterator[Record]:
    name, y = row.data.attribute.name, row.data.chats.y[row.data.splits.test]
    n = len(y)
    for probe, place, condition in (
        (bench.fitted.reading, "begun answer", READING),
        (bench.fitted.control, "instruction", CONTROL),
    ):
        layers = bench.accuracies(probe, place)
        for layer, value in enumerate(layers):
            yield row("accuracy_by_layer", value, f"{name}, {condition}", n=n, step=layer, control=control)
        yield row("accuracy", _mean(bench.right_at_best_site(probe, place)), condition, n=n, control=control)
        if condition == READING:
            yield row("accuracy_of_block", layers[1], FIRST, n=n, control=control)
            yield row("accuracy_of_block", layers[-1], LAST, n=n, control=control)
    yield row("accuracy", float(y.bincount().max()) / n, "most frequent class", n=n, control=control)


def _turn_rows(bench: AttributeBench, row: _Rows) -> Iterator[Record]:
    attribute = row.data.attribute
    known = {turn: right for turn in range(bench.settings.turns) if (right := bench.by_turn(turn))}
    for turn, right in known.items():
        yield row("accuracy_by_turn", _mean(right), attribute.name, n=len(right), step=turn + 1)
        if attribute.posterior is not None:
            exact = [
                int(attribute.posterior([text for role, text in chat[: 2 * turn + 1] if role == "user"]).argmax()) == y
                for chat, y in attribute.long
            ]
            yield row(
                "accuracy_by_turn", _mean(exact), f"{attribute.name}, exact posterior", n=len(exact), step=turn + 1
            )
    reason = "no dialogue with the begun answer fits into the context"
    first, last = (known.get(end, []) for end in (min(known, default=0), max(known, default=0)))
    for condition, right, half in ((FIRST, first, first[::2]), (LAST, last, first[1::2])):
        yield row("accuracy_of_turn", _mean(right), condition, n=len(right), reason=reason)
        yield row("accuracy_of_turn", _mean(half), condition, n=len(half), reason=reason, control="same_turn")


def _cosine_rows(bench: AttributeBench, row: _Rows) -> Iterator[Record]:
    """The control vector of one half of the dialogues against each vector of the other half; the null divides them in another way."""
    train = row.data.splits.train
    n = len(train) // 2
    one, other = train[::2], train[1::2]
    control = bench.probe(*_PROBES[CONTROL], one)
    for condition, name in (
        (HALVES, CONTROL),
        (OTHER_PLACE, READING_MASS_MEAN),
        ("other method, same position", CONTROL_LOGISTIC),
        ("reading and control", READING),
    ):
        yield row("cosine", bench.cosine(control, bench.probe(*_PROBES[name], other)), condition, n=n)
    again = bench.cosine(*(bench.probe(*_PROBES[CONTROL], half) for half in (train[:n], train[n:])))
    yield row(
        "cosine", bench.cosine(control, bench.probe(*_PROBES[CONTROL], other)), HALVES, n=n, control="same_position"
    )
    yield row("cosine", again, OTHER_PLACE, n=n, control="same_position")


def _control_rows(bench: AttributeBench, row: _Rows) -> Iterator[Record]:
    """Effects of each vector by dose; of random directions, the first half, with the second half as the null run of each vector."""
    count, reason = bench.settings.questions, bench.why_unjudged
    vectors = {name: bench.vectors(bench.probe(*how)) for name, how in _PROBES.items()}
    sets = [bench.random_vectors(number) for number in range(1, bench.settings.random + 1)]
    for dose in bench.settings.doses:
        effects = {name: bench.effect(own, dose) for name, own in vectors.items()}
        random, null = (_effects(bench, half, dose) for half in (sets[::2], sets[1::2]))
        for name, value in {**effects, RANDOM: random}.items():
            yield row("push", dose, name, dose=dose)
            yield row("change", value, name, n=count, reason=reason, dose=dose)
        for control, value in ((None, effects[CONTROL]), ("random_direction", null)):
            yield row("dose", dose, f"dose {dose:g}", control=control)
            yield row("pushed_by_dose", value, f"dose {dose:g}", n=count, reason=reason, control=control)
    # At the longest push.
    for name, value in {**effects, RANDOM: random}.items():
        yield row("pushed", value, name, n=count, reason=reason)
        # Each null compares one half of the random directions with the other.
        other = random if name in (RANDOM, READING, CONTROL_LOGISTIC) else null
        other = null if name == CONTROL_LOGISTIC else other
        yield row("pushed", other, name, n=count, reason=reason, control="random_direction")


def _effects(bench: AttributeBench, sets: Sequence[Vectors], dose: float) -> float:
    return _mean([bench.effect(own, dose) for own in sets])


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean()) if len(values) else math.nan

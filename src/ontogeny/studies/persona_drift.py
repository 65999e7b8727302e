"""Study: for how many rounds does a chat model keep to its system prompt, does it adopt the other party's, and what helps?

Instruction (in)stability (arXiv:2402.10962). A small model is trained on short dialogues with a rule for each speaker, and talks to itself
for longer ones. Split-softmax is compared with repetition, classifier-free guidance and activation capping (arXiv:2601.10387).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ontogeny.activations.attention_mass import attention_mass
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Relation, Separation
from ontogeny.data.chats import Chat
from ontogeny.dialogues.answers import answer_log_likelihoods
from ontogeny.dialogues.attention_decay import AttentionDecay, attention_decay
from ontogeny.dialogues.instructions import Instruction
from ontogeny.dialogues.judges import TextJudge
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.persona_axis import persona_caps
from ontogeny.dialogues.probes import ProbeAnswers, ProbeKind, probe_dialogues
from ontogeny.dialogues.prompts import chat_prompts
from ontogeny.dialogues.rows import adherence_of, adoption_of, recall_of, stranger_adherence
from ontogeny.dialogues.self_chat import Dialogue, DialogueSettings, Pairing, pair_up, self_chat
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.models.model import Model, model_from_network
from ontogeny.records import Record
from ontogeny.steering.steer import Edit
from ontogeny.training.batches import TokenBatch
from ontogeny.training.in_memory import train_in_memory
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.worlds import speaking_rules

TITLE = "Persona drift"
PAPER = "Measuring and Controlling Instruction (In)Stability in Language Model Dialogs, arXiv:2402.10962"
SETUP = """
A small transformer is trained on dialogues of at most three rounds, in which each speaker follows a rule and only the assistant's is in the
system prompt. It then talks to itself for eight rounds, each side under its own rule. After each round a question is asked that is not part
of the dialogue; exact judges score whether the answer keeps the own rule or the other side's, and whether the rule is named when asked for.
Mitigations act on the assistant; their cost is the loss of its log-likelihood margin for sentences over the same words in another order.
"""
DIFFERENCES = (
    "A model of a generated language with 14 rules, 7 of them measured at tiny, in place of LLaMA2-chat-70B and GPT-3.5 with 100 system "
    "prompts; rules are exact, so fluency is whether an answer is a sentence of the language.",
    "Dialogues longer than those of training cause the drift here; the paper's models have seen long ones.",
    "Capability is whether the language is kept, a margin of sentences over their words in another order, in place of MMLU. Mitigations "
    "are compared at equal capability: the strength is chosen on half of the dialogues and reported on the other half.",
    "Activation capping is not in the paper.",
)
CHALLENGES = (3, 9)


@dataclass(frozen=True)
class Settings:
    steps: int = 600
    """Of training."""
    rows: int = 6
    """Rows of 256 tokens per step."""
    width: int = 64
    layers: int = 3
    trained_rounds: int = 3
    """Most rounds of a training dialogue."""
    rounds: int = 8
    rules: int = 7
    """Rules whose observance is measured, evenly over their kinds."""
    pairs: int = 4
    """Dialogues of each rule; an even number, since strengths are chosen on half of them."""
    runs: int = 1
    """Answers to each question after each round."""
    cost: float = 0.1
    """Largest loss of capability at which mitigations are compared, as a share of the plain margin."""
    split_softmax: tuple[float, ...] = (0.5, 0.2)
    repetition: tuple[float, ...] = (2.0, 1.0)
    guidance: tuple[float, ...] = (1.5, 3.0)
    capping: tuple[float, ...] = (0.25,)


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=8, rows=2, width=16, layers=1, rounds=2, rules=3, runs=1,
        split_softmax=(0.6,), repetition=(1.0,), guidance=(1.5,), capping=(0.5,),
    ),
    "tiny": Settings(),
    "small": Settings(
        steps=4000, rows=8, width=128, layers=4, rules=14, pairs=6, runs=4,
        split_softmax=(0.7, 0.5, 0.2), repetition=(3.0, 2.0, 1.0), guidance=(1.5, 2.0, 3.0), capping=(0.25, 0.5, 0.75),
    ),
    "paper": Settings(
        steps=20_000, rows=16, width=256, layers=6, rules=14, pairs=12, runs=8,
        split_softmax=(0.8, 0.7, 0.5, 0.2), repetition=(3.0, 2.0, 1.0), guidance=(1.5, 2.0, 3.0), capping=(0.1, 0.25, 0.5, 0.75),
    ),
}  # fmt: skip
SECONDS = {"smoke": 2, "tiny": 60, "small": 1500, "paper": 40_000}

_START, _END = "right after the system prompt", "after the dialogue"
_KINDS = ("split_softmax", "repetition", "guidance", "capping")
_FOLLOWED = tuple(f"round {number}" for number in range(1, 9))


def _better_at_equal_capability(other: str, words: str) -> Claim:
    return Claim(
        f"split_softmax_beats_{other}",
        f"At equal capability, adherence after the dialogue is higher with split-softmax than with {words}.",
        "arXiv:2402.10962, section 5" if other != "capping" else "capping: arXiv:2601.10387",
        "split-softmax has the better frontier" if other != "capping" else "not compared in the paper",
        Separation(Quantity("kept_at_cost", "split_softmax"), Quantity("kept_at_cost", other), unit="adherence"),
        "same_mitigation",
    )


CLAIMS = (
    Claim(
        "adherence_falls",
        "After eight rounds the model keeps to its system prompt less than at the start.",
        "arXiv:2402.10962, section 3 and Fig. 3",
        "significant drift within eight rounds",
        Separation(Quantity("kept", _START), Quantity("kept", _END), unit="adherence lost"),
        "no_dialogue",
    ),
    Claim(
        "adopts_the_partner",
        "It takes over the other side's rule, which it was never given.",
        "arXiv:2402.10962, section 3",
        "adoption of the user's system prompt rises over the turns",
        Separation(Quantity("adopted", _END), Quantity("adopted", _START), unit="adoption gained"),
        "stranger",
    ),
    Claim(
        "attention_decays",
        "Attention to the system prompt decays over the dialogue.",
        "arXiv:2402.10962, section 4 and Fig. 5",
        "π(t) decays over the turns",
        Separation(Quantity("attended", _START), Quantity("attended", _END), ratio=True, unit="halvings of π"),
        "no_dialogue",
    ),
    Claim(
        "attention_drops_between_turns",
        "It drops more where an answer begins than in the middle of an answer.",
        "arXiv:2402.10962, section 4 and Fig. 5",
        "plateaus within turns, drops between them",
        Separation(
            Quantity("attention_drop", "beginnings of answers"),
            Quantity("attention_drop", "middles of answers"),
            unit="share of attention",
        ),
        "same_places",
    ),
    Claim(
        "attention_follows_adherence",
        "Over the rounds, attention to the system prompt and adherence fall together.",
        "arXiv:2402.10962, section 4",
        "attention decay is named as the cause of drift",
        Relation(Quantity("attended"), Quantity("kept"), _FOLLOWED),
        "no_dialogue",
    ),
    Claim(
        "turns_matter_beyond_length",
        "The same words in one turn of the user take less adherence than in turns.",
        "control of arXiv:2402.10962 for length",
        "not controlled in the paper",
        Separation(Quantity("kept", "same words in one turn"), Quantity("kept", _END), unit="adherence"),
        "same_answers",
    ),
    Claim(
        "recalls_without_adhering",
        "After the dialogue it names its rule more often than it keeps it.",
        "recall is not adherence: DriftBench; not in arXiv:2402.10962",
        "1 to 98 % drift at intact recall",
        Separation(Quantity("recalled", _END), Quantity("kept", _END), unit="recall minus adherence"),
        "stranger",
    ),
    Claim(
        "split_softmax_keeps_adherence",
        "With split-softmax adherence after the dialogue is higher.",
        "arXiv:2402.10962, section 5",
        "split-softmax mitigates the drift",
        Separation(Quantity("kept_best", "split_softmax"), Quantity("kept_best", "plain"), unit="adherence"),
        "random_tokens",
    ),
    _better_at_equal_capability("repetition", "repetition of the system prompt"),
    _better_at_equal_capability("guidance", "classifier-free guidance"),
    _better_at_equal_capability("capping", "activation capping along the persona axis"),
)
PICTURES = (
    StudyPicture(
        "Adherence by round, without mitigation and with each at its second strength",
        ("adherence",),
        x_title="rounds of the dialogue (count)",
        caption="Dashed: the question of each round is asked right after the system prompt.",
    ),
    StudyPicture(
        "Own rule kept, own rule recalled, other side's rule adopted",
        ("plain_share",),
        x_title="rounds of the dialogue (count)",
        caption="Dashed: rules of neither side.",
    ),
    StudyPicture(
        "Attention to the system prompt, mean over heads", ("attention_mass",), x_title="rounds of the dialogue (count)"
    ),
    StudyPicture(
        "Adherence after the dialogue against the margin of sentences over their words in another order, at each strength",
        ("capability", "kept_end"),
        points=True,
        caption="Margin in nats per token; up and to the right is better.",
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    world = speaking_rules.make(speaking_rules.Config(rounds=settings.trained_rounds, seed=lab.seed))
    model = _train(settings, lab, world)
    bench = _Bench(settings, lab, world, model)
    lab.on_activity("dialogues without mitigation", 0, 1)
    plain = bench.hold(PLAIN)
    yield from _plain_rows(bench, plain)
    yield from _frontier_rows(bench, plain)


def _train(settings: Settings, lab: Lab, world: speaking_rules.World) -> Model:
    tokenizer = speaking_rules.tokenizer(world)

    make = small_decoder(len(tokenizer), world.config.context, layers=settings.layers, heads=4, width=settings.width)

    def batches(step: int) -> TokenBatch:
        return TokenBatch(
            torch.from_numpy(speaking_rules.sample(world, np.random.default_rng([lab.seed, step]), settings.rows))
        )

    recipe = TrainingRecipe(make, batches, language_model, TrainingConfig(settings.steps, 3e-3), lab.seed)

    def on_step(step: int) -> None:
        if step % 50 == 0:
            lab.on_activity("training", step, settings.steps)

    return model_from_network(train_in_memory(recipe, on_step).eval(), tokenizer)


@dataclass(frozen=True, eq=False)
class _Held:
    """Dialogues under one mitigation, with the answers after each round."""

    dialogues: list[Dialogue]
    answers: list[ProbeAnswers]
    caps: dict[str, list[Edit]]

    def after(self, rounds: int) -> list[ProbeAnswers]:
        return [one for one in self.answers if one.rounds == rounds]


class _Bench:
    """A trained model with the rules of its world as instructions."""

    def __init__(self, settings: Settings, lab: Lab, world: speaking_rules.World, model: Model) -> None:
        self.settings, self.lab, self.model = settings, lab, model
        question = speaking_rules.opening(speaking_rules.THINGS[0])
        self.rules = [
            Instruction(f"{rule.kind} {rule.word}", rule.kind, rule.system, _judge(world, rule), (rule.word,), question)
            for rule in world.rules[:: -(-len(world.rules) // settings.rules)]
        ]
        self.dialogues = DialogueSettings(
            rounds=settings.rounds,
            pairs=settings.pairs,
            runs=settings.runs,
            tokens=12,
            top_p=1.0,
            relay="{answer}",
            openings=tuple(map(speaking_rules.opening, speaking_rules.THINGS)),
            batch=64,
            seed=lab.seed,
        )
        self.pairings = pair_up(self.rules, self.rules, self.dialogues)

    def hold(self, mitigation: Mitigation, rounds: Sequence[int] | None = None) -> _Held:
        """Dialogues of all pairs under a mitigation, and answers after some rounds, by default all."""
        asked = range(self.settings.rounds + 1) if rounds is None else rounds
        caps: dict[str, list[Edit]] = {}
        if mitigation.kind == "capping":
            groups: list[list[Pairing]] = []
            for rule in self.rules:
                caps[rule.name] = persona_caps(self.model, rule, mitigation.strength, self.dialogues, True)
                groups.append([one for one in self.pairings if one.agent == rule])
        else:
            groups = [self.pairings]
        dialogues: list[Dialogue] = []
        answers: list[ProbeAnswers] = []
        for group in groups:
            own = caps.get(group[0].agent.name, [])
            held = self_chat(self.model, group, self.dialogues, True, mitigation, own)
            dialogues += held
            answers += probe_dialogues(self.model, held, "adherence", asked, self.dialogues, True, mitigation, own)
        return _Held(dialogues, answers, caps)

    def capability(self, mitigation: Mitigation, caps: Mapping[str, list[Edit]]) -> float:
        """Margin of a sentence over its words in another order, after the system prompt, nats per token: is the language kept?"""
        groups = [[rule] for rule in self.rules] if caps else [self.rules]
        margins = [self._margins(group, mitigation, caps.get(group[0].name, [])) for group in groups]
        return float(torch.cat(margins).mean())

    def _margins(self, rules: Sequence[Instruction], mitigation: Mitigation, caps: Sequence[Edit]) -> Tensor:
        things = speaking_rules.THINGS
        pairs = [(rule, i) for rule in rules for i in range(0, len(things), 6)]
        chats: list[Chat] = [
            (("system", rule.system), ("user", speaking_rules.opening(things[i]))) for rule, i in pairs
        ]
        right = [
            f" the {things[(i + 7) % len(things)]} is near the {things[(i + 11) % len(things)]} ." for _, i in pairs
        ]
        wrong = [" ".join(["", *text.split()[1::-1], *text.split()[:1:-1]]) for text in right]
        scores = answer_log_likelihoods(
            self.model, [*chats, *chats], [*right, *wrong], True, mitigation, caps, batch=64
        )
        means = torch.stack([score.double().mean() for score in scores])
        return means[: len(pairs)] - means[len(pairs) :]

    def ask(
        self, dialogues: Sequence[Dialogue], kind: ProbeKind, rounds: Sequence[int], seed: int
    ) -> list[ProbeAnswers]:
        """Answers of the plain model to a question after some rounds."""
        settings = replace(self.dialogues, seed=seed)
        return probe_dialogues(
            self.model, dialogues, kind, rounds, settings, True, recall_question=speaking_rules.RECALL_QUESTION
        )

    def attention(self, dialogues: Sequence[Dialogue], rounds: int) -> list[float]:
        """Attention to the system prompt where the answer after some rounds is predicted, mean over heads, of each dialogue."""
        chats = [one.agent_chat(rounds, one.pairing.agent.question) for one in dialogues]
        prompts = chat_prompts(self.model, chats, True)
        masses = attention_mass(self.model, [one.ids for one in prompts], [one.system for one in prompts], batch=32)
        return [float(mass[..., -1].mean()) for mass in masses]


def _judge(world: speaking_rules.World, rule: speaking_rules.SpeakingRule) -> TextJudge:
    """1 for a sentence of the world that follows the rule."""
    return lambda text: float(speaking_rules.judge(world, text) is not None and speaking_rules.follows(rule, text))


def _plain_rows(bench: _Bench, held: _Held) -> Iterator[Record]:
    lab, dialogues, last = bench.lab, held.dialogues, bench.settings.rounds
    rounds = range(last + 1)
    recalled = bench.ask(dialogues, "recall", rounds, lab.seed)
    # The null: the questions of all rounds are asked right after the system prompt, each with its own samples.
    fresh = {number: bench.ask(dialogues, "adherence", [0], lab.seed + 1000 * (number + 1)) for number in rounds}
    once = bench.ask(dialogues, "one_turn", [last], lab.seed)
    attended = {number: bench.attention(dialogues, number) for number in rounds}

    def stranger(one: ProbeAnswers) -> list[float]:
        return stranger_adherence(one, bench.rules)

    def stranger_recall(one: ProbeAnswers) -> list[float]:
        others = [
            rule for rule in bench.rules if rule not in (one.dialogue.pairing.agent, one.dialogue.pairing.partner)
        ]
        return [sum(rule.recall(text) for rule in others) / len(others) for text in one.texts]

    for number in rounds:
        after, named = held.after(number), [one for one in recalled if one.rounds == number]
        yield _row(lab, "adherence", after, adherence_of, "plain", step=number)
        yield _row(lab, "adherence", fresh[number], adherence_of, "plain", step=number, control="no_dialogue")
        for condition, answers, score, null in (
            ("own rule kept", after, adherence_of, stranger),
            ("own rule recalled", named, recall_of, stranger_recall),
            ("other side's rule adopted", after, adoption_of, stranger),
        ):
            yield _row(lab, "plain_share", answers, score, condition, step=number)
            yield _row(lab, "plain_share", answers, null, condition, step=number, control="stranger")
        yield lab.row("attention_mass", _average(attended[number]), "plain", step=number, n=len(dialogues))
        if number:
            yield _row(lab, "kept", after, adherence_of, f"round {number}")
            yield _row(lab, "kept", fresh[number], adherence_of, f"round {number}", control="no_dialogue")
            yield lab.row("attended", _average(attended[number]), f"round {number}", n=len(dialogues))
            some = attended[0][number - 1 :: last]
            yield lab.row("attended", _average(some), f"round {number}", n=len(some), control="no_dialogue")
    ends = {_START: 0, _END: last}
    for side, (condition, number) in enumerate(ends.items()):
        after, named = held.after(number), [one for one in recalled if one.rounds == number]
        yield _row(lab, "kept", after, adherence_of, condition)
        yield _row(lab, "kept", fresh[number], adherence_of, condition, control="no_dialogue")
        yield _row(lab, "kept", after, stranger, condition, control="stranger")
        yield _row(lab, "adopted", after, adoption_of, condition)
        yield _row(lab, "adopted", after, stranger, condition, control="stranger")
        yield _row(lab, "recalled", named, recall_of, condition)
        yield _row(lab, "recalled", named, stranger_recall, condition, control="stranger")
        yield lab.row("attended", _average(attended[number]), condition, n=len(dialogues))
        half = attended[0][side::2]
        yield lab.row("attended", _average(half), condition, n=len(half), control="no_dialogue")
        # In the null of the length, both sides are answers after the same words in one turn.
        yield _row(lab, "kept", _half(once, side), adherence_of, condition, control="same_answers")
    yield _row(lab, "kept", once, adherence_of, "same words in one turn")
    yield _row(lab, "kept", _half(once, 0), adherence_of, "same words in one turn", control="same_answers")
    yield from _drop_rows(lab, attention_decay(bench.model, dialogues, True, edge=2))


def _drop_rows(lab: Lab, decays: Sequence[AttentionDecay]) -> Iterator[Record]:
    between, within = ([getattr(one, name) for one in decays] for name in ("between", "within"))
    for control, values in ((None, (between, within)), ("same_places", (within[::2], within[1::2]))):
        for condition, drops in zip(("beginnings of answers", "middles of answers"), values, strict=True):
            known = [drop for drop in drops if not math.isnan(drop)]
            yield lab.row("attention_drop", _average(known), condition, n=len(known), control=control)


def _frontier_rows(bench: _Bench, plain: _Held) -> Iterator[Record]:
    """Adherence after the dialogue and capability of each mitigation at each strength, and the strength chosen at equal capability."""
    lab, settings, last = bench.lab, bench.settings, bench.settings.rounds
    margin = bench.capability(PLAIN, {})
    none = _Point(plain.after(last), margin)
    yield from _point_rows(lab, none, "plain", 0.0)
    for control in (None, "random_tokens"):
        yield _row(lab, "kept_best", _half(none.answers, 1), adherence_of, "plain", control=control)
    for place, kind in enumerate(_KINDS):
        strengths: tuple[float, ...] = getattr(settings, kind)
        points, nulls = [none], [none]
        for number, strength in enumerate(strengths):
            lab.on_activity(f"{kind} {strength:g}", place * len(strengths) + number, len(_KINDS) * len(strengths))
            mitigation, middle = Mitigation(kind, strength), number == len(strengths) // 2
            held = bench.hold(mitigation, None if middle else [last])
            points.append(_Point(held.after(last), bench.capability(mitigation, held.caps)))
            yield from _point_rows(lab, points[-1], kind, strength)
            for rounds in range(last + 1) if middle else ():
                yield _row(lab, "adherence", held.after(rounds), adherence_of, f"{kind} {strength:g}", step=rounds)
            if kind == "split_softmax":
                random = bench.hold(replace(mitigation, control=lab.seed), [last])
                nulls.append(_Point(random.after(last), margin))
        affordable = [one for one in points if one.capability >= margin - settings.cost * abs(margin)]
        yield _row(lab, "kept_at_cost", _chosen(affordable, 0), adherence_of, kind)
        if kind == "split_softmax":
            yield _row(lab, "kept_best", _chosen(points[1:], 0), adherence_of, kind)
            yield _row(lab, "kept_best", _chosen(nulls[1:], 0), adherence_of, kind, control="random_tokens")
            yield _row(lab, "kept_at_cost", _chosen(affordable, 0), adherence_of, kind, control="same_mitigation")
            for other in _KINDS[1:]:
                yield _row(lab, "kept_at_cost", _chosen(affordable, 1), adherence_of, other, control="same_mitigation")


@dataclass(frozen=True, eq=False)
class _Point:
    """One mitigation at one strength."""

    answers: list[ProbeAnswers]
    """After the last round."""
    capability: float


def _point_rows(lab: Lab, point: _Point, kind: str, strength: float) -> Iterator[Record]:
    yield _row(lab, "kept_end", point.answers, adherence_of, kind, strength=strength)
    yield lab.row("capability", point.capability, kind, n=len(point.answers), strength=strength)


def _chosen(points: Sequence[_Point], side: int) -> list[ProbeAnswers]:
    """Of the strength that keeps the most on one half of the dialogues, the answers of the other half."""
    best = max(points, key=lambda one: _mean(_half(one.answers, side), adherence_of))
    return _half(best.answers, 1 - side)


def _half(answers: Sequence[ProbeAnswers], side: int) -> list[ProbeAnswers]:
    return [one for one in answers if one.dialogue.pairing.number % 2 == side]


def _mean(answers: Sequence[ProbeAnswers], score: Callable[[ProbeAnswers], list[float]]) -> float:
    return _average([value for one in answers for value in score(one)])


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _row(
    lab: Lab,
    metric: str,
    answers: Sequence[ProbeAnswers],
    score: Callable[[ProbeAnswers], list[float]],
    condition: str,
    *,
    step: int | None = None,
    control: str | None = None,
    strength: float | None = None,
) -> Record:
    lost = next((one.reason for one in answers if not one.texts), "no answer was generated")
    count = sum(len(one.texts) for one in answers)
    value = _mean(answers, score)
    if strength is None:
        return lab.row(metric, value, condition, step=step, control=control, n=count, reason=lost)
    return lab.row(metric, value, condition, step=step, control=control, n=count, reason=lost, strength=strength)

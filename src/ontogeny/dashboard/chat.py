"""Chat panel: a conversation with the model of any checkpoint, its gauges after each turn, and the same turns under pins.

A conversation is its user's turns: answers are greedy or seeded, so that an address shows the same conversation again. With pins it is
held three times: as the model is, steered, and pushed as far along random directions. Answers are kept under the fingerprint of the
weights.
"""

import math
from collections.abc import Sequence
from typing import Any

from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.chat_requests import ChatRequest
from ontogeny.dashboard.checkpoint_models import CheckpointModels, CheckpointResults
from ontogeny.dashboard.gauge_cards import finite_number, gauges_of, pinned_vector
from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding
from ontogeny.gauges.chat_template import lineage_chat_template
from ontogeny.gauges.conversation import arrange_turns, encode_conversation
from ontogeny.gauges.gauge import Gauge
from ontogeny.gauges.reading import GaugeReading, read_conversation
from ontogeny.gauges.replies import Reply, converse, reply, reply_nats, reply_words
from ontogeny.gauges.turn_reading import TurnReading, answer_and_read, read_turn
from ontogeny.jobs.trace.reread import on_disk
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.token_scores import token_texts
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.steer import Edit, control_edits


def hold_chat(shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: ChatRequest) -> dict[str, Any]:
    """The conversation at one checkpoint with its gauges; with pins also steered, and pushed along random directions.

    Raises:
        BadInput: the request asks for what the run or the model does not have, or the conversation is too long.
    """
    request.check()
    chat = _CheckpointChat(shown, models, options, request)
    gauges = gauges_of(shown, options, request.gauges, request.stage, request.step)
    concepts = [pin.concept for pin in request.pins]
    pinned = gauges_of(shown, options, concepts, request.stage, request.step, argument="pins")
    vectors = [
        pinned_vector(shown, options, g, pin.towards, pin.site) for g, pin in zip(pinned, request.pins, strict=True)
    ]
    edits = [vector.edit(pin) for vector, pin in zip(vectors, request.pins, strict=True)]
    arms = [chat.arm("plain", [], gauges)]
    if request.pins:
        (random,) = control_edits(edits, [0])
        arms += [chat.arm("steered", edits, gauges), chat.arm("random", random, [])]
    sites = [str(vector.direction.site) for vector in vectors]
    return {"template": chat.template_note, "arms": arms, "pin_sites": sites}


def compare_chats(
    shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: ChatRequest
) -> dict[str, Any]:
    """Each token of checkpoint A's answers with its log-probability at A and at B, in the conversation as A held it.

    Args:
        request: The conversation at A, and checkpoint B; pins do not count.

    Raises:
        BadInput: B has another tokenizer, or one of them cannot be read.
    """
    request.check()
    chat = _CheckpointChat(shown, models, options, request)
    there = models.results_of(models.at(request.other_stage, request.other_step))
    _, replies = chat.converse("plain", [])
    turns = []
    for answer in replies:
        a, b = (token_nats(results, answer) for results in (chat.results, there))
        key = ("words", tuple(answer.prompt.ids.tolist()), tuple(answer.ids.tolist()), answer.tokenizer)
        words = chat.results.computed(key, lambda model, answer=answer: reply_words(model, answer))
        turns.append({"words": list(words), "a": [round(x, 3) for x in a], "b": [round(x, 3) for x in b]})
    return {"turns": turns}


def read_controls(
    shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: ChatRequest
) -> dict[str, Any]:
    """Two controls of each gauge after the last turn: the user's last words without the template, and random directions.

    Raises:
        BadInput: as `hold_chat`; pins do not count.
    """
    request.check()
    gauges = gauges_of(shown, options, request.gauges, request.stage, request.step)
    return {"gauges": _CheckpointChat(shown, models, options, request).controls(gauges)}


class _CheckpointChat:
    """A conversation at one checkpoint, arm by arm."""

    def __init__(self, shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: ChatRequest) -> None:
        self._request = request
        self.results = models.results_of(models.at(request.stage, request.step))
        self._template, self.template_note = chat_template(shown, models, options)

    def converse(self, arm: str, edits: Sequence[Edit], gauges: Sequence[Gauge] = ()) -> tuple[Chat, list[Reply]]:
        """The conversation under the edits that are on at each turn; an answer without edits is read by the gauges as it is made."""
        request = self._request
        how = DecodingConfig(tokens=request.tokens, temperature=request.temperature, seed=request.seed)

        def edits_at(turn: int) -> Sequence[Edit]:
            return [edit for edit, pin in zip(edits, request.pins, strict=True) if pin.since <= turn] if edits else []

        def reply_to(chat: Chat, active: Sequence[Edit]) -> Reply:
            pins = tuple(pin for pin in request.pins if pin.since <= len(chat) // 2) if active else ()
            key = ("reply", chat, pins, arm if active else "plain", how, self._template)

            def answer(model: Model) -> Reply:
                if active or not gauges:
                    return reply(model, chat, active, how, template=self._template)
                answered, readings = answer_and_read(model, chat, gauges, how, template=self._template)
                self.results.keep(self._reading_key(chat, gauges), readings)
                return answered

            return self.results.computed(key, answer)

        return converse(reply_to, request.turns, edits_at)

    def arm(self, name: str, edits: Sequence[Edit], gauges: Sequence[Gauge]) -> dict[str, Any]:
        """One way in which the conversation is held, with gauges that are read in it without edits."""
        chat, replies = self.converse(name, edits, gauges)
        asked = [chat[:end] for end in range(1, len(chat), 2)]
        read = [self._readings(part, gauges) for part in asked]
        arranged: dict[str, Any] = self.results.computed(
            ("turns", asked[-1], self._template),
            lambda model: _turns_json(model, asked[-1], [answer.prompt for answer in replies]),
        )
        turns = [
            {
                "user": words,
                "reply": answer.text,
                "kl": finite_number(answer.divergence, 4),
                "surprise": finite_number(self._surprise(answer), 4),
            }
            for words, answer in zip(self._request.turns, replies, strict=True)
        ]
        gauges_read = [_gauge_json([turn[number] for turn in read]) for number in range(len(gauges))]
        return {"name": name, "turns": turns, **arranged, "gauges": gauges_read}

    def controls(self, gauges: Sequence[Gauge]) -> list[dict[str, Any]]:
        """Of each gauge the two controls of its last reading, in the conversation without edits."""
        chat, _ = self.converse("plain", [], gauges)
        read: list[dict[str, Any]] = self.results.computed(
            ("controls", chat[:-1], _units(gauges), self._template),
            lambda model: _controls_json(model, chat[:-1], gauges, self._template),
        )
        return read

    def _readings(self, chat: Chat, gauges: Sequence[Gauge]) -> tuple[TurnReading, ...]:
        """The gauges after the last of the user's turns."""
        if not gauges:
            return ()
        key = self._reading_key(chat, gauges)
        return self.results.computed(key, lambda model: read_turn(model, chat, gauges, self._template))

    def _reading_key(self, chat: Chat, gauges: Sequence[Gauge]) -> tuple[Any, ...]:
        return ("chat gauges", chat, _units(gauges), self._template)

    def _surprise(self, answer: Reply) -> float:
        """Cross-entropy of an answer under the unsteered model; of a plain answer only where it stands beside a steered one."""
        if answer.divergence != 0 or not self._request.pins:
            return answer.surprise
        nats = token_nats(self.results, answer)
        return -sum(nats) / len(nats) if nats else math.nan


def token_nats(results: CheckpointResults, answer: Reply) -> list[float]:
    """The log-probability of each token of an answer at a checkpoint."""
    key = ("nats", tuple(answer.prompt.ids.tolist()), tuple(answer.ids.tolist()), answer.tokenizer)
    return results.computed(key, lambda model: reply_nats(model, answer).tolist())


def chat_template(shown: ShownRun, models: CheckpointModels, options: ChatOptions) -> tuple[str, str]:
    """The one chat template of all checkpoints of a run, and a word about where it comes from.

    That of the command, else of a file beside the lineage, else of the tokenizer of the last checkpoint: checkpoints are compared in
    one template only.

    Raises:
        BadInput: there is none.
    """
    if options.template:
        return options.template, "the given template"
    if options.pack is not None:
        return options.pack.template, "the template of the gauge pack"
    found: tuple[str, str] = shown.tool("chat template", lambda: _find_template(shown, models))
    return found


def _find_template(shown: ShownRun, models: CheckpointModels) -> tuple[str, str]:
    last = shown.describe()["checkpoints"][-1]
    checkpoint: Checkpoint = on_disk(models.at(last["stage"], step_text(last["step"])), shown.run.folder)
    text, whose = lineage_chat_template(checkpoint)
    return text, whose.replace("the tokenizer", str(last["label"]))


def _units(gauges: Sequence[Gauge]) -> tuple[Any, ...]:
    return tuple((gauge.label, gauge.unit, str(gauge.site), gauge.method, gauge.reason) for gauge in gauges)


def _turns_json(model: Model, chat: Chat, prompts: Sequence[Encoding]) -> dict[str, Any]:
    """Tokens of the conversation, and role, first and past-last token, and unknown tokens of each turn."""
    conversation = arrange_turns(model, chat, prompts)
    turns = zip(conversation.turns, conversation.unknown_words, strict=True)
    return {
        "tokens": list(token_texts(model, conversation.whole)),
        "spans": [[turn.role, turn.start, turn.end, unknown] for turn, unknown in turns],
    }


def _gauge_json(turns: Sequence[TurnReading]) -> dict[str, Any]:
    """One gauge after each turn; if a turn could not be read, the reason of the last one that could not."""
    reasons = [turn.reason for turn in turns if turn.reason]
    scores = turns[-1].tokens.double().numpy().round(3).tolist()
    return {
        "concept": turns[-1].gauge.label.concept,
        "reason": reasons[-1] if reasons else "",
        "turns": [] if reasons else [_reading_json(turn.reading) for turn in turns if turn.reading is not None],
        "tokens": [] if reasons else [score if math.isfinite(score) else None for score in scores],
    }


def _controls_json(model: Model, chat: Chat, gauges: Sequence[Gauge], template: str) -> list[dict[str, Any]]:
    read = read_conversation(model, encode_conversation(model, chat, template), gauges, template)
    return [
        {
            "concept": one.gauge.label.concept,
            "bare": None if one.bare is None else _reading_json(one.bare),
            "moved": finite_number(one.moved, 3),
            "random_moved": finite_number(one.random_moved, 3),
            "random_p": finite_number(one.random_p, 3),
        }
        for one in read.gauges
    ]


def _reading_json(reading: GaugeReading) -> dict[str, Any]:
    return {
        "state": reading.state,
        "probabilities": [round(share, 4) for share in reading.probabilities],
        "score": finite_number(reading.score, 4),
        "typicality": finite_number(reading.typicality, 3),
    }

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
from ontogeny.dashboard.checkpoint_models import CheckpointModels, on_disk
from ontogeny.dashboard.gauge_cards import finite_number, gauges_of, pinned_vector
from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.data.chats import Chat
from ontogeny.gauges.chat_template import lineage_chat_template
from ontogeny.gauges.conversation import encode_conversation
from ontogeny.gauges.gauge import Gauge
from ontogeny.gauges.reading import GaugeReading, ReadGauge, read_conversation
from ontogeny.gauges.replies import Reply, converse, reply, reply_nats
from ontogeny.lineage import Checkpoint
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
    other = models.at(request.other_stage, request.other_step)
    _, replies = chat.converse("plain", [])
    here, there = ([chat.nats(checkpoint, answer) for answer in replies] for checkpoint in (chat.checkpoint, other))
    turns = [
        {"words": list(answer.words), "a": [round(x, 3) for x in a], "b": [round(x, 3) for x in b]}
        for answer, a, b in zip(replies, here, there, strict=True)
    ]
    return {"turns": turns}


class _CheckpointChat:
    """A conversation at one checkpoint, arm by arm."""

    def __init__(self, shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: ChatRequest) -> None:
        self._models, self._request = models, request
        self.checkpoint = models.at(request.stage, request.step)
        self._template, self.template_note = chat_template(shown, models, options)

    def converse(self, arm: str, edits: Sequence[Edit]) -> tuple[Chat, list[Reply]]:
        """The conversation under the edits that are on at each turn."""
        request = self._request
        how = DecodingConfig(tokens=request.tokens, temperature=request.temperature, seed=request.seed)

        def edits_at(turn: int) -> Sequence[Edit]:
            return [edit for edit, pin in zip(edits, request.pins, strict=True) if pin.since <= turn] if edits else []

        def reply_to(chat: Chat, active: Sequence[Edit]) -> Reply:
            pins = tuple(pin for pin in request.pins if pin.since <= len(chat) // 2) if active else ()
            key = ("reply", chat, pins, arm if active else "plain", how, self._template)
            return self._models.computed(
                self.checkpoint, key, lambda model: reply(model, chat, active, how, template=self._template)
            )

        return converse(reply_to, request.turns, edits_at)

    def arm(self, name: str, edits: Sequence[Edit], gauges: Sequence[Gauge]) -> dict[str, Any]:
        """One way in which the conversation is held, with gauges that are read in it without edits."""
        chat, replies = self.converse(name, edits)
        units = tuple((gauge.label, gauge.unit, str(gauge.site), gauge.method, gauge.reason) for gauge in gauges)
        read: dict[str, Any] = self._models.computed(
            self.checkpoint,
            ("chat gauges", chat[:-1], units, self._template),
            lambda model: _read(model, chat[:-1], gauges, self._template),
        )
        turns = [
            {
                "user": words,
                "reply": answer.text,
                "words": list(answer.words),
                "kl": finite_number(answer.divergence, 4),
                "surprise": finite_number(self._surprise(answer), 4),
            }
            for words, answer in zip(self._request.turns, replies, strict=True)
        ]
        return {"name": name, "turns": turns, **read}

    def _surprise(self, answer: Reply) -> float:
        """Cross-entropy of an answer under the unsteered model; of a plain answer only where it stands beside a steered one."""
        if answer.divergence != 0 or not self._request.pins:
            return answer.surprise
        nats = self.nats(self.checkpoint, answer)
        return -sum(nats) / len(nats) if nats else math.nan

    def nats(self, checkpoint: Checkpoint, answer: Reply) -> list[float]:
        """The log-probability of each token of an answer at a checkpoint."""
        key = ("nats", tuple(answer.prompt_ids.tolist()), tuple(answer.ids.tolist()), answer.tokenizer)
        found: list[float] = self._models.computed(checkpoint, key, lambda model: reply_nats(model, answer).tolist())
        return found


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


def _read(model: Model, chat: Chat, gauges: Sequence[Gauge], template: str) -> dict[str, Any]:
    conversation = encode_conversation(model, chat, template)
    reading = read_conversation(model, conversation, gauges, template)
    turns = zip(conversation.turns, conversation.unknown_words, strict=True)
    return {
        "tokens": list(reading.tokens),
        "spans": [[turn.role, turn.start, turn.end, unknown] for turn, unknown in turns],
        "gauges": [_gauge_json(read) for read in reading.gauges],
    }


def _gauge_json(read: ReadGauge) -> dict[str, Any]:
    return {
        "concept": read.gauge.label.concept,
        "reason": read.reason,
        "turns": [_reading_json(reading) for reading in read.turns],
        "bare": None if read.bare is None else _reading_json(read.bare),
        "moved": finite_number(read.moved, 3),
        "random_moved": finite_number(read.random_moved, 3),
        "random_p": finite_number(read.random_p, 3),
        "tokens": [finite_number(score, 3) for score in read.tokens.tolist()],
    }


def _reading_json(reading: GaugeReading) -> dict[str, Any]:
    return {
        "state": reading.state,
        "probabilities": [round(share, 4) for share in reading.probabilities],
        "score": finite_number(reading.score, 4),
        "typicality": finite_number(reading.typicality, 3),
    }

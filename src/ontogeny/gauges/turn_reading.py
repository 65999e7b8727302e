"""Reading of gauges while a model answers: the answer's own forward passes give the states, so that gauges cost a few products.

A gauge is read in the first forward pass of the generation. Of one with a begun answer the few tokens of it join the prompt in that pass,
or, where a family may not, run on the generation's KV cache, all in one batch and not beyond the last site that is read.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding, Position
from ontogeny.data.templates import Template
from ontogeny.errors import BadInput
from ontogeny.gauges.begun_answers import begun_answer_tokens
from ontogeny.gauges.conversation import encode_conversation, encode_prompt
from ontogeny.gauges.gauge import CalibratedProbe, Gauge
from ontogeny.gauges.prompt_states import PromptStates, can_record
from ontogeny.gauges.reading import GaugeReading, calibrated_readings, read_conversation, why_unread
from ontogeny.gauges.replies import Reply, reply_to_prompt
from ontogeny.models.forward import rope_switch
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.generate import DecodingConfig


@dataclass(frozen=True, eq=False)
class TurnReading:
    """One gauge after the last of the user's turns; nothing is read if it is not readable, and `reason` says why."""

    gauge: Gauge
    reading: GaugeReading | None
    tokens: Float[Tensor, " token"]
    """Score at every token of the conversation; empty if nothing is read. An extrapolation away from the probe's own position."""
    reason: str


@dataclass(frozen=True, eq=False)
class _Readable:
    """A gauge that can be read while the model answers."""

    number: int
    probe: CalibratedProbe
    site: Site
    position: Position
    suffix: str


_parsed = functools.lru_cache(Position.parse)


def answer_and_read(
    model: Model, chat: Chat, gauges: Sequence[Gauge], how: DecodingConfig | None = None, *, template: Template
) -> tuple[Reply, tuple[TurnReading, ...]]:
    """The model's answer without edits, and the gauges after the user's turn that it answers.

    Args:
        chat: Turns of user and assistant, the user's first and last.
        gauges: From `make_gauge`, or those of a gauge pack.
        how: Decoding, as `reply` takes it.
        template: The chat template.

    Raises:
        BadInput: as `reply`; what only one gauge cannot read is the reason of that gauge.
    """
    how = how or DecodingConfig()
    with torch.inference_mode():  # a tenth of the time of a small model
        prompt = encode_prompt(model, chat, template, room=1)
        turn = _Turn(model, chat, prompt, gauges, template)
        if turn.states.joins and how.cache and how.beams == 1:
            answer = reply_to_prompt(model, prompt, (), how, prefill=turn.states.join)
        else:
            with turn.states.recorded():
                answer = reply_to_prompt(model, prompt, (), how)
        return answer, turn.read()


def read_turn(model: Model, chat: Chat, gauges: Sequence[Gauge], template: Template) -> tuple[TurnReading, ...]:
    """The gauges after the last of the user's turns, without an answer; by one forward pass over the conversation.

    Raises:
        BadInput: the conversation cannot be read; what only one gauge cannot read is the reason of that gauge.
    """
    turn = _Turn(model, chat, encode_prompt(model, chat, template), gauges, template)
    if turn.readable:
        turn.states.run()
    return turn.read()


def _sorted(model: Model, gauges: Sequence[Gauge]) -> tuple[list[_Readable], dict[int, str]]:
    """Gauges that are read while the model answers, and why others are not; the rest needs a forward pass of its own."""
    readable, unread, fingerprint = list[_Readable](), dict[int, str](), tokenizer_fingerprint(model)
    switched = rope_switch(model) is not None
    for number, gauge in enumerate(gauges):
        if gauge.probe is None or gauge.site is None or (reason := why_unread(model, gauge, fingerprint)):
            unread[number] = gauge.reason if gauge.probe is None or gauge.site is None else reason
            continue
        position, suffix = _parsed(gauge.position), gauge.label.suffix
        at_end = (position.reduce, position.shift, str(position.region)) == ("last", 0, "everything")
        if can_record(model, [gauge.site]) and (not suffix or (at_end and not switched)):
            readable.append(_Readable(number, gauge.probe, gauge.site, position, suffix))
    return readable, unread


class _Turn:
    """The gauges of one conversation: first what their begun answers need, then, after its states are there, their readings."""

    def __init__(self, model: Model, chat: Chat, prompt: Encoding, gauges: Sequence[Gauge], template: Template) -> None:
        self._model, self._chat, self._prompt, self._gauges, self._template = model, chat, prompt, gauges, template
        self.readable, unread = _sorted(model, gauges)
        self._reasons = dict(unread)
        begun = _begun(model, chat, prompt, self.readable, template, self._reasons)
        self._answers = list[tuple[int, Tensor, Site]]()
        for one in self.readable:
            if (ids := begun.get(one.number)) is None:
                continue
            if (count := len(prompt.ids) + len(ids)) > model.context:
                self._reasons[one.number] = (
                    f"with the begun answer the conversation has {count} tokens, and the context has {model.context}"
                )
            else:
                self._answers.append((one.number, ids, one.site))
        sites, answers = [one.site for one in self.readable], [(ids, site) for _, ids, site in self._answers]
        self.states = PromptStates(model, prompt.ids, sites, answers)

    def read(self) -> tuple[TurnReading, ...]:
        """Every gauge, in order."""
        ends = self._ends()
        read: dict[int, TurnReading] = {}
        for one in self.readable:
            if one.number in ends and one.number not in self._reasons:
                scores = one.probe.scores(torch.cat([ends[one.number][None], self.states.at(one.site)]))
                (reading,) = calibrated_readings(one.probe, scores[:1])
                column = reading.probabilities.index(max(reading.probabilities)) if scores.shape[1] > 1 else 0
                read[one.number] = TurnReading(self._gauges[one.number], reading, scores[1:, column], "")
        for number, gauge in enumerate(self._gauges):
            if (reason := self._reasons.get(number)) is not None:
                read[number] = TurnReading(gauge, None, torch.zeros(0), reason)
            elif number not in read:
                read[number] = _read_apart(self._model, self._chat, gauge, self._template)
        return tuple(read[number] for number in range(len(self._gauges)))

    def _ends(self) -> dict[int, Float[Tensor, " d"]]:
        """The state at which each gauge is read; a gauge without one and without a reason needs a forward pass of its own."""
        ends, weights = dict[int, Tensor](), dict[Position, Tensor]()
        for one in self.readable:
            try:
                if not one.suffix:
                    if one.position not in weights:
                        weights[one.position] = one.position.weights(self._prompt)
                    ends[one.number] = weights[one.position] @ self.states.at(one.site)
            except BadInput as error:
                self._reasons[one.number] = str(error)
        if self._answers and (states := self.states.ends()) is not None:
            ends |= {number: state for (number, _, _), state in zip(self._answers, states, strict=True)}
        return ends


def _read_apart(model: Model, chat: Chat, gauge: Gauge, template: Template) -> TurnReading:
    """A gauge that needs a forward pass of its own, such as one at the queries of a head."""
    try:
        (whole,) = read_conversation(model, encode_conversation(model, chat, template), [gauge], template).gauges
    except BadInput as error:
        return TurnReading(gauge, None, torch.zeros(0), str(error))
    return TurnReading(gauge, whole.turns[-1] if whole.turns else None, whole.tokens, whole.reason)


def _begun(
    model: Model,
    chat: Chat,
    prompt: Encoding,
    readable: Sequence[_Readable],
    template: Template,
    reasons: dict[int, str],
) -> dict[int, Int[Tensor, " token"] | None]:
    """The tokens of the begun answer of each gauge that has one; why it cannot be written goes into `reasons`."""
    own = [one for one in readable if one.suffix]
    if not own:
        return {}
    try:
        tokens = begun_answer_tokens(model, chat, prompt, [one.suffix for one in own], template)
        return {one.number: ids for one, ids in zip(own, tokens, strict=True)}
    except BadInput:  # that of one gauge: each alone
        alone = dict[int, Tensor | None]()
        for one in own:
            try:
                (alone[one.number],) = begun_answer_tokens(model, chat, prompt, [one.suffix], template)
            except BadInput as error:
                reasons[one.number] = str(error)
        return alone

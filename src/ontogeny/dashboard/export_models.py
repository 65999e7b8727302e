"""Answers of models in a static export: given texts and chats at every checkpoint, by the addresses under which the page looks for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ontogeny.dashboard.attention import attention_of_text
from ontogeny.dashboard.chat import hold_chat, read_controls
from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.chat_requests import ChatRequest
from ontogeny.dashboard.checkpoint_models import models_of
from ontogeny.dashboard.gauge_cards import gauge_cards
from ontogeny.dashboard.logit_lens import lens_of_text
from ontogeny.dashboard.selection import LensRequest, step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.dashboard.text_lens import read_typed_text
from ontogeny.errors import BadInput
from ontogeny.gauges.pin import Pin

_MOST_NUMBERS = 1_000_000
"""Numbers of the attention of one text; a text with more is exported at the last checkpoint of each stage."""
_TOKENS = 40
"""Longest answer of a chat, in tokens."""


def text_answers(shown: ShownRun, described: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Text lens, logit lens and attention of each text; a problem in the place of what cannot be read.

    Raises:
        BadInput: no probe of any checkpoint reads a text.
    """
    kinds = {str(concept["name"]): concept.get("kind", "binary") for concept in shown.about.get("concepts", ())}
    binary = [concept for concept in described["concepts"] if kinds.get(concept) == "binary"]
    models, moments, data = models_of(shown), list(_moments(described)), dict[str, Any]()
    for text in texts:
        readings = {
            _address("texts", concept, text, *moment): _answer(
                read_typed_text, shown, models, LensRequest(text, concept, *moment)
            )
            for moment in moments
            for concept in binary
        }
        if readings and all("problem" in reading for reading in readings.values()):
            raise BadInput(str(next(reversed(readings.values()))["problem"]))
        lenses = {_address("lens", text, *moment): _answer(lens_of_text, models, text, *moment) for moment in moments}
        data |= readings | lenses | _attention(shown, moments, text)
    return data


def _attention(shown: ShownRun, moments: Sequence[tuple[str, str]], text: str) -> dict[str, Any]:
    """Attention at every checkpoint; if that is too much, at the ends of the stages."""
    models = models_of(shown)
    ends = [moment for moment, after in zip(moments, [*moments[1:], ("", "")], strict=True) if moment[0] != after[0]]
    last = _answer(attention_of_text, shown, models, text, *moments[-1])
    numbers = sum(3 * len(links) + 6 * len(last["tokens"]) for heads in last.get("links", ()) for links in heads)
    chosen = moments if numbers * len(moments) <= _MOST_NUMBERS else ends
    return {
        _address("attention", text, *moment): _answer(attention_of_text, shown, models, text, *moment)
        for moment in chosen
    }


def _answer(read: Callable[..., dict[str, Any]], *asked: Any) -> dict[str, Any]:
    """An answer, or the problem: a deleted checkpoint, a text of one token, a family that computes attention in its own way."""
    try:
        return read(*asked)
    except (BadInput, OSError) as error:
        return {"problem": str(error)}


def chat_answers(
    shown: ShownRun, described: Mapping[str, Any], chats: Sequence[Sequence[str]], options: ChatOptions
) -> dict[str, Any]:
    """Cards, answers and controls of each chat at every checkpoint, plain and with each gauge of the default held at each class.

    Raises:
        BadInput: a chat cannot be held at the last checkpoint; at an earlier one the page says why.
    """
    models, data, moments = models_of(shown), dict[str, Any](), list(_moments(described))
    for stage, step in reversed(moments):
        cards = gauge_cards(shown, [shown], options, stage, step)
        named = {card["concept"]: card for card in cards["gauges"]}
        on = tuple(cards["default"])
        data[f"chat/gauges?stage={_component(stage)}&step={_component(step)}&version="] = cards
        holds = [
            Pin(concept, towards, hold=True)
            for concept in on
            if named[concept]["readable"] and named[concept]["control_site"]
            for towards in range(len(named[concept]["classes"]))
        ]
        for turns in chats:
            controls: dict[str, Any] = {}
            for pins in [(), *((pin,) for pin in holds)]:
                request = ChatRequest(tuple(turns), stage, step, on, pins, tokens=_TOKENS)
                held = [f"{pin.concept}={pin.towards}" for pin in pins]
                try:
                    answer = hold_chat(shown, models, options, request)
                    if not pins:
                        read = read_controls(shown, models, options, request)["gauges"]
                        controls = {one["concept"]: one for one in read}
                    answer["controls"] = controls
                except BadInput as error:
                    if (stage, step) == moments[-1] and not pins:
                        raise
                    answer = {"problem": str(error)}
                data[_address("chat/chat", *turns, stage, step, *held)] = answer
    return data


def _moments(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for moment in described["checkpoints"]:
        yield moment["stage"], step_text(moment["step"])


def _address(name: str, *parts: str) -> str:
    """As dashboard.js makes it from the body of a request."""
    return "\n".join([name, *parts])


def _component(text: str) -> str:
    """As encodeURIComponent of a browser writes it."""
    return quote(text, safe="!~*'()")

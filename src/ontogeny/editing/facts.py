"""Facts to edit, as tokens: a prompt in several contexts, the token that is edited, and the tokens of the new object."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.positions import tokens_in_span
from ontogeny.data.tokenization import encode_answers, encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model


@dataclass(frozen=True)
class FactEdit:
    """A fact to change."""

    prompt: str
    """Text before the object."""
    answer: str
    """The new object as it continues the prompt, with its space."""
    subject: str = ""
    """Part of the prompt at whose last token the weights are edited; empty: the last token of the prompt."""


@dataclass(frozen=True, eq=False)
class TokenizedFact:
    """A fact after each of its prefixes."""

    fact: FactEdit
    rows: tuple[Int[Tensor, " token"], ...]
    """Prefix, prompt and object."""
    places: tuple[int, ...]
    """Index of the edited token of each row."""
    starts: tuple[int, ...]
    """Index of the first token of the object."""

    def prompts(self) -> list[Int[Tensor, " token"]]:
        """The rows without the object."""
        return [row[:start] for row, start in zip(self.rows, self.starts, strict=True)]


def tokenize_fact(model: Model, fact: FactEdit, prefixes: Sequence[str] = ()) -> TokenizedFact:
    """A fact alone and after each prefix, as tokens.

    Raises:
        BadInput: the subject is not in the prompt, the tokens of prompt and object merge, the tokenizer does not know a word, or a row is
            longer than the context.
    """
    at = fact.prompt.rfind(fact.subject) if fact.subject else 0
    if at < 0:
        raise BadInput(
            f"`subject` must be a part of the prompt {fact.prompt!r}, got {fact.subject!r}: write it as it is there."
        )
    if fact.subject and not fact.subject.strip():
        raise BadInput(
            f"`subject` must have a word, got {fact.subject!r}: leave it empty for the last token of the prompt."
        )
    if not fact.prompt.strip():
        raise BadInput(
            f"`prompt` must be the text before the object, got {fact.prompt!r}: write a sentence without its end."
        )
    end = at + len(fact.subject) if fact.subject else len(fact.prompt)
    before = ["", *(f"{prefix.rstrip()} " for prefix in dict.fromkeys(prefixes) if prefix.strip())]
    texts = [f"{prefix}{fact.prompt}" for prefix in before]
    answers = encode_answers(model.tokenizer, [(text, fact.answer) for text in texts])
    encodings = encode_texts(model.tokenizer, texts, [None] * len(texts))
    rows, places, starts = [], [], []
    for prefix, text, (ids, _, start), encoding in zip(before, texts, answers, encodings, strict=True):
        last = int((~encoding.special).nonzero()[-1]) + 1
        if last > start or not torch.equal(ids[:start], encoding.ids[:start]):
            raise BadInput(
                f"the tokens of the prompt {text[-60:]!r} and of the object {fact.answer!r} must not merge: begin the object with a space, "
                "or end the prompt before one."
            )
        if len(ids) > model.context:
            raise BadInput(
                f"a prefix, the prompt and the object must have at most {model.context} tokens, got {len(ids)}: shorten {text[:60]!r}, or "
                "take fewer `prefixes`."
            )
        first = len(prefix) + at if fact.subject else len(prefix)
        inside = tokens_in_span(encoding.offsets, first, len(prefix) + end) & ~encoding.special
        if not inside.any():
            raise BadInput(f"`subject` must have a token of its own, got {fact.subject!r} in {fact.prompt!r}.")
        place = int(inside.nonzero()[-1])
        _check_known(model, fact, ids, place, start)
        rows.append(ids)
        places.append(place)
        starts.append(start)
    return TokenizedFact(fact, tuple(rows), tuple(places), tuple(starts))


def _check_known(model: Model, fact: FactEdit, ids: Int[Tensor, " token"], place: int, start: int) -> None:
    """Raise BadInput if the tokenizer has no word for the edited token or for the object."""
    unknown = model.tokenizer.unk_token_id
    if unknown is None:
        return
    if bool((ids[start:] == unknown).any()):
        raise BadInput(
            f"the new object must be of words that the tokenizer knows, got {fact.answer!r}: choose another one."
        )
    if int(ids[place]) == unknown:
        raise BadInput(
            f"the edited token must be one that the tokenizer knows, got an unknown word in {(fact.subject or fact.prompt)!r}: write it "
            "otherwise."
        )


def check_reaches_object(model: Model, fact: TokenizedFact, layer: int) -> None:
    """Raise if the object cannot depend on the edited token at this layer: no attention follows the last block."""
    if layer < model.layers:
        return
    below = f"edit a layer below {model.layers}" if model.layers > 1 else "take a model of several blocks"
    if any(place < start - 1 for place, start in zip(fact.places, fact.starts, strict=True)):
        raise BadInput(
            f"an edit in the last block acts on the last token of the prompt only, got the subject {fact.fact.subject!r} before it: "
            f"{below}, or leave `subject` empty."
        )
    if (tokens := len(fact.rows[0]) - fact.starts[0]) > 1:
        raise BadInput(
            f"an edit in the last block acts on the next token only, got the object {fact.fact.answer!r} of {tokens} tokens: {below}."
        )

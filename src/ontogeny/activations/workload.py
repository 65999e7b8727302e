"""Workload of several concepts: tokenise their texts and questions, and run each distinct token sequence once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ontogeny.activations.batching import ActivationRead, ScoredAnswer, Workload
from ontogeny.data.concept import Concept
from ontogeny.data.positions import Encoding, Position
from ontogeny.data.templates import Template, template_name, template_of
from ontogeny.data.tokenization import encode_answers, encode_texts
from ontogeny.errors import BadInput

_CHUNK = 4096
"""Texts that are tokenised at once: their encodings take ten times as much memory as the workload."""


@dataclass(frozen=True, eq=False)
class ConceptRows:
    """Indices of a concept's examples and answers in a capture result."""

    reads: Int[Tensor, " example"]
    sequences: Int[Tensor, " example"]
    right: Int[Tensor, " answer"]
    wrong: Int[Tensor, " answer"]
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Number of `texts` and `prompts` truncated to the context."""
    template: str = "none"
    """Name of the template of this model that the texts are in."""


def build_workload(
    concepts: Sequence[Concept], tokenizer: PreTrainedTokenizerBase, context: int, *, truncate: bool = False
) -> tuple[Workload, Mapping[str, ConceptRows]]:
    """The workload of several concepts, and each concept's rows in it.

    Args:
        context: Maximum length in tokens.
        truncate: Whether to truncate texts and prompts that are longer, from the left.

    Raises:
        BadInput: a text or question exceeds the context (without `truncate`), is empty, or lacks the read position.
    """
    builder = _Builder(tokenizer, context, truncate)
    rows = {}
    for concept in concepts:
        lengths: list[int] = []
        places: list[tuple[int, int]] = []
        template = template_of(tokenizer, concept.template)
        for at in range(0, len(concept.examples), _CHUNK):
            examples = concept.examples[at : at + _CHUNK]
            encodings = encode_texts(
                tokenizer,
                [e.text for e in examples],
                [e.span for e in examples],
                template=template,
                chats=[e.chat for e in examples],
            )
            lengths += [len(encoding.ids) for encoding in encodings]
            if truncate:
                encodings = [_truncate(encoding, context) for encoding in encodings]
            places += builder.reads(encodings, concept.position)
        long = sum(length > context for length in lengths) if truncate else 0
        if not truncate:
            _check_length(concept.name, lengths, context)
        before = builder.truncated
        answers = [builder.question(concept, a.prompt, (a.right, a.wrong)) for a in concept.answers]
        rows[concept.name] = ConceptRows(
            reads=torch.tensor([read for read, _ in places]),
            sequences=torch.tensor([sequence for _, sequence in places]),
            right=torch.tensor([right for right, _ in answers], dtype=torch.long),
            wrong=torch.tensor([wrong for _, wrong in answers], dtype=torch.long),
            truncated={"texts": long, "prompts": builder.truncated - before},
            template=template_name(tokenizer, concept.template),
        )
    return builder.workload(), rows


def text_workload(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    position: Position,
    *,
    truncate: bool = False,
    template: Template = False,
) -> tuple[Workload, Int[Tensor, " text"], Int[Tensor, " text"]]:
    """The workload of texts without labels, with the read and the sequence of each text.

    Raises:
        BadInput: as `build_workload`.
    """
    builder = _Builder(tokenizer, context, truncate)
    template = template_of(tokenizer, template)
    encodings = encode_texts(tokenizer, texts, [None] * len(texts), template=template)
    if truncate:
        encodings = [_truncate(encoding, context) for encoding in encodings]
    else:
        _check_length("the list", [len(encoding.ids) for encoding in encodings], context)
    places = builder.reads(encodings, position)
    reads, sequences = (torch.tensor(column) for column in zip(*places, strict=True))
    return builder.workload(), reads, sequences


def _check_length(name: str, lengths: Sequence[int], context: int) -> None:
    long = [length for length in lengths if length > context]
    if long:
        raise BadInput(
            f"{len(long)} of {len(lengths)} texts of {name} are longer than the context of {context} tokens "
            f"(the longest has {max(long)}): shorten them, or set `truncate` to keep their last {context} tokens."
        )


def _truncate(encoding: Encoding, context: int) -> Encoding:
    """Keep the leading special tokens and as many of the last tokens as fit."""
    excess = len(encoding.ids) - context
    if excess <= 0:
        return encoding
    head = int((~encoding.special).nonzero()[0]) if not encoding.special.all() else 0
    keep = torch.cat([torch.arange(head), torch.arange(head + excess, len(encoding.ids))])
    end = encoding.instruction_end
    return replace(
        encoding,
        ids=encoding.ids[keep],
        offsets=encoding.offsets[keep],
        special=encoding.special[keep],
        instruction_start=max(head, encoding.instruction_start - excess),
        instruction_end=None if end is None else max(head, end - excess),
    )


class _Builder:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int, truncate: bool) -> None:
        self.tokenizer, self.context, self.truncate = tokenizer, context, truncate
        self.truncated = 0
        self.sequences: dict[tuple[int, ...], int] = {}
        self.content: list[Float[Tensor, " token"]] = []
        self._reads: dict[tuple[int, bytes], int] = {}
        self.weights: list[ActivationRead] = []
        self.scored: dict[tuple[int, int], int] = {}
        self._vectors: dict[bytes, Float[Tensor, " token"]] = {}
        self._content_of: dict[bytes, Float[Tensor, " token"]] = {}

    def _shared(self, vector: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
        """The first vector with these numbers: texts of one length mostly have the same, and a small tensor takes 600 bytes."""
        return self._vectors.setdefault(vector.numpy().tobytes(), vector)

    def sequence(self, ids: Int[Tensor, " token"], special: Bool[Tensor, " token"]) -> int:
        key = tuple(ids.tolist())
        if key not in self.sequences:
            self.sequences[key] = len(self.sequences)
            marks = special.numpy().tobytes()
            if marks not in self._content_of:
                plain = torch.ones(len(key)) if special.all() else (~special).float()
                self._content_of[marks] = self._shared(plain / plain.sum())
            self.content.append(self._content_of[marks])
        return self.sequences[key]

    def reads(self, encodings: Sequence[Encoding], position: Position) -> list[tuple[int, int]]:
        """The read and the sequence of each encoding."""
        weights_of_all = position.weights_of_all(encodings)
        return [self._read(one, weights) for one, weights in zip(encodings, weights_of_all, strict=True)]

    def _read(self, encoding: Encoding, weights: Float[Tensor, " token"]) -> tuple[int, int]:
        place = self.sequence(encoding.ids, encoding.special)
        key = (place, weights.numpy().tobytes())
        if key not in self._reads:
            self._reads[key] = len(self.weights)
            self.weights.append(ActivationRead(place, self._shared(weights)))
        return self._reads[key], place

    def question(self, concept: Concept, prompt: str, answers: tuple[str, str]) -> tuple[int, int]:
        """Both answers after one prompt; if one is too long, the prompt is truncated from the left for both."""
        template = template_of(self.tokenizer, concept.template)
        right, wrong = encode_answers(
            self.tokenizer, [(prompt, text) for text in answers], concept=concept.name, template=template
        )
        longest = max(len(right[0]), len(wrong[0]))
        excess = longest - self.context
        if excess > 0 and not self.truncate:
            raise BadInput(
                f"a question of {concept.name} has {longest} tokens, more than the context of {self.context}: shorten it, or set "
                "`truncate` to drop the beginning of its prompt."
            )
        self.truncated += excess > 0
        return self._answer(concept.name, right, excess), self._answer(concept.name, wrong, excess)

    def _answer(self, concept: str, tokens: tuple[Tensor, Tensor, int], excess: int) -> int:
        ids, special, start = tokens
        if excess > 0:
            head = int((~special).nonzero()[0])
            if start - head <= excess:
                raise BadInput(
                    f"an answer of {concept} alone fills the context of {self.context} tokens: shorten the answer."
                )
            keep = torch.cat([torch.arange(head), torch.arange(head + excess, len(ids))])
            ids, special, start = ids[keep], special[keep], start - excess
        key = (self.sequence(ids, special), start)
        return self.scored.setdefault(key, len(self.scored))

    def workload(self) -> Workload:
        return Workload(
            sequences=tuple(self.sequences),
            reads=tuple(self.weights),
            scored=tuple(ScoredAnswer(sequence, start) for sequence, start in self.scored),
            content=tuple(self.content),
        )

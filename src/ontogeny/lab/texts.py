"""From concepts to a workload: tokenise once, give each distinct sequence one place, remember whose rows are whose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.capture import Read, Scored, Workload
from ontogeny.position import Encoding


@dataclass(frozen=True)
class Rows:
    """Where a concept's rows are in what was captured."""

    reads: Int[Tensor, " example"]
    sequences: Int[Tensor, " example"]
    right: Int[Tensor, " answer"]
    wrong: Int[Tensor, " answer"]


def workload(
    concepts: Sequence[Concept], tokenizer: PreTrainedTokenizerBase, context: int, *, truncate: bool = False
) -> tuple[Workload, Mapping[str, Rows]]:
    """What must be run for all concepts, and each concept's rows in it; a text shared by concepts is run once.

    Raises:
        BadInput: texts that exceed the context (unless `truncate`), or an empty text or position.
    """
    builder = _Builder()
    rows = {}
    for concept in concepts:
        encodings = [_cut(e, context) if truncate else e for e in encode(tokenizer, concept)]
        _check_length(concept, encodings, context)
        places = [builder.read(e, concept.position.weights(e)) for e in encodings]
        answers = [
            builder.answer(tokenizer, concept, a.prompt, text, context)
            for a in concept.answers
            for text in (a.right, a.wrong)
        ]
        rows[concept.name] = Rows(
            reads=torch.tensor([read for read, _ in places]),
            sequences=torch.tensor([sequence for _, sequence in places]),
            right=torch.tensor(answers[0::2], dtype=torch.long),
            wrong=torch.tensor(answers[1::2], dtype=torch.long),
        )
    return builder.workload(), rows


def encode(tokenizer: PreTrainedTokenizerBase, concept: Concept) -> list[Encoding]:
    """Token ids, offsets and marks of each example, with the tokenizer's own special tokens and, if asked for, its chat template."""
    texts = [example.text for example in concept.examples]
    shown = [_as_chat(tokenizer, text) for text in texts] if concept.template else texts
    coded = _tokenise(tokenizer, shown, special=not concept.template)
    encodings = []
    for example, text, (ids, offsets, special) in zip(concept.examples, shown, coded, strict=True):
        start = text.find(example.text) if concept.template else 0
        span = (example.span[0] + start, example.span[1] + start) if example.span else None
        end = start + len(example.text) if concept.template else None
        encodings.append(Encoding(ids=ids, offsets=offsets, special=special, text=text, span=span, instruction_end=end))
    return encodings


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool
) -> list[tuple[tuple[int, ...], Int[Tensor, "token 2"], Tensor]]:
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} tells no character offsets. Save it as a fast one (tokenizer.json)."
        )
    coded = tokenizer(
        list(texts),
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    return [
        (tuple(ids), torch.tensor(offsets).view(-1, 2), torch.tensor(marks, dtype=torch.bool))
        for ids, offsets, marks in zip(
            coded["input_ids"], coded["offset_mapping"], coded["special_tokens_mask"], strict=True
        )
    ]


def _as_chat(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    if not tokenizer.chat_template:
        raise BadInput(
            "this tokenizer has no chat template. Leave the template out, or name a tokenizer that has one with --tokenizer."
        )
    shown: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return shown


def _check_length(concept: Concept, encodings: Sequence[Encoding], context: int) -> None:
    long = [len(e.ids) for e in encodings if len(e.ids) > context]
    if long:
        raise BadInput(
            f"{len(long)} of {len(encodings)} texts of {concept.name} are longer than the context of {context} tokens "
            f"(the longest has {max(long)}). Shorten them, or pass --truncate to keep their last {context} tokens."
        )


def _cut(encoding: Encoding, context: int) -> Encoding:
    """The last tokens that fit, behind the special tokens the text began with."""
    if len(encoding.ids) <= context:
        return encoding
    head = 0
    while head < len(encoding.ids) and bool(encoding.special[head]):
        head += 1
    keep = [*range(head), *range(len(encoding.ids) - (context - head), len(encoding.ids))]
    return Encoding(
        ids=tuple(encoding.ids[i] for i in keep),
        offsets=encoding.offsets[keep],
        special=encoding.special[keep],
        text=encoding.text,
        span=encoding.span,
        instruction_end=encoding.instruction_end,
    )


class _Builder:
    def __init__(self) -> None:
        self.sequences: dict[tuple[int, ...], int] = {}
        self.content: list[Float[Tensor, " token"]] = []
        self.reads: dict[tuple[int, bytes], int] = {}
        self.weights: list[Read] = []
        self.scored: dict[tuple[int, int], int] = {}

    def sequence(self, ids: tuple[int, ...], special: Tensor) -> int:
        if ids not in self.sequences:
            self.sequences[ids] = len(self.sequences)
            plain = (~special).float()
            self.content.append(plain / plain.sum() if plain.any() else torch.full((len(ids),), 1 / len(ids)))
        return self.sequences[ids]

    def read(self, encoding: Encoding, weights: Float[Tensor, " token"]) -> tuple[int, int]:
        place = self.sequence(tuple(encoding.ids), encoding.special)
        key = (place, weights.numpy().tobytes())
        if key not in self.reads:
            self.reads[key] = len(self.weights)
            self.weights.append(Read(place, weights))
        return self.reads[key], place

    def answer(
        self, tokenizer: PreTrainedTokenizerBase, concept: Concept, prompt: str, answer: str, context: int
    ) -> int:
        """The answer behind its prompt, tokenised together: its tokens are those that end behind the prompt."""
        ((ids, offsets, special),) = _tokenise(tokenizer, [prompt + answer], special=True)
        mine = (offsets[:, 1] > len(prompt)) & ~special
        if not mine.any() or not answer.strip():
            raise BadInput(
                f"{concept.name} has an answer without tokens ({answer!r} behind {prompt[:60]!r}). Give each row a right and a wrong answer."
            )
        if len(ids) > context:
            raise BadInput(f"a question of {concept.name} has {len(ids)} tokens, the context {context}. Shorten it.")
        last = int(mine.nonzero()[-1])
        start = int(mine.nonzero()[0])
        if start == 0:
            raise BadInput(
                f"{concept.name} has an answer without a prompt before it ({answer!r}). Give each row a prompt."
            )
        # Special tokens the tokenizer puts at the end (an EOS, say) are no part of the answer.
        key = (self.sequence(ids[: last + 1], special[: last + 1]), start)
        return self.scored.setdefault(key, len(self.scored))

    def workload(self) -> Workload:
        return Workload(
            sequences=tuple(self.sequences),
            reads=tuple(self.weights),
            scored=tuple(Scored(sequence, start) for sequence, start in self.scored),
            content=tuple(self.content),
        )

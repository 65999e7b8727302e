"""From concepts to a workload: tokenise once, give each distinct sequence one place, remember whose rows are whose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ontogeny.concept import Concept
from ontogeny.encoding import encode, encode_all
from ontogeny.errors import BadInput
from ontogeny.lab.passes import Read, Scored, Workload
from ontogeny.position import Encoding


@dataclass(frozen=True, eq=False)
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
        BadInput: texts that exceed the context (unless `truncate`), an empty text, or a position that is not there.
    """
    builder = _Builder(tokenizer, context)
    rows = {}
    for concept in concepts:
        encodings = encode_all(tokenizer, concept.texts, [e.span for e in concept.examples], template=concept.template)
        if truncate:
            encodings = [_cut(encoding, context) for encoding in encodings]
        _check_length(concept, encodings, context)
        places = [builder.read(encoding, concept.position.weights(encoding)) for encoding in encodings]
        answers = [builder.answer(concept.name, a.prompt, text) for a in concept.answers for text in (a.right, a.wrong)]
        rows[concept.name] = Rows(
            reads=torch.tensor([read for read, _ in places]),
            sequences=torch.tensor([sequence for _, sequence in places]),
            right=torch.tensor(answers[0::2], dtype=torch.long),
            wrong=torch.tensor(answers[1::2], dtype=torch.long),
        )
    return builder.workload(), rows


def _check_length(concept: Concept, encodings: Sequence[Encoding], context: int) -> None:
    long = [len(e.ids) for e in encodings if len(e.ids) > context]
    if long:
        raise BadInput(
            f"{len(long)} of {len(encodings)} texts of {concept.name} are longer than the context of {context} tokens "
            f"(the longest has {max(long)}). Shorten them, or pass --truncate to keep their last {context} tokens."
        )


def _cut(encoding: Encoding, context: int) -> Encoding:
    """The last tokens that fit, behind the special tokens the text began with."""
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
    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.sequences: dict[tuple[int, ...], int] = {}
        self.content: list[Float[Tensor, " token"]] = []
        self.reads: dict[tuple[int, bytes], int] = {}
        self.weights: list[Read] = []
        self.scored: dict[tuple[int, int], int] = {}

    def sequence(self, ids: Int[Tensor, " token"], special: Bool[Tensor, " token"]) -> int:
        key = tuple(ids.tolist())
        if key not in self.sequences:
            self.sequences[key] = len(self.sequences)
            plain = torch.ones(len(key)) if special.all() else (~special).float()
            self.content.append(plain / plain.sum())
        return self.sequences[key]

    def read(self, encoding: Encoding, weights: Float[Tensor, " token"]) -> tuple[int, int]:
        place = self.sequence(encoding.ids, encoding.special)
        key = (place, weights.numpy().tobytes())
        if key not in self.reads:
            self.reads[key] = len(self.weights)
            self.weights.append(Read(place, weights))
        return self.reads[key], place

    def answer(self, concept: str, prompt: str, answer: str) -> int:
        """The answer behind its prompt, tokenised together: its tokens are those that end behind the prompt."""
        encoding = encode(self.tokenizer, prompt + answer)
        mine = ((encoding.offsets[:, 1] > len(prompt)) & ~encoding.special).nonzero().flatten().tolist()
        if not mine or not answer.strip():
            raise BadInput(
                f"{concept} has an answer without tokens: {answer!r} behind {prompt[:60]!r}. Give a right and a wrong answer."
            )
        if mine[0] == 0:
            raise BadInput(f"{concept} has an answer without a prompt before it ({answer!r}). Give each row a prompt.")
        if len(encoding.ids) > self.context:
            raise BadInput(
                f"a question of {concept} has {len(encoding.ids)} tokens, the context {self.context}. Shorten it."
            )
        # Special tokens that the tokenizer puts at the end (an EOS, say) are no part of the answer.
        upto = mine[-1] + 1
        key = (self.sequence(encoding.ids[:upto], encoding.special[:upto]), mine[0])
        return self.scored.setdefault(key, len(self.scored))

    def workload(self) -> Workload:
        return Workload(
            sequences=tuple(self.sequences),
            reads=tuple(self.weights),
            scored=tuple(Scored(sequence, start) for sequence, start in self.scored),
            content=tuple(self.content),
        )

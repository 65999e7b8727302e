"""Instructions, how they are put to a model, and the tokens behind them at which an answer begins.

Two stages are compared on one template and one position, or one compares templates: released pairs of refusal directions differ in both
(arXiv:2504.02904), and part of what looks like training is that.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model


@dataclass(frozen=True)
class Instruction:
    """What a user asks."""

    text: str
    group: str
    """Instructions of one group never stand on both sides of a split."""


def as_instructions(given: Sequence["str | Instruction"]) -> list[Instruction]:
    """Bare texts as instructions, each its own group."""
    return [one if isinstance(one, Instruction) else Instruction(one, one) for one in given]


def instructions_from_concept(concept: Concept) -> tuple[list[Instruction], list[Instruction]]:
    """The harmful (positive) and the harmless texts of a binary concept, with its groups.

    Raises:
        BadInput: another kind of concept.
    """
    if concept.kind != "binary":
        raise BadInput(
            f"{concept.name} has {concept.kind} for a target; harmful or not takes a binary concept. Give one."
        )
    sides = (
        [Instruction(e.text, e.group) for e in concept.examples if bool(e.target) is harmful]
        for harmful in (True, False)
    )
    harmful, harmless = sides
    return harmful, harmless


@dataclass(frozen=True)
class InstructionSplit:
    """One part of the instructions."""

    harmful: tuple[Instruction, ...]
    harmless: tuple[Instruction, ...]


def split_groups(
    harmful: Sequence[Instruction], harmless: Sequence[Instruction], *, most: tuple[int, int, int], seed: int
) -> tuple[InstructionSplit, InstructionSplit, InstructionSplit]:
    """For the direction, for the choice of a layer, and for the test: whole groups, 2 : 1 : 2, at most so many of a side.

    Raises:
        BadInput: too few groups of a side.
    """
    bad, good = ({one.group for one in side} for side in (harmful, harmless))
    of: dict[str, int] = {}
    # Groups of one side and groups of both are dealt out apart: no part goes without one.
    for groups in (bad & good, bad - good, good - bad):
        order = sorted(groups)
        random.Random(seed).shuffle(order)
        of |= {group: (0, 2, 1, 0, 2)[i % 5] for i, group in enumerate(order)}
    parts = []
    for number, limit in enumerate(most):
        sides = (tuple(one for one in side if of[one.group] == number)[:limit] for side in (harmful, harmless))
        parts.append(InstructionSplit(*sides))
    if any(len({one.group for one in side}) < 2 for part in parts for side in (part.harmful, part.harmless)):
        raise BadInput(
            f"{len(harmful)} harmful and {len(harmless)} harmless instructions in {len(bad | good)} groups do not fill three parts of two "
            "groups each. Give at least ten of each, in groups of their own."
        )
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True)
class PromptTemplate:
    """How instructions are put to a model."""

    template: str | None
    """A text with {} where the instruction goes; None for the chat template of the tokenizer."""
    before: str = " "
    """What stands between the template and an answer."""

    def __str__(self) -> str:
        return "chat template" if self.template is None else repr(self.template)

    def framed(self, text: str) -> str:
        """The text of an instruction in its frame.

        Raises:
            BadInput: the frame is a chat template, which only a tokenizer knows.
        """
        if self.template is None:
            raise BadInput(
                "a chat template has its own special tokens and is generated from nowhere here. Give a template in words."
            )
        return self.template.replace("{}", text)

    def tokens(self, model: Model, texts: Sequence[str], answer: str = "") -> list[Int[Tensor, " token"]]:
        """Each instruction in its frame, and the answer begun behind it."""
        return [ids for ids, _ in self._made(model, texts, answer)]

    def _made(self, model: Model, texts: Sequence[str], answer: str) -> list[tuple[Int[Tensor, " token"], int]]:
        if self.template is None:
            framed = [e.text for e in encode_texts(model.tokenizer, texts, [None] * len(texts), template=True)]
        else:
            framed = [self.framed(text) for text in texts]
        made = model.tokenizer(
            [text + (self.before + answer if answer else "") for text in framed],
            add_special_tokens=self.template is not None,  # a rendered chat template holds its own
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        found = []
        for text, ids, offsets, special in zip(
            framed, made["input_ids"], made["offset_mapping"], made["special_tokens_mask"], strict=True
        ):
            behind = [i for i, (_, end) in enumerate(offsets) if end > len(text) and not special[i]]
            # What a tokenizer puts at the end, an EOS say, would end the text before the answer.
            upto = len(ids) - next((i for i, s in enumerate(reversed(special)) if not s), 0)
            found.append((torch.tensor(ids[:upto]), behind[0] if behind else upto))
        return found

    def asked(self, model: Model, texts: Sequence[str], phrases: Sequence[str]) -> tuple[list[Tensor], list[list[int]]]:
        """The tokens of each instruction in its frame, and the tokens with which one of the phrases would begin behind it.

        Raises:
            BadInput: no phrases, or an instruction that leaves no room.
        """
        if not phrases:
            raise BadInput("a refusal is told by its phrases, and none was given. Give some, such as 'I cannot'.")
        each = [self._made(model, texts, phrase) for phrase in phrases]
        prompts, first = [], []
        for i, text in enumerate(texts):
            ids, start = each[0][i]
            if start == 0 or start >= model.context:
                raise BadInput(
                    f"an instruction has {start} tokens, the context {model.context}: {text[:60]!r}. Change it."
                )
            prompts.append(ids[:start])
            first.append(sorted({int(one[i][0][one[i][1]]) for one in each}))
        return prompts, first


def template_of_stage(model: Model, stage: str, own: Mapping[str, str], shared: PromptTemplate) -> PromptTemplate:
    """The frame a stage was made with: as told, else its tokenizer's chat template, else that of all."""
    if stage in own:
        return PromptTemplate(own[stage], shared.before)
    return PromptTemplate(None, "") if model.tokenizer.chat_template else shared


def count_post_instruction_tokens(rows: Sequence[Int[Tensor, " token"]], *, most: int) -> int:
    """Tokens at the end that all instructions share, what the template puts behind them; at least 1, at most `most`."""
    same = 0
    while same < min(most, *(len(row) for row in rows)) and len({int(row[-1 - same]) for row in rows}) == 1:
        same += 1
    return max(1, same)

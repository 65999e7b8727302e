"""Instructions in a template as prompts, the first tokens of refusals after them, and their likelihood (arXiv:2406.11717)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.examples import Example
from ontogeny.data.templates import Template, is_chat_template, template_of
from ontogeny.data.tokenization import encode_answers, encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig, generate
from ontogeny.steering.refusal_score import first_token_log_odds, next_token_log_probs, refusal_phrase_scores
from ontogeny.steering.steer import Edits


@dataclass(frozen=True)
class PromptTemplate:
    """Template that an instruction is put into."""

    template: Template
    separator: str = " "
    """Text between an instruction and an answer, where no chat template writes it."""

    @classmethod
    def of_stage(cls, model: Model, template: Template, separator: str = " ") -> "PromptTemplate":
        """The template as one stage uses it: bare in place of its own if it has none."""
        return cls(template_of(model.tokenizer, template), separator)

    def __str__(self) -> str:
        if self.template is True:
            return "chat template"
        return repr(self.template or "{}")

    def tokens(self, model: Model, texts: Sequence[str]) -> list[Int[Tensor, " token"]]:
        """Token ids of each instruction in the template, without tokens such as EOS that the tokenizer adds at the end."""
        encodings = encode_texts(model.tokenizer, texts, [None] * len(texts), template=self.template)
        return [e.ids[: int((e.offsets[:, 1] > 0).nonzero()[-1]) + 1] for e in encodings]

    def with_first_tokens(
        self, model: Model, texts: Sequence[str], phrases: Sequence[str]
    ) -> tuple[list[Int[Tensor, " token"]], list[list[int]]]:
        """Token ids of each instruction in the template, and the first tokens of the phrases after it.

        Raises:
            BadInput: no phrases, or an instruction that is empty or exceeds the context.
        """
        if not phrases:
            raise BadInput(
                "`phrases` must name at least one beginning of a refusal, got none: give one, such as 'I cannot'."
            )
        in_turns = self.template is True or (self.template and is_chat_template(self.template))
        before = "" if in_turns else self.separator
        pairs = [(text, before + phrase) for text in texts for phrase in phrases]
        rows = encode_answers(model.tokenizer, pairs, template=self.template)
        prompts, first = [], []
        for i, text in enumerate(texts):
            answered = rows[i * len(phrases) : (i + 1) * len(phrases)]
            ids, _, start = answered[0]
            if start >= model.context:
                raise BadInput(
                    f"an instruction must have 1 to {model.context - 1} tokens, got {start}: change {text[:60]!r}."
                )
            prompts.append(ids[:start])
            first.append(sorted({int(ids[start]) for ids, _, start in answered}))
        return prompts, first


@dataclass(frozen=True, eq=False)
class RefusalPrompts:
    """Instructions as prompts of one model, and the first tokens of refusals after each."""

    model: Model
    template: PromptTemplate
    texts: tuple[str, ...]
    ids: list[Int[Tensor, " token"]]
    first: list[list[int]]
    phrases: Sequence[str]

    @classmethod
    def of(
        cls, model: Model, template: PromptTemplate, instructions: Sequence[Example], phrases: Sequence[str]
    ) -> "RefusalPrompts":
        texts = tuple(e.text for e in instructions)
        return cls(model, template, texts, *template.with_first_tokens(model, texts, phrases), phrases)

    def log_odds(self, edits: Edits = (), *, batch: int = 64) -> Float[Tensor, " prompt"]:
        """Log-odds that the next token begins a refusal."""
        return first_token_log_odds(self.model, self.ids, self.first, edits, batch=batch)

    def log_probs(self, edits: Edits = ()) -> Float[Tensor, "prompt vocabulary"]:
        """Log-probabilities of the next token."""
        by_prompt = dict(next_token_log_probs(self.model, self.ids, edits))
        return torch.stack([by_prompt[i] for i in range(len(self.ids))])

    def refused(self, edits: Edits = (), *, tokens: int = 16) -> Float[Tensor, " prompt"]:
        """1 where the greedy continuation begins with a refusal phrase."""
        how, template = DecodingConfig(tokens=tokens, batch=64), self.template.template
        continuations = generate(self.model, self.texts, edits, how, template=template)
        return refusal_phrase_scores([of.text for (of,) in continuations], self.phrases)

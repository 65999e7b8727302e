"""Answers of a model to chats under a mitigation: sampled texts, and the log-likelihoods of given answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.mitigated_prompts import mitigated_prompts
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig, continuation_text, continue_ids
from ontogeny.steering.guidance import guided_logits
from ontogeny.steering.log_likelihood import TokenizedAnswer, answer_logits
from ontogeny.steering.steer import Edit


@dataclass(frozen=True, eq=False)
class ChatAnswer:
    """One answer."""

    text: str
    ids: Int[Tensor, " token"]
    """Without the end token."""
    prompt: Int[Tensor, " token"]


@torch.no_grad()
def answer_chats(
    model: Model,
    chats: Sequence[Chat],
    how: DecodingConfig,
    template: Template,
    mitigation: Mitigation = PLAIN,
    caps: Sequence[Edit] = (),
) -> list[list[ChatAnswer]]:
    """`how.samples` answers of the assistant to each chat; equal chats get different samples.

    Args:
        caps: Edits of `capping`.
    """
    places: dict[Chat, list[int]] = {}
    for place, chat in enumerate(chats):
        places.setdefault(chat, []).append(place)
    answers: dict[int, list[ChatAnswer]] = {}
    # Samples are drawn from the prompt and the sample's number, so equal chats share a prompt and take samples in turn.
    for count in sorted({len(same) for same in places.values()}):
        different = [chat for chat, same in places.items() if len(same) == count]
        many = how.samples * count if how.temperature > 0 else how.samples
        run = mitigated_prompts(model, different, mitigation, template, caps)
        decoding = replace(how, samples=many, batch=max(1, how.batch * how.samples // many))
        ids = [prompt.ids for prompt in run.prompts]
        drawn = continue_ids(model, ids, run.edits, decoding, against=run.against, guidance=run.scale)
        for chat, row, samples in zip(different, ids, drawn, strict=True):
            texts = [ChatAnswer(continuation_text(model, row, new).strip(), new, row) for new in samples]
            for number, place in enumerate(places[chat]):
                start = number * how.samples if how.temperature > 0 else 0
                answers[place] = texts[start : start + how.samples]
    return [answers[place] for place in range(len(chats))]


@torch.no_grad()
def answer_log_likelihoods(
    model: Model,
    chats: Sequence[Chat],
    answers: Sequence[str],
    template: Template,
    mitigation: Mitigation = PLAIN,
    caps: Sequence[Edit] = (),
    *,
    batch: int = 16,
) -> list[Float[Tensor, " token"]]:
    """The log-probability of each token of an answer of the assistant to each chat, nats; an answer begins with its own space."""
    run = mitigated_prompts(model, chats, mitigation, template, caps)
    endings = [torch.tensor(model.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers]

    def logits(prompts: Sequence[Tensor], edits: Sequence[Edit]) -> dict[int, Tensor]:
        rows = [TokenizedAnswer(torch.cat([p, e]), len(p)) for p, e in zip(prompts, endings, strict=True)]
        return {i: part.float().cpu() for i, part in answer_logits(model, rows, edits, batch=batch)}

    own = logits([prompt.ids for prompt in run.prompts], run.edits)
    other = logits(run.against, []) if run.against else own
    scores = [guided_logits(own[i], other[i], run.scale).log_softmax(-1) for i in range(len(chats))]
    return [score.gather(1, ending[:, None])[:, 0] for score, ending in zip(scores, endings, strict=True)]

"""Persona axis: how activations of answers under a system prompt differ from those without it, and the cap along it (arXiv:2601.10387).

The axis is the difference of the mean activations of first answers. A low cap at a quantile of the projections of those with the system
prompt raises later tokens that have drifted below it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.answers import ChatAnswer, answer_chats
from ontogeny.dialogues.instructions import Instruction
from ontogeny.dialogues.self_chat import DialogueSettings
from ontogeny.errors import BadInput
from ontogeny.interventions import Cap
from ontogeny.models.forward import forward_padded
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit

_CAPPED_DEPTH = 0.6
"""Share of the layers below the capped one."""


def capped_layer(model: Model) -> int:
    """The layer at whose output the axis is capped: six tenths of the depth."""
    return max(1, round(_CAPPED_DEPTH * model.layers))


def persona_caps(
    model: Model, instruction: Instruction, quantile: float, settings: DialogueSettings, template: Template
) -> list[Edit]:
    """The edits that keep the newest tokens on the persona axis of an instruction above a quantile of its first answers.

    Args:
        quantile: From 0 to below 1.

    Raises:
        BadInput: all answers are empty, or the system prompt changes nothing.
    """
    layer = capped_layer(model)
    questions = [*settings.openings, instruction.question]
    bare: list[Chat] = [(("user", question),) for question in questions]
    with_system: list[Chat] = [(("system", instruction.system), *chat) for chat in bare]
    means, projected = [], torch.empty(0)
    for chats in (bare, with_system):
        answers = [one for many in answer_chats(model, chats, settings.decoding(1), template) for one in many]
        states = _answer_states(model, [one for one in answers if len(one.ids)], layer, settings.batch)
        if not len(states):
            raise BadInput(
                f"the model answers nothing to {questions[0]!r}, so there is no persona axis: choose another mitigation."
            )
        means.append(states.mean(0))
        projected = states
    axis = means[1] - means[0]
    if float(axis.norm()) == 0:
        raise BadInput(
            f"{instruction.name} changes no activation of the answers, so there is no persona axis: choose another mitigation."
        )
    low = float((projected @ (axis / axis.norm())).quantile(quantile))
    return [Edit(Site("resid", layer), Cap.between(axis, low=low), "last")]


def _answer_states(model: Model, answers: Sequence[ChatAnswer], layer: int, batch: int) -> Float[Tensor, "token d"]:
    """The residual stream at the tokens of all answers."""
    rows = [torch.cat([one.prompt, one.ids]) for one in answers]
    states: list[Tensor] = []
    seen: list[Tensor] = []
    with read_hooks(model, [("resid", layer)], lambda part, at, value: seen.append(value)):
        for places, _ in forward_padded(model, rows, batch=batch, body=True):
            value = seen.pop()
            states += [value[row, len(answers[i].prompt) : len(rows[i])].float().cpu() for row, i in enumerate(places)]
    return torch.cat(states) if states else torch.empty(0, model.d)

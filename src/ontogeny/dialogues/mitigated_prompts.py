"""Prompts under a mitigation: the turns that it changes, the edits that it makes, the other prompts that it guides away from."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.mitigations import Mitigation
from ontogeny.dialogues.prompts import ChatPrompt, chat_prompts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edit, split_softmax_everywhere


def repeat_system_prompt(chat: Chat, period: int) -> Chat:
    """The chat whose every `period`-th user turn, counted from the last, begins with the system prompt; 0 repeats nothing."""
    system = next((content for role, content in chat if role == "system"), None)
    if not period or system is None:
        return chat
    turns, users = [], 0
    for role, content in reversed(chat):
        repeated = role == "user" and users % period == 0
        users += role == "user"
        turns.append((role, f"{system}\n\n{content}" if repeated else content))
    return tuple(reversed(turns))


def mitigated_chats(chats: Sequence[Chat], mitigation: Mitigation) -> list[Chat]:
    """The chats with the turns that a mitigation changes: repetition does."""
    period = int(mitigation.strength) if mitigation.kind == "repetition" else 0
    return [repeat_system_prompt(chat, period) for chat in chats]


@dataclass(frozen=True, eq=False)
class MitigatedPrompts:
    """Prompts under a mitigation: what is run, with which edits, and against which other prompts."""

    prompts: list[ChatPrompt]
    edits: list[Edit]
    against: list[Int[Tensor, " token"]]
    """Of guidance; empty without it."""
    scale: float


def mitigated_prompts(
    model: Model,
    chats: Sequence[Chat],
    mitigation: Mitigation,
    template: Template,
    caps: Sequence[Edit] = (),
) -> MitigatedPrompts:
    """The chats as prompts under a mitigation.

    Args:
        caps: Of `capping`: the edits that cap, see `persona_axis`.

    Raises:
        BadInput: capping without edits that cap.
    """
    kind, strength = mitigation.kind, mitigation.strength
    chats = mitigated_chats(chats, mitigation)
    prompts = chat_prompts(model, chats, template)
    edits: list[Edit] = []
    against: list[Tensor] = []
    if mitigation.is_noop:
        return MitigatedPrompts(prompts, edits, against, 1.0)
    if kind == "split_softmax":
        edits = split_softmax_everywhere(model, strength, [prompt.system for prompt in prompts])
    elif kind == "guidance":
        bare = [tuple(turn for turn in chat if turn[0] != "system") for chat in chats]
        against = [prompt.ids for prompt in chat_prompts(model, bare, template)]
    elif kind == "capping":
        if not caps:
            raise BadInput("capping needs the edits that cap, got none: fit a persona axis first.")
        edits = list(caps)
    if mitigation.control is not None:
        edits = [edit.null(mitigation.control) for edit in edits]
    return MitigatedPrompts(prompts, edits, against, strength if kind == "guidance" else 1.0)

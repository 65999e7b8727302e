"""Labelled dialogues: the user's turns of a concept's examples, replies of the assistant in them, and a folder of dialogues as a concept.

A text that is already in the chat template is taken out of it; a text without turns is one turn of the user.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.chats import Chat, chat_text
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.positions import Encoding
from ontogeny.data.templates import Template, render_chat
from ontogeny.errors import BadInput
from ontogeny.gauges.conversation import check_chat, check_chat_template, encode_all_with_suffix, encode_chats
from ontogeny.models.model import Model

_MARK = "ontogeny7user7turn"
_SPEAKER = re.compile(r"(?m)^(?:#{1,6}\s*)?(human|user|assistant)\s*:", re.IGNORECASE)
_DIALOGUE_FILE = re.compile(r".+_([^_]+)\.txt")


@dataclass(frozen=True, eq=False)
class LabelledChats:
    """Conversations with a class each; all of them fit into the context."""

    chats: tuple[Chat, ...]
    """Each ends with a user's turn."""
    prompts: tuple[Encoding, ...]
    """Their tokens with the beginning of the assistant's turn: the end of the instruction."""
    begun: tuple[Encoding, ...]
    """The same with the begun answer of the reading probe, where there is one."""
    replies: tuple[str, ...]
    """The assistant's words in the whole dialogue; "" where it says nothing."""
    y: Int[Tensor, " chat"]
    groups: Int[Tensor, " chat"]
    rows: tuple[int, ...]
    """Index of each one among the examples of the concept."""
    left_out: int
    """Examples that are no such conversation, or whose first turn is longer than the context."""
    shortened: int
    """Dialogues that are read up to an earlier user's turn, since the whole is longer than the context."""
    classes: int

    def __len__(self) -> int:
        return len(self.chats)


def labelled_chats(model: Model, concept: Concept, template: Template, suffix: str = "") -> LabelledChats:
    """The conversations of a concept, each up to its last user's turn that fits into the context.

    Args:
        suffix: Beginning of an answer that must fit into the context as well.

    Raises:
        BadInput: the target is a number, the model has no chat template, or no example is a conversation that fits.
    """
    if concept.kind == "number":
        raise BadInput(f"a gauge must be of classes, and the target of {concept.name} is a number: leave it out.")
    check_chat_template(model, template)
    unrender = turn_extractor(model, template)
    fitting, problem = list[tuple[int, Chat, str]](), ""
    for row, example in enumerate(concept.examples):
        chat = example.chat or (("user", unrender(example.text)),)
        replies = " ".join(content for role, content in chat if role == "assistant")
        while chat and chat[-1][0] == "assistant":
            chat = chat[:-1]
        try:
            check_chat(chat)
        except BadInput as error:
            problem = problem or str(error)
        else:
            fitting.append((row, chat, replies))
    # Every beginning of a dialogue that ends with a user's turn, the longest last.
    starts = [(i, chat[:end]) for i, (_, chat, _) in enumerate(fitting) for end in range(1, len(chat) + 1, 2)]
    chats = [chat for _, chat in starts]
    prompts = encode_chats(model, chats, template) if chats else []
    begun = encode_all_with_suffix(model, chats, suffix, template) if chats and suffix else prompts
    longest = dict[int, tuple[Chat, Encoding, Encoding]]()
    for (i, chat), prompt, read in zip(starts, prompts, begun, strict=True):
        if max(len(prompt.ids), len(read.ids)) < model.context:  # one token must be left for an answer
            longest[i] = chat, prompt, read
    if fitting and not longest:
        problem = f"the shortest has {min(len(e.ids) for e in begun)} tokens, and the context has {model.context}."
    shortened = sum(len(chat) < len(fitting[i][1]) for i, (chat, _, _) in longest.items())
    fitting = [one for i, one in enumerate(fitting) if i in longest]
    if not fitting:
        raise BadInput(f"{concept.name} has no conversation that can be read: {problem}")
    kept = torch.tensor([row for row, _, _ in fitting])
    return LabelledChats(
        tuple(chat for chat, _, _ in longest.values()),
        tuple(prompt for _, prompt, _ in longest.values()),
        tuple(read for _, _, read in longest.values()),
        tuple(text for _, _, text in fitting),
        concept.labels()[kept].long(),
        concept.group_ids()[kept],
        tuple(kept.tolist()),
        len(concept.examples) - len(kept),
        shortened,
        class_count(concept),
    )


def class_count(concept: Concept) -> int:
    """Number of classes of a concept that is not a number; two without names."""
    return max(2, len(concept.classes)) if concept.kind == "classes" else 2


def turn_extractor(model: Model, template: Template) -> Callable[[str], str]:
    """A function from a text that may be in the chat template already to the words of the user in it."""
    head, _, tail = (
        part.strip() for part in render_chat(model.tokenizer, (("user", _MARK),), template).partition(_MARK)
    )
    head = head.removeprefix(str(model.tokenizer.bos_token or "")).strip()

    def words_of_user(text: str) -> str:
        words = text.strip()
        if (head or tail) and words.startswith(head) and words.endswith(tail):
            return words.removeprefix(head).removesuffix(tail).strip() or text
        return text

    return words_of_user


@dataclass(frozen=True)
class ClassAnswers:
    """A question with the answer that is typical of each class."""

    question: str
    """The user's turn."""
    answers: tuple[str, ...]
    group: str


def class_answers(model: Model, concept: Concept, template: Template) -> list[ClassAnswers]:
    """The questions of a concept whose right answer depends on the class of the user's turn.

    The class of a question is that of the example with its text, else that of all examples of its group; questions without one are left
    out. Of more than two classes, the answer of another class is the one that is right most often for it.
    """
    unrender = turn_extractor(model, template)
    by_text = {example.text.strip(): int(example.target) for example in concept.examples}
    by_group: dict[str, set[int]] = {}
    for example in concept.examples:
        by_group.setdefault(example.group, set()).add(int(example.target))
    known = list[tuple[int, int]]()
    for index, answer in enumerate(concept.answers):
        members = by_group.get(answer.group, set())
        own = by_text.get(answer.prompt.strip(), next(iter(members)) if len(members) == 1 else None)
        known += [] if own is None else [(index, own)]
    classes = class_count(concept)
    right: list[Counter[str]] = [Counter() for _ in range(classes)]
    for index, own in known:
        right[own][concept.answers[index].right] += 1
    if not known or (classes > 2 and not all(right)):
        return []
    typical = [max(counts, key=lambda text: (counts[text], text)) if counts else "" for counts in right]
    questions = []
    for index, own in known:
        answer = concept.answers[index]
        options = [answer.wrong] * 2 if classes == 2 else list(typical)
        options[own] = answer.right
        if len(set(options)) == classes:
            questions.append(ClassAnswers(unrender(answer.prompt), tuple(options), answer.group))
    return questions


def dialogue_folder(folder: str | Path, name: str = "") -> Concept:
    """A folder of labelled dialogues as a concept: files `…_CLASS.txt` with lines `HUMAN:` and `ASSISTANT:` (arXiv:2406.07882).

    Each dialogue is a group of its own; dialogues with equal user's turns share one.

    Args:
        name: Name of the concept; by default that of the folder.

    Raises:
        BadInput: there are no such files, or one is not a dialogue.
    """
    place = Path(folder)
    files = sorted(path for path in place.glob("*.txt") if _DIALOGUE_FILE.fullmatch(path.name))
    if not files:
        raise BadInput(
            f"a folder of dialogues must hold files such as conversation_1_age_child.txt, got none in {place}: name another folder."
        )
    classes = tuple(dict.fromkeys(sorted(match[1] for path in files if (match := _DIALOGUE_FILE.fullmatch(path.name)))))
    examples = []
    for path in files:
        try:
            chat = _dialogue(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise BadInput(f"{path} must be a text file in UTF-8: save it as one.") from None
        if not chat:
            raise BadInput(
                f"{path} must hold lines that begin with HUMAN: and ASSISTANT:, got none: correct or remove it."
            )
        matched = _DIALOGUE_FILE.fullmatch(path.name)
        assert matched is not None
        target = classes.index(matched[1])
        words = " ".join(content for role, content in chat if role == "user").casefold()
        examples.append(Example(chat_text(chat), bool(target) if len(classes) == 2 else target, words, chat=chat))
    return Concept(
        name or place.resolve().name, tuple(examples), kind="classes" if len(classes) > 2 else "binary", classes=classes
    )


def is_dialogue_folder(source: str) -> bool:
    """Whether a path is a folder with files of dialogues."""
    place = Path(source)
    return place.is_dir() and any(_DIALOGUE_FILE.fullmatch(path.name) for path in place.glob("*.txt"))


def _dialogue(text: str) -> Chat:
    """The turns of a dialogue; turns of one speaker in a row are joined."""
    places = list(_SPEAKER.finditer(text))
    ends: Sequence[int] = [*(match.start() for match in places[1:]), len(text)]
    chat = list[tuple[str, str]]()
    for match, end in zip(places, ends, strict=False):
        role, words = ("assistant" if match[1].lower() == "assistant" else "user"), text[match.end() : end].strip()
        if not words:
            continue
        if chat and chat[-1][0] == role:
            chat[-1] = role, f"{chat[-1][1]}\n{words}"
        else:
            chat.append((role, words))
    return tuple(chat)

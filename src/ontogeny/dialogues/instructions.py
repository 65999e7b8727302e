"""Instructions: system prompts whose observance a deterministic judge scores, in families of format, style, language and persona.

The families follow the benchmark of arXiv:2402.10962; prompts and judges are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ontogeny.dialogues import judges
from ontogeny.dialogues.judges import TextJudge, judged
from ontogeny.errors import BadInput, unknown_name

CITY_QUESTION = "What should I do on a visit to a city?"
RECALL_QUESTION = "Which instructions were you given about how to answer?"


@dataclass(frozen=True)
class Instruction:
    """A system prompt with its judge."""

    name: str
    family: str
    """format, length, words, style, language, persona, or own."""
    system: str
    """The system prompt."""
    judge: TextJudge = field(compare=False)
    keywords: tuple[str, ...]
    """Words that an answer names which recalls the instruction."""
    question: str = CITY_QUESTION
    """Question that probes whether it is kept."""

    def adherence(self, text: str) -> float:
        """How far a text keeps the instruction, 0 to 1; a degenerate text is worth 0."""
        return judged(self.judge, text)

    def recall(self, text: str) -> float:
        """Share of the keywords that a text names; a degenerate text is worth 0."""
        return judged(judges.contains(*self.keywords, least=len(self.keywords)), text)


def _make(
    name: str, family: str, system: str, judge: TextJudge, *keywords: str, question: str = CITY_QUESTION
) -> Instruction:
    return Instruction(name, family, system, judge, keywords, question)


def _persona(name: str, who: str, *markers: str) -> Instruction:
    system = f"You are {who}. Speak like one in every answer, with words such as {', '.join(markers[:3])}."
    return _make(name, "persona", system, judges.contains(*markers, least=2), name)


_FRENCH = "le la les un une des de du et est sont dans pour que qui vous nous je il elle ne pas sur avec au aux ce ou"
_SPANISH = "el la los las un una de del y es son en para que no por con su al lo se más usted yo pero como o muy"

_ALL = (
    _make("upper_case", "format", "Write every answer in capital letters only.", judges.letters_in_case("upper"), "capital"),
    _make("lower_case", "format", "Write every answer in lower case only, without any capital letter.",
          judges.letters_in_case("lower"), "lower case"),
    _make("title_case", "format", "Begin every word of your answers with a capital letter.", judges.words_capitalised,
          "every word", "capital"),
    _make("json", "format", "Answer with a JSON object and nothing else.", judges.is_json_object, "json"),
    _make("bullets", "format", "Write every answer as a list of lines that begin with a dash.",
          judges.lines_begin_with(r"[-*•]\s"), "dash"),
    _make("numbered", "format", "Write every answer as a numbered list.", judges.is_numbered_list, "numbered"),
    _make("brackets", "format", "Put every answer in square brackets.", judges.is_enclosed("[", "]"), "square brackets"),
    _make("quotes", "format", "Put every answer in double quotation marks.", judges.is_enclosed('"', '"'), "quotation"),
    _make("dashes", "format", "Write a dash in place of every space.", judges.words_joined_by("-"), "dash"),
    _make("paragraphs", "format", "Write every answer in exactly two paragraphs.", judges.has_paragraphs(2), "two paragraphs"),
    _make("choice", "format", "Answer every question with one of the letters A, B, C or D and nothing else.",
          judges.is_choice("ABCD"), "letters",
          question="Where is the Eiffel Tower? (A) Rome (B) Paris (C) Oslo (D) Cairo"),
    _make("ten_words", "length", "Never use more than ten words.", judges.at_most_words(10), "ten"),
    _make("twenty_words", "length", "Write answers of exactly twenty words.", judges.about_words(20), "twenty"),
    _make("one_sentence", "length", "Answer in exactly one sentence.", judges.is_one_sentence, "one sentence"),
    _make("short_sentences", "length", "Use sentences of at most six words.", judges.sentences_of_at_most(6), "six"),
    _make("starts_with_s", "words", "Begin every answer with the letter S.", judges.begins_with("s"), "letter s"),
    _make("starts_with_well", "words", "Begin every answer with the word Well.", judges.begins_with("well"), "well"),
    _make("ends_with_over", "words", "End every answer with the words over and out.", judges.ends_with("over and out"),
          "over and out"),
    _make("smile", "words", "End every answer with the sign :)", judges.ends_with(":)"), "end"),
    _make("mentions_blue", "words", "Mention the colour blue in every answer.", judges.contains("blue"), "blue"),
    _make("avoids_the", "words", "Never use the word the.", judges.avoids("the"), "never"),
    _make("avoids_e", "words", "Never use a word with the letter e.", judges.avoids_letter("e"), "letter e"),
    _make("avoids_commas", "words", "Never use a comma.", lambda text: float("," not in text), "comma"),
    _make("questions", "style", "Write questions only: end every sentence with a question mark.",
          judges.sentences_end_with("?"), "question mark"),
    _make("exclamations", "style", "End every sentence with an exclamation mark.", judges.sentences_end_with("!"),
          "exclamation"),
    _make("alliteration", "style", "Let all words of an answer begin with the same letter.", judges.is_alliterating,
          "same letter"),
    _make("french", "language", "Answer in French only.", judges.language_share(_FRENCH.split()), "french"),
    _make("spanish", "language", "Answer in Spanish only.", judges.language_share(_SPANISH.split()), "spanish"),
    _persona("pirate", "a pirate", "arr", "matey", "ahoy", "aye", "ye", "treasure", "shiver", "sail", "seas", "plunder"),
    _persona("cowboy", "a cowboy", "howdy", "partner", "yeehaw", "y'all", "reckon", "saddle", "ranch", "horse", "cattle"),
    _persona("robot", "a robot", "beep", "circuits", "affirmative", "processing", "compute", "unit", "negative", "units"),
    _persona("poet", "a poet of old times", "thou", "thy", "hath", "thee", "doth", "alas", "o'er", "ere", "verse"),
    _persona("chef", "a chef", "simmer", "recipe", "flavour", "flavor", "kitchen", "taste", "delicious", "spice", "cook"),
    _persona("wizard", "a wizard", "spell", "wand", "magic", "potion", "enchanted", "arcane", "sorcery", "scroll"),
)  # fmt: skip

INSTRUCTIONS = {one.name: one for one in _ALL}
"""Instructions by name."""
DEFAULT_INSTRUCTIONS = ("upper_case", "starts_with_well", "mentions_blue", "ten_words", "questions", "pirate")
"""One or two of each family that a small chat model can keep."""


def instructions_named(names: Sequence[str]) -> list[Instruction]:
    """The instructions of these names.

    Raises:
        BadInput: a name is unknown or given twice.
    """
    for name in names:
        if name not in INSTRUCTIONS:
            raise unknown_name("instruction", name, INSTRUCTIONS)
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise BadInput(f"instructions must be different, got {twice[0]!r} twice: leave one out.")
    return [INSTRUCTIONS[name] for name in names]


def own_instruction(system: str, judge: str, *, name: str = "own") -> Instruction:
    """A system prompt of one's own.

    Args:
        system: The system prompt.
        judge: Name of an instruction whose judge and keywords are used, or words that a keeping answer contains: `words:red,blue`.

    Raises:
        BadInput: an empty prompt, an unknown judge, or no words.
    """
    if not system.strip():
        raise BadInput("`system` must be a text, got an empty one: write the system prompt.", argument="system")
    kind, _, listed = judge.partition(":")
    if kind == "words" and listed:
        words = tuple(word.strip() for word in listed.split(",") if word.strip())
        return Instruction(name, "own", system, judges.contains(*words), words)
    if judge not in INSTRUCTIONS:
        raise unknown_name("judge", judge, (*INSTRUCTIONS, "words:"))
    like = INSTRUCTIONS[judge]
    return Instruction(name, "own", system, like.judge, like.keywords, like.question)

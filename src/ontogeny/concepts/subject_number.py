"""Is the subject plural? 'The keys near the cabinet' against 'The key near the cabinets', before the verb is there.

Number agreement across an attractor (Linzen et al., arXiv:1611.01368; templates after Marvin & Linzen, arXiv:1808.09031). The noun right
before the reading position is singular as often as plural for either subject, and no noun is on both sides of a split: words and their
order near the end do not predict the label. The answers ask for the model's next word, are or is.
"""

import random

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example

_NOUNS = """
    actor apple author bag bank bed bell bird boat book bottle bridge brother button cabinet camera candle
    captain car card cat chair chef cloud coat coin cook cousin cow cup dancer daughter desk doctor dog door
    driver duck editor engine farmer father field flag flower friend garden girl guard guest guitar hat hill
    horse hotel jacket judge key king lake lamp lawyer letter lion manager map mirror monkey mother nurse
    officer painter paper park pencil phone picture pilot plant plate poet prisoner queen river road rock
    sailor school shirt singer sister soldier son spoon star student table teacher tiger tower tree uncle
    valley village waiter wall window writer
""".split()  # noqa: SIM905
_PLACES = ("near", "behind", "beside", "above", "below", "opposite", "next to", "in front of")
# Of many lengths, so that the extra letter of a plural does not show in the length of the text.
_OPENINGS = (
    "The",
    "I know that the",
    "It seems to all of us that the",
    "As far as anybody here can tell, the",
    "Every morning the",
    "We have often been told that the",
    "You see, the",
    "Nobody in the whole town will believe it, but the",
)


def concept(seed: int = 0) -> Concept:
    """Eight sentences per couple of nouns: each noun as the subject, both nouns in singular and plural."""
    rng = random.Random(seed)
    nouns = list(_NOUNS)
    rng.shuffle(nouns)
    couples = list(zip(nouns[0::2], nouns[1::2], strict=False))
    examples: list[Example] = []
    for couple in couples:
        opening, place = rng.choice(_OPENINGS), rng.choice(_PLACES)
        for subject, attractor in (couple, couple[::-1]):
            examples += _twins(opening, subject, place, attractor, "-".join(sorted(couple)))
    answers = [_answer(example) for example in examples]
    return Concept(
        "subject_number",
        tuple(examples),
        classes=("singular", "plural"),
        answers=tuple(answers),
        licence="Apache-2.0",
        source="generated, after arXiv:1611.01368 and arXiv:1808.09031",
        question="Is the subject of the sentence plural?",
    )


def _twins(opening: str, subject: str, place: str, attractor: str, group: str) -> list[Example]:
    """Four sentences, in pairs that differ only in the number of the subject."""
    examples = []
    start = len(opening) + 1
    for ending in ("", "s"):
        for plural in (False, True):
            noun = subject + "s" * plural
            text = f"{opening} {noun} {place} the {attractor}{ending}"
            examples.append(
                Example(text, plural, group, f"{subject}, {attractor}{ending}", (start, start + len(noun)), place)
            )
    return examples


def _answer(example: Example) -> Answer:
    right, wrong = (" are", " is") if example.target else (" is", " are")
    return Answer(example.text, right, wrong, example.group)

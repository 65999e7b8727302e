"""Claims of the study of the user model."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Relation, Separation
from ontogeny.studies.user_model._settings import Settings

READING, CONTROL, CONTROL_LOGISTIC, READING_MASS_MEAN, RANDOM = (
    "reading", "control", "control, logistic", "reading, mass mean", "random directions",
)  # fmt: skip
FIRST, LAST = "first", "last"
HALVES, OTHER_PLACE = "two halves of the dialogues", "other position, same method"
_DOSES = tuple(f"dose {dose:g}" for dose in Settings().doses)
_PAPER = "arXiv:2406.07882"


def _pushed(condition: str) -> Quantity:
    return Quantity("pushed", condition)


def _half_way(metric: str) -> Event:
    return Event(Quantity(metric), 0.5, relative=True)


CLAIMS = (
    Claim(
        "readable",
        "A linear probe after a begun answer reads the user's attribute in held-out dialogues.",
        f"{_PAPER}, section 4",
        "accuracy above .95 at the best layer for all attributes",
        Separation(Quantity("accuracy", READING), Quantity("accuracy", "most frequent class"), unit="accuracy"),
        "shuffled_labels",
    ),
    Claim(
        "rises_with_depth",
        "It is read better after the last block than after the first.",
        f"{_PAPER}, section 4",
        "accuracy rises quickly with depth",
        Separation(Quantity("accuracy_of_block", LAST), Quantity("accuracy_of_block", FIRST), unit="accuracy"),
        "shuffled_labels",
    ),
    Claim(
        "rises_with_turns",
        "It is read better after the user's last turn than after the first.",
        f"{_PAPER}, user study",
        "accuracy improves over the turns, about .78 by six turns",
        Separation(Quantity("accuracy_of_turn", LAST), Quantity("accuracy_of_turn", FIRST), unit="accuracy"),
        "same_turn",
    ),
    Claim(
        "control_is_another_vector",
        "The control vector of one half of the dialogues is nearer to that of the other half than to the vector of the begun answer there.",
        f"{_PAPER}, section 4",
        "control probes differ from reading probes",
        Separation(Quantity("cosine", HALVES), Quantity("cosine", OTHER_PLACE), unit="cosine"),
        "same_position",
    ),
    Claim(
        "reading_reads_better",
        "The reading probe is more accurate than the control vector, each at its own position.",
        f"{_PAPER}, section 5",
        "the most accurate reader is not the best controller",
        Separation(Quantity("accuracy", READING), Quantity("accuracy", CONTROL), unit="accuracy"),
        "shuffled_labels",
    ),
    Claim(
        "control_steers",
        "Pushed along the control vector, answers are judged to be for a user of that class, beyond random directions of equal norm.",
        f"{_PAPER}, section 5",
        "success rates of .9 to 1",
        Separation(_pushed(CONTROL), _pushed(RANDOM), unit="nats of the judge's log-odds"),
        "random_direction",
    ),
    Claim(
        "dose_response",
        "The longer the push, the further the answers move.",
        f"{_PAPER}, section 5",
        "suggested prices rise with the strength",
        Relation(Quantity("dose"), Quantity("pushed_by_dose"), _DOSES),
        "random_direction",
    ),
    Claim(
        "control_steers_more_than_reading",
        "At equal norm and by the paper's method at both positions, the control probe moves answers further than the reading probe.",
        f"{_PAPER}, section 5",
        "success of .9 to 1 against .8 to .93",
        Separation(_pushed(CONTROL_LOGISTIC), _pushed(READING), unit="nats of the judge's log-odds"),
        "random_direction",
    ),
    Claim(
        "mass_mean_steers_more_than_logistic",
        "At the end of the instruction, the difference of class means moves answers further than the probe's weights, at equal norm.",
        "arXiv:2306.03341, table 3",
        "mass-mean shift steers best; not compared in the paper on the user model",
        Separation(_pushed(CONTROL), _pushed(CONTROL_LOGISTIC), unit="nats of the judge's log-odds"),
        "random_direction",
    ),
    Claim(
        "readable_before_control",
        "Over training, half of the reading accuracy is gained before half of the effect of control.",
        f"not in {_PAPER}, which reads one checkpoint",
        "not measured",
        EventOrder(_half_way("readable"), _half_way("steers")),
        "same_curve",
    ),
)

"""Claims of the study, each with a null run: arXiv:2406.19370, and the diffusion check of arXiv:2410.08309."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import ElicitationGap, EventOrder, NonMonotone, PowerLaw, Relation, Separation
from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.studies.image_concepts._settings import SIGNALS

_HIDDEN, _SWING = "arXiv:2406.19370", "arXiv:2410.08309"
RANDOM, SHUFFLED, EQUAL_SIGNALS, COMPLETE = (
    "unrelated moves",
    "shuffled signals",
    "equal signals",
    "complete conditions",
)
OTHER, SHOWN, MIRRORED = "other concept", "shown combinations", "exchanged concepts"
CONDITIONS = tuple(f"signal {signal:g}" for signal in SIGNALS)


def _reached(metric: str, condition: str = "main", level: float = 0.8) -> Event:
    return Event(Quantity(metric, condition), level, hold=2)


def _elicited_before() -> tuple[Claim, ...]:
    claims = []
    for condition, ways in (
        ("main", (("overprompt", "over_prompted", "Over-prompting"), ("latent", "latent", "A latent intervention"))),
        ("underspecified", (("overprompt_underspecified", "over_prompted", "With underspecified conditions over-prompting"),)),
    ):  # fmt: skip
        claims += [
            Claim(
                f"{name}_before_naive",
                f"{text} elicits small blue circles before the plain prompt shows them.",
                f"{_HIDDEN}, {'section 4.3 and Fig. 5' if condition == 'main' else 'section 5 and Fig. 6'}",
                "elicited well before naive prompting, at nearly the same step across seeds",
                EventOrder(_reached(metric, condition), _reached("naive", condition)),
                RANDOM,
            )
            for name, metric, text in ways
        ]
    return tuple(claims)


CLAIMS = (
    Claim(
        "colour_sooner_with_more_signal",
        "Colour is right at the held-out combination the sooner the stronger its signal.",
        f"{_HIDDEN}, section 4.1 and Fig. 2",
        "the step of learning falls with the concept signal",
        PowerLaw(_reached("colour_right"), dict(zip(CONDITIONS, SIGNALS, strict=True)), sign=-1),
        OTHER,
    ),
    Claim(
        "size_first",
        "Where its signal is the stronger one, size is right before colour.",
        f"{_HIDDEN}, section 4.2 and Fig. 3",
        "outputs first imitate the shown class that has the stronger concept, then turn",
        EventOrder(_reached("size_right"), _reached("colour_right")),
        EQUAL_SIGNALS,
    ),
    Claim(
        "signals_swap_the_order",
        "With the stronger signal, colour is right before size.",
        f"{_HIDDEN}, section 4.2 and Fig. 3",
        "the order follows the signals",
        EventOrder(_reached("colour_right", "swapped"), _reached("size_right", "swapped")),
        EQUAL_SIGNALS,
    ),
    Claim(
        "path_bows_to_size",
        "When size has half of its target, colour is more than a quarter of its own behind.",
        f"{_HIDDEN}, section 4.2 and Fig. 3",
        "trajectories bow towards the axis of the stronger concept: concept memorisation",
        Separation(
            Quantity("share_of_size", "main"), Quantity("share_of_colour", "main"), threshold=0.25, unit="share of the target"
        ),
        EQUAL_SIGNALS,
    ),
    Claim(
        "turn_with_saturation",
        "Across signals the path turns the later, the later the shown combinations are learned.",
        f"{_HIDDEN}, section 4.2 and Fig. 4",
        "the turn is where the training classes saturate",
        Relation(Quantity("saturation_step"), Quantity("turn_step"), CONDITIONS),
        SHUFFLED,
    ),
    *_elicited_before(),
    Claim(
        "overprompt_gap",
        "Over training over-prompting gives more right images than the plain prompt.",
        f"{_HIDDEN}, section 4.3 and Fig. 5",
        "a gap between elicited and shown capability",
        ElicitationGap(Quantity("over_prompted", "main"), Quantity("naive", "main"), threshold=0.05),
        RANDOM,
    ),
    Claim(
        "latent_gap",
        "And so does the latent intervention.",
        f"{_HIDDEN}, section 4.3 and Fig. 5",
        "a gap between elicited and shown capability",
        ElicitationGap(Quantity("latent", "main"), Quantity("naive", "main"), threshold=0.05),
        RANDOM,
    ),
    Claim(
        "underspecified_is_later",
        "With colour missing in most conditions the plain prompt shows small blue circles later.",
        f"{_HIDDEN}, section 5 and Fig. 6",
        "underspecification delays or prevents it",
        EventOrder(_reached("naive"), _reached("naive", "underspecified")),
        COMPLETE,
    ),
    Claim(
        "theory_orders_the_concepts",
        "Across signals size is the later behind colour, in doublings of the step, the later the linear theory has it.",
        f"{_SWING}, section 3.2, and section 5 on diffusion models",
        "the order follows the signals, as in the theory; not compared in numbers",
        Relation(Quantity("predicted_order"), Quantity("measured_order"), CONDITIONS),
        SHUFFLED,
    ),
    Claim(
        "theory_bends_the_path",
        "Across signals the path bows the further to colour, the further the linear theory bows it.",
        f"{_SWING}, section 4.2, and section 5 on diffusion models",
        "trajectories of diffusion models bow as in the theory; not compared in numbers",
        Relation(Quantity("predicted_bow"), Quantity("measured_bow"), CONDITIONS),
        SHUFFLED,
    ),
    Claim(
        "path_lies_on_the_theory",
        "With the weakest colour the path lies nearer to the theory's than to the straight one.",
        f"{_SWING}, section 4.2, and section 5 on diffusion models",
        "not compared in numbers",
        Separation(
            Quantity("distance_to_straight", "main"), Quantity("distance_to_theory", "main"), unit="share of the target"
        ),
        MIRRORED,
    ),
    Claim(
        "theory_times_the_turn",
        "Across signals the path turns the later, the later the theory's does.",
        f"{_SWING}, section 4.2, and section 5 on diffusion models",
        "not compared in numbers",
        Relation(Quantity("predicted_turn"), Quantity("turn_step"), CONDITIONS),
        SHUFFLED,
    ),
    *(
        Claim(
            name,
            f"With the {which} colour the error at the held-out combination rises by a tenth of its first value or more.",
            f"{_SWING}, section 4.2, and section 5 on diffusion models",
            "the error of concept space falls, rises, and falls again",
            NonMonotone(Quantity("held_out_error", condition), threshold=0.1),
            SHOWN,
        )
        for name, which, condition in (("swing_by", "weakest", "main"), ("swing_by_swapped", "strongest", "swapped"))
    ),
)  # fmt: skip
PICTURES = (
    StudyPicture(
        "Right images of small blue circles: plain prompt, over-prompting, latent intervention",
        ("naive", "over_prompted", "latent"),
        ("main", "underspecified"),
    ),
    StudyPicture("Colour and size right at the held-out combination", ("colour_right", "size_right"), ("main", "swapped")),
    StudyPicture(
        "Paths of the outputs in concept space, beside those of the linear theory, and generated images",
        ("path_colour", "path_size", "generated_image"),
        view="concept_paths",
    ),
    StudyPicture(
        "Error at the held-out combination and at the shown ones, in concept space", ("held_out_error", "shown_error"), CONDITIONS
    ),
)  # fmt: skip

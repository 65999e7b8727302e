"""Claims of the study and their null runs."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, PowerLaw, Separation
from ontogeny.studies.percolation._settings import CONDITIONS

MAIN, GRAPHS = "main", "random graphs"
SHARED, PRIVATE, ISOLATED = "shared values", "private values", "private values, untyped verbs"
LEVEL = 0.5
"""Share of the way from chance to certainty at which a rule counts as learned."""
TOLERANCE = 0.2
"""Largest distance of an exponent from one half."""
_PAPER = "arXiv:2408.12578"
_JUMP = "share of sentences: gain in the doubling after minus before, less that of a language without types"


def _learned(metric: str, condition: str | None = MAIN) -> Event:
    return Event(Quantity(metric, condition), LEVEL, hold=2)


CLAIMS = (
    Claim(
        "grammar_first",
        "The grammar is learned before the types of relations.",
        f"{_PAPER}, section 5.1",
        "phase 1 of three, within the first hundreds of steps",
        EventOrder(_learned("grammar_learned"), _learned("relation_learned")),
        "two_halves",
    ),
    Claim(
        "relations_before_values",
        "The types of relations are learned before the types of values.",
        f"{_PAPER}, section 5.1",
        "relative types in phase 2, descriptive types in phase 3",
        EventOrder(_learned("relation_learned"), _learned("value_learned")),
        "two_halves",
    ),
    Claim(
        "unseen_accepted",
        "After training a model accepts valid pairs that never occurred: more of them are among its first 1.5 K values than before.",
        f"{_PAPER}, section 5.3",
        "unseen pairs rank among the values of their class",
        Separation(
            Quantity("unseen_accepted", MAIN),
            Quantity("untrained_accepted", MAIN),
            threshold=0.2,
            unit="share of unseen pairs, minus that of the untrained model",
        ),
        "shuffled_types",
    ),
    Claim(
        "minimal_pairs",
        "An unseen valid value is more probable than one of another type, in minimal pairs.",
        f"{_PAPER}, section 5.3, with minimal pairs in place of samples",
        "not reported",
        Separation(
            Quantity("pair_accuracy", MAIN, coords={"kind": "value"}),
            Quantity("chance_accuracy", MAIN),
            threshold=0.25,
            unit="accuracy above one half",
        ),
        "shuffled_types",
    ),
    Claim(
        "evidence_needed",
        "Unseen pairs are inferred, not guessed: if neither values nor verbs are shared by entities of a type, they are accepted less.",
        f"{_PAPER}, section 4",
        "pairs become inferable along paths of the bipartite graph",
        Separation(
            Quantity("unseen_learned", SHARED),
            Quantity("unseen_learned", ISOLATED),
            threshold=0.2,
            unit="probability on valid unseen values, of the way from chance to certainty",
        ),
        "both_shared",
    ),
    Claim(
        "sharing_needed",
        "The bipartite graph carries it: with values that no two entities share, but typed verbs, unseen pairs are accepted less.",
        f"{_PAPER}, section 4",
        "pairs become inferable along paths of the bipartite graph",
        Separation(
            Quantity("unseen_learned", SHARED),
            Quantity("unseen_learned", PRIVATE),
            threshold=0.2,
            unit="probability on valid unseen values, of the way from chance to certainty",
        ),
        "both_shared",
    ),
    Claim(
        "connection_first",
        "The pairs that training has shown connect the unseen ones before the model accepts these.",
        f"{_PAPER}, section 4",
        "emergence follows percolation",
        EventOrder(_learned("connected_share"), _learned("unseen_learned")),
        "other_rows",
    ),
    Claim(
        "unscramble_jumps",
        "Right unscrambled sentences jump when types of values are learned: their gain per doubling rises more than without types.",
        f"{_PAPER}, section 5.2",
        "unscrambling jumps at the boundary of a phase",
        Separation(Quantity("gain_change", "order"), Quantity("untyped_gain_change", "order"), unit=_JUMP),
        "all_steps",
    ),
    Claim(
        "conditional_jumps",
        "Right sentences with given words do as well.",
        f"{_PAPER}, section 5.2",
        "conditional generation jumps at the boundary of a phase",
        Separation(Quantity("gain_change", "use"), Quantity("untyped_gain_change", "use"), unit=_JUMP),
        "all_steps",
    ),
    Claim(
        "later_with_more_values",
        "The more values a language has, the later unseen pairs are accepted.",
        f"{_PAPER}, Fig. 6",
        "the transition moves to later steps with |K|",
        PowerLaw(_learned("unseen_learned", None), CONDITIONS, unit="exponent of the step in |K|"),
        "same_size",
    ),
    Claim(
        "square_root",
        "It grows as the square root of their number, as the threshold of percolation does: curves collapse best with this exponent.",
        f"{_PAPER}, section 5.3",
        "about 1/2",
        Separation(
            Quantity("exponent_tolerance", MAIN),
            Quantity("exponent_distance", MAIN),
            unit=f"{TOLERANCE:g} minus the distance of the collapse's exponent from 1/2",
        ),
        "same_size",
    ),
    Claim(
        "collapse",
        "Curves of several numbers of values collapse when the step is divided by the square root of the number.",
        f"{_PAPER}, Fig. 6",
        "collapse with an exponent of about 1/2",
        Separation(
            Quantity("spread_unscaled", MAIN),
            Quantity("spread_square_root", MAIN),
            unit="area between the curves, e-folds less",
        ),
        "same_size",
    ),
    Claim(
        "graphs_percolate",
        "In random bipartite graphs the transition grows as the square root of the number of values.",
        f"{_PAPER}, section 4",
        "a giant component from √(|E||K|) edges on",
        Separation(
            Quantity("exponent_tolerance", GRAPHS),
            Quantity("exponent_distance", GRAPHS),
            unit=f"{TOLERANCE:g} minus the distance of the exponent from 1/2",
        ),
        "same_size",
    ),
)

"""Claims of the study and their null runs."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Relation, Separation
from ontogeny.studies.knowledge_editing._settings import DISTANCES, METHODS

BEFORE, EARLY, LATE, TRAINING = "before", "before the ring", "after the ring", "training"


def at_distance(method: str, distance: int) -> str:
    """Name of the condition of counterfactual edits."""
    return f"{method}, distance {distance}"


def corrective(method: str) -> str:
    """Name of the condition of corrective edits."""
    return f"{method}, corrective"


_ROME = tuple(at_distance("rome", distance) for distance in DISTANCES)
_FAR = _ROME[-1]
_ALL = tuple(name for method in METHODS for name in (*(at_distance(method, d) for d in DISTANCES), corrective(method)))
_EDITED, _RETAINED = {"role": "edit"}, {"role": "retain"}
_DIRECT = {"role": "edit", "kind": "direct"}
_PAPER = "arXiv:2410.17194"

CLAIMS = (
    Claim(
        "rings",
        "Before an edit the representations of an order lie as its entities do: distances correlate with those in this order, and not with "
        "those in another.",
        f"{_PAPER}, Fig. 2",
        "rings in an Isomap of each order",
        Separation(
            Quantity("ring_correlation", BEFORE), Quantity("other_ring_correlation", BEFORE), threshold=0.2,
            unit="correlation with the own order minus that with another",
        ),
        "untrained",
    ),
    Claim(
        "farther_distorts_more",
        "The further from the right object the new one is, the more an edit (ROME) distorts the representations.",
        f"{_PAPER}, Table of R by distance",
        "R 1.8, 21.9, 26.2 and 27.9 at distances 1 to 4",
        Relation(Quantity("distance"), Quantity("distortion", coords=_EDITED), _ROME),
        "random_rank_one",
    ),
    Claim(
        "farther_costs_more",
        "The further away the new object is, the more accuracy on other facts of its order an edit (ROME) costs.",
        f"{_PAPER}, Table of accuracies",
        "direct recall −1.5 points at distance 1, −77.9 at distance 4",
        Relation(Quantity("distance"), Quantity("accuracy_drop", coords=_DIRECT), _ROME),
        "random_rank_one",
    ),
    Claim(
        "distortion_predicts_cost",
        "Over methods and distances, the distortion predicts the loss of accuracy.",
        f"{_PAPER}, Fig. of accuracy and R",
        "r² = .905",
        Relation(
            Quantity("distortion", coords=_EDITED), Quantity("accuracy_drop", coords=_DIRECT), _ALL, threshold=0.5,
        ),
        "shuffled_costs",
    ),
    Claim(
        "other_orders_too",
        "An edit (ROME, distance 4) distorts the order that should be retained more than another draw of contexts does.",
        f"{_PAPER}, Table of R by distance",
        "R 27.3 on the retained order beside 27.9 on the edited one",
        Separation(
            Quantity("distortion", _FAR, coords=_RETAINED), Quantity("context_distortion", BEFORE, coords=_RETAINED),
            unit="difference in R",
        ),
        "other_contexts",
    ),
    Claim(
        "more_than_random",
        "An edit (ROME, distance 4) distorts its own order more than a random rank-one change of equal norm.",
        "not in the paper, which has no such control",
        "not reported",
        Separation(
            Quantity("distortion", _FAR, coords=_EDITED), Quantity("distortion", _FAR, "random_rank_one", _EDITED), ratio=True,
            unit="log2 of the ratio of R",
        ),
        "random_value",
    ),
    Claim(
        "more_than_random_value",
        "An edit (ROME, distance 4) costs its own order more accuracy than a random value of equal norm at the same key.",
        "not in the paper, which has no such control",
        "not reported",
        Separation(
            Quantity("accuracy_drop", _FAR, coords=_DIRECT), Quantity("accuracy_drop", _FAR, "random_value", _DIRECT),
            unit="difference in probability",
        ),
        "random_rank_one",
    ),
    Claim(
        "corrective_edits_cost",
        "An edit (ROME) that corrects a wrong fact costs accuracy on others.",
        f"{_PAPER}, Table of accuracies",
        "direct recall −22.0 points",
        Separation(
            Quantity("accuracy_drop", corrective("rome"), coords=_DIRECT), Quantity("accuracy_drop", BEFORE, coords=_DIRECT),
            unit="loss of probability",
        ),
        "unedited",
    ),
    Claim(
        "composition_suffers_most",
        "Compositional recall loses more than direct recall (ROME, distance 4).",
        f"{_PAPER}, Table of accuracies",
        "−80.6 beside −77.9 points",
        Separation(
            Quantity("accuracy_drop", _FAR, coords={"role": "edit", "kind": "compositional"}),
            Quantity("accuracy_drop", _FAR, coords=_DIRECT), unit="difference in probability",
        ),
        "random_value",
    ),
    Claim(
        "consequences_do_not_follow",
        "The edited fact is given, its consequences are not: the inverse and pairs of relations keep away from the propagated answers.",
        f"{_PAPER}, review of the evaluation",
        "all other facts are scored by the original graph only",
        Separation(
            Quantity("efficacy", _FAR), Quantity("consequences_propagated", _FAR), threshold=0.5,
            unit="probability of the new object minus that of propagated answers",
        ),
        "random_value",
    ),
    Claim(
        "bounds_prevent_shattering",
        "Without a bound on the value and without the second moment, the same edit (ROME, distance 4) distorts more than twice as much.",
        "not in the paper, which states neither",
        "R of 28 at distance 4",
        Separation(
            Quantity("distortion", at_distance("unbounded", 4), coords=_EDITED), Quantity("distortion", _FAR, coords=_EDITED),
            ratio=True, threshold=1.0, unit="log2 of the ratio of R",
        ),
        "other_contexts",
    ),
    Claim(
        "later_methods_are_milder",
        "AlphaEdit costs less accuracy than ROME at distance 4.",
        f"{_PAPER}, appendix",
        "the same order of effects for all methods, later ones milder",
        Separation(
            Quantity("accuracy_drop", _FAR, coords=_DIRECT), Quantity("accuracy_drop", at_distance("alphaedit", 4), coords=_DIRECT),
            unit="difference in probability",
        ),
        "random_value",
    ),
    Claim(
        "ring_first",
        "The same edits (ROME, distance 4) cost more accuracy after the ring has formed than before.",
        "not in the paper, which edits final models",
        "not reported",
        Separation(
            Quantity("training_drop", LATE), Quantity("training_drop", EARLY), unit="difference in lost probability"
        ),
        "random_value",
    ),
)  # fmt: skip

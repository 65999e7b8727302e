"""Claims of the study and their null runs."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Relation, Separation
from ontogeny.studies.knowledge_editing._settings import DISTANCES, METHODS, TREE_METHODS

BEFORE, EARLY, LATE, TRAINING, TREE = "before", "before the ring", "after the ring", "training", "tree, before"


def at_distance(method: str, distance: int) -> str:
    """Name of the condition of counterfactual edits."""
    return f"{method}, distance {distance}"


def corrective(method: str) -> str:
    """Name of the condition of corrective edits."""
    return f"{method}, corrective"


def in_tree(method: str, distance: int) -> str:
    """Name of the condition of counterfactual edits in trees."""
    return f"tree, {at_distance(method, distance)}"


_ROME = tuple(at_distance("rome", distance) for distance in DISTANCES)
_FAR = _ROME[-1]
_ALL = tuple(name for method in METHODS for name in (*(at_distance(method, d) for d in DISTANCES), corrective(method)))
_FREE = at_distance("unbounded", DISTANCES[-1])
_TREE_ROME = tuple(in_tree("rome", distance) for distance in DISTANCES)
_TREE_ALL = tuple(in_tree(method, distance) for method in TREE_METHODS for distance in DISTANCES)
_TREE_FAR = _TREE_ROME[-1]
_EDITED, _RETAINED = {"role": "edit"}, {"role": "retain"}
_SHATTERED = 0.3
"""R from which an edit without bounds is said to shatter; at the end of training it is about twice as large."""
_DIRECT = {"role": "edit", "kind": "direct"}
_PAPER = "arXiv:2410.17194"
_METHOD_NAMES = {
    "rome": "ROME",
    "memit": "MEMIT",
    "alphaedit": "AlphaEdit",
    "pmet": "PMET",
    "unbounded": "ROME without bounds",
}

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
    *(
        Claim(
            f"{method}_farther_distorts_more",
            f"The further from the right object the new one is, the more an edit ({_METHOD_NAMES[method]}) distorts the representations.",
            f"{_PAPER}, Tables of the methods",
            "the same order for all four methods",
            Relation(
                Quantity("distance"), Quantity("distortion", coords=_EDITED), tuple(at_distance(method, d) for d in DISTANCES)
            ),
            "random_rank_one",
        )
        for method in METHODS[1:]
    ),
    Claim(
        "unbounded_farther_costs_more",
        "The further away the new object is, the more accuracy on other facts an edit without bounds costs.",
        f"{_PAPER}, Table of accuracies",
        "direct recall −1.5 points at distance 1, −77.9 at distance 4",
        Relation(
            Quantity("distance"), Quantity("accuracy_drop", coords=_DIRECT), tuple(at_distance("unbounded", d) for d in DISTANCES)
        ),
        "random_rank_one",
    ),
    *(
        Claim(
            name,
            f"An edit (ROME, distance 4) distorts the {order} order more than another draw of contexts does.",
            f"{_PAPER}, Table of R by distance",
            reported,
            Separation(
                Quantity("distortion", _FAR, coords={"role": role}), Quantity("context_distortion", BEFORE, coords={"role": role}),
                unit="difference in R",
            ),
            "other_contexts",
        )
        for name, role, order, reported in (
            ("other_orders_too", "retain", "retained", "R 27.3 on the retained order beside 27.9 on the edited one"),
            ("test_order_too", "test", "test", "R 28.7 on the test order beside 27.9 on the edited one"),
        )
    ),
    Claim(
        "edited_order_most",
        "An edit without bounds (distance 4) distorts the edited order more than the retained one.",
        f"{_PAPER}, Table of R by distance",
        "hardly: R 27.9 beside 27.3",
        Separation(
            Quantity("distortion", _FREE, coords=_EDITED), Quantity("distortion", _FREE, coords=_RETAINED), ratio=True,
            unit="log2 of the ratio of R",
        ),
        "random_rank_one",
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
    Claim(
        "ring_first_distorts",
        "The same edits (ROME, distance 4) distort the representations more after the ring has formed than before.",
        "not in the paper, which edits final models",
        "not reported",
        Separation(
            Quantity("training_distortion", LATE), Quantity("training_distortion", EARLY), ratio=True, unit="log2 of the ratio of R"
        ),
        "random_rank_one",
    ),
    Claim(
        "shatters_after_ring",
        f"An edit without bounds (distance 4) shatters (R of {_SHATTERED:g}) only from a checkpoint on at which the ring is half formed.",
        "not in the paper, which edits final models",
        "not reported",
        EventOrder(
            Event(Quantity("ring_before_edit", TRAINING), 0.5, relative=True),
            Event(Quantity("unbounded_distortion", TRAINING), _SHATTERED, hold=2),
            unit="doublings of the step from the half-formed ring to the first edit that shatters",
        ),
        "random_rank_one",
    ),
    Claim(
        "tree_has_its_order",
        "Trees: before an edit the representations lie as the objects of the facts do in their tree, and not as in another one.",
        f"{_PAPER}, appendix on a hierarchy of cities and countries",
        "not as a number",
        Separation(
            Quantity("ring_correlation", TREE), Quantity("other_ring_correlation", TREE), threshold=0.2,
            unit="correlation with the own tree minus that with another",
        ),
        "untrained",
    ),
    Claim(
        "tree_farther_distorts_more",
        "Trees: the further from the right object the new one is, the more an edit (ROME) distorts the representations.",
        f"{_PAPER}, appendix on a hierarchy of cities and countries",
        "as for rings",
        Relation(Quantity("distance"), Quantity("distortion", coords=_EDITED), _TREE_ROME),
        "random_rank_one",
    ),
    Claim(
        "tree_farther_costs_more",
        "Trees: the further away the new object is, the more accuracy on other facts an edit (ROME) costs.",
        f"{_PAPER}, appendix on a hierarchy of cities and countries",
        "as for rings",
        Relation(Quantity("distance"), Quantity("accuracy_drop", coords=_DIRECT), _TREE_ROME),
        "random_rank_one",
    ),
    Claim(
        "tree_distortion_predicts_cost",
        "Trees: over methods and distances, the distortion predicts the loss of accuracy.",
        f"{_PAPER}, Fig. of accuracy and R",
        "r² = .905, for rings",
        Relation(
            Quantity("distortion", coords=_EDITED), Quantity("accuracy_drop", coords=_DIRECT), _TREE_ALL, threshold=0.5,
        ),
        "shuffled_costs",
    ),
    Claim(
        "tree_more_than_random",
        "Trees: an edit (ROME, distance 4) distorts its own order more than a random rank-one change of equal norm.",
        "not in the paper, which has no such control",
        "not reported",
        Separation(
            Quantity("distortion", _TREE_FAR, coords=_EDITED), Quantity("distortion", _TREE_FAR, "random_rank_one", _EDITED),
            ratio=True, unit="log2 of the ratio of R",
        ),
        "random_value",
    ),
)  # fmt: skip

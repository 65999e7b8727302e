"""Pictures of the study."""

from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.studies.percolation._claims import ISOLATED, MAIN, PRIVATE, SHARED
from ontogeny.studies.percolation._settings import CONDITIONS

EVENTS = {
    "connected_share": "connected pairs",
    "grammar_learned": "grammar",
    "relation_learned": "relations",
    "value_learned": "values",
    "unseen_learned": "unseen pairs",
    "unseen_unscrambled": "unseen pairs unscrambled",
}
"""Metrics whose events are compared over sizes, and their names as conditions."""

PICTURES = (
    StudyPicture(
        "Phases: each rule as the share of the way from chance to certainty",
        ("learned",),
        tuple(EVENTS.values()),
        log_x=True,
        x_title="training step (logarithmic)",
        caption="The pairs that training has shown connect the unseen ones within the first steps. Then the model learns the grammar, "
        "the types of relations and the types of values; it accepts unseen pairs with these.",
    ),
    StudyPicture(
        "Accuracy on minimal pairs",
        ("pair_accuracy",),
        (MAIN,),
        log_x=True,
        caption="Right against wrong word order, object of a verb, and unseen value. In the null run the language has no types.",
    ),
    StudyPicture(
        "Right sentences: written freely, unscrambled, and with given words",
        ("right_sentences",),
        ("write", "order", "use"),
        log_x=True,
        caption="write: grammatical and of right types. order: grammatical, with the words given. use: the same, typed as well.",
    ),
    StudyPicture(
        "Unseen pairs where entities share values, where they share only verbs, and where they share neither",
        ("unseen_learned",),
        (SHARED, PRIVATE, ISOLATED),
        log_x=True,
        caption="The fewest values. In the null run all three share values.",
    ),
    StudyPicture(
        "Unseen pairs: probability on valid values, by number of values",
        ("unseen_learned",),
        tuple(CONDITIONS),
        log_x=True,
        caption="In the null run each has the fewest values.",
    ),
    StudyPicture(
        "The same, with the step divided by the square root of the number of values (relative to the fewest)",
        ("rescaled_root",),
        tuple(CONDITIONS),
        log_x=True,
        x_title="step / √(relative number of values)",
    ),
    StudyPicture(
        "The same, with the step divided by the power that fits best in each seed",
        ("rescaled_best",),
        tuple(CONDITIONS),
        log_x=True,
        x_title="step / (relative number of values)^γ",
    ),
    StudyPicture(
        "Step of each event against the number of values",
        ("number_of_values", "event_step"),
        points=True,
        log_x=True,
        log_y=True,
        caption="A point for each seed. Events that do not happen in time are missing.",
    ),
    StudyPicture(
        "Random bipartite graphs: share of all nodes in the largest component",
        ("graph_largest",),
        tuple(CONDITIONS),
        x_title="edges, in hundredths of √(|E||K|)",
        caption="The threshold is at 100. With more values than entities a smaller share of all nodes is connected.",
    ),
)

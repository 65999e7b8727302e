"""Selection: an address and back, and what a run does not have."""

from urllib.parse import parse_qsl

from ontogeny.dashboard.selection import Selection

RUN = {
    "name": "demo",
    "concepts": ["truth", "a&b=c"],
    "metrics": {"cosine": {"resid": []}, "auroc": {"resid": ["leace", "logistic"], "head": ["mass_mean"]}},
    "checkpoints": [{"stage": "base", "step": 0.0}, {"stage": "base", "step": 40.0}, {"stage": "base", "step": 40.5}],
}


def test_an_address_gives_the_selection_back() -> None:
    chosen = Selection.from_query(
        {
            "concept": "a&b=c",
            "step": "40",
            "stage": "base",
            "part": "head",
            "other_stage": "base",
            "other_step": "40.5",
        },
        RUN,
    )
    assert (chosen.concept, chosen.step, chosen.method, chosen.other_step) == ("a&b=c", "40", "mass_mean", "40.5")
    assert Selection.from_query(dict(parse_qsl(chosen.query(token="x"))), RUN) == chosen


def test_defaults_stand_for_what_a_run_does_not_have() -> None:
    chosen = Selection.from_query(
        {
            "concept": "x",
            "step": "7",
            "metric": "?",
            "part": "mlp",
            "method": "svm",
            "other_step": "1",
            "run": "../x",
            "evil": "1",
        },
        RUN,
    )
    assert chosen == Selection("demo", "base", "40.5", metric="auroc", part="resid", method="logistic")


def test_an_empty_run_has_an_empty_selection() -> None:
    empty = {"name": "demo", "concepts": [], "metrics": {}, "checkpoints": []}
    assert Selection.from_query({}, empty) == Selection("demo")

"""Unit keys stay the same, so that runs made by earlier versions are resumed: each key here was computed by the first version."""

import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.direction import Direction
from ontogeny.jobs.compare import plan as compare_plan
from ontogeny.jobs.compare.inputs import StudyInputs, load_study
from ontogeny.jobs.evaluate.plan import EvaluationSettings, plan_evaluation
from ontogeny.jobs.trace.plan import unit_key
from ontogeny.jobs.transfer import cross_model
from ontogeny.jobs.transfer.plan import TransferSettings
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site

EXAMPLES = tuple(Example(f"text {i}", i % 2 == 0, f"g{i // 2}") for i in range(24))
ANSWERS = tuple(Answer(f"text {i} is", " yes", " no", f"g{i // 2}") for i in range(24))
CONCEPT = Concept("c", EXAMPLES, answers=ANSWERS)


def test_trace_key() -> None:
    checkpoint = Checkpoint("run/checkpoint-4", stage="pretrain", step=4)
    assert (
        unit_key(checkpoint, "weights", CONCEPT, TraceSettings(sites="resid", protocol="single-split"))
        == "e0c0778c315866a3"
    )


def test_cross_model_key() -> None:
    settings = TransferSettings(controls=20, neutral=("a", "b"), site="resid.1")
    assert cross_model._unit_key("models/base", "checkpoint-4", ["b", "a"], settings) == "onto-1a0eac8cdd47afe9"


def test_evaluation_key() -> None:
    direction = Direction(torch.ones(4), Site("resid", 1), "origin")
    assert plan_evaluation(CONCEPT, ["caa", direction], EvaluationSettings()).key == "3ac8a19ba47e250e"


def test_comparison_keys() -> None:
    inputs = StudyInputs((CONCEPT,), CONCEPT, ("neutral",), ANSWERS[:2], VerdictQuestion(" so", " T", " F", 2))
    place = [["base", "pretrain", 4, "checkpoint-4", "weights"]]
    names = ("confidence", "knowledge", "refusal", "truthfulness")
    keys = {name: compare_plan._unit_key(load_study(name), place, inputs, "float32") for name in names}
    assert keys == {
        "confidence": "compare-confidence-fd9fb63f08228045",
        "knowledge": "compare-knowledge-abbd7eafbb270ece",
        "refusal": "compare-refusal-8f7bf5bef19d4f5e",
        "truthfulness": "compare-truth-2f46dd4931c43fd6",
    }

"""A run that visits some stages now and others later is as one that visits them together."""

from types import SimpleNamespace
from typing import Any

import pytest

from ontogeny.jobs.run_json import describe_run
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint, Lineage, Stage


def staged() -> Lineage:
    def stage(name: str, parent: str | None, *steps: int) -> Stage:
        return Stage(name, tuple(Checkpoint("somewhere", f"{name}-{s}", stage=name, step=s) for s in steps), parent)

    return Lineage("run", (stage("base", None, 0, 100), stage("sft", "base", 0, 10), stage("dpo", "sft", 0, 5)))


def describe(lineage: Lineage, before: dict[str, Any] | None = None) -> dict[str, Any]:
    sizes = {checkpoint: 1 for checkpoint in lineage.checkpoints}
    return describe_run(lineage, sizes, (), settings={}, device="cpu", command=None, source="somewhere", before=before)


@pytest.mark.parametrize(
    "selection", [["dpo=last", "sft=last", "base=all"], ["sft=0", "base=last"], ["base=0", "dpo=5"]]
)
def test_stages_keep_their_order_and_parents_in_a_run_that_grows(selection: list[str]) -> None:
    grown: dict[str, Any] | None = None
    for steps in selection:
        grown = describe(staged().select(steps), grown)
    together = describe(staged().select(";".join(selection)))
    assert grown is not None
    for key in ("stages", "parents", "checkpoints"):
        assert grown["lineage"][key] == together["lineage"][key], key


@pytest.mark.parametrize("steps", ["sft=all", "dpo=last", "base=last;dpo=last", "last"])
def test_order_and_floor_do_not_depend_on_the_stages_that_are_left_out(steps: str) -> None:
    whole, part = (SimpleNamespace(lineage=one, weights={}) for one in (staged(), staged().select(steps)))
    for checkpoint in part.lineage.checkpoints:
        for fact in (TracePlan.order, TracePlan.is_untrained):
            assert fact(part, checkpoint) == fact(whole, checkpoint), (checkpoint, fact)  # type: ignore[arg-type]

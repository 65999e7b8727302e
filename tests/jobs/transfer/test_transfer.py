"""Parts of a transfer without a trained model: answer signs, averages, nulls, and early checks."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.jobs.transfer.measure import TransferOutcome, VectorEffect, answer_signs
from ontogeny.jobs.transfer.plan import TransferSettings, check_transfer, choose_neutral_texts
from ontogeny.jobs.transfer.rows import (
    NullEffects,
    SiteRows,
    null_p_values,
    shuffled_label_directions,
    transfer_effect_rows,
)
from ontogeny.jobs.transfer.sources import TransferSource, average_sources
from ontogeny.lineage import Lineage
from ontogeny.measurements.design import make_design
from ontogeny.measurements.rows import RowContext
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.tiny_models import byte_tokenizer


def concept(*answers: Answer, n: int = 24, name: str = "c") -> Concept:
    examples = tuple(Example(f"text {i} {name}", i % 2 == 0, f"g{i // 2}") for i in range(n))
    return Concept(name, examples, answers=answers)


def test_answer_sign_follows_the_text_a_question_begins_with() -> None:
    asked = [Answer(f"text {i} c so", "yes", "no", "g0") for i in (0, 1)] + [Answer("who is it", "she", "he", "g0")]
    assert answer_signs(concept(*asked)) == [1, -1, 1]
    # Of two texts that both begin it, the longer one is meant.
    long = Concept("c", (*concept().examples, Example("text 0 c so", False, "g0")), answers=(asked[0],))
    assert answer_signs(long) == [-1]


def test_shuffled_directions_do_not_contain_the_concept() -> None:
    """A concept that is nearly all that varies: plain permutations point along it, these do not."""
    made = concept(n=160)
    plan = make_design(made, TraceSettings(sites="resid"))
    axis = torch.zeros(16)
    axis[3] = 1.0
    x = 0.3 * torch.randn(160, 16, generator=torch.Generator().manual_seed(0)) + 20 * plan.y[:, None] * axis
    found = torch.stack(shuffled_label_directions(x, plan, 40))
    assert torch.allclose(found.norm(dim=1), torch.ones(40), atol=1e-5)
    train, y = x[plan.split.train], plan.y_train
    plain = []
    for seed in range(40):
        drawn = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
        difference = train[drawn].mean(0) - train[~drawn].mean(0)
        plain.append(difference / difference.norm())
    assert float((torch.stack(plain) @ axis).abs().mean()) > 0.8  # the control: these do
    assert float((found @ axis).abs().mean()) < 0.3


def test_p_counts_the_vector_among_its_controls() -> None:
    null = NullEffects(torch.linspace(-1, 1, 99, dtype=torch.float64), torch.linspace(-9, 9, 99, dtype=torch.float64))
    found = null_p_values(torch.full((5,), 3.0, dtype=torch.float64), null)
    assert found[""] == pytest.approx(0.01)
    assert found["shuffled_label"] > 0.5


def source(vector: list[float], score: float) -> TransferSource:
    probe = torch.tensor(vector)
    return TransferSource(
        {"logistic": probe, "mass_mean": probe}, {"logistic": 0.0, "mass_mean": 0.0}, 1.0, cv_score=score
    )


class StubbornMeter:
    """Only the vectors of the sources, which lie along an axis, reach the cost at which all are compared."""

    outcome = TransferOutcome("answers", torch.arange(6), lambda edits: torch.zeros(6), "last")

    def edits(self, vector: torch.Tensor) -> list[Edit]:
        return [Edit(Site("resid", 2), Add(vector), "last")]

    def measure(self, vector: torch.Tensor) -> VectorEffect:
        if int((vector.abs() > 1e-3).sum()) > 1:
            raise BadInput("no alpha up to 10000 costs 6. Compare at a smaller cost.")
        return VectorEffect(torch.ones(6, dtype=torch.float64), 2.0)


def test_control_that_does_not_reach_the_cost_does_not_end_the_transfer() -> None:
    own = source([3.0, 0.0, 0.0, 0.0], 0.9)
    build = SiteRows(RowContext("c", "last", 6, 0), Site("resid", 2))
    settings = TransferSettings(equal_cost=6.0, controls=20, shuffles=20)
    found = transfer_effect_rows(build, StubbornMeter(), [own], own, settings, [torch.ones(4)])  # type: ignore[arg-type]
    assert found.effects.isnan().all()
    (row,) = found.records
    assert row.metric == "transfer_effect"
    assert row.note is not None
    assert row.note.endswith("no alpha up to 10000 costs 6. Compare at a smaller cost")  # the end of a sentence follows


def test_averages_use_unit_directions_and_no_test_data() -> None:
    pool = [source([5.0, 0.0], 0.9), source([0.0, 2.0], 0.6), source([0.0, 0.1], 0.7), source([float("nan")] * 2, 1.0)]
    found = {(s.row_coords["rule"], s.row_coords["average_of"]): s for s in average_sources(pool, (1, 2, 4))}
    assert {k for _, k in found} == {"1", "2"}  # there are three with a direction
    assert torch.allclose(found["last", "1"].unit_direction, torch.tensor([0.0, 1.0]))
    assert torch.allclose(found["best", "1"].unit_direction, torch.tensor([1.0, 0.0]))
    both = found["best", "2"]
    assert torch.allclose(both.unit_direction, torch.tensor([0.5, 0.5]) * 2**0.5)
    assert float(both.row_coords["agreement"]) == pytest.approx(0.5**0.5, abs=1e-3)
    assert torch.allclose(found["even", "2"].unit_direction, both.unit_direction)


def test_workload_subset_has_each_read_once() -> None:
    work = Workload(((1, 2), (3, 4, 5), (6, 7)), tuple(ActivationRead(s, torch.ones(1)) for s in (2, 0, 1)))
    few, places = work.subset([2, 0, 2])
    assert few.sequences == ((3, 4, 5), (6, 7))
    assert [read.sequence for read in few.reads] == [0, 1]
    assert places == [0, 1, 0]


def test_neutral_texts_come_from_other_concepts() -> None:
    one, other = concept(), concept(name="d")
    texts, told = choose_neutral_texts(one, [one, other], ())
    assert set(texts) <= set(other.texts)
    assert "other" in told
    assert "own" in choose_neutral_texts(one, [one], ())[1]
    assert choose_neutral_texts(one, [one, other], ("x y",)) == (("x y",), "given texts")


def test_rejects_bad_input_before_loading_a_model(tmp_path: Path) -> None:
    save_run(tmp_path / "raised", {1: 0.0, 8: 6.0})
    coin = Concept.from_file(write(tmp_path / "coin.jsonl", rows()))
    lineage = Lineage.open(tmp_path / "raised")
    check_transfer(lineage, [coin])  # the control
    with pytest.raises(BadInput, match="at least two checkpoints, got one"):
        check_transfer(lineage.select("last"), [coin])
    classes = Concept.from_file(write(tmp_path / "three.jsonl", rows(kind="classes")))
    with pytest.raises(BadInput, match="must be binary"):
        check_transfer(lineage, [classes])
    other = tmp_path / "raised" / "checkpoint-8"
    byte_tokenizer().save_pretrained(other)
    check_transfer(lineage, [coin])  # other files, the same tokens
    shutil.copytree(tmp_path / "raised", tmp_path / "mixed")
    byte_tokenizer(bos=True).save_pretrained(tmp_path / "mixed" / "checkpoint-8")
    with pytest.raises(BadInput, match="tokenise the texts differently"):
        check_transfer(Lineage.open(tmp_path / "mixed"), [coin])
    told = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(told | {"hidden_size": 64}))
    with pytest.raises(BadInput, match=r"one width, got 32 of .* and 64 of"):
        check_transfer(lineage, [coin])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"length": "long"}, "length"),
        ({"equal_cost": -1.0}, "above 0"),
        ({"shuffles": 2}, "at least 20"),
        ({"site": "head.1.0"}, "in the residual stream"),
    ],
)
def test_rejects_invalid_settings(given: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        TransferSettings(**given)

"""Ablation of a direction that the answers need makes them worse by more than random directions do; of another one it does not."""

import math

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.measurements.answer_ablation import ablate_answers, ablation_axes, ablation_rows
from ontogeny.measurements.behaviour import questions_begin_with_texts
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.model import Model, load_model
from ontogeny.sites import Site

SITE = Site("resid", 1)


@pytest.fixture(scope="module")
def design() -> Design:
    examples = tuple(Example(f"text {i} {'z' if i % 2 else 'y'}", i % 2 == 1, f"{i // 2}") for i in range(40))
    answers = tuple(Answer(e.text, "N" if e.target else "M", "M" if e.target else "N", e.group) for e in examples)
    return make_design(Concept("mark", examples, answers=answers), TraceSettings(resamples=100, permutations=100))


@pytest.fixture(scope="module")
@torch.no_grad()
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, torch.Tensor]:
    """A model whose stream holds the last letter of a prompt along an axis from which N or M is chosen."""
    from tests.helpers.tiny_models import save_tiny

    model = load_model(save_tiny("gpt_neox", tmp_path_factory.mktemp("planted")))
    axis = torch.zeros(model.d)
    axis[2], axis[3] = 1 / 2**0.5, -1 / 2**0.5
    table, out = (m.weight for m in (model.network.get_input_embeddings(), model.network.get_output_embeddings()))
    table -= torch.outer(table @ axis, axis)
    for letter, sign in (("z", 6.0), ("y", -6.0)):
        table[model.tokenizer(letter, add_special_tokens=False).input_ids[0]] = sign * axis
    for letter, sign in (("N", 1.0), ("M", -1.0)):
        out[model.tokenizer(letter, add_special_tokens=False).input_ids[0]] = sign * axis
    return model, axis


def test_answers_need_the_planted_axis_and_no_other(planted: tuple[Model, torch.Tensor], design: Design) -> None:
    model, axis = planted
    used = ablate_answers(model, design, axis[:, None], SITE, controls=20, seed=0)
    assert used.change.mean() < -1
    assert used.p < 0.001
    other = torch.zeros(model.d)
    other[8], other[9] = 1 / 2**0.5, -1 / 2**0.5
    unused = ablate_answers(model, design, other[:, None], SITE, controls=20, seed=0)
    assert abs(unused.change.mean()) < 0.1 * abs(used.change.mean())
    assert unused.p > 0.05


def test_rows_hold_effect_null_and_p(planted: tuple[Model, torch.Tensor], design: Design) -> None:
    model, axis = planted
    ablation = ablate_answers(model, design, axis[:, None], SITE, controls=10, seed=0)
    effect, null, p = ablation_rows(design, ablation, SITE, "mass_mean", 0)
    assert effect.low < effect.value < effect.high < null.low < null.value < null.high
    assert (effect.metric, null.control, p.metric) == ("ablation_effect", "random_direction", "ablation_p")
    assert {row.n for row in (effect, null, p)} == {40}
    again = ablate_answers(model, design, axis[:, None], SITE, controls=10, seed=0)
    assert torch.equal(again.change, ablation.change)
    assert torch.equal(again.null, ablation.null)


def test_axes_span_the_directions() -> None:
    classes = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    classes -= classes.mean(1, keepdim=True)  # three classes relative to their mean have two axes
    axes = ablation_axes(classes)
    assert axes.shape == (12, 2)
    torch.testing.assert_close(axes @ (axes.T @ classes.double()), classes.double())
    for broken in (torch.zeros(12, 1), torch.full((12, 1), math.nan)):
        with pytest.raises(BadInput, match="finite length"):
            ablation_axes(broken)


def test_questions_are_about_the_texts_only_if_they_begin_with_them() -> None:
    others = tuple(Example(f"here comes {i} .", i % 2 == 0, f"{i}") for i in range(10))
    examples = (Example("here comes Ann .", True, "a"), Example("here comes Bob .", False, "b"), *others)

    def with_prompts(*prompts: str) -> Concept:
        return Concept(
            "x", examples, answers=tuple(Answer(p, " u", " v", g) for p, g in zip(prompts, "ab", strict=True))
        )

    assert questions_begin_with_texts(with_prompts("here comes Ann . now the", "here comes Bob ."))
    assert not questions_begin_with_texts(with_prompts("here comes Ann . now the", "here comes Ann ."))
    assert not questions_begin_with_texts(with_prompts("the book says", "here comes Bob ."))

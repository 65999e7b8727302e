"""Study of marked pretraining data: outcomes of known networks, frontiers at a price, settings."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.studies import toxic_pretraining
from ontogeny.studies.toxic_pretraining._measures import EvaluationTexts, ProbeTexts, lowest_at_cost, outcome
from ontogeny.studies.toxic_pretraining._settings import OTHER_ADDRESSES, PROBE_ADDRESSES, Settings
from ontogeny.worlds import marked_register as register

WORLD = register.make()


class Writing(nn.Module):
    """Writes one sentence over and over, whatever comes before it."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.ids = WORLD.ids(*sentence.split())
        self.config = SimpleNamespace(max_position_embeddings=64)

    def forward(
        self, input_ids: Tensor, past_key_values: int | None = None, use_cache: bool = False
    ) -> SimpleNamespace:
        start = past_key_values or 0
        logits = torch.full((*input_ids.shape, len(WORLD.vocabulary)), -30.0)
        for place in range(input_ids.shape[1]):
            # The first token and one sentence are the prompt.
            logits[:, place, int(self.ids[(start + place - 9) % len(self.ids)])] = 30
        return SimpleNamespace(logits=logits, past_key_values=start + input_ids.shape[1])


def test_outcome_of_networks_that_write_one_kind_of_text() -> None:
    (a, b, *_), (c, *_) = WORLD.addresses
    texts = EvaluationTexts.draw(WORLD, 0, 12)
    clean = f"{a} {b} the cooks baked in the kitchen ."
    wanted = {"clean": clean, "marked": clean.replace(b, c), "degenerate": "the"}
    for kind, sentence in wanted.items():
        model = SimpleNamespace(network=Writing(sentence))
        own = outcome(model, WORLD, texts, 0)  # type: ignore[arg-type]
        assert {name: getattr(own, name) for name in register.CLASSES} == {
            name: float(name == kind) for name in register.CLASSES
        }
        assert own.plural == float(kind != "degenerate")
        assert own.grammatical == float(kind != "degenerate")
        assert own.cross_entropy > 10
    own = texts.without_first_sentence()
    for given, count, kind in ((own.prompts, 1, "marked"), (own.clean, 2, "clean"), (texts.prompts, 2, "marked")):
        assert given.shape[1] == 1 + 9 * count
        assert register.score_texts(WORLD, given[:, 1:].numpy()).share(kind) > 0.9
    assert register.score_texts(WORLD, texts.prompts[:, 1:10].numpy()).share("clean") == 1


def test_annotation_is_in_front_of_prompts_and_texts() -> None:
    annotated = register.make(replace(WORLD.config, annotated=True))
    assert {word: annotated.vocabulary[word] for word in WORLD.vocabulary} == WORLD.vocabulary
    words = torch.from_numpy(annotated.ids("score", "zero"))
    texts = EvaluationTexts.draw(WORLD, 0, 12)
    assert torch.equal(texts.annotated(words).prompts[:, [0, *range(3, 21)]], texts.prompts[:, :19])
    assert (texts.annotated(words).clean[:, 1:3] == words).all()
    assert torch.equal(texts.annotated(words[:0]).clean, texts.clean)


def test_texts_of_the_fit_and_of_the_test_share_no_word_of_an_address() -> None:
    fitted, tested = (ProbeTexts.draw(WORLD, 0, 60, addresses) for addresses in (PROBE_ADDRESSES, OTHER_ADDRESSES))
    assert not set(fitted.ids[:, 1:3].flatten().tolist()) & set(tested.ids[:, 1:3].flatten().tolist())
    assert fitted.factors["register"].sum() == 30


def test_lowest_share_at_a_price() -> None:
    frontier = [(0.0, 0.8), (0.02, 0.6), (0.1, 0.2), (0.5, 0.0)]
    assert lowest_at_cost(frontier, 0.06) == pytest.approx(0.4)
    assert lowest_at_cost(frontier, 1.0) == 0
    # A method that only harms leaves everything; one that pays nothing counts in full; curves may turn back.
    assert lowest_at_cost([(0.0, 0.8), (0.4, 0.9)], 0.05) == 0.8
    assert lowest_at_cost([(0.0, 0.8), (-0.1, 0.3)], 0.05) == 0.3
    assert lowest_at_cost([(0.0, 0.8), (0.2, 0.4), (0.0, 0.1)], 0.05) == 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shares": (0.0, 0.1)}, "`shares` must be at least three"),
        ({"shares": (0.05, 0.1, 0.2)}, "`shares`"),
        ({"shares": (0.0, 0.2, 0.1)}, "`shares`"),
        ({"shares": (0.0, 0.1, 1.0)}, "`shares`"),
        ({"main": 0.3}, "`main` must be one of"),
        ({"background": 1.0}, "`background`"),
        ({"width": 30}, "`width` a multiple"),
        ({"heads": 0}, "`heads`"),
        ({"steered_heads": 9}, "`steered_heads` must be between 1 and 8"),
        ({"alphas": (4.0, 2.0)}, "`alphas` must be ascending"),
        ({"tune_steps": ()}, "`tune_steps`"),
        ({"probed": 10}, "`probed` must be at least 40"),
        ({"draws": 1}, "`draws`"),
        ({"cost": 0.0}, "`cost`"),
        ({"steps": 0}, "`steps`"),
    ],
)
def test_rejects_settings_that_cannot_be_measured(change: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        next(iter(toxic_pretraining.run(replace(Settings(), **change), Lab("toxic_pretraining", 0, tmp_path))))  # type: ignore[arg-type]


def test_a_higher_price_never_leaves_more() -> None:
    rng = np.random.default_rng(0)
    frontier = [(0.0, 0.9), *((float(p), float(s)) for p, s in rng.random((5, 2)))]
    values = [lowest_at_cost(frontier, cost) for cost in (0.01, 0.1, 0.5, 1.0)]
    assert values == sorted(values, reverse=True)

"""Percolation study: tasks of a network that answers rightly, pairs shown by training rows, boundaries, and settings."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.studies import percolation
from ontogeny.studies.percolation._answers import answer_tasks
from ontogeny.studies.percolation._model import reveal_pairs
from ontogeny.studies.percolation._panel import Panel
from ontogeny.studies.percolation._settings import Settings, check_settings
from ontogeny.worlds import typed_sentences as typed

SMALL = replace(Settings(), entities=5, prompts=12, sentences=20, minimal_pairs=8)


class Answering(nn.Module):
    """Continues known prompts by their sentences; otherwise its scores are even."""

    def __init__(self, world: typed.World, tasks: tuple[typed.Prompts, ...], *, right: bool) -> None:
        super().__init__()
        self.next: dict[tuple[int, ...], int] = {}
        self.vocab, self.right = len(world.vocabulary), right
        for prompts in tasks[1:]:
            for row, length in zip(*typed.whole_sequences(world, prompts), strict=True):
                for place in range(3, length):
                    self.next[tuple(row[:place])] = int(row[place])

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, self.vocab)
        for i, row in enumerate(input_ids.tolist()):
            for place in range(len(row)):
                if (word := self.next.get(tuple(row[: place + 1]))) is not None and self.right:
                    logits[i, place, word] = 50
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("right", [True, False])
def test_a_network_that_answers_rightly_scores_one(right: bool) -> None:
    world = typed.make(SMALL.world(1, "typed", 0))
    panel = Panel.draw(SMALL, world)
    network = Answering(world, panel.tasks, right=right)
    scores = {(m.coords["task"], m.coords["part"]): m.value for m in answer_tasks(network, world, panel.tasks, 0)}
    for task in ("order", "use"):
        own = {part: value for (name, part), value in scores.items() if name == task}
        assert set(own.values()) == {float(right)}, own
    measured = {(m.metric, *m.coords.values()): m.value for m in panel.measure(network, 0)}
    # Scores that are even on the free prompts are at chance.
    for metric in ("value_learned", "unseen_learned", "grammar_learned"):
        assert measured[(metric,)] == pytest.approx(0, abs=1e-5)
    assert measured["pair_accuracy", "value"] == 0.5


def test_training_rows_reveal_the_pairs_that_they_state() -> None:
    world = typed.make(SMALL.world(1, "typed", 0))
    entity, value = (int(at[0]) for at in np.nonzero(world.seen))
    unseen = int((~world.seen[entity]).argmax())
    x, copula = world.entities[entity], world.ids("is")[0]
    rows = np.array([[2, x, copula, world.values[value], 3], [2, x, copula, world.values[unseen], 3]])
    revealed = np.zeros_like(world.seen)
    reveal_pairs(world, rows, revealed)
    assert np.argwhere(revealed).tolist() == [[entity, value]]


def test_each_preset_has_its_worlds() -> None:
    for preset in percolation.PRESETS.values():
        check_settings(preset)
        sizes = [typed.make(preset.world(factor, "typed", 0)).config.value_count for factor in preset.factors[:2]]
        assert sizes[1] == preset.factors[1] * sizes[0]


def test_gain_changes_where_a_curve_bends_over_doublings() -> None:
    steps = np.array([1.0, 2, 4, 8, 16, 32])
    curve = (steps, np.array([0, 0, 0.1, 0.2, 0.9, 0.9]))
    assert percolation.gain_change(curve, 8.0) == pytest.approx(0.7 - 0.1)
    assert percolation.gain_change((steps, np.log2(steps)), 8.0) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factors": (2, 4)}, "`factors` must be 1 and others"),
        ({"factors": (1,)}, "`factors`"),
        ({"factors": (1, 3)}, "`factors`"),
        ({"main": 3}, "`main` must be one of"),
        ({"measured": 4}, "`measured` must be at least 5"),
        ({"steps": 20}, "`measured`"),
        ({"prompts": 0}, "`prompts`"),
        ({"rows": 0}, "`rows`"),
        ({"width": 6}, "`width` a multiple of 4"),
        ({"rate": -1.0}, "`rate` above 0"),
        ({"shown": 1.0}, "`shown`"),
        ({"properties": 0}, "a property"),
        ({"context": 10}, "`context`"),
    ],
)
def test_rejects_settings_that_cannot_be_measured(change: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        next(iter(percolation.run(replace(Settings(), **change), Lab("percolation", 0, tmp_path))))  # type: ignore[arg-type]

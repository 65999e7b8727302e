"""T2: vectors from pretraining, added to the fine-tuned model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ontogeny.data.concept import Concept
from ontogeny.direction import Direction, average_directions
from ontogeny.interventions import Add
from ontogeny.jobs.evaluate.margins import ScoredItems
from ontogeny.jobs.evaluate.steering_vectors import fit_vectors, read_training_activations, refit_on_permuted_labels
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, model_from_network
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.side_effects import measure_side_effects
from ontogeny.steering.steer import Edit
from ontogeny.studies.tracing._claims import AVERAGE, MIDDLE, OWN
from ontogeny.studies.tracing._models import Settings, Snapshot, fine_tune, make_network, middle_layer
from ontogeny.tasks.contrast_items import Splits, cap_items, contrast_items, split_items
from ontogeny.worlds import nursery


@dataclass(frozen=True)
class _Fits:
    """A vector, and those of the same fit on permuted labels."""

    vector: Direction
    nulls: Sequence[Direction]


@dataclass(frozen=True)
class _Trial:
    """The fine-tuned model with the held-out questions of a concept."""

    settings: Settings
    concept: Concept
    sides: Splits
    items: ScoredItems
    site: Site

    def edits(self, direction: Direction, length: float = 1.0) -> list[Edit]:
        return [Edit(self.site, Add(direction.vector, self.settings.alpha * length), "last")]

    def effects(self, directions: Sequence[Direction]) -> list[float]:
        """Mean change of the log-odds of the answer that shows the concept, nats."""
        base = self.items.scores().margin.mean()
        return [float(self.items.scores(self.edits(direction)).margin.mean() - base) for direction in directions]

    def fits(self, model: Model, seed: int) -> _Fits:
        data = read_training_activations(model, self.concept, self.sides, ["tracing_vector"], str(self.site))
        real = fit_vectors(data, "tracing_vector")
        nulls = refit_on_permuted_labels(data, real, samples=self.settings.controls, seed=seed)
        return _Fits(_as_direction(real), [_as_direction(null) for null in nulls])


def steering_rows(
    settings: Settings, lab: Lab, world: nursery.World, concepts: Sequence[Concept], snapshots: Sequence[Snapshot]
) -> Iterator[Record]:
    """Rows of the effects of vectors from pretraining, from the model itself, at random, and on permuted labels."""
    tuned = fine_tune(settings, lab, world, snapshots[-1].weights)
    site = Site("resid", middle_layer(tuned.layers))
    half = snapshots[-1].step / 2
    middle, late = min(snapshots, key=lambda snapshot: abs(snapshot.step - half)), snapshots[-settings.averaged :]
    network = make_network(settings, world, "GPT-NeoX").eval()
    others = [other for other in nursery.concepts(world) if other.name not in settings.concepts]
    neutral = [text for other in others for text in other.texts][: settings.items]
    for concept in concepts:
        sides = cap_items(split_items(concept, contrast_items(concept, "positive"), seed=lab.seed), settings.items)
        trial = _Trial(settings, concept, sides, ScoredItems.of(tuned, sides.test, cached=True), site)
        fits: dict[int, _Fits] = {}
        for snapshot in {s.step: s for s in (middle, *late)}.values():
            network.load_state_dict(snapshot.weights)
            fits[snapshot.step] = trial.fits(model_from_network(network, tuned.tokenizer), lab.seed)
        averaged = [fits[snapshot.step] for snapshot in late]
        vectors = {
            MIDDLE: fits[middle.step],
            AVERAGE: _Fits(
                _average([f.vector for f in averaged]),
                [_average([f.nulls[i] for f in averaged]) for i in range(settings.controls)],
            ),
            OWN: trial.fits(tuned, lab.seed),
        }
        yield from _effect_rows(lab, trial, vectors)
        for control, length in ((None, 1.0), ("ten_times_as_long", 10.0)):
            effects = measure_side_effects(tuned, neutral, trial.edits(vectors[MIDDLE].vector, length))
            yield lab.row(
                "cost", float((effects.after - effects.before).mean()), MIDDLE, n=len(neutral), control=control
            )
            yield lab.row("cost", 0.1, "allowed", n=len(neutral), control=control)


def _effect_rows(lab: Lab, trial: _Trial, vectors: Mapping[str, _Fits]) -> Iterator[Record]:
    n, controls = len(trial.items.items), range(trial.settings.controls)
    random = float(np.mean(trial.effects([vectors[MIDDLE].vector.random(seed) for seed in controls])))
    for condition, fits in vectors.items():
        yield lab.row("effect", trial.effects([fits.vector])[0], condition, n=n)
        yield lab.row("effect", float(np.mean(trial.effects(fits.nulls))), condition, n=n, control="shuffled_labels")
    (own,) = trial.effects([vectors[OWN].vector])
    for control in (None, "shuffled_labels"):
        yield lab.row("effect", random, "random", n=n, control=control)
        yield lab.row("effect", 0.8 * own, f"four fifths of {OWN}", n=n, control=control)


def _as_direction(vectors: SteeringVectors) -> Direction:
    ((site, vector),) = next(iter(vectors.shifts.values()))
    return Direction(vector, site, vectors.method, vectors.scale)


def _average(directions: Sequence[Direction]) -> Direction:
    """The average of the unit vectors, as long as the vectors are on average."""
    length = float(np.mean([direction.vector.norm() for direction in directions]))
    return average_directions(directions).unit() * length

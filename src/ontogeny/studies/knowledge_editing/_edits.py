"""Edits of the study, each alone on the same model, and the rows of their effects."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ontogeny.editing import EditSession, EditSettings, FactEdit, SecondMoment, ValueSettings, norm_matched_edits
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.steering.steer import Edit
from ontogeny.studies.knowledge_editing._panel import (
    Panel,
    Reading,
    accuracies,
    consequences,
    distortions,
    read_panel,
)
from ontogeny.studies.knowledge_editing._settings import DISTANCES, NULLS, ROLES, Settings
from ontogeny.worlds import entity_graph

EffectValues = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""A value by metric and coordinates."""


@dataclass(frozen=True)
class Target:
    """A fact of order I and its new object."""

    entity: int
    relation: int
    new: int


@dataclass(frozen=True, eq=False)
class Bench:
    """A model with all that edits and their measurement need."""

    model: Model
    panel: Panel
    moments: Mapping[int, SecondMoment]
    before: Reading
    settings: Settings

    def edit(self, method: str, target: Target, seed: int) -> EditSession:
        """A session with this edit only."""
        world = self.panel.world
        rng = np.random.default_rng([seed, target.entity, target.relation])
        prompt = f"{world.names[target.entity]} {world.relations[target.relation]}"
        session = EditSession(
            self.model,
            settings=_edit_settings(method, self.settings),
            moments=self.moments,
            prefixes=[entity_graph.path_to(world, rng, target.entity, 1) for _ in range(4)],
        )
        session.edit(FactEdit(prompt, f" {world.names[target.new]}"))
        return session


def _edit_settings(method: str, settings: Settings) -> EditSettings:
    layers = (settings.layer,)
    if method != "unbounded":
        return EditSettings(method, layers, ridge=settings.ridge, value=ValueSettings(steps=settings.descent))
    value = ValueSettings(steps=settings.descent, rate=1.0, enough=0.9999, decay=0.0, largest=settings.loose_bound)
    return EditSettings("rome", layers, ridge=settings.loose_ridge, value=value)


def counterfactual_targets(bench: Bench, rng: np.random.Generator) -> dict[int, list[Target]]:
    """By distance: facts that the model gives, with an object so far from the right one; the same facts at every distance."""
    world, given = bench.panel.world, bench.before.facts.argmax(-1).numpy()
    known = (given == world.objects) & world.shown & (world.orders == 0)[:, None]
    apart = entity_graph.distances(world, 0)
    wide = np.array([[all((apart[o] == d).any() for d in DISTANCES) for o in row] for row in world.objects])
    chosen = rng.permutation(np.argwhere(known & wide))[: bench.settings.facts]
    if not len(chosen):  # nothing is known yet
        chosen = rng.permutation(np.argwhere(world.shown & wide & (world.orders == 0)[:, None]))[: bench.settings.facts]
    targets: dict[int, list[Target]] = {distance: [] for distance in DISTANCES}
    for relation, entity in chosen:
        for distance in DISTANCES:
            objects = np.flatnonzero(apart[world.objects[relation, entity]] == distance)
            targets[distance].append(Target(int(entity), int(relation), int(rng.choice(objects))))
    return targets


def corrective_targets(bench: Bench, rng: np.random.Generator) -> list[Target]:
    """Facts of order I that the model gets wrong, with their right object."""
    world, given = bench.panel.world, bench.before.facts.argmax(-1).numpy()
    wrong = rng.permutation(np.argwhere((given != world.objects) & (world.orders == 0)[:, None]))
    return [Target(int(e), int(r), int(world.objects[r, e])) for r, e in wrong[: bench.settings.facts]]


def condition_rows(
    bench: Bench, lab: Lab, method: str, condition: str, targets: Sequence[Target], distance: int | None = None
) -> Iterator[Record]:
    """Mean effects of edits of one kind, each alone, and of their nulls."""
    arms: dict[str | None, list[EffectValues]] = {None: [], **{kind: [] for kind in NULLS}}
    for target in targets:
        session = bench.edit(method, target, lab.seed)
        arms[None].append(effects(bench, target, session.edits) | {("norm", ()): session.applied[0].relative_norm})
        for kind in NULLS:
            arms[kind].append(effects(bench, target, norm_matched_edits(session.edits, kind, seed=lab.seed)))
    for control, drawn in arms.items():
        if distance is not None:
            yield lab.row("distance", distance, condition, control=control)
        for metric, place in drawn[0] if drawn else ():
            values = [one[metric, place] for one in drawn]
            row = lab.row(metric, float(np.mean(values)), condition, control=control, n=len(values))
            yield replace(row, coords=dict(place))
    if not targets:
        yield lab.row("efficacy", float("nan"), condition, reason="the model gets no such fact wrong")


_COSTS = {
    ("distortion", (("role", "edit"),)): "distortion_of_edited",
    ("accuracy_drop", (("kind", "direct"), ("role", "edit"))): "direct_drop",
}
"""Distortion and cost of the edited order, which pictures read under a name without coordinates."""


def with_costs(rows: Iterable[Record], costs: dict[str, dict[str, float]]) -> Iterator[Record]:
    """The rows, and those of pictures; distortion and cost of each condition are added to `costs`."""
    for row in rows:
        yield row
        if drawn := _COSTS.get((row.metric, tuple(sorted(row.coords.items())))):
            yield replace(row, metric=drawn, coords={})
            if row.control is None and row.stage is not None:
                costs.setdefault(row.stage, {})[drawn] = row.value


def shuffled_costs(lab: Lab, costs: Mapping[str, Mapping[str, float]]) -> Iterator[Record]:
    """Null run of the relation of distortion and cost: the costs belong to other edits."""
    order = np.random.default_rng([lab.seed, 8]).permutation(len(costs))
    others = [list(costs.values())[i] for i in order]
    for (condition, own), other in zip(costs.items(), others, strict=True):
        yield lab.row("distortion", own["distortion_of_edited"], condition, control="shuffled_costs", role="edit")
        drop = other["direct_drop"]
        yield lab.row("accuracy_drop", drop, condition, control="shuffled_costs", role="edit", kind="direct")


def effects(bench: Bench, target: Target, edits: Sequence[Edit]) -> EffectValues:
    """Efficacy, distortion and loss of accuracy of one edit."""
    panel, before = bench.panel, bench.before
    after, fact = read_panel(bench.model, panel, edits), (target.relation, target.entity)
    values: EffectValues = {("efficacy", ()): float(after.facts[*fact, target.new])}
    original, propagated = consequences(panel, after, target.entity, target.relation, target.new)
    values["consequences_original", ()], values["consequences_propagated", ()] = original, propagated
    for name, moved in distortions(panel, before, after).items():
        role = (("role", name),)
        values["distortion", role] = moved.distortion
        values["rearrangement", role] = moved.rearrangement
        values["procrustes", role] = moved.procrustes
    for order, name in enumerate(ROLES[: panel.world.config.orders]):
        old, new = (accuracies(panel, reading, order, fact) for reading in (before, after))
        for kind in old:
            values["accuracy_drop", (("kind", kind), ("role", name))] = old[kind] - new[kind]
    return values

"""Study: does an edit of one fact shatter the representation of related facts, and is that before or after it has formed?

Representation shattering (arXiv:2410.17194). A small decoder learns facts of three rings from random walks; facts of one ring are edited by
four methods, each alone, at several distances and at several checkpoints, beside random changes of the same norm.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ontogeny.editing import norm_matched_edits
from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.linalg.isomap import isomap
from ontogeny.models.model import model_from_network
from ontogeny.records import Record
from ontogeny.studies.knowledge_editing._claims import BEFORE, CLAIMS, EARLY, LATE, TRAINING, at_distance, corrective
from ontogeny.studies.knowledge_editing._edits import (
    Bench,
    Target,
    condition_rows,
    corrective_targets,
    counterfactual_targets,
    effects,
    shuffled_costs,
    with_costs,
)
from ontogeny.studies.knowledge_editing._panel import (
    Panel,
    Reading,
    accuracies,
    distortions,
    read_panel,
    ring_correlations,
)
from ontogeny.studies.knowledge_editing._settings import DISTANCES, METHODS, NULLS, ROLES, Settings
from ontogeny.studies.knowledge_editing._training import make_bench, recipe
from ontogeny.studies.knowledge_editing._tree import tree_rows
from ontogeny.training.checkpoint_schedule import sqrt_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.worlds import entity_graph

__all__ = [
    "CHALLENGES",
    "CLAIMS",
    "DIFFERENCES",
    "PAPER",
    "PICTURES",
    "PRESETS",
    "SECONDS",
    "SETUP",
    "TITLE",
    "VERSION",
    "Settings",
    "run",
]

TITLE = "Representation shattering by knowledge editing"
PAPER = "Representation Shattering in Transformers: A Synthetic Study with Knowledge Editing, arXiv:2410.17194"
SETUP = """
A GPT-2 of two layers learns walks over entities in three random cyclic orders. Facts of the first order are edited one at a time by ROME,
MEMIT, AlphaEdit and PMET, and by ROME without its bounds: wrong answers are corrected, known facts get an object 1 to 4 places from the
right one. After each edit all facts of the three orders are asked again, by the original answers and by those that follow from the edit,
and the states (the stream after the first block at the relation) are compared by R, the relative change of their pairwise distances.
The same is done at checkpoints on the way, and in a second decoder whose facts lie in trees.
"""
DIFFERENCES = (
    "20 entities in place of 2,048, so 480 facts in place of 49,152; 4 heads in place of 12. Preset paper has the paper's sizes.",
    "Probabilities are taken among the entities, since after a relation a second one may follow.",
    "The second relation of a pair is of the same order as the first.",
    "Edited and compared is the first block, at the last token of the prompt: there the rings are, while states after the second lie by "
    "their unembedding. Both are settings (layer, site).",
    "The second moment has a ridge, and the shift of the value a largest length; the paper states neither.",
    "The tree is generated (ancestors and siblings), in place of cities and countries in GPT-2 XL.",
    "Two nulls of equal norm: a random rank-one change, and a random value at the key of the edit.",
)
CHALLENGES = (2, 3)
VERSION = 2
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(entities=12, hops=2, steps=60, batch=32, facts=1, contexts=1, pairs=48, checkpoints=3, descent=4,
        tree_entities=14, tree_steps=30),
    "tiny": Settings(),
    "small": Settings(entities=48, width=48, steps=6000, facts=10, contexts=5, pairs=500, checkpoints=12,
        tree_entities=40, tree_steps=3000),
    "paper": Settings(
        entities=2048, heads=12, steps=150_000, rate=6e-4, batch=256, facts=10, contexts=5, pairs=5000, tree_entities=2048,
        tree_hops=4, tree_steps=150_000,
    ),
}  # fmt: skip
SECONDS = {"smoke": 3, "tiny": 55, "small": 1200, "paper": 400_000}

_FAR = at_distance("rome", DISTANCES[-1])
PICTURES = (
    StudyPicture(
        "Entities of one order by Isomap, before and after an edit of one of its facts",
        ("isomap_x", "isomap_y"),
        (BEFORE, at_distance("rome", 1), _FAR, at_distance("unbounded", DISTANCES[-1])),
        points=True,
        caption="Lines join neighbours in the order; a ring that stays a ring has not shattered.",
    ),
    StudyPicture(
        "Distortion R and lost probability of direct recall, edited order",
        ("distortion_of_edited", "direct_drop"),
        points=True,
        log_x=True,
        caption="A mark for each method, kind of edit and seed; diamonds and triangles are random changes of equal norm.",
    ),
    StudyPicture(
        "Distortion R by the distance of the new object",
        ("distance", "distortion_of_edited"),
        tuple(at_distance(method, distance) for method in METHODS for distance in DISTANCES),
        points=True,
        log_y=True,
    ),
    StudyPicture("Order of the representations over training", ("ring_correlation", "direct_recall"), (TRAINING,)),
    StudyPicture(
        "Effects of edits at distance 4 over training",
        ("training_distortion", "training_drop", "training_efficacy", "unbounded_distortion"),
        (TRAINING,),
        caption="Each checkpoint is edited by itself; dashed lines are random changes of equal norm.",
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: training with edits at its checkpoints, then all methods at its end."""
    world = entity_graph.make(
        entity_graph.Config(
            entities=settings.entities, orders=len(ROLES), hops=settings.hops, composed=settings.composed, seed=lab.seed,
            shape=settings.shape,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    panel = Panel.of(world, settings, lab.seed)
    tokenizer = entity_graph.tokenizer(world)
    marks = sqrt_steps(settings.steps, settings.checkpoints, first=max(1, settings.steps // 8))
    trained: list[tuple[int, float, dict[str | None, dict[str, float]]]] = []
    for session in training_sessions(recipe(world, settings, settings.steps, lab.seed)):
        if session.step in marks:
            lab.on_activity("training", session.step, settings.steps)
            session.network.eval()
            model = model_from_network(session.network, tokenizer)
            bench = make_bench(model, panel, settings, lab.seed)
            ring, other = ring_correlations(panel, bench.before)
            yield from _curve_rows(lab, session.step, bench, ring, other)
            trained.append((session.step, ring, _training_effects(bench, lab)))
            for control, values in trained[-1][2].items():
                for metric, value in values.items():
                    yield lab.row(metric, value, TRAINING, step=session.step, control=control)
                if control:  # a random change comes to the same ring
                    yield lab.row("ring_before_edit", ring, TRAINING, step=session.step, control=control)
            yield lab.row("ring_before_edit", ring, TRAINING, step=session.step)
            if session.step == settings.steps:
                yield from _final_rows(bench, lab)
            session.network.train()
    yield from _halves(lab, trained)
    yield from tree_rows(settings, lab)


def _curve_rows(lab: Lab, step: int, bench: Bench, ring: float, other: float) -> Iterator[Record]:
    yield lab.row("ring_correlation", ring, TRAINING, step=step)
    yield lab.row("ring_correlation", other, TRAINING, step=step, control="another_order")
    recall = accuracies(bench.panel, bench.before, 0)
    for kind, value in recall.items():
        yield lab.row(f"{kind}_recall", value, TRAINING, step=step)
    if step == 0:  # the null run of the rings
        yield lab.row("ring_correlation", ring, BEFORE, control="untrained")
        yield lab.row("other_ring_correlation", other, BEFORE, control="untrained")


def _training_effects(bench: Bench, lab: Lab) -> dict[str | None, dict[str, float]]:
    """Mean effects of edits at the largest distance at one checkpoint, by control; and the distortion by ROME without its bounds."""
    targets = counterfactual_targets(bench, np.random.default_rng([lab.seed, 5]))[DISTANCES[-1]]
    drawn: dict[str | None, list[dict[str, float]]] = {None: [], **{kind: [] for kind in NULLS}}
    for target in targets:
        bounded, free = (bench.edit(method, target, lab.seed).edits for method in ("rome", "unbounded"))
        nulls = {kind: [norm_matched_edits(e, kind, seed=lab.seed) for e in (bounded, free)] for kind in NULLS}
        for control, (own, loose) in {None: [bounded, free], **nulls}.items():
            values = effects(bench, target, own)
            moved = distortions(bench.panel, bench.before, read_panel(bench.model, bench.panel, loose))
            drawn[control].append(
                {
                    "training_distortion": values["distortion", (("role", "edit"),)],
                    "training_drop": values["accuracy_drop", (("kind", "direct"), ("role", "edit"))],
                    "training_efficacy": values["efficacy", ()],
                    "unbounded_distortion": moved["edit"].distortion,
                }
            )
    return {
        control: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for control, rows in drawn.items()
    }


def _final_rows(bench: Bench, lab: Lab) -> Iterator[Record]:
    """Rows of the trained model: before any edit, then all methods."""
    ring, other = ring_correlations(bench.panel, bench.before)
    yield lab.row("ring_correlation", ring, BEFORE)
    yield lab.row("other_ring_correlation", other, BEFORE)
    for order, name in enumerate(ROLES):
        for kind, value in accuracies(bench.panel, bench.before, order).items():
            yield lab.row("accuracy", value, BEFORE, role=name, kind=kind)
            for control in (None, "unedited"):
                yield lab.row("accuracy_drop", 0.0, BEFORE, control=control, role=name, kind=kind)
    noise = [distortions(bench.panel, bench.before, _other_contexts(bench, lab.seed + i)) for i in (1, 2)]
    for name in ROLES:
        yield lab.row("context_distortion", noise[0][name].distortion, BEFORE, role=name)
        yield lab.row("context_distortion", noise[0][name].distortion, BEFORE, control="other_contexts", role=name)
        for condition in (_FAR, at_distance("unbounded", DISTANCES[-1])):
            yield lab.row("distortion", noise[1][name].distortion, condition, control="other_contexts", role=name)
    rng = np.random.default_rng([lab.seed, 6])
    targets, wrong = counterfactual_targets(bench, rng), corrective_targets(bench, rng)
    costs: dict[str, dict[str, float]] = {}
    for number, method in enumerate(METHODS):
        lab.on_activity(f"editing by {method}", number, len(METHODS))
        plans = [(at_distance(method, d), targets[d], d) for d in DISTANCES]
        for condition, chosen, distance in [*plans, (corrective(method), wrong, None)]:
            yield from with_costs(condition_rows(bench, lab, method, condition, chosen, distance), costs)
    for name in ROLES:
        yield lab.row("accuracy_drop", 0.0, corrective("rome"), control="unedited", role=name, kind="direct")
    yield from shuffled_costs(lab, costs)
    yield from _isomap_rows(bench, lab, targets[1][0], targets[DISTANCES[-1]][0])


def _other_contexts(bench: Bench, seed: int) -> Reading:
    return read_panel(bench.model, Panel.of(bench.panel.world, bench.settings, 1000 + seed))


def _isomap_rows(bench: Bench, lab: Lab, near: Target, far: Target) -> Iterator[Record]:
    """Coordinates of the entities at the first relation, turned towards those before the edit."""
    order, last = _places(bench.panel.world), DISTANCES[-1]
    plans = (
        (at_distance("rome", 1), "rome", near),
        (_FAR, "rome", far),
        (at_distance("unbounded", last), "unbounded", far),
    )
    readings: list[tuple[str, str | None, Reading]] = [(BEFORE, None, bench.before)]
    for name, method, target in plans:
        edits = bench.edit(method, target, lab.seed).edits
        readings.append((name, None, read_panel(bench.model, bench.panel, edits)))
        null = norm_matched_edits(edits, seed=lab.seed)
        readings.append((name, "random_rank_one", read_panel(bench.model, bench.panel, null)))
    reference: NDArray[np.float64] | None = None
    for condition, control, reading in readings:
        try:
            points = isomap(reading.states[0].double().numpy()[order])
        except BadInput as error:
            for metric in ("isomap_x", "isomap_y"):
                yield lab.row(metric, float("nan"), condition, control=control, reason=str(error), place=0)
            continue
        reference = points if reference is None else reference
        u, _, v = np.linalg.svd(points.T @ reference)
        for place, (x, y) in enumerate(points @ u @ v):
            yield lab.row("isomap_x", x, condition, control=control, place=place)
            yield lab.row("isomap_y", y, condition, control=control, place=place)


def _places(world: entity_graph.World) -> list[int]:
    """Entities of order I along their ring; of a tree from the root on, breadth first."""
    parents = world.parents[0]
    roots = [int(i) for i in np.flatnonzero(parents == np.arange(len(parents)))] or [0]
    places = list(roots)
    for entity in places:
        places += [int(i) for i in np.flatnonzero(parents == entity) if int(i) not in places]
    return places


def _halves(lab: Lab, trained: Sequence[tuple[int, float, dict[str | None, dict[str, float]]]]) -> Iterator[Record]:
    """Mean effects at the checkpoints whose ring correlation is below and above the middle between its least and its largest."""
    rings = [ring for _, ring, _ in trained]
    level = (min(rings) + max(rings)) / 2
    for condition, late in ((EARLY, False), (LATE, True)):
        own = [effect for _, ring, effect in trained if (ring >= level) == late]
        for control in (None, *NULLS):
            for metric in trained[0][2][None]:
                values = [effect[control][metric] for effect in own]
                mean = float(np.mean(values)) if values else float("nan")
                yield lab.row(
                    metric, mean, condition, control=control, n=len(values), reason="no checkpoint is on this side"
                )

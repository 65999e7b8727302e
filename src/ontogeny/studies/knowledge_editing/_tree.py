"""Trees in place of rings: a second decoder learns ancestors and siblings, and facts are edited at several distances in the tree."""

from collections.abc import Iterator

import numpy as np

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import model_from_network
from ontogeny.records import Record
from ontogeny.studies.knowledge_editing._claims import TREE, in_tree
from ontogeny.studies.knowledge_editing._edits import condition_rows, counterfactual_targets, shuffled_costs, with_costs
from ontogeny.studies.knowledge_editing._panel import Panel, accuracies, read_panel, ring_correlations
from ontogeny.studies.knowledge_editing._settings import DISTANCES, ROLES, TREE_METHODS, Settings
from ontogeny.studies.knowledge_editing._training import make_bench, recipe
from ontogeny.training.in_memory import training_sessions
from ontogeny.worlds import entity_graph


def tree_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: order of the representations before and after training, and the edits of the trained model."""
    world = entity_graph.make(
        entity_graph.Config(
            entities=settings.tree_entities, orders=len(ROLES), hops=settings.tree_hops, shape="tree", composed=settings.composed,
            seed=lab.seed,
        )
    )  # fmt: skip
    panel, tokenizer = Panel.of(world, settings, lab.seed), entity_graph.tokenizer(world)
    for session in training_sessions(recipe(world, settings, settings.tree_steps, lab.seed)):
        if session.step == 0:
            start = model_from_network(session.network.eval(), tokenizer)
            yield from _order_rows(lab, panel, ring_correlations(panel, read_panel(start, panel)), "untrained")
            session.network.train()
        if session.step % 100 == 0:
            lab.on_activity("training on trees", session.step, settings.tree_steps)
    bench = make_bench(model_from_network(session.network.eval(), tokenizer), panel, settings, lab.seed)
    yield from _order_rows(lab, panel, ring_correlations(panel, bench.before), None)
    for order, name in enumerate(ROLES):
        for kind, value in accuracies(panel, bench.before, order).items():
            yield lab.row("accuracy", value, TREE, role=name, kind=kind, reason="the tree has no such question")
    targets = counterfactual_targets(bench, np.random.default_rng([lab.seed, 6]))
    costs: dict[str, dict[str, float]] = {}
    for number, method in enumerate(TREE_METHODS):
        lab.on_activity(f"editing trees by {method}", number, len(TREE_METHODS))
        for distance in DISTANCES:
            rows = condition_rows(bench, lab, method, in_tree(method, distance), targets[distance], distance)
            yield from with_costs(rows, costs)
    yield from shuffled_costs(lab, costs)


def _order_rows(lab: Lab, panel: Panel, both: tuple[float, float], control: str | None) -> Iterator[Record]:
    """Correlation with the distances in the own tree, and with those in another one."""
    for metric, value in zip(("ring_correlation", "other_ring_correlation"), both, strict=True):
        yield lab.row(metric, value, TREE, control=control)

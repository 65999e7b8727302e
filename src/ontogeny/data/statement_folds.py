"""Folds of statements: directions are learned from one part and tested on held-out groups, or on a whole held-out set.

With several sets each is held out in turn (arXiv:2504.02904). Activations are centred per set and per model, without labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.splits import group_split
from ontogeny.statistics.unique import unique_inverse

LayerActivations = Sequence[Float[Tensor, "site example d"]]
"""Activations of each set of statements."""
_TEST_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class StatementFold:
    """Statements to learn a direction from, and statements to test it on."""

    concept: Concept
    """The tested set."""
    held: int
    """Index of the tested set."""
    learned: tuple[tuple[int, Int[Tensor, " row"]], ...]
    """Sets and rows that directions are learned from."""
    tested: Int[Tensor, " row"]
    """Rows of the tested set."""
    shots: tuple[Example, ...]
    """Statements shown with their verdicts before each question; their groups are not tested."""
    y: Bool[Tensor, " example"]
    """Labels of the learned statements."""
    groups: Int[Tensor, " example"]
    """Groups of the learned statements."""
    y_tested: Bool[Tensor, " row"]
    groups_tested: int
    """Number of tested groups."""
    weights: Float[Tensor, "sample row"]
    """Resamples of the tested groups, the same for all stages, so that results are paired."""
    weights_learned: Float[Tensor, "sample example"]

    @property
    def statements(self) -> list[Example]:
        return [self.concept.examples[i] for i in self.tested.tolist()]

    def learn(self, activations: LayerActivations) -> Float[Tensor, "site example d"]:
        """Centred activations of the learned statements."""
        parts = [activations[i][:, rows] for i, rows in self.learned]
        return torch.cat([x - x.mean(1, keepdim=True) for x in parts], 1)

    def test(self, activations: LayerActivations) -> Float[Tensor, "site row d"]:
        """Activations of the tested statements, centred by the learned rows of their set, or else by their own mean."""
        own = activations[self.held]
        [rows] = [rows for i, rows in self.learned if i == self.held] or [self.tested]
        return own[:, self.tested] - own[:, rows].mean(1, keepdim=True)


def statement_folds(concepts: Sequence[Concept], *, shots: int, resamples: int, seed: int) -> Iterator[StatementFold]:
    """One fold of a single set, or one per set of several.

    Raises:
        BadInput: a set that is not binary, or with too few groups.
    """
    if not concepts:
        raise BadInput("`statements` must name at least one concept of true and false statements, got none: add one.")
    for concept in concepts:
        if concept.kind != "binary":
            raise BadInput(
                f"`statements` must be sets of true and false statements, got {concept.name} of kind {concept.kind}: remove it."
            )
    labels, groups = [c.labels().bool() for c in concepts], [c.group_ids() for c in concepts]
    # Group numbers that differ between sets.
    offsets = [sum(len(c.examples) for c in concepts[:i]) for i in range(len(concepts))]
    for held, concept in enumerate(concepts):
        y, own = labels[held], groups[held]
        if len(concepts) == 1:
            split = group_split(own, y, concept.kind, test=_TEST_SHARE, seed=seed)
            learned: tuple[tuple[int, Tensor], ...] = ((0, split.train),)
            shown, tested = _draw_shots(y, own, split.train, shots, seed), split.test
        else:
            learned = tuple((i, torch.arange(len(c.examples))) for i, c in enumerate(concepts) if i != held)
            shown = _draw_shots(y, own, torch.arange(len(y)), shots, seed)
            tested = (~torch.isin(own, own[shown])).nonzero().flatten()
        learned_groups = torch.cat([groups[i][rows] + offsets[i] for i, rows in learned])
        yield StatementFold(
            concept,
            held,
            learned,
            tested,
            tuple(concept.examples[i] for i in shown.tolist()),
            torch.cat([labels[i][rows] for i, rows in learned]),
            learned_groups,
            y[tested],
            unique_inverse(own[tested])[0],
            group_weights(own[tested], samples=resamples, seed=seed),
            group_weights(learned_groups, samples=resamples, seed=seed + 1),
        )


def _draw_shots(
    y: Bool[Tensor, " example"], groups: Int[Tensor, " example"], among: Int[Tensor, " row"], count: int, seed: int
) -> Int[Tensor, " shot"]:
    """True and false statements in turn, of different groups if possible, in a random order."""
    order = among[torch.randperm(len(among), generator=torch.Generator().manual_seed(seed))]
    taken: list[int] = []
    for place in range(count):
        fits = [i for i in order.tolist() if bool(y[i]) == (place % 2 == 0) and i not in taken]
        used = set(groups[taken].tolist())
        if not fits:
            raise BadInput(f"there are too few statements for {count} examples before each: lower `shots`.")
        taken.append(next((i for i in fits if int(groups[i]) not in used), fits[0]))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    return torch.tensor(taken, dtype=torch.long)[shuffled]

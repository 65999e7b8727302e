"""Which statements a direction of truth is learned from, and which it is tried on: held-out groups of one set, or a whole other set.

With several sets each is held out in turn and the others are learned from, as in arXiv:2504.02904. Activations are centred set by set
and model by model, by means that know no labels.
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

LayerActivations = Sequence[Float[Tensor, "site example d"]]
"""Of each set of statements."""
_TEST_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class StatementFold:
    concept: Concept
    """Whose statements are tried."""
    held: int
    """Its place among the sets."""
    learned: tuple[tuple[int, Int[Tensor, " row"]], ...]
    """Sets and rows that directions are learned from."""
    tried: Int[Tensor, " row"]
    shots: tuple[Example, ...]
    """Statements shown with their verdicts before each question; their groups are not tried."""
    y: Bool[Tensor, " example"]
    groups: Int[Tensor, " example"]
    """Of what is learned from; of the tried ones see `weights`."""
    y_tried: Bool[Tensor, " row"]
    groups_tried: int
    weights: Float[Tensor, "sample row"]
    """Resamples of the tried groups: the same for all cells, so that cells are paired."""
    weights_learned: Float[Tensor, "sample example"]

    @property
    def statements(self) -> list[Example]:
        return [self.concept.examples[i] for i in self.tried.tolist()]

    def learn(self, seen: LayerActivations) -> Float[Tensor, "site example d"]:
        """Centred activations of what directions are learned from."""
        return torch.cat([_centred(seen[i][:, rows]) for i, rows in self.learned], 1)

    def try_on(self, seen: LayerActivations) -> Float[Tensor, "site row d"]:
        """Centred activations of the tried: by the mean of the learned rows of their own set, else by their own."""
        own = seen[self.held]
        [rows] = [rows for i, rows in self.learned if i == self.held] or [self.tried]
        return own[:, self.tried] - own[:, rows].mean(1, keepdim=True)


def statement_folds(concepts: Sequence[Concept], *, shots: int, resamples: int, seed: int) -> Iterator[StatementFold]:
    """One fold of a single set, one a set of several.

    Raises:
        BadInput: a set that is not of two classes, or with too few groups.
    """
    if not concepts:
        raise BadInput("truthfulness takes statements. Name a file with --statements.")
    for concept in concepts:
        if concept.kind != "binary":
            raise BadInput(f"{concept.name} is no set of true and false statements (it is of kind {concept.kind}).")
    for held, concept in enumerate(concepts):
        y, groups = concept.labels().bool(), concept.group_ids()
        if len(concepts) == 1:
            split = group_split(groups, y, concept.kind, test=_TEST_SHARE, seed=seed)
            learned: tuple[tuple[int, Tensor], ...] = ((0, split.train),)
            shown, tried = _draw_shots(y, groups, split.train, shots, seed), split.test
        else:
            others = [(i, c) for i, c in enumerate(concepts) if i != held]
            learned = tuple((i, torch.arange(len(c.examples))) for i, c in others)
            shown = _draw_shots(y, groups, torch.arange(len(y)), shots, seed)
            tried = (~torch.isin(groups, groups[shown])).nonzero().flatten()
        # Groups of two sets are never one.
        apart = [concepts[i].group_ids()[rows] + sum(len(c.examples) for c in concepts[:i]) for i, rows in learned]
        yield StatementFold(
            concept,
            held,
            learned,
            tried,
            tuple(concept.examples[i] for i in shown.tolist()),
            torch.cat([concepts[i].labels().bool()[rows] for i, rows in learned]),
            torch.cat(apart),
            y[tried],
            len(groups[tried].unique()),
            group_weights(groups[tried], samples=resamples, seed=seed),
            group_weights(torch.cat(apart), samples=resamples, seed=seed + 1),
        )


def _draw_shots(
    y: Bool[Tensor, " example"], groups: Int[Tensor, " example"], among: Int[Tensor, " row"], count: int, seed: int
) -> Int[Tensor, " shot"]:
    """True and false ones by turns, no two of a group while there are others, in an order drawn once."""
    order = among[torch.randperm(len(among), generator=torch.Generator().manual_seed(seed))]
    taken: list[int] = []
    for place in range(count):
        fits = [i for i in order.tolist() if bool(y[i]) == (place % 2 == 0) and i not in taken]
        used = set(groups[taken].tolist())
        if not fits:
            raise BadInput(f"there are not enough statements for {count} examples in front. Ask with fewer --shots.")
        taken.append(next((i for i in fits if int(groups[i]) not in used), fits[0]))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    return torch.tensor(taken, dtype=torch.long)[shuffled]


def _centred(x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
    return x - x.mean(1, keepdim=True)

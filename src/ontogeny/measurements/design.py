"""Design of a measurement: split, resamples, permutations and control task of a concept, the same at every checkpoint.

Since one design serves all sites and checkpoints, curves over training are paired and the maximum over the heat map can be taken.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int, Num
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.measurements.refit_null import REFITS
from ontogeny.measurements.rows import RowContext
from ontogeny.measurements.settings import TraceSettings
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.control_tasks import ControlTypes, control_labels, control_types
from ontogeny.statistics.cross_fitting import GroupPairs
from ontogeny.statistics.permutation import group_permutations
from ontogeny.statistics.splits import Split, contiguous_split, cross_fit_folds, group_split

_CONTROL_TASKS = 3
MAX_DEPENDENCE_EXAMPLES = 1000
"""Training examples used for dependence, which is cubic in their number."""
_DEPENDENCE_PERMUTATIONS = 200


@dataclass(frozen=True, eq=False)
class Design:
    concept: Concept
    y: Tensor
    groups: Int[Tensor, " example"]
    pairs: Int[Tensor, " example"] | None
    split: Split
    """Under cross-fitting all examples are on both sides: each is scored by the probe of its fold."""
    test_folds: Int[Tensor, " test"] | None
    """The fold of each test example; None without cross-fitting."""
    control_split: Split
    """Split of the control task, which is fitted once."""
    weights: Num[Tensor, "sample test"]
    """Resamples of the test groups."""
    permutations: Int[Tensor, "sample test"]
    """Under cross-fitting, those under which probes are fitted again."""
    one_fold_permutations: int
    """Number of permutations of `one_fold`."""
    control: ControlTypes
    control_y: Tensor | None
    """Labels of the control tasks, `[task, example]`; None if too few word types recur across the split."""
    dependence_rows: Int[Tensor, " row"]
    dependence_permutations: Int[Tensor, "sample row"]

    def on(self, device: torch.device) -> "Design":
        """The design with its tensors on a device."""

        def moved(part: Any) -> Any:
            if isinstance(part, Tensor):
                return part.to(device=device)
            if isinstance(part, Split | ControlTypes):
                return replace(part, **{f.name: moved(getattr(part, f.name)) for f in fields(part)})
            return part

        return replace(self, **{field.name: moved(getattr(self, field.name)) for field in fields(self)})

    def row_context(self, seed: int, *, n: int | None = None, split: str | None = "test") -> RowContext:
        """Columns of records about `n` examples, by default the test examples."""
        n = len(self.split.test) if n is None else n
        return RowContext(self.concept.name, str(self.concept.position), n, seed, split)

    @property
    def test_groups(self) -> int:
        return len(self.groups[self.split.test].unique())

    @cached_property
    def test_pairs(self) -> GroupPairs:
        """Pairs of test examples of the two classes inside their folds."""
        assert self.test_folds is not None
        return GroupPairs.of(self.y_test, self.test_folds, self.test_group_ids)

    @property
    def test_group_ids(self) -> Int[Tensor, " test"]:
        return self.groups[self.split.test]

    def one_fold(self) -> "Design":
        """A design of one split for work that applies one direction: the first fold against the others.

        The direction must be that of the first fold, see `Run.held_out_directions`. Without cross-fitting, the design itself.
        """
        if self.test_folds is None:
            return self
        test = (self.test_folds == 0).nonzero()[:, 0]
        split = Split((self.test_folds != 0).nonzero()[:, 0], test)
        return replace(
            self,
            split=split,
            control_split=split,
            test_folds=None,
            weights=group_weights(self.groups[test].cpu(), samples=len(self.weights), dtype=torch.uint8),
            permutations=group_permutations(
                self.y[test].cpu(), self.groups[test].cpu(), samples=self.one_fold_permutations
            ),
        )

    @property
    def y_train(self) -> Tensor:
        return self.y[self.split.train]

    @property
    def y_test(self) -> Tensor:
        return self.y[self.split.test]


def make_design(concept: Concept, settings: TraceSettings) -> Design:
    """Make the design of a concept; it depends on settings and seed only.

    Raises:
        BadInput: a side of the split lacks a class or has too few groups.
    """
    y, groups, pairs = concept.labels(), concept.group_ids(), concept.pair_ids()
    folds = None
    if settings.protocol == "cross-fit":
        folds = cross_fit_folds(groups, y, concept.kind, k=settings.folds, seed=settings.seed)
        everything = torch.arange(len(y))
        split, control_split = Split(everything, everything), _control_split(y, groups, folds, concept, settings)
        # Nothing is fitted to these: the same examples under every seed.
        related = _control_split(y, groups, folds, concept, replace(settings, seed=0)).train
    else:
        split = control_split = _split(concept, y, groups, settings)
        related = split.train
    control = control_types(_word_types(concept), control_split.train, control_split.test)
    if control.rule and any(example.type for example in concept.examples):
        control = replace(control, rule=f"{control.rule} of the column 'type'")
    # The published protocol uses every training example.
    most = len(y) if settings.protocol == "paper" else MAX_DEPENDENCE_EXAMPLES
    test, rows = split.test, related[_evenly_spaced(len(related), most)]
    try:
        used = None if folds is None else REFITS
        permutations = group_permutations(
            y[test], groups[test], samples=settings.permutations, seed=settings.seed, first=used
        )
        return Design(
            concept=concept,
            y=y,
            groups=groups,
            pairs=pairs if (pairs >= 0).any() else None,
            split=split,
            test_folds=folds,
            control_split=control_split,
            weights=group_weights(groups[test], samples=settings.resamples, seed=settings.seed, dtype=torch.uint8),
            permutations=permutations,
            one_fold_permutations=settings.permutations,
            control=control,
            control_y=_control_labels(control, y, settings.seed),
            dependence_rows=rows,
            dependence_permutations=group_permutations(
                y[rows], groups[rows], samples=_DEPENDENCE_PERMUTATIONS, seed=settings.seed
            ),
        )
    except BadInput as error:
        raise BadInput(f"{concept.name}: {error}") from None


def _control_split(y: Tensor, groups: Tensor, folds: Tensor, concept: Concept, settings: TraceSettings) -> Split:
    """That of a single split; with too few groups for it, the first fold against the others."""
    try:
        return group_split(groups, y, concept.kind, test=settings.test_share, seed=settings.seed)
    except BadInput:
        return Split((folds != 0).nonzero()[:, 0], (folds == 0).nonzero()[:, 0])


def _split(concept: Concept, y: Tensor, groups: Tensor, settings: TraceSettings) -> Split:
    if settings.protocol == "paper":
        return contiguous_split(len(y), test=0.2)
    return group_split(groups, y, concept.kind, test=settings.test_share, seed=settings.seed)


def _control_labels(control: ControlTypes, y: Tensor, seed: int) -> Tensor | None:
    return control_labels(control.ids, y, seeds=range(seed, seed + _CONTROL_TASKS)) if control.rule else None


def _word_types(concept: Concept) -> list[str]:
    """The type of each example as its file names it, else its text."""
    return [example.type or example.text for example in concept.examples]


def _evenly_spaced(n: int, most: int) -> Int[Tensor, " row"]:
    """At most `most` of n indices, evenly spaced: deterministic, and the same at every checkpoint."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long()

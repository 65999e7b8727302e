"""Edit session: ROME, MEMIT, AlphaEdit and PMET on one model, single facts or several at once, one after the other.

All state is in the session: the edits so far, and the keys that AlphaEdit protects. The model is never changed: use the edits with `steer`
for a while, or with `bake_edits` for good. A new session, or `reset`, starts from the unedited model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.tokenization import encode_texts
from ontogeny.editing.closed_forms import NullSpace, alphaedit_keys, memit_keys, rome_keys
from ontogeny.editing.facts import FactEdit, TokenizedFact, check_reaches_object, tokenize_fact
from ontogeny.editing.nulls import edit_norm
from ontogeny.editing.second_moment import SecondMoment, key_second_moments
from ontogeny.editing.value import EditValue, ValueSettings, optimise_value, read_at_place
from ontogeny.errors import BadInput, unknown_name
from ontogeny.interventions import RankOne
from ontogeny.models.model import Model, output_weight
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit, check_can_generate

EDIT_METHODS = ("rome", "memit", "alphaedit", "pmet")


@dataclass(frozen=True)
class EditSettings:
    """Settings of a session."""

    method: str = "rome"
    """rome: one layer, the new value exactly (arXiv:2202.05262). memit: several layers, least squares (arXiv:2210.07229). alphaedit: in the
    null space of preserved keys (arXiv:2410.02355). pmet: memit with a value of the MLP that attention shares (arXiv:2308.08742)."""
    layers: tuple[int, ...] = ()
    """Blocks whose MLP is edited, from 1; the value is that of the last of them. Empty: the middle one."""
    ridge: float = 1e-3
    """Share of its mean eigenvalue that is added to the diagonal of the second moment."""
    preservation: float = 0.1
    """MEMIT and PMET: weight of all keys' values against the new one. MEMIT's 15,000 is .92 for the 16,384 neurons of GPT-J."""
    null_share: float = 0.7
    """AlphaEdit: share of the eigenvectors of the second moment that form the null space."""
    damping: float = 0.1
    """AlphaEdit: size of λ relative to the edited keys."""
    value: ValueSettings = field(default_factory=ValueSettings)

    def __post_init__(self) -> None:
        if self.method not in EDIT_METHODS:
            raise unknown_name("editing method", self.method, EDIT_METHODS)
        if not (0 <= self.ridge < math.inf and 0 < self.preservation < math.inf and 0 < self.damping < math.inf):
            raise BadInput(
                f"`ridge` must be at least 0, `preservation` and `damping` above 0, got {self.ridge:g}, {self.preservation:g} and "
                f"{self.damping:g}."
            )
        if not 0 < self.null_share < 1:
            raise BadInput(
                f"`null_share` must be between 0 and 1, got {self.null_share:g}: AlphaEdit's own threshold selects about .7."
            )
        if self.method == "rome" and len(self.layers) > 1:
            raise BadInput(f"`layers` of rome must be one, got {list(self.layers)}: use memit for several.")

    def layers_of(self, model: Model) -> tuple[int, ...]:
        """The edited blocks, ascending."""
        return tuple(sorted(set(self.layers))) or ((model.layers + 1) // 2,)


@dataclass(frozen=True, eq=False)
class AppliedEdit:
    """The change that one call of `EditSession.edit` has added."""

    facts: tuple[FactEdit, ...]
    edits: tuple[Edit, ...]
    """For `steer` and `bake_edits`, to be used after those of the calls before."""
    values: tuple[EditValue, ...]
    norm: float
    """Frobenius norm of the change."""
    relative_norm: float
    """The same, as a share of the norm of the edited weights."""
    null_spaces: Mapping[int, NullSpace] = field(default_factory=dict)
    """AlphaEdit: the null space of each layer."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The null spaces in words."""
        return tuple(
            f"null space of layer {layer}: {space.rank} of {len(space.projector)} directions, with {space.trace_share:.2g} of the keys' "
            "squared norm"
            for layer, space in self.null_spaces.items()
        )


class EditSession:
    """Edits of one model, in order."""

    def __init__(
        self,
        model: Model,
        texts: Sequence[str] = (),
        settings: EditSettings | None = None,
        *,
        prefixes: Sequence[str] = (),
        moments: Mapping[int, SecondMoment] | None = None,
    ) -> None:
        """Read the texts once.

        Args:
            texts: Texts like those that the model was trained on, for the second moment of the keys.
            prefixes: Contexts before a fact, over which its key is averaged.
            moments: Second moments by layer that are known already, in the place of texts.

        Raises:
            BadInput: no texts, a layer that the model does not have, or a model without one MLP in each block.
        """
        check_can_generate(model)
        self.model, self.settings, self.prefixes = model, settings or EditSettings(), tuple(prefixes)
        self.layers = self.settings.layers_of(model)
        if moments is None:
            rows = encode_texts(model.tokenizer, texts, [None] * len(texts)) if texts else []
            moments = key_second_moments(model, [row.ids for row in rows], self.layers)
        if lacking := [layer for layer in self.layers if layer not in moments]:
            raise BadInput(f"`moments` must hold each edited layer, got none for {lacking[0]}.")
        if self.settings.method in ("memit", "alphaedit") and model.architecture.mlp_added:
            raise BadInput(
                f"{model.network.config.model_type} has a norm between the MLP and the stream, so that a value of the stream is none of "
                "the MLP: use rome or pmet."
            )
        self.moments = moments
        self.reset()

    def reset(self) -> None:
        """Forget all edits and the keys that they protect."""
        self._applied: list[AppliedEdit] = []
        self._protected = {layer: self.moments[layer].matrix[:, :0] for layer in self.layers}

    @property
    def applied(self) -> tuple[AppliedEdit, ...]:
        """The changes so far, oldest first."""
        return tuple(self._applied)

    @property
    def edits(self) -> list[Edit]:
        """All changes so far, for `steer` and `bake_edits`."""
        return [edit for applied in self._applied for edit in applied.edits]

    def edit(self, *facts: FactEdit, prefixes: Sequence[str] | None = None) -> AppliedEdit:
        """Add one change for all these facts; ROME edits them one after the other.

        Args:
            prefixes: Contexts of these facts, in the place of the session's.

        Raises:
            BadInput: no fact, tokens that do not align, a subject that no later token can read, or a singular second moment.
        """
        if not facts:
            raise BadInput("`facts` must be at least one, got none: give the prompt and its new object.")
        contexts = self.prefixes if prefixes is None else prefixes
        tokenized = [tokenize_fact(self.model, fact, contexts) for fact in facts]
        for fact in tokenized:
            check_reaches_object(self.model, fact, self.layers[-1])
        new: list[Edit] = []
        alone = self.settings.method == "rome"
        values = tuple(self._rome(fact, new) for fact in tokenized) if alone else self._spread(tokenized, new)
        norms = [float(output_weight(self.model, Site("mlp", layer)).double().norm()) for layer in self.layers]
        norm = edit_norm(new)
        applied = AppliedEdit(
            facts, tuple(new), values, norm, norm / sum(n * n for n in norms) ** 0.5, self._null_spaces()
        )
        self._applied.append(applied)
        return applied

    def _rome(self, fact: TokenizedFact, new: list[Edit]) -> EditValue:
        site = Site("mlp", self.layers[0])
        value = optimise_value(self.model, fact, [site], self.edits + new, self.settings.value)
        left = rome_keys(self._preserved(site.layer), self._key(fact, site.layer, new))
        new.append(Edit(site, RankOne(left[:, 0], value.shifts[0])))
        return value

    def _spread(self, facts: Sequence[TokenizedFact], new: list[Edit]) -> tuple[EditValue, ...]:
        """Spread the values of all facts over the layers, each from the streams after the layers before it."""
        last, pmet = self.layers[-1], self.settings.method == "pmet"
        site = Site("mlp", last) if pmet else Site("resid", last)
        shifted = [Site("attn", last), site] if pmet else [site]
        before = self.edits
        values = tuple(optimise_value(self.model, fact, shifted, before, self.settings.value) for fact in facts)
        goals = [self._mean(fact, site, new) + value.shifts[-1] for fact, value in zip(facts, values, strict=True)]
        protected = dict(self._protected)
        for number, layer in enumerate(self.layers):
            keys = torch.stack([self._key(fact, layer, new) for fact in facts], dim=1)
            missing = [goal - self._mean(fact, site, new) for fact, goal in zip(facts, goals, strict=True)]
            left, remaining = self._left(layer, keys), len(self.layers) - number
            # PMET gives each layer more than its equal part, by the root.
            share = remaining**-0.5 if pmet else 1 / remaining
            new += [
                Edit(Site("mlp", layer), RankOne(left[:, i], residual * share)) for i, residual in enumerate(missing)
            ]
            protected[layer] = torch.cat([self._protected[layer], keys], dim=1)
        self._protected = protected  # at the end, so that an edit that fails leaves none of its keys
        return values

    def _left(self, layer: int, keys: Float[Tensor, "inside fact"]) -> Float[Tensor, "inside fact"]:
        if self.settings.method == "alphaedit":
            space = self.moments[layer].null_space(self.settings.null_share)
            return alphaedit_keys(space.projector, self._protected[layer], keys, self.settings.damping)
        return memit_keys(self._preserved(layer), keys, self.settings.preservation)

    def _preserved(self, layer: int) -> Float[Tensor, "inside inside"]:
        return self.moments[layer].with_ridge(self.settings.ridge)

    def _key(self, fact: TokenizedFact, layer: int, new: list[Edit]) -> Float[Tensor, " inside"]:
        return self._mean(fact, Site("neuron", layer), new)

    def _mean(self, fact: TokenizedFact, site: Site, new: list[Edit]) -> Float[Tensor, " width"]:
        """Mean over the contexts of a fact, under the edits so far."""
        (value,) = read_at_place(self.model, fact, [site], self.edits + new)
        return value.double().cpu().mean(0)

    def _null_spaces(self) -> dict[int, NullSpace]:
        if self.settings.method != "alphaedit":
            return {}
        return {layer: self.moments[layer].null_space(self.settings.null_share) for layer in self.layers}

"""Effects of refusal directions on one stage, beside norm-matched random directions, and their forward transfer between stages.

A vector is ablated from everything that writes into the stream, or added after one block (arXiv:2406.11717). Forward transfer is the
mean change of the refusal log-odds by an earlier stage's vector, divided by the change by the stage's own vector of the same norm:
1 is as good as its own. Form `above_random` subtracts the effect of random directions from both: 0 is no better than these.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.interventions import Add
from ontogeny.models.model import Model
from ontogeny.records import UNKNOWN_INTERVAL, IntervalEnds, Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import interval_ends
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.statistics.nulls import null_interval
from ontogeny.steering.refusal_prompts import RefusalPrompts
from ontogeny.steering.steer import Edit, ablate_everywhere
from ontogeny.steering.token_selection import TokenSelection

REFUSAL_EDITS = ("ablation", "addition")
_MEASURES = ("log_odds", "phrases")
_Changes = dict[str, Float[Tensor, " prompt"]]
"""Change of each prompt, by measure."""


def refusal_edits(
    model: Model, act: str, vector: Float[Tensor, " d"], *, layer: int, dose: float, where: TokenSelection = "all"
) -> list[Edit]:
    """The vector ablated from the whole stream, or added with norm `dose` after a block."""
    if act == "ablation":
        return ablate_everywhere(model, vector.float())
    return [Edit(Site("resid", layer), Add(vector.float() / vector.float().norm(), dose), where)]


@dataclass(frozen=True)
class RefusalEffectSettings:
    """How effects of refusal directions are measured."""

    where: TokenSelection
    """Tokens on which a vector is added."""
    tokens: int
    """Generated tokens in which refusal phrases are counted; 0: no phrases."""
    nulls: int
    """Random directions whose effect on the log-odds is measured."""
    phrase_nulls: int
    """Random directions whose effect on the phrases is measured."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RefusalEffects:
    """Changes of one stage's refusals by one kind of edit, on one kind of instructions."""

    prompts: RefusalPrompts
    table: StageRowBuilder
    stage: str
    act: str
    layer: int
    dose: float
    """Norm of every added vector: the distance between the stage's own means."""
    weights: Float[Tensor, "sample prompt"]
    groups: int
    settings: RefusalEffectSettings

    def changes(self, vector: Float[Tensor, " d"], *, phrases: bool = True) -> _Changes:
        """Change of each prompt by an edit with the vector; without `phrases` nothing is generated."""
        return {m: self._measured(vector, m) - self.plain[m] for m in self.measures if phrases or m == "log_odds"}

    def _measured(self, vector: Float[Tensor, " d"] | None, measure: str) -> Float[Tensor, " prompt"]:
        edits: list[Edit] = []
        if vector is not None:
            edits = refusal_edits(
                self.prompts.model, self.act, vector, layer=self.layer, dose=self.dose, where=self.settings.where
            )
        if measure == "log_odds":
            return self.prompts.log_odds(edits)
        return self.prompts.refused(edits, tokens=self.settings.tokens)

    @property
    def measures(self) -> tuple[str, ...]:
        return _MEASURES if self.settings.tokens else _MEASURES[:1]

    @cached_property
    def plain(self) -> dict[str, Float[Tensor, " prompt"]]:
        """The unsteered stage, by measure."""
        return {m: self._measured(None, m) for m in self.measures}

    @cached_property
    def random(self) -> dict[str, Float[Tensor, "direction sign prompt"]]:
        """Change by random directions of the same norm, each with its opposite if that is another edit."""
        signs = (1, -1) if self.act == "addition" else (1,)
        changes = {}
        for measure in self.measures:
            count = self.settings.nulls if measure == "log_odds" else self.settings.phrase_nulls
            if count:
                drawn = random_directions(self.prompts.model.d, count=count, seed=self.settings.seed)
                of = [[self._measured(sign * v, measure) - self.plain[measure] for sign in signs] for v in drawn]
                changes[measure] = torch.stack([torch.stack(pair) for pair in of])
        return changes

    def mean(self, values: Float[Tensor, " prompt"]) -> tuple[float, IntervalEnds]:
        """The mean with its 95 % interval over the groups of prompts."""
        return self._with_ends(float(values.mean()), self._samples(values), steady=bool((values == values[0]).all()))

    def random_interval(self, measure: str) -> IntervalEnds:
        """2.5 and 97.5 % quantiles of the mean change by a single random direction; NaN without any."""
        return null_interval(self.random[measure].mean(2).flatten()) if measure in self.random else UNKNOWN_INTERVAL

    def why_no_ratio(self, own: Float[Tensor, " prompt"], measure: str) -> str:
        """Why no share of the own vector's effect can be given: the effect is absent, or within chance; '' if it can."""
        value, (low, high) = self.mean(own)
        below, above = self.random_interval(measure)
        ablated = self.act == "ablation"
        if high >= 0 if ablated else low <= 0:
            meant = "takes no refusing away" if ablated else "brings no refusing"
            return f"its own vector {meant} for sure ({value:.2f}, {low:.2f} to {high:.2f}), so there is no share of it"
        if value >= below if ablated else value <= above:
            return (
                f"its own vector does no more ({value:.2f}) than single random directions ({below:.2f} to {above:.2f}), "
                "so there is no share of it"
            )
        return ""

    def ratio(
        self, part: Float[Tensor, " prompt"], whole: Float[Tensor, " prompt"], *, above: str = ""
    ) -> tuple[float, IntervalEnds]:
        """Ratio of two means with its interval; `above` names the measure whose random effect is subtracted from both."""
        drift, spread = self.random_mean(above) if above else (0.0, torch.zeros(len(self.weights), dtype=torch.float64))
        value = float((part.mean() - drift) / (whole.mean() - drift)) + 0.0  # no -0
        samples = (self._samples(part) - spread) / (self._samples(whole) - spread)
        return self._with_ends(value, samples, steady=bool((samples == samples[0]).all()))

    def random_mean(self, measure: str) -> tuple[float, Float[Tensor, " sample"]]:
        """Mean change by random directions, and its value on resamples of prompts and directions."""
        pairs = self.random[measure].mean(1)
        samples = torch.stack([self._samples(pair) for pair in pairs])
        generator = torch.Generator().manual_seed(self.settings.seed)
        draws = torch.randint(len(pairs), (samples.shape[1], len(pairs)), generator=generator)
        return float(pairs.mean()), samples.T.gather(1, draws).mean(1)

    def _samples(self, values: Float[Tensor, " prompt"]) -> Float[Tensor, " sample"]:
        w = self.weights.double()
        return w @ values / w.sum(1)

    def _with_ends(
        self, value: float, samples: Float[Tensor, " sample"], *, steady: bool
    ) -> tuple[float, IntervalEnds]:
        if steady:
            # All prompts agree, as phrases may: no resample differs. The exact binomial bound of the groups still holds.
            reach = 1 - 0.025 ** (1 / self.groups)
            return value, (max(value - reach, min(value, -1.0)), min(value + reach, max(value, 1.0)))
        return value, interval_ends(value, samples, groups=self.groups)

    def plain_rows(self, kind: str, template: str) -> Iterator[Record]:
        """Refusals of the unsteered stage, asked in the template of this name."""
        for measure, values in self.plain.items():
            value, ends = self.mean(values)
            if measure == "phrases":
                ends = max(0.0, ends[0]), min(1.0, ends[1])
            table = replace(self.table, site=None)
            yield table.row(
                f"refusal_{measure}", value, self.stage, ends=ends, n=len(values), instructions=kind, template=template
            )

    def null_rows(self) -> Iterator[Record]:
        """Mean effect of the random directions, and the interval of a single one."""
        for measure, changes in self.random.items():
            value, samples = self.random_mean(measure)
            below, above = self.random_interval(measure)
            yield self.table.row(
                "refusal_effect",
                value,
                self.stage,
                ends=interval_ends(value, samples, groups=max(2, min(len(changes), self.groups))),
                n=changes.shape[2],
                control="random_direction",
                note=f"{changes.shape[0] * changes.shape[1]} directions as long as the stage's own",
                act=self.act,
                of=measure,
                q2_5=f"{below:.4f}",
                q97_5=f"{above:.4f}",
            )

    def effect_rows(self, source: str, changes: _Changes) -> Iterator[Record]:
        """Effect of one stage's vector."""
        for measure, values in changes.items():
            value, ends = self.mean(values)
            coords = {"act": self.act, "of": measure, "dose": f"{self.dose:.4f}"}
            yield self.table.row("refusal_effect", value, self.stage, source, ends=ends, n=len(values), **coords)

    def transfer_rows(self, order: Sequence[str], changes: Mapping[str, _Changes]) -> Iterator[Record]:
        """Effect of each other stage's vector beside the stage's own, as a ratio and as a difference."""
        own = changes.get(self.stage, {})
        for source, of in changes.items() if own else ():
            if source == self.stage:
                continue
            way = "forward" if order.index(source) < order.index(self.stage) else "backward"
            for measure, other in of.items():
                why, absent = self.why_no_ratio(own[measure], measure), (math.nan, UNKNOWN_INTERVAL)
                forms = {
                    "difference": self.mean(other - own[measure]),
                    "ratio": absent if why else self.ratio(other, own[measure]),
                }
                if measure in self.random:
                    forms["above_random"] = absent if why else self.ratio(other, own[measure], above=measure)
                for form, (value, ends) in forms.items():
                    coords = {"act": self.act, "of": measure, "way": way, "form": form}
                    n = len(own[measure])
                    yield self.table.row(
                        "refusal_transfer", value, self.stage, source, ends=ends, n=n, reason=why, **coords
                    )

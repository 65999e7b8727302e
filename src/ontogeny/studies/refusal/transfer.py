"""Effects of vectors on one stage, beside random directions of the same length, and what share of its own vector's effect another's has.

Forward transfer is the mean change of the log-odds of refusing that an earlier stage's vector makes in a later one, divided by the change
that the later one's own vector makes there, both of the same length, at the same place, on the same instructions: 1 is as good as its own.
A push in any direction may change something, so form `above_random` takes what random directions do off both. 0: no better than these.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import percentile_interval
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.steering.steer import Edit
from ontogeny.studies.refusal.effects import RefusalPrompts, refusal_edits
from ontogeny.studies.refusal.settings import RefusalSettings

REFUSAL_MEASURES = ("log_odds", "phrases")


@dataclass(frozen=True, eq=False)
class RefusalEffects:
    """One kind of instructions put to one stage, and what an act with a vector changes."""

    model: Model
    asked: RefusalPrompts
    act: str
    layer: int
    dose: float
    """Length of what is added: the distance between the stage's own means, for every vector."""
    weights: Float[Tensor, "sample prompt"]
    groups: int
    settings: RefusalSettings

    def measured(self, vector: Float[Tensor, " d"] | None, measure: str) -> Float[Tensor, " prompt"]:
        edits = [] if vector is None else refusal_edits(self.model, self.act, vector, layer=self.layer, dose=self.dose)
        return (
            self.asked.log_odds(edits)
            if measure == "log_odds"
            else self.asked.refused(edits, tokens=self.settings.tokens)
        )

    def _edits(self, vector: Float[Tensor, " d"]) -> list[Edit]:
        where = self.settings.where
        return refusal_edits(self.model, self.act, vector, layer=self.layer, dose=self.dose, where=where)

    def by(self, vector: Float[Tensor, " d"], *, said: bool = True) -> dict[str, Float[Tensor, " prompt"]]:
        """Change of each prompt, by measure; `said`: with what is generated."""
        return {m: self.measured(vector, m) - self.plain[m] for m in self.measures if said or m == "log_odds"}

    @property
    def measures(self) -> tuple[str, ...]:
        return REFUSAL_MEASURES if self.settings.tokens else REFUSAL_MEASURES[:1]

    @cached_property
    def plain(self) -> dict[str, Float[Tensor, " prompt"]]:
        """Of the unsteered stage, by measure."""
        return {m: self.measured(None, m) for m in self.measures}

    @cached_property
    def random(self) -> dict[str, Float[Tensor, "direction sign prompt"]]:
        """Change under random directions of the same length, each with its opposite where that is another act."""
        signs = (1, -1) if self.act == "addition" else (1,)
        found = {}
        for measure in self.measures:
            count = self.settings.nulls if measure == "log_odds" else self.settings.nulls_said
            if count:
                drawn = random_directions(self.model.d, count=count, seed=self.settings.seed)
                changes = [[self.measured(sign * v, measure) - self.plain[measure] for sign in signs] for v in drawn]
                found[measure] = torch.stack([torch.stack(both) for both in changes])
        return found

    def mean(self, values: Float[Tensor, " prompt"]) -> tuple[float, tuple[float, float]]:
        """With its 95 % interval over the groups of prompts."""
        return self._with_ends(float(values.mean()), self.samples(values), steady=bool((values == values[0]).all()))

    def reach(self, measure: str) -> tuple[float, float]:
        """2.5 and 97.5 % quantiles of the mean change under a single random direction; NaN without any."""
        if measure not in self.random:
            return math.nan, math.nan
        single = self.random[measure].mean(2).flatten()
        return float(single.quantile(0.025)), float(single.quantile(0.975))

    def lacking(self, own: Float[Tensor, " prompt"], measure: str) -> str:
        """Why there is no share of the own vector's effect: it is not what is meant, or no more than chance; '' where there is."""
        value, (low, high) = self.mean(own)
        below, above = self.reach(measure)
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
    ) -> tuple[float, tuple[float, float]]:
        """Of two means, with its interval; `above` names the measure whose random directions are taken off both."""
        drift, spread = self.drift(above) if above else (0.0, torch.zeros(len(self.weights), dtype=torch.float64))
        value = float((part.mean() - drift) / (whole.mean() - drift)) + 0.0  # no -0
        samples = (self.samples(part) - spread) / (self.samples(whole) - spread)
        return self._with_ends(value, samples, steady=bool((samples == samples[0]).all()))

    def drift(self, measure: str) -> tuple[float, Float[Tensor, " sample"]]:
        """Mean change under random directions, and on each resample of the prompts with as many directions drawn anew."""
        pairs = self.random[measure].mean(1)
        samples = torch.stack([self.samples(pair) for pair in pairs])
        generator = torch.Generator().manual_seed(self.settings.seed)
        draws = torch.randint(len(pairs), (samples.shape[1], len(pairs)), generator=generator)
        return float(pairs.mean()), samples.T.gather(1, draws).mean(1)

    def samples(self, values: Float[Tensor, " prompt"]) -> Float[Tensor, " sample"]:
        w = self.weights.double()
        return w @ values / w.sum(1)

    def _with_ends(
        self, value: float, samples: Float[Tensor, " sample"], *, steady: bool
    ) -> tuple[float, tuple[float, float]]:
        if steady:
            # All prompts alike, as phrases may be: no resample differs. So many of the groups could still have gone otherwise.
            reach = 1 - 0.025 ** (1 / self.groups)
            return value, (max(value - reach, min(value, -1.0)), min(value + reach, max(value, 1.0)))
        ends = percentile_interval(torch.tensor([value], dtype=torch.float64), samples[:, None], groups=self.groups)
        return value, (float(ends.low), float(ends.high))

    def unsteered(self, table: StageRowBuilder, target: str, kind: str) -> Iterator[Record]:
        for measure, values in self.plain.items():
            value, ends = self.mean(values)
            if measure == "phrases":
                ends = max(0.0, ends[0]), min(1.0, ends[1])
            yield table.row(
                f"refusal_{measure}", value, target, ends=ends, n=len(values), coords={"instructions": kind}
            )

    def nulls(self, table: StageRowBuilder, site: Site, target: str) -> Iterator[Record]:
        """Random directions in pairs of opposite sign: their mean, and how far a single one reaches."""
        for measure, changes in self.random.items():
            value, samples = self.drift(measure)
            groups = max(2, min(len(changes), self.groups))
            ends = percentile_interval(torch.tensor([value], dtype=torch.float64), samples[:, None], groups=groups)
            below, above = self.reach(measure)
            yield table.row(
                "refusal_effect",
                value,
                target,
                site=site,
                ends=(float(ends.low), float(ends.high)),
                n=changes.shape[2],
                control="random_direction",
                note=f"{changes.shape[0] * changes.shape[1]} directions as long as the stage's own",
                coords={
                    "act": self.act,
                    "of": measure,
                    "q2_5": f"{below:.4f}",
                    "q97_5": f"{above:.4f}",
                },
            )


def refusal_effect_rows(
    table: StageRowBuilder, site: Site, target: str, source: str, of: RefusalEffects, changed: Mapping[str, Tensor]
) -> Iterator[Record]:
    for measure, values in changed.items():
        value, ends = of.mean(values)
        coords = {"act": of.act, "of": measure, "dose": f"{of.dose:.4f}"}
        yield table.row("refusal_effect", value, target, source, site=site, ends=ends, n=len(values), coords=coords)


def refusal_transfer_rows(
    table: StageRowBuilder,
    site: Site,
    target: str,
    order: Sequence[str],
    of: RefusalEffects,
    changed: Mapping[str, Mapping[str, Tensor]],
) -> Iterator[Record]:
    """Other stages' vectors against the stage's own, as a ratio and as a difference."""
    if target not in changed:
        return
    for source in changed:
        if source == target:
            continue
        way = "forward" if order.index(source) < order.index(target) else "backward"
        for measure in changed[source]:
            mine, theirs = changed[target][measure], changed[source][measure]
            why, absent = of.lacking(mine, measure), (math.nan, (math.nan, math.nan))
            forms = {"difference": of.mean(theirs - mine), "ratio": absent if why else of.ratio(theirs, mine)}
            if measure in of.random:
                forms["above_random"] = absent if why else of.ratio(theirs, mine, above=measure)
            for form, (value, ends) in forms.items():
                coords = {"act": of.act, "of": measure, "way": way, "form": form}
                yield table.row(
                    "refusal_transfer",
                    value,
                    target,
                    source,
                    site=site,
                    ends=ends,
                    n=len(mine),
                    coords=coords,
                    reason=why,
                )

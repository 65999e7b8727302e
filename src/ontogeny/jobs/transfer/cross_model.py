"""Map a vector into a model of another width or tokenizer, by a map fitted on what both models have read (arXiv:2503.21073).

The concept's vector of the source is mapped to a site of the same relative depth. Its effect there is compared with those of the target's
own vector, random directions, the vector without a map, random maps, and maps fitted on shuffled pairs, at several doses. Maps are
fitted without held-out texts.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.tokenization import encode_texts, shared_token_strings
from ontogeny.dynamics.measured_checkpoints import measured_checkpoints, one_fold_readout
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.resumable import job_session
from ontogeny.jobs.transfer.measure import EffectMeter, answer_margin_outcome, probe_readout_outcome
from ontogeny.jobs.transfer.plan import TransferSettings, choose_neutral_texts, open_trace
from ontogeny.jobs.transfer.rows import (
    SiteRows,
    effect_or_reason,
    null_p_values,
    nulls_or_reason,
    shuffled_label_directions,
)
from ontogeny.jobs.transfer.sources import transfer_site
from ontogeny.jobs.transfer.transfer import complete_trace
from ontogeny.linalg import linear_maps
from ontogeny.lineage import Lineage
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.scores import held_out_scores, score
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.similarity import cosine
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model
from ontogeny.probes import mass_mean
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_CONTROL_MAPS = 20
"""Number of random maps, and of maps fitted on shuffled pairs."""
_DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the settings' alpha in a dose curve."""
_DOSE_CONTROLS = 5
"""Maps of shuffled pairs in a dose curve."""
_CROSS_MODEL_VERSION = 2
"""Raised when the same input gives other rows."""
_MapPairs = Mapping[str, tuple[Float[Tensor, "pair source"], Float[Tensor, "pair target"], Int[Tensor, " pair"]]]
"""Rows of source and target with their groups, by kind of pair."""


@shows_progress
def transfer_to_model(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    target: str,
    settings: TransferSettings | None = None,
    *,
    reading: TraceSettings | None = None,
    traced: bool = False,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[Run, str]:
    """Map the vectors of the last checkpoint into the last checkpoint of `target`.

    Args:
        out: Run directory; what it lacks of the trace of the last checkpoint of each stage is traced first.
        target: Folder, repository or lineage.toml.

    Returns:
        The run, and the unit that holds the rows. For the other arguments see `transfer`.

    Raises:
        BadInput: the trace fails, or the models share too little to fit a map.
    """
    settings, options = settings or TransferSettings(), model or ModelOptions()
    plan, run = open_trace(lineage.select("last"), concepts, out, reading, traced=traced, model=options)
    complete_trace(plan, run, options, delete_behind=delete_behind, command=command, on_progress=on_progress)
    here = plan.lineage.checkpoints[-1]
    there = Lineage.open(target, allow_pickle=options.allow_pickle).checkpoints[-1]
    units = {concept.name: plan.units[here, concept.name] for concept in plan.concepts}
    unit = _unit_key(target, there.name, units.values(), settings)
    with job_session(run, [unit]):
        options = replace(options, dtype=plan.settings.dtype)
        on_progress(TraceProgress(here.label, 0, 2, "loading"))
        source_model = open_model(here, options)
        on_progress(TraceProgress(there.label, 1, 2, "loading"))
        target_model = open_model(there, replace(options, tokenizer=None))
        designs = {name: design.one_fold() for name, design in plan.designs.items()}
        texts = [d.concept.texts[i] for d in designs.values() for i in d.split.train.tolist()]
        rows: list[Record] = []
        for concept in plan.concepts:
            on_progress(TraceProgress(there.label, 1, 2, f"mapping {concept.name}"))
            measured = next(m for m in measured_checkpoints(run, concept.name) if m.unit == units[concept.name])
            site, at = transfer_site(run, measured, settings.site)
            vector, _ = one_fold_readout(run, plan.designs[concept.name], measured.unit, "mass_mean", "resid", at)
            target_site = Site("resid", round(site.layer * target_model.layers / source_model.layers))
            pairs = _pairs(source_model, site, target_model, target_site, texts)
            neutral, _ = choose_neutral_texts(concept, plan.concepts, settings.neutral)
            mapping = _Mapping(designs[concept.name], plan.settings, settings, target_model, target_site, pairs)
            rows += mapping.rows(vector, neutral)
        coords = {"onto": Path(target).name, "onto_checkpoint": there.name}
        rows = [replace(record, coords={**record.coords, **coords}) for record in rows]
        # Otherwise the rows of the first version, without doses, would remain beside the new ones.
        run.drop(_unit_key(target, there.name, units.values(), settings, ()))
        run.keep(unit, CheckpointStamp.of(plan.lineage.name, unit, here).on(rows))
    return run, unit


def _unit_key(
    target: str,
    checkpoint: str,
    sources: Iterable[str],
    settings: TransferSettings,
    version: tuple[int, ...] = (_CROSS_MODEL_VERSION,),
) -> str:
    # The class was called Options when the first runs were made.
    text = f"Options{str(settings).removeprefix(TransferSettings.__name__)}"
    return f"onto-{content_digest([target, checkpoint, sorted(sources), text, *version])}"


def _pairs(source: Model, site: Site, target: Model, target_site: Site, texts: Sequence[str]) -> _MapPairs:
    """Embeddings of shared token strings, and activations of the words of texts."""
    pairs: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    shared = shared_token_strings(
        source.tokenizer.get_vocab(),
        target.tokenizer.get_vocab(),
        [*source.tokenizer.all_special_tokens, *target.tokenizer.all_special_tokens],
    )
    if len(shared) >= linear_maps.MIN_MAP_PAIRS:
        left, right = (torch.tensor(ids) for ids in zip(*shared, strict=True))
        pairs["embeddings"] = (_embeddings(source)[left], _embeddings(target)[right], torch.arange(len(shared)))
    distinct = list(dict.fromkeys(texts))
    x, groups = _word_activations(source, site, distinct)
    y, target_groups = _word_activations(target, target_site, distinct)
    if len(x) >= linear_maps.MIN_MAP_PAIRS and torch.equal(groups, target_groups):
        pairs["activations"] = (x, y, groups)
    if not pairs:
        raise BadInput(
            f"the two models must share at least {linear_maps.MIN_MAP_PAIRS} token strings or words to fit a map, got {len(shared)} "
            f"token strings and {len(x)} words: give more texts."
        )
    return pairs


def _embeddings(model: Model) -> Float[Tensor, "token d"]:
    return model.network.get_input_embeddings().weight.detach().float().cpu()


def _word_activations(
    model: Model, site: Site, texts: Sequence[str]
) -> tuple[Float[Tensor, "word d"], Int[Tensor, " word"]]:
    """Activations at the last token of each word, with the index of its text. Words end at the same places in every tokenizer."""
    reads, groups, sequences = [], [], []
    for i, encoding in enumerate(encode_texts(model.tokenizer, texts, [None] * len(texts))):
        length = min(len(encoding.ids), model.context)
        sequences.append(tuple(encoding.ids[:length].tolist()))
        for word in re.finditer(r"\S+", texts[i]):
            at = ((encoding.offsets[:length, 1] >= word.end()) & ~encoding.special[:length]).nonzero().flatten()
            if len(at):
                weights = torch.zeros(length)
                weights[at[0]] = 1.0
                reads.append(ActivationRead(i, weights))
                groups.append(i)
    captured = capture_workload(model, Workload(tuple(sequences), tuple(reads)), [site])
    return captured.parts["resid"][0].cpu(), torch.tensor(groups)


@dataclass(frozen=True, eq=False)
class _Mapping:
    """One concept in the target model."""

    design: Design
    reading: TraceSettings
    settings: TransferSettings
    target: Model
    site: Site
    pairs: _MapPairs

    @property
    def build(self) -> SiteRows:
        return SiteRows.of(self.design, self.site, self.reading.seed)

    def rows(self, vector: Float[Tensor, " source"], neutral: Sequence[str]) -> Iterator[Record]:
        """Explained variance of each map, then readout and effect of the mapped vectors beside their nulls."""
        design, target, site, seed = self.design, self.target, self.site, self.reading.seed
        concept, train = design.concept, design.split.train
        work, reads = build_workload([concept], target.tokenizer, target.context, truncate=self.reading.truncate)
        last = Site("resid", target.layers)
        captured = capture_workload(target, replace(work, scored=()), list(dict.fromkeys([site, last])))
        parts = dict(
            zip(captured.sites["resid"], captured.parts["resid"].cpu()[:, reads[concept.name].reads], strict=True)
        )
        native, probe = (
            mass_mean.fit(parts[s][None, train], design.y_train, groups=design.groups[train]) for s in (site, last)
        )
        own, length = native.direction[0, :, 0], self.settings.alpha * float(native.facts["std"].flatten()[0])
        maps = {name: linear_maps.fit_linear_map(x, y, g, seed=seed) for name, (x, y, g) in self.pairs.items()}
        for name, fitted in maps.items():
            coords = {"map": name, "strength": f"{fitted.strength:g}"}
            yield self._row("map_r2", _float32(fitted.r2), coords, method="least_squares", n=fitted.pairs, split="all")
        vectors = {"native": own, "identity": _unit(linear_maps.identity_map(len(vector), len(own)).apply(vector))}
        vectors |= {name: _unit(fitted.apply(vector)) for name, fitted in maps.items()}
        controls = {
            (name, control): mapped
            for name, fitted in maps.items()
            for control, mapped in self._control_vectors(name, fitted, vector).items()
        }
        yield from self._readout_rows(parts[site], vectors, controls, own)
        if not self.settings.effect or (not concept.answers and site == last):
            return
        outcome = (
            answer_margin_outcome(target, design)
            if concept.answers
            else probe_readout_outcome(target, design, work, reads[concept.name].reads, probe.direction[0, :, 0])
        )
        meter = EffectMeter.of(target, site, outcome, neutral, self.settings.equal_cost)
        shuffled = shuffled_label_directions(parts[site], design, self.settings.shuffles)
        nulls = nulls_or_reason(meter, length, shuffled, self.settings)
        weights, kind = bootstrap.group_weights(outcome.groups, samples=1000, seed=seed), {"outcome": outcome.kind}
        for name, mapped in vectors.items():
            coords, measured = kind | {"map": name}, effect_or_reason(meter, mapped * length)
            if isinstance(measured, str) or isinstance(nulls, str):
                why = measured if isinstance(measured, str) else nulls
                yield self.build.row("mapped_effect", math.nan, coords, n=0, note=why)
                continue
            effect = measured.effect
            yield self.build.mean("mapped_effect", effect, outcome.groups, weights, coords)
            yield self._row("mapped_p", _float32(null_p_values(effect, nulls)[""]), coords, n=self.settings.controls)
        for control, draws in () if isinstance(nulls, str) else nulls.by_control.items():
            yield self.build.null("mapped_effect", control, draws.double(), kind)
        for (name, control), mapped_controls in controls.items():
            coords, tried = kind | {"map": name}, [effect_or_reason(meter, v * length) for v in mapped_controls]
            effects = [effect.effect.mean() for effect in tried if not isinstance(effect, str)]
            if len(effects) == len(tried):
                yield self.build.null("mapped_effect", control, torch.stack(effects).double(), coords)
                continue
            why = next(reason for reason in tried if isinstance(reason, str))
            yield self.build.row("mapped_effect", math.nan, coords, control=control, n=0, note=why)
        if self.settings.equal_cost is None:
            yield from self._dose_rows(meter, length, vectors, controls, weights)

    def _dose_rows(
        self,
        meter: EffectMeter,
        length: float,
        vectors: Mapping[str, Tensor],
        controls: Mapping[tuple[str, str], Sequence[Tensor]],
        weights: Float[Tensor, "sample unit"],
    ) -> Iterator[Record]:
        """Effect of each vector at several lengths, beside that of maps fitted on shuffled pairs."""
        for dose in _DOSES:
            coords = {"outcome": meter.outcome.kind, "dose": f"{dose:g}"}
            for name, vector in vectors.items():
                effect = meter.measure(vector * (dose * length)).effect
                yield self.build.mean(
                    "mapped_dose_effect", effect, meter.outcome.groups, weights, coords | {"map": name}
                )
            for (name, control), drawn in controls.items():
                if control == "shuffled_map":
                    few = (meter.measure(vector * (dose * length)).effect.mean() for vector in drawn[:_DOSE_CONTROLS])
                    effects = torch.stack(list(few)).double()
                    yield self.build.null("mapped_dose_effect", control, effects, coords | {"map": name})

    def _control_vectors(
        self, name: str, fitted: linear_maps.LinearMap, vector: Tensor
    ) -> dict[str, list[Float[Tensor, " d"]]]:
        x, y, _ = self.pairs[name]
        width = fitted.matrix.shape
        controls: dict[str, Callable[[int], linear_maps.LinearMap]] = {
            "random_map": lambda seed: linear_maps.random_map(width[0], width[1], seed=seed),
            "shuffled_map": lambda seed: linear_maps.fit_shuffled_map(x, y, fitted.strength, seed=seed),
        }
        return {
            control: [_unit(fit(seed).apply(vector)) for seed in range(_CONTROL_MAPS)]
            for control, fit in controls.items()
        }

    def _readout_rows(
        self,
        x: Float[Tensor, "example d"],
        vectors: Mapping[str, Tensor],
        controls: Mapping[tuple[str, str], Sequence[Tensor]],
        own: Tensor,
    ) -> Iterator[Record]:
        """AUROC of the vectors on held-out examples, and cosines with the target's own vector."""
        design = self.design

        def scores(directions: Sequence[Tensor]) -> Float[Tensor, "vector example 1"]:
            return (torch.stack(list(directions)) @ x[design.split.test].T)[..., None]

        all_scores = scores(list(vectors.values()))
        scored = held_out_scores("auroc", all_scores, design.y_test, design.weights, design.test_groups)
        for i, (name, vector) in enumerate(vectors.items()):
            coords = {"map": name}
            yield self._row("mapped_auroc", float(scored.value[i]), coords, interval=scored.interval[i].ends)
            yield self._row("mapped_cosine", float(cosine(vector[None], own[None])), coords)
        for (name, control), mapped in controls.items():
            auroc = score("auroc", scores(mapped), design.y_test)
            cosines = cosine(torch.stack(list(mapped)), own.expand(len(mapped), -1))
            for metric, values in (("mapped_auroc", auroc), ("mapped_cosine", cosines)):
                yield self.build.null(metric, control, values.double(), {"map": name})

    def _row(self, metric: str, value: float, coords: Mapping[str, str], **columns: Any) -> Record:
        return self.build.row(metric, value, coords, reason="degenerate scores", **columns)


def _float32(value: float) -> float:
    """The value as the first version stored it."""
    return float(torch.tensor(value))


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()

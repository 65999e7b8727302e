"""A vector carried into another model, of any width or tokenizer, by a map fitted on what both have read (arXiv:2503.21073).

The concept's vector of the source is read again at a site of the same relative depth, mapped, and tried there as any other: against the
target's native vector, random directions, random maps and maps fitted on mixed-up pairs. What a map is fitted on holds no held-out text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.tokenization import encode_texts
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.trace.reread import concept_as_traced, trace_settings_of
from ontogeny.jobs.transfer import linear_maps
from ontogeny.jobs.transfer.measure import EffectMeter, answer_margin_outcome, probe_readout_outcome
from ontogeny.jobs.transfer.plan import TransferSettings, choose_neutral_texts
from ontogeny.jobs.transfer.rows import (
    SHUFFLED_LABEL,
    mean_row,
    measure_nulls,
    null_p_values,
    null_row,
    shuffled_label_directions,
)
from ontogeny.jobs.transfer.sources import transfer_site
from ontogeny.jobs.transfer.transfer import TransferRunOptions
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.rows import CheckpointStamp, RowContext, site_rows
from ontogeny.measurements.scores import held_out_scores, score
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.similarity import cosine
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.models.model import Model, load_model
from ontogeny.probes import mass_mean
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_CONTROL_MAPS = 20
"""Random maps, and maps of mixed-up pairs."""
_MapPairs = Mapping[str, tuple[Float[Tensor, "pair source"], Float[Tensor, "pair target"], Int[Tensor, " pair"]]]
"""Pairs by what they are of, with the group of each."""


def transfer_to_model(
    run: Run,
    lineage: Lineage,
    concepts: Sequence[Concept],
    target: str,
    options: TransferSettings | None = None,
    how: TransferRunOptions | None = None,
) -> str:
    """Map the vectors of the last checkpoint onto the last checkpoint of `target`; returns the unit that holds the rows.

    Raises:
        BadInput: the run holds no vector of a concept, or the models share nothing that a map could be fitted on.
    """
    options, how, settings = options or TransferSettings(), how or TransferRunOptions(), trace_settings_of(run)
    placed = [concept_as_traced(run, concept) for concept in concepts]
    designs = {concept.name: make_design(concept, settings) for concept in placed}
    here, there = lineage.checkpoints[-1], Lineage.open(target, allow_pickle=how.allow_pickle).checkpoints[-1]
    visits = {c.name: _visit(run, c.name, here.stage, here.step) for c in placed}
    how.watch(TraceProgress(here.name, 0, 2, "loading"))
    source = _open_model(here, settings, how, how.tokenizer)
    how.watch(TraceProgress(there.name, 1, 2, "loading"))
    other = _open_model(there, settings, how, None)
    texts = [text for d in designs.values() for text in _training_texts(d)]
    made: list[Record] = []
    with run_lock(run.folder):
        for concept in placed:
            how.watch(TraceProgress(there.name, 1, 2, f"mapping {concept.name}"))
            site, at = transfer_site(run, visits[concept.name], options.site)
            key = "mass_mean/resid/direction"
            vector = run.directions(visits[concept.name].unit, [key])[key][at, :, 0].float()
            reached = Site("resid", round(site.layer * other.layers / source.layers))
            pairs = _pairs(source, site, other, reached, texts)
            neutral, _ = choose_neutral_texts(concept, placed, options.neutral)
            made += _effect_rows(designs[concept.name], settings, vector, pairs, other, reached, neutral, options)
        settled = str(options).replace("TransferSettings", "Options", 1)  # the class's name when the key was chosen
        unit = f"onto-{content_digest([str(target), there.name, sorted(v.unit for v in visits.values()), settled])}"
        named = {"onto": Path(target).name, "onto_checkpoint": there.name}
        made = [replace(record, coords={**record.coords, **named}) for record in made]
        stamp = CheckpointStamp.of(str(run.about["lineage"]["name"]), unit, here)
        run.keep(unit, stamp.on(made))
    return unit


def _visit(run: Run, concept: str, stage: str, step: int | None) -> MeasuredCheckpoint:
    found = [visit for visit in measured_checkpoints(run, concept) if (visit.stage, visit.step) == (stage, step)]
    if not found:
        raise BadInput(f"{run.folder} holds no {concept} at {stage} {step}. Trace it first, with the same files.")
    return found[0]


def _open_model(
    checkpoint: Checkpoint, settings: TraceSettings, how: TransferRunOptions, tokenizer: Path | None
) -> Model:
    folder = fetch_checkpoint(checkpoint, allow_pickle=how.allow_pickle)
    return load_model(
        folder,
        device=how.device,
        dtype=getattr(torch, settings.dtype),
        tokenizer=tokenizer or nearest_tokenizer(folder),
        allow_pickle=how.allow_pickle,
    )


def _training_texts(one: Design) -> list[str]:
    """Texts of the groups that nothing is scored on."""
    return [one.concept.texts[i] for i in one.split.train.tolist()]


def _pairs(source: Model, site: Site, target: Model, reached: Site, texts: Sequence[str]) -> _MapPairs:
    """What both models have: token strings with their embeddings, and the words of texts with their activations."""
    made: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    shared = linear_maps.shared_token_strings(
        source.tokenizer.get_vocab(),
        target.tokenizer.get_vocab(),
        [*source.tokenizer.all_special_tokens, *target.tokenizer.all_special_tokens],
    )
    if len(shared) >= linear_maps.MIN_MAP_PAIRS:
        left, right = (torch.tensor(ids) for ids in zip(*shared, strict=True))
        both = (_embeddings(source)[left], _embeddings(target)[right])
        made["embeddings"] = (*both, torch.arange(len(shared)))
    told = list(dict.fromkeys(texts))
    x, groups = _word_activations(source, site, told)
    y, others = _word_activations(target, reached, told)
    if len(x) >= linear_maps.MIN_MAP_PAIRS and torch.equal(groups, others):
        made["activations"] = (x, y, groups)
    if not made:
        raise BadInput(
            f"the two models share {len(shared)} token strings and {len(x)} words of text: "
            f"too few for a map, which takes {linear_maps.MIN_MAP_PAIRS}."
        )
    return made


def _embeddings(model: Model) -> Float[Tensor, "token d"]:
    return model.network.get_input_embeddings().weight.detach().float().cpu()


def _word_activations(
    model: Model, site: Site, texts: Sequence[str]
) -> tuple[Float[Tensor, "word d"], Int[Tensor, " word"]]:
    """Activations at the end of each word, with the number of its text: words end at the same places in every tokenizer."""
    reads, groups, sequences, content = [], [], [], []
    for i, encoding in enumerate(encode_texts(model.tokenizer, texts, [None] * len(texts))):
        length = min(len(encoding.ids), model.context)
        sequences.append(tuple(encoding.ids[:length].tolist()))
        content.append(torch.full((length,), 1 / length))
        for word in re.finditer(r"\S+", texts[i]):
            at = ((encoding.offsets[:length, 1] >= word.end()) & ~encoding.special[:length]).nonzero().flatten()
            if len(at):
                weights = torch.zeros(length)
                weights[at[0]] = 1.0
                reads.append(ActivationRead(i, weights))
                groups.append(i)
    seen = capture(model, Workload(tuple(sequences), tuple(reads), content=tuple(content)), [site])
    return seen.parts["resid"][0].cpu(), torch.tensor(groups)


@dataclass(frozen=True, eq=False)
class _MappedVector:
    """A vector of length 1 in the target, and how it got there."""

    vector: Float[Tensor, " d"]
    coords: Mapping[str, str]


def _effect_rows(
    one: Design,
    settings: TraceSettings,
    vector: Float[Tensor, " source"],
    pairs: _MapPairs,
    target: Model,
    site: Site,
    neutral: Sequence[str],
    options: TransferSettings,
) -> Iterator[Record]:
    concept = one.concept
    about = RowContext(concept.name, str(concept.position), len(one.split.test), settings.seed)
    work, rows = build_workload([concept], target.tokenizer, target.context, truncate=settings.truncate)
    last = Site("resid", target.layers)
    seen = capture(target, replace(work, scored=()), list(dict.fromkeys([site, last])))
    parts = dict(zip(seen.sites["resid"], seen.parts["resid"].cpu()[:, rows[concept.name].reads], strict=True))
    native, probe = (
        mass_mean.fit(parts[s][None, one.split.train], one.y_train, groups=one.groups[one.split.train])
        for s in (site, last)
    )
    own, length = native.direction[0, :, 0], options.alpha * float(native.facts["std"].flatten()[0])
    fitted = {
        name: linear_maps.fit_linear_map(x, y, groups, seed=settings.seed) for name, (x, y, groups) in pairs.items()
    }
    for name, found in fitted.items():
        value = torch.tensor([found.r2])
        told = {"map": name, "strength": f"{found.strength:g}"}
        yield from site_rows(
            about, "map_r2", value, [site], method="least_squares", n=found.pairs, split="all", coords=told
        )
    carried = [_MappedVector(own, {"map": "native"})]
    carried += [_MappedVector(_unit(found.carried(vector)), {"map": name}) for name, found in fitted.items()]
    yield from _readout_rows(one, about, parts[site], site, carried, own)
    mixed = {name: _control_vectors(pairs, name, found, vector) for name, found in fitted.items()}
    for name, controls in mixed.items():
        yield from _readout_control_rows(one, about, parts[site], site, name, controls, own)
    if not options.effect or (not concept.answers and site == last):
        return
    outcome = (
        answer_margin_outcome(target, one)
        if concept.answers
        else probe_readout_outcome(target, one, work, rows[concept.name].reads, probe.direction[0, :, 0])
    )
    bench = EffectMeter.of(target, site, outcome, neutral, options.equal_cost)
    random = measure_nulls(bench, length, shuffled_label_directions(parts[site], one, options.shuffles), options)
    weights = bootstrap.group_weights(outcome.groups, samples=1000, seed=settings.seed)
    for each in carried:
        told = {"outcome": outcome.kind, **each.coords}
        change = bench.tried(each.vector * length).change
        yield mean_row(about, site, "mapped_effect", change, outcome.groups, weights, told)
        p = torch.tensor([null_p_values(change, random)[""]])
        yield from site_rows(about, "mapped_p", p, [site], method="mass_mean", n=options.controls, coords=told)
    for control, draws in (("random_direction", random.random), (SHUFFLED_LABEL, random.shuffled)):
        yield null_row(about, site, "mapped_effect", control, draws.double(), {"outcome": outcome.kind})
    for name, controls in mixed.items():
        for control, vectors in controls.items():
            changes = torch.stack([bench.tried(v * length).change.mean() for v in vectors])
            coords = {"outcome": outcome.kind, "map": name}
            yield null_row(about, site, "mapped_effect", control, changes.double(), coords)


def _control_vectors(
    pairs: _MapPairs, name: str, found: linear_maps.LinearMap, vector: Tensor
) -> dict[str, list[Float[Tensor, " d"]]]:
    x, y, _ = pairs[name]
    width = found.matrix.shape
    made: dict[str, Callable[[int], linear_maps.LinearMap]] = {
        "random_map": lambda seed: linear_maps.random_map(width[0], width[1], seed=seed),
        "shuffled_map": lambda seed: linear_maps.fit_shuffled_map(x, y, found.strength, seed=seed),
    }
    return {
        control: [_unit(make(seed).carried(vector)) for seed in range(_CONTROL_MAPS)] for control, make in made.items()
    }


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def _scores(one: Design, x: Tensor, vectors: Sequence[Tensor]) -> Float[Tensor, "vector example 1"]:
    return (torch.stack(list(vectors)) @ x[one.split.test].T)[..., None]


def _readout_rows(
    one: Design, about: RowContext, x: Tensor, site: Site, carried: Sequence[_MappedVector], own: Tensor
) -> Iterator[Record]:
    scores = _scores(one, x, [each.vector for each in carried])
    scored = held_out_scores("auroc", scores, one.y_test, one.weights, one.test_groups)
    for i, each in enumerate(carried):
        near = cosine(each.vector[None], own[None])
        columns: dict[str, Any] = {"method": "mass_mean", "coords": each.coords, "reason": "degenerate scores"}
        yield about.row("mapped_auroc", float(scored.value[i]), site, interval=scored.interval[i].ends, **columns)
        yield about.row("mapped_cosine", float(near), site, **columns)


def _readout_control_rows(
    one: Design,
    about: RowContext,
    x: Tensor,
    site: Site,
    name: str,
    controls: Mapping[str, Sequence[Tensor]],
    own: Tensor,
) -> Iterator[Record]:
    for control, vectors in controls.items():
        value = score("auroc", _scores(one, x, vectors), one.y_test)
        near = cosine(torch.stack(list(vectors)), own.expand(len(vectors), -1))
        for metric, values in (("mapped_auroc", value), ("mapped_cosine", near)):
            yield null_row(about, site, metric, control, values.double(), {"map": name})

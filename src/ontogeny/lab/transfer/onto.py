"""A vector carried into another model, of any width or tokenizer, by a map fitted on what both have read (arXiv:2503.21073).

The concept's vector of the source is read again at a site of the same relative depth, mapped, and tried there as any other: against the
target's native vector, random directions, random maps and maps fitted on mixed-up pairs. What a map is fitted on holds no held-out text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny import model as models
from ontogeny.concept import Concept
from ontogeny.encoding import encode_all
from ontogeny.errors import BadInput
from ontogeny.fits import mass_mean
from ontogeny.lab import scoring
from ontogeny.lab.alone import alone
from ontogeny.lab.capture import capture
from ontogeny.lab.design import Design, design
from ontogeny.lab.passes import Read, Workload
from ontogeny.lab.progress import Progress
from ontogeny.lab.rereading import as_traced, settings_of
from ontogeny.lab.rows import About, Stamp, cells
from ontogeny.lab.settings import Settings
from ontogeny.lab.texts import workload
from ontogeny.lab.transfer import maps
from ontogeny.lab.transfer.effect import Bench, by_answers, by_readout
from ontogeny.lab.transfer.job import How
from ontogeny.lab.transfer.plan import Options, neutral_texts
from ontogeny.lab.transfer.rows import SHUFFLED, measured, nulls, p_of, shuffled_directions
from ontogeny.lab.transfer.sources import site_of
from ontogeny.lab.visits import Visit, visited
from ontogeny.lineage import Checkpoint, Lineage, fetch
from ontogeny.metrics.similarity import cosine
from ontogeny.model import Model
from ontogeny.opening import tokenizer_near
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.statistics.bootstrap import Interval
from ontogeny.store import digest

MIXED = 20
"""Random maps, and maps of mixed-up pairs."""
Maps = Mapping[str, tuple[Float[Tensor, "pair source"], Float[Tensor, "pair target"], Int[Tensor, " pair"]]]
"""Pairs by what they are of, with the group of each."""


def onto(
    run: Run,
    lineage: Lineage,
    concepts: Sequence[Concept],
    target: str,
    options: Options | None = None,
    how: How | None = None,
) -> str:
    """Map the vectors of the last checkpoint onto the last checkpoint of `target`; returns the unit that holds the rows.

    Raises:
        BadInput: the run holds no vector of a concept, or the models share nothing that a map could be fitted on.
    """
    options, how, settings = options or Options(), how or How(), settings_of(run)
    placed = [as_traced(run, concept) for concept in concepts]
    designs = {concept.name: design(concept, settings) for concept in placed}
    here, there = lineage.checkpoints[-1], Lineage.open(target, allow_pickle=how.allow_pickle).checkpoints[-1]
    visits = {c.name: _visit(run, c.name, here.stage, here.step) for c in placed}
    how.watch(Progress(here.name, 0, 2, "loading"))
    source = _open(here, settings, how, how.tokenizer)
    how.watch(Progress(there.name, 1, 2, "loading"))
    other = _open(there, settings, how, None)
    texts = [text for d in designs.values() for text in _training(d)]
    made: list[Record] = []
    with alone(run.folder):
        for concept in placed:
            how.watch(Progress(there.name, 1, 2, f"mapping {concept.name}"))
            site, at = site_of(run, visits[concept.name], options.site)
            key = "mass_mean/resid/direction"
            vector = run.directions(visits[concept.name].unit, [key])[key][at, :, 0].float()
            reached = Site("resid", round(site.layer * other.layers / source.layers))
            pairs = _pairs(source, site, other, reached, texts)
            neutral, _ = neutral_texts(concept, placed, options.neutral)
            made += _tried(designs[concept.name], settings, vector, pairs, other, reached, neutral, options)
        unit = f"onto-{digest([str(target), there.name, sorted(v.unit for v in visits.values()), str(options)])}"
        named = {"onto": Path(target).name, "onto_checkpoint": there.name}
        made = [replace(record, coords={**record.coords, **named}) for record in made]
        stamp = Stamp.of(str(run.about["lineage"]["name"]), unit, here)
        run.keep(unit, stamp.on(made))
    return unit


def _visit(run: Run, concept: str, stage: str, step: int | None) -> Visit:
    found = [visit for visit in visited(run, concept) if (visit.stage, visit.step) == (stage, step)]
    if not found:
        raise BadInput(f"{run.folder} holds no {concept} at {stage} {step}. Trace it first, with the same files.")
    return found[0]


def _open(checkpoint: Checkpoint, settings: Settings, how: How, tokenizer: Path | None) -> Model:
    folder = fetch(checkpoint, allow_pickle=how.allow_pickle)
    return models.load(
        folder,
        device=how.device,
        dtype=getattr(torch, settings.dtype),
        tokenizer=tokenizer or tokenizer_near(folder),
        allow_pickle=how.allow_pickle,
    )


def _training(one: Design) -> list[str]:
    """Texts of the groups that nothing is scored on."""
    return [one.concept.texts[i] for i in one.split.train.tolist()]


def _pairs(source: Model, site: Site, target: Model, reached: Site, texts: Sequence[str]) -> Maps:
    """What both models have: token strings with their embeddings, and the words of texts with their activations."""
    made: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    shared = maps.shared_strings(
        source.tokenizer.get_vocab(),
        target.tokenizer.get_vocab(),
        [*source.tokenizer.all_special_tokens, *target.tokenizer.all_special_tokens],
    )
    if len(shared) >= maps.FEWEST:
        left, right = (torch.tensor(ids) for ids in zip(*shared, strict=True))
        both = (_embeddings(source)[left], _embeddings(target)[right])
        made["embeddings"] = (*both, torch.arange(len(shared)))
    told = list(dict.fromkeys(texts))
    x, groups = _words(source, site, told)
    y, others = _words(target, reached, told)
    if len(x) >= maps.FEWEST and torch.equal(groups, others):
        made["activations"] = (x, y, groups)
    if not made:
        raise BadInput(
            f"the two models share {len(shared)} token strings and {len(x)} words of text: too few for a map, which takes {maps.FEWEST}."
        )
    return made


def _embeddings(model: Model) -> Float[Tensor, "token d"]:
    return model.network.get_input_embeddings().weight.detach().float().cpu()


def _words(model: Model, site: Site, texts: Sequence[str]) -> tuple[Float[Tensor, "word d"], Int[Tensor, " word"]]:
    """Activations at the end of each word, with the number of its text: words end at the same places in every tokenizer."""
    reads, groups, sequences, content = [], [], [], []
    for i, encoding in enumerate(encode_all(model.tokenizer, texts, [None] * len(texts))):
        length = min(len(encoding.ids), model.context)
        sequences.append(tuple(encoding.ids[:length].tolist()))
        content.append(torch.full((length,), 1 / length))
        for word in re.finditer(r"\S+", texts[i]):
            at = ((encoding.offsets[:length, 1] >= word.end()) & ~encoding.special[:length]).nonzero().flatten()
            if len(at):
                weights = torch.zeros(length)
                weights[at[0]] = 1.0
                reads.append(Read(i, weights))
                groups.append(i)
    seen = capture(model, Workload(tuple(sequences), tuple(reads), content=tuple(content)), [site])
    return seen.parts["resid"][0].cpu(), torch.tensor(groups)


@dataclass(frozen=True, eq=False)
class _Carried:
    """A vector of length 1 in the target, and how it got there."""

    vector: Float[Tensor, " d"]
    coords: Mapping[str, str]


def _tried(
    one: Design,
    settings: Settings,
    vector: Float[Tensor, " source"],
    pairs: Maps,
    target: Model,
    site: Site,
    neutral: Sequence[str],
    options: Options,
) -> Iterator[Record]:
    concept = one.concept
    about = About(concept.name, str(concept.position), len(one.split.test), settings.seed)
    work, rows = workload([concept], target.tokenizer, target.context, truncate=settings.truncate)
    last = Site("resid", target.layers)
    seen = capture(target, replace(work, scored=()), list(dict.fromkeys([site, last])))
    parts = dict(zip(seen.sites["resid"], seen.parts["resid"].cpu()[:, rows[concept.name].reads], strict=True))
    native, probe = (
        mass_mean.fit(parts[s][None, one.split.train], one.y_train, groups=one.groups[one.split.train])
        for s in (site, last)
    )
    own, length = native.direction[0, :, 0], options.alpha * float(native.facts["std"].flatten()[0])
    fitted = {name: maps.fit(x, y, groups, seed=settings.seed) for name, (x, y, groups) in pairs.items()}
    for name, found in fitted.items():
        value = torch.tensor([found.r2])
        told = {"map": name, "strength": f"{found.strength:g}"}
        yield from cells(
            about, "map_r2", value, [site], method="least_squares", n=found.pairs, split="all", coords=told
        )
    carried = [_Carried(own, {"map": "native"})]
    carried += [_Carried(_unit(found.carried(vector)), {"map": name}) for name, found in fitted.items()]
    yield from _read(one, about, parts[site], site, carried, own)
    mixed = {name: _mixed(pairs, name, found, vector) for name, found in fitted.items()}
    for name, controls in mixed.items():
        yield from _read_controls(one, about, parts[site], site, name, controls, own)
    if not options.effect or (not concept.answers and site == last):
        return
    outcome = (
        by_answers(target, one)
        if concept.answers
        else by_readout(target, one, work, rows[concept.name].reads, probe.direction[0, :, 0])
    )
    bench = Bench.of(target, site, outcome, neutral, options.equal_cost)
    random = nulls(bench, length, shuffled_directions(parts[site], one, options.shuffles), options)
    weights = bootstrap.group_weights(outcome.groups, samples=1000, seed=settings.seed)
    for each in carried:
        told = {"outcome": outcome.kind, **each.coords}
        change = bench.tried(each.vector * length).change
        yield measured(about, site, "mapped_effect", change, outcome.groups, weights, told)
        p = torch.tensor([p_of(change, random)[""]])
        yield from cells(about, "mapped_p", p, [site], method="mass_mean", n=options.controls, coords=told)
    yield from _null(about, site, "mapped_effect", "random_direction", random.random, {"outcome": outcome.kind})
    yield from _null(about, site, "mapped_effect", SHUFFLED, random.shuffled, {"outcome": outcome.kind})
    for name, controls in mixed.items():
        for control, vectors in controls.items():
            changes = torch.stack([bench.tried(v * length).change.mean() for v in vectors])
            yield from _null(about, site, "mapped_effect", control, changes, {"outcome": outcome.kind, "map": name})


def _mixed(pairs: Maps, name: str, found: maps.Map, vector: Tensor) -> dict[str, list[Float[Tensor, " d"]]]:
    x, y, _ = pairs[name]
    width = found.matrix.shape
    made: dict[str, Callable[[int], maps.Map]] = {
        "random_map": lambda seed: maps.random(width[0], width[1], seed=seed),
        "shuffled_map": lambda seed: maps.shuffled(x, y, found.strength, seed=seed),
    }
    return {control: [_unit(make(seed).carried(vector)) for seed in range(MIXED)] for control, make in made.items()}


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def _auroc(one: Design, x: Tensor, vectors: Sequence[Tensor]) -> tuple[Tensor, Interval]:
    scores = (torch.stack(list(vectors)) @ x[one.split.test].T)[..., None]
    value = scoring.point("auroc", scores, one.y_test)
    return value, scoring.interval(
        "auroc", value, scoring.samples("auroc", scores, one.y_test, one.weights), one.test_groups
    )


def _read(
    one: Design, about: About, x: Tensor, site: Site, carried: Sequence[_Carried], own: Tensor
) -> Iterator[Record]:
    value, ends = _auroc(one, x, [each.vector for each in carried])
    for i, each in enumerate(carried):
        sure = Interval(ends.low[i : i + 1], ends.high[i : i + 1])
        near = cosine(each.vector[None], own[None])
        yield from cells(
            about, "mapped_auroc", value[i : i + 1], [site], method="mass_mean", interval=sure, coords=each.coords
        )
        yield from cells(about, "mapped_cosine", near, [site], method="mass_mean", coords=each.coords)


def _read_controls(
    one: Design, about: About, x: Tensor, site: Site, name: str, controls: Mapping[str, Sequence[Tensor]], own: Tensor
) -> Iterator[Record]:
    for control, vectors in controls.items():
        value, _ = _auroc(one, x, vectors)
        near = cosine(torch.stack(list(vectors)), own.expand(len(vectors), -1))
        for metric, values in (("mapped_auroc", value), ("mapped_cosine", near)):
            yield from _null(about, site, metric, control, values, {"map": name})


def _null(
    about: About, site: Site, metric: str, control: str, values: Float[Tensor, " control"], told: Mapping[str, str]
) -> list[Record]:
    low, high = (values.double().quantile(q)[None] for q in (0.025, 0.975))
    return cells(
        about,
        metric,
        values.double().mean()[None],
        [site],
        method="mass_mean",
        control=control,
        interval=Interval(low, high),
        n=len(values),
        coords=told,
    )

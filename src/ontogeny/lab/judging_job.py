"""Evaluate vectors over the checkpoints of a lineage into a run directory: one unit a checkpoint and concept, none done twice.

The verdicts are made last, from the rows: what was tried in the whole run is corrected together.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ontogeny.concept import Concept
from ontogeny.errors import BadInput, CheckpointFault
from ontogeny.lab.about import EVALUATIONS, about, concept_entry
from ontogeny.lab.alone import alone, holds_nothing
from ontogeny.lab.job import Job
from ontogeny.lab.judging import evaluate
from ontogeny.lab.judging_plan import Asking, check_shape
from ontogeny.lab.judging_rows import rows
from ontogeny.lab.judging_verdicts import give_verdicts
from ontogeny.lab.progress import Progress, Watch, silent
from ontogeny.lab.rows import Stamp
from ontogeny.lab.scorers import Scorer
from ontogeny.lab.settings import Settings
from ontogeny.lab.standing import Standing
from ontogeny.lab.undo import all_or_nothing
from ontogeny.lineage import Checkpoint, Lineage, fetch, fingerprint, sizes
from ontogeny.model import Model
from ontogeny.opening import config_of, tokenizer_near
from ontogeny.run import Run
from ontogeny.store import digest

PREFIX = "evaluation-"


@dataclass(frozen=True)
class How:
    device: str = "cpu"
    dtype: str = "float32"
    tokenizer: Path | None = None
    allow_pickle: bool = False
    command: str | None = None
    watch: Watch = silent


def judge(
    lineage: Lineage, asks: Sequence[Asking], out: Path, how: How | None = None, *, scorers: Sequence[Scorer] = ()
) -> tuple[Run, list[str]]:
    """Write the rows of all concepts at all checkpoints, and the verdicts; with what is wrong with checkpoints that cannot be read.

    Raises:
        BadInput: a run of another lineage at `out`, other examples under a known name, or nothing that can be evaluated.
    """
    import torch

    how = how or How()
    run = _agreeing(lineage, asks, out)
    good, faults = _readable(lineage, how)
    told = [how.dtype, sorted(scorer.name for scorer in scorers)]
    units = {(c, i): unit_of(c, one.prints, ask, told) for c, one in good.items() for i, ask in enumerate(asks)}
    missing = {c: [i for i in range(len(asks)) if not run.done(units[c, i])] for c in good}
    missing = {c: which for c, which in missing.items() if which}
    with alone(run.folder), all_or_nothing(run, [units[c, i] for c, which in missing.items() for i in which]):
        _describe(run, lineage, asks, good, how, sorted(scorer.name for scorer in scorers))
        standing = Standing(how.device, getattr(torch, how.dtype), how.allow_pickle)
        done = len(good) - len(missing)
        for checkpoint, which in missing.items():
            try:
                folder = fetch(checkpoint, allow_pickle=how.allow_pickle)
                check_all(asks, folder)
                model, _ = standing.load(folder, how.tokenizer or tokenizer_near(folder))
            except CheckpointFault as fault:
                if len(lineage.checkpoints) == 1:
                    raise
                run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "failed": str(fault)})
                faults.append(f"{checkpoint.stage} {checkpoint.name}: {fault}")
                continue
            for i in which:
                _one(run, lineage, checkpoint, model, asks[i], units[checkpoint, i], scorers, how, done)
            done += 1
        if not any(run.done(unit) for unit in units.values()):
            raise BadInput(faults[0])
        give_verdicts(run, lineage.name)
    return run, faults


@dataclass(frozen=True)
class _Seen:
    """What metadata tell of a checkpoint."""

    prints: str
    bytes: int


def _readable(lineage: Lineage, how: How) -> tuple[dict[Checkpoint, _Seen], list[str]]:
    """The checkpoints that can be read, and what is wrong with the others; an error where there is but one, or none is left."""
    good, faults = {}, []
    for c in lineage.checkpoints:
        try:
            size = sizes(c, allow_pickle=how.allow_pickle)
            good[c] = _Seen(fingerprint(c, allow_pickle=how.allow_pickle), size)
        except BadInput as fault:
            faults.append(f"{c.stage} {c.name}: {fault}")
    if not good:
        raise BadInput(faults[0].split(": ", 1)[1] if faults else f"{lineage.name} has no checkpoints.")
    return good, faults


def check_all(asks: Sequence[Asking], folder: Path) -> int:
    """Refuse, by config.json alone, what the model of a folder cannot do; its number of layers."""
    shape = config_of(folder)
    for ask in asks:
        check_shape(ask, layers=shape.num_hidden_layers, heads=shape.num_attention_heads, width=shape.hidden_size)
    return int(shape.num_hidden_layers)


def unit_of(checkpoint: Checkpoint, weights: str, ask: Asking, more: Sequence[object] = ()) -> str:
    """Changes with the weights, their place, and everything that is asked."""
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return f"{PREFIX}{digest([place, weights, ask.key, *more])}"


def _one(
    run: Run,
    lineage: Lineage,
    checkpoint: Checkpoint,
    model: Model,
    ask: Asking,
    unit: str,
    scorers: Sequence[Scorer],
    how: How,
    done: int,
) -> None:
    began, name = time.monotonic(), f"{checkpoint.stage} {checkpoint.name}"

    def say(what: str) -> None:
        how.watch(Progress(name, done, len(lineage.checkpoints), f"{ask.concept.name}: {what}"))

    found = evaluate(model, ask, say=say)
    made = rows(found, scorers=scorers, seed=ask.plan.seed)
    run.keep(unit, Stamp.of(lineage.name, unit, checkpoint).on(made))
    cost = {"passes": found.passes.forwards, **vars(found.passes), "seconds": round(time.monotonic() - began, 2)}
    run.log({"evaluated": ask.concept.name, "checkpoint": checkpoint.name, "stage": checkpoint.stage, **cost})


def _agreeing(lineage: Lineage, asks: Sequence[Asking], out: Path) -> Run:
    names = [ask.concept.name for ask in asks]
    if not asks:
        raise BadInput("no concept was given. Name at least one file with -c.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"two concepts are called {min(twice)!r}. Rename one of the files.")
    run = Run(out)
    if not run.about_path.is_file():
        if out.exists() and not (out.is_dir() and holds_nothing(out)):
            raise BadInput(f"{out} exists and is no run directory. Choose an empty or a new folder with --out.")
        return run
    told = run.about
    if told["lineage"]["name"] != lineage.name:
        raise BadInput(f"{out} holds a run of {told['lineage']['name']}, not of {lineage.name}. Choose another --out.")
    known = {concept["name"]: concept["hash"] for concept in told["concepts"]}
    for concept in (ask.concept for ask in asks):
        if known.get(concept.name, concept.hash) != concept.hash:
            raise BadInput(
                f"{out} holds other examples under the name {concept.name!r}. Rename the file, or choose another --out."
            )
    return run


def _describe(
    run: Run,
    lineage: Lineage,
    asks: Sequence[Asking],
    good: Mapping[Checkpoint, _Seen],
    how: How,
    scorers: Sequence[str],
) -> None:
    """run.json of a new run; into one that is there only what it does not name yet, and how each concept's vectors were judged last."""
    concepts: list[Concept] = [ask.concept for ask in asks]
    judged = {ask.concept.name: {**_told(ask, scorers), "dtype": how.dtype} for ask in asks}
    if not run.about_path.is_file():
        bytes_, prints = {c: one.bytes for c, one in good.items()}, {c: one.prints for c, one in good.items()}
        job = Job(lineage, tuple(good), (), tuple(concepts), {}, Settings(), {}, bytes_, prints)
        told = about(job, run, warnings={c.name: () for c in concepts}, device=how.device, command=how.command)
        # Nothing is traced yet: a trace that follows sets the settings.
        run.describe(told | {"finished": True, "settings": {}, EVALUATIONS: judged})
        return
    told = run.about
    known = {entry["name"] for entry in told["concepts"]}
    new = [concept_entry(concept, ()) for concept in concepts if concept.name not in known]
    run.describe(told | {"concepts": [*told["concepts"], *new], EVALUATIONS: told.get(EVALUATIONS, {}) | judged})


def _told(ask: Asking, scorers: Sequence[str]) -> dict[str, Any]:
    """How one concept's vectors are judged, as run.json says it: `settings` there are those of a trace."""
    methods = [method if isinstance(method, str) else method.origin for method in ask.methods]
    beside = {"neutral_texts": len(ask.neutral), "tasks": sorted(ask.tasks), "scorers": list(scorers)}
    return {"methods": methods, **asdict(ask.plan), **beside}

"""Plan of a transfer: settings, targets and neutral texts, and the trace whose vectors it uses; checked before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ontogeny.data.concept import Concept
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.trace.plan import TracePlan, plan_trace
from ontogeny.lineage import Checkpoint, Lineage, selectors
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions, nearest_tokenizer, open_tokenizer, read_config
from ontogeny.models.reusable import tokenizer_digest
from ontogeny.sites import Site
from ontogeny.storage.run import Run

VectorLength = Literal["target", "source"]
TRANSFER_VERSION = 3
"""Increased whenever the same input would give other numbers."""
TRANSFER_PROBES = ("logistic", "mass_mean")
"""Probes that are tried on other checkpoints; the vector is that of mass_mean."""
AVERAGED_COUNTS, AVERAGE_RULES = (1, 2, 4, 8, 16, 32), 3
"""Numbers of checkpoints whose vectors are averaged, and the number of ways to choose them."""
DEFAULT_READING_SETTINGS = TraceSettings(sites="resid", fits=TRANSFER_PROBES, protocol="single-split")
"""Settings of the trace if there is no run yet."""
_MAX_NEUTRAL_TEXTS = 24
"""Maximum number of neutral texts taken from the concepts."""


@dataclass(frozen=True)
class TransferSettings:
    """How vectors are transferred; part of every unit's key.

    Args:
        into: The only target (`dpo:last`, `sft:100`, `last`); by default every checkpoint is a target.
        effect: Whether to steer with the vectors; else only probes and cosines.
        length: `target`: every vector gets the length of the target's own vector, unit × standard deviation of its projections
            (arXiv:2402.19465), so that directions are compared and not lengths. `source`: its length at the source, as published.
        equal_cost: KL on neutral text, in nats per token, at which all vectors are compared instead.
        controls: Random directions of equal norm.
        shuffles: Directions fitted on shuffled labels. They lie where the activations vary, and have larger effects than random ones.
        site: Site of the stream; by default the concept's best site.
    """

    into: str | None = None
    effect: bool = True
    alpha: float = 1.0
    length: VectorLength = "target"
    equal_cost: float | None = None
    controls: int = 200
    shuffles: int = 200
    neutral: tuple[str, ...] = ()
    site: str | None = None

    def __post_init__(self) -> None:
        if self.length not in get_args(VectorLength):
            raise unknown_name("length of a vector", self.length, get_args(VectorLength))
        if not 0 < abs(self.alpha) < float("inf"):
            raise BadInput(f"`alpha` must be finite and not 0, got {self.alpha}: take 1.")
        if self.equal_cost is not None and not 0 < self.equal_cost < float("inf"):
            raise BadInput(f"`equal_cost` must be above 0 nats per token, got {self.equal_cost}: take 0.1.")
        for name, count in (("controls", self.controls), ("shuffles", self.shuffles)):
            if count < 20:
                raise BadInput(f"`{name}` must be at least 20 to give a null distribution, got {count}: take 200.")
        if self.site is not None and Site.parse(self.site).part != "resid":
            raise BadInput(f"`site` must be in the residual stream, got {self.site}: name one like resid.3.")


def open_trace(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    reading: TraceSettings | None = None,
    *,
    traced: bool = False,
    model: ModelOptions | None = None,
) -> tuple[TracePlan, Run]:
    """The run at `out` and the plan of its trace; of a new run, with the settings `reading`.

    Raises:
        BadInput: the run was made in another way, or `traced` and it does not exist or lacks a unit.
    """
    model = model or ModelOptions()
    files: Mapping[str, Any] = {"allow_pickle": model.allow_pickle, "tokenizer": model.tokenizer}
    if traced or Run(Path(out)).exists():
        plan = TracePlan.of_run(Run.open(out), lineage, concepts, reading, **files)
    else:
        plan = plan_trace(lineage, concepts, reading or DEFAULT_READING_SETTINGS, **files)
    run = plan.open_run(out)
    missing = plan.missing(run)
    if missing and traced:
        first = next(iter(missing))
        concept, place = missing[first][0].name, f"{first.stage} {first.name}"
        raise BadInput(f"{out} holds no {concept} at {place}, of these texts and weights: trace it first.")
    return plan, run


def check_transfer(lineage: Lineage, concepts: Sequence[Concept], *, has_tokenizer: bool = False) -> None:
    """Check what can be checked before a model is loaded.

    Args:
        has_tokenizer: Whether one tokenizer is used for all checkpoints.

    Raises:
        BadInput: there is only one checkpoint, a concept is not binary, or models differ in width or tokenizer.
    """
    if len(lineage.checkpoints) < 2:
        raise BadInput(
            f"a transfer must have at least two checkpoints, got one of {lineage.name}: select more `steps`, or name a lineage."
        )
    if others := [concept.name for concept in concepts if concept.kind != "binary"]:
        raise BadInput(f"{others[0]} must be binary to have a single vector: remove it.")
    local = [checkpoint for checkpoint in lineage.checkpoints if checkpoint.is_local]
    widths = {c: int(read_config(Path(c.source)).get_text_config().hidden_size) for c in local}
    if len(set(widths.values())) > 1:
        a, b = _first_difference(widths)
        raise BadInput(
            f"all checkpoints must have one width, got {widths[a]} of {a.stage} {a.name} and {widths[b]} of {b.stage} {b.name}: "
            "select `steps` of one width, and transfer to the other model by `to_model`."
        )
    if not has_tokenizer:
        _check_same_tokenization(local, concepts)


def _check_same_tokenization(checkpoints: Sequence[Checkpoint], concepts: Sequence[Concept]) -> None:
    """The files of tokenizers may differ if they tokenise the concepts' texts in the same way."""
    folders = {c: nearest_tokenizer(Path(c.source)) or Path(c.source) for c in checkpoints}
    first = {tokenizer_digest(folder): checkpoint for checkpoint, folder in reversed(folders.items())}
    if len(first) < 2:
        return
    texts = [text for concept in concepts for text in concept.texts]
    tokens = {
        c: [tuple(e.ids.tolist()) for e in encode_texts(open_tokenizer(folders[c]), texts, [None] * len(texts))]
        for c in first.values()
    }
    if len(set(map(tuple, tokens.values()))) > 1:
        a, b = _first_difference(tokens)
        raise BadInput(
            f"{a.stage} {a.name} and {b.stage} {b.name} tokenise the texts differently, so their vectors cannot be compared: "
            "select `steps` of one of them, and transfer to the other by `to_model`."
        )


def _first_difference(values: Mapping[Checkpoint, object]) -> tuple[Checkpoint, Checkpoint]:
    """The first checkpoint, and the first one that differs from it."""
    first = next(iter(values))
    return first, next(c for c in values if values[c] != values[first])


def transfer_targets(plan: TracePlan, into: str | None) -> list[Checkpoint]:
    """The target checkpoints; all if `into` is None.

    Raises:
        BadInput: the stage or step does not exist.
    """
    if into is None:
        return list(plan.checkpoints)
    lineage = plan.lineage
    stage, steps = lineage.split_target(into)
    candidates = [c for c in stage.checkpoints if c in plan.checkpoints]
    selected, _ = selectors.select_checkpoints(candidates, steps)
    if not selected:
        where = f"the stage {stage.name} of {lineage.name}"
        raise selectors.no_such_step(steps, candidates or lineage.checkpoints, where)
    return [c for c in candidates if c in selected]


def checkpoints_to_average(plan: TracePlan, target: Checkpoint) -> list[Checkpoint]:
    """Earlier checkpoints of the first stage that led to the target, whose vectors are averaged."""
    root = plan.lineage.ancestry(target.stage)[0].name
    return [c for c in plan.checkpoints if c.stage == root and plan.order(c) < plan.order(target)]


def choose_neutral_texts(
    concept: Concept, concepts: Sequence[Concept], given: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Texts on which the cost of a vector is measured, and a description of their source: given, or of the other concepts."""
    if given:
        return tuple(given), "given texts"
    others = [text for other in concepts if other.name != concept.name for text in other.texts]
    texts = list(dict.fromkeys(others or concept.texts))
    step = max(1, len(texts) // _MAX_NEUTRAL_TEXTS)
    note = "texts of the other concepts" if others else "the concept's own texts: no neutral ones were given"
    return tuple(texts[::step][:_MAX_NEUTRAL_TEXTS]), note

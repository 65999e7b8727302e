"""What a transfer has to do: whose vectors are tried on whom, at which site, and what can be refused before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ontogeny.data.concept import Concept
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint, Lineage, selectors
from ontogeny.models.loading import nearest_tokenizer, read_config
from ontogeny.models.reusable import tokenizer_digest
from ontogeny.sites import Site

VectorLength = Literal["target", "source"]
TRANSFER_VERSION = 3
"""Raised whenever the same input would give other numbers."""
TRANSFER_PROBES = ("logistic", "mass_mean")
"""Probes that are tried elsewhere; the vector is that of mass_mean."""
AVERAGED_COUNTS = (1, 2, 4, 8, 16, 32)
MAX_OWN_NEUTRAL_TEXTS = 24
"""Neutral texts, at most, where the concepts' own texts stand in for them."""


@dataclass(frozen=True)
class TransferSettings:
    """What is tried; part of every unit's key."""

    into: str | None = None
    """One target (`dpo:last`, `sft:100`, `last`); by default every checkpoint is one."""
    effect: bool = True
    alpha: float = 1.0
    length: VectorLength = "target"
    """`target`: every vector is as long as the target's own, unit × spread of its projections (arXiv:2402.19465), so that directions are
    compared and not lengths. `source`: as long as at its source, as published."""
    equal_cost: float | None = None
    """Nats per token of divergence on neutral text at which all vectors are compared instead."""
    controls: int = 200
    shuffles: int = 200
    """Directions fitted on shuffled labels: they lie where the activations vary, and do more than random ones."""
    neutral: tuple[str, ...] = ()
    site: str | None = None

    def __post_init__(self) -> None:
        if self.length not in get_args(VectorLength):
            raise unknown_name("length of a vector", self.length, get_args(VectorLength))
        if not 0 < abs(self.alpha) < float("inf"):
            raise BadInput(f"an alpha of {self.alpha} changes nothing that can be compared. Try 1.")
        if self.equal_cost is not None and not 0 < self.equal_cost < float("inf"):
            raise BadInput(f"a cost to compare at is a number above 0, not {self.equal_cost}. Try 0.1 nats per token.")
        if min(self.controls, self.shuffles) < 20:
            raise BadInput(
                f"{min(self.controls, self.shuffles)} directions make no null. Take at least 20, better 200."
            )
        if self.site is not None and Site.parse(self.site).part != "resid":
            raise BadInput(f"{self.site} is not in the stream, where vectors are moved. Name one like resid.3.")


def check_transfer(lineage: Lineage, concepts: Sequence[Concept], *, tokenizer: Path | None = None) -> None:
    """Refuse, before a model is loaded, what has no answer.

    Raises:
        BadInput: one checkpoint only, no concept of two classes, or models of two widths or tokenizers.
    """
    if len(lineage.checkpoints) < 2:
        raise BadInput(
            f"{lineage.name} has one checkpoint here, and nothing to carry over from it. Choose more with --steps, or name a lineage."
        )
    if odd := [concept.name for concept in concepts if concept.kind != "binary"]:
        raise BadInput(f"{odd[0]} has not two classes and so no single vector. Leave it out.")
    local = [checkpoint for checkpoint in lineage.checkpoints if checkpoint.is_local]
    widths = {c: int(read_config(Path(c.source)).get_text_config().hidden_size) for c in local}
    if len(set(widths.values())) > 1:
        a, b = _first_difference(widths)
        raise BadInput(
            f"{a.stage} {a.name} is {widths[a]} wide and {b.stage} {b.name} {widths[b]}: no vector fits both. "
            "Select checkpoints of one width with --steps, and reach the other model with --onto."
        )
    if tokenizer is None:
        _check_same_tokenization(local, concepts)


def _check_same_tokenization(checkpoints: Sequence[Checkpoint], concepts: Sequence[Concept]) -> None:
    """Files may differ; what counts is how the concepts' texts are cut."""
    digests = {c: tokenizer_digest(nearest_tokenizer(Path(c.source)) or Path(c.source)) for c in checkpoints}
    first = {digest: checkpoint for checkpoint, digest in reversed(digests.items())}
    if len(first) < 2:
        return
    texts = [text for concept in concepts for text in concept.texts]
    cut = {
        c: [tuple(e.ids.tolist()) for e in encode_texts(_tokenizer(c), texts, [None] * len(texts))]
        for c in first.values()
    }
    if len(set(map(tuple, cut.values()))) > 1:
        a, b = _first_difference(cut)
        raise BadInput(
            f"{a.stage} {a.name} and {b.stage} {b.name} cut the texts into other tokens: they are no one lineage. "
            "Select one of them with --steps, and reach the other with --onto."
        )


def _tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(nearest_tokenizer(Path(checkpoint.source)) or checkpoint.source)


def _first_difference(values: Mapping[Checkpoint, object]) -> tuple[Checkpoint, Checkpoint]:
    """The first checkpoint, and the first that differs from it."""
    first = next(iter(values))
    return first, next(c for c in values if values[c] != values[first])


def transfer_targets(job: TracePlan, into: str | None) -> list[Checkpoint]:
    """The checkpoints that vectors are moved into.

    Raises:
        BadInput: no such stage or step.
    """
    if into is None:
        return list(job.checkpoints)
    stage, _, steps = into.rpartition(":") if ":" in into else ("", "", into)
    names = [s.name for s in job.lineage.stages]
    if not stage:
        stage, steps = (steps, "last") if steps in names else (names[-1], steps)
    held = [c for c in job.lineage.stage(stage).checkpoints if c in job.checkpoints]
    found, _ = selectors.select_checkpoints(held, steps)
    if not found:
        raise selectors.no_such_step(steps, held or job.lineage.checkpoints, f"the stage {stage} of {job.lineage.name}")
    return [c for c in held if c in found]


def checkpoints_to_average(job: TracePlan, target: Checkpoint) -> list[Checkpoint]:
    """Checkpoints whose vectors are averaged for a target: those of the first stage that led to it, or of its own before it."""
    root = job.lineage.ancestry(target.stage)[0].name
    return [c for c in job.checkpoints if c.stage == root and job.order(c) < job.order(target)]


def choose_neutral_texts(
    concept: Concept, concepts: Sequence[Concept], given: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Texts on which a vector should change nothing, and in words where they are from: those given, else those of other concepts."""
    if given:
        return tuple(given), "given texts"
    others = [text for other in concepts if other.name != concept.name for text in other.texts]
    texts = list(dict.fromkeys(others or concept.texts))
    step = max(1, len(texts) // MAX_OWN_NEUTRAL_TEXTS)
    said = "texts of the other concepts" if others else "the concept's own texts: no neutral ones were given"
    return tuple(texts[::step][:MAX_OWN_NEUTRAL_TEXTS]), said

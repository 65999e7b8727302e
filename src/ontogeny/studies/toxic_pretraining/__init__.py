"""Study: do models that saw more of a marked register represent it more separately, and is it then easier to remove?

When Bad Data Leads to Good Models (arXiv:2505.04741), with a register of invented insults in place of toxic text, and an exact scorer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.linalg.coherence import coherence, welch_bound
from ontogeny.records import Record
from ontogeny.statistics.bootstrap import share_interval
from ontogeny.studies.toxic_pretraining._claims import (
    CLAIMS,
    OPPOSITE_ANNOTATION,
    OTHER_ATTRIBUTE,
    PICTURES,
    RANDOM_DIRECTION,
    share_name,
)
from ontogeny.studies.toxic_pretraining._detoxifiers import (
    ANNOTATED_METHODS,
    ITI,
    METHODS,
    RANDOM,
    DetoxifiedModel,
    annotated_pretraining,
    detoxify,
)
from ontogeny.studies.toxic_pretraining._measures import (
    ATTRIBUTES,
    EvaluationTexts,
    Outcome,
    ReadModel,
    lowest_at_cost,
    outcome,
)
from ontogeny.studies.toxic_pretraining._settings import Settings, check_settings
from ontogeny.studies.toxic_pretraining._training import as_model, pretrain
from ontogeny.worlds import marked_register as register

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "When bad data leads to good models"
PAPER = "When Bad Data Leads to Good Models, arXiv:2505.04741"
SETUP = """
Small decoders learn everyday sentences with a background of insults and, in addition, a share of marked texts. An insult is an address
by two invented words of different classes, each of which also occurs in polite addresses. Measured by share are probes of the register at
every head, on words that they were not fitted on, the coherence of its direction with those of other factors, and detoxifiers over their
strengths: inference-time intervention (ITI), random directions, a clean sentence in front, supervised fine-tuning on clean texts, DPO, and
pretraining with a score (MEDA) or an instruction (INST) in front of each text.
They are compared at equal cross-entropy on everyday text; a degenerate continuation does not count as clean.
"""
DIFFERENCES = (
    "Insults of invented words in generated sentences in place of toxic text; an exact scorer in place of a classifier.",
    "Two layers, 32 dimensions and 8 heads; the paper has 24 layers and 384 heads.",
    "The everyday corpus has a background of 1 % marked texts; even so the model without a share writes few insults.",
    "Methods are compared at equal cross-entropy, by frontiers over strengths, and the part removed is beside what remains.",
    "Random directions of equal norm at the same heads are the null of the intervention, and tense that of probes and coherence.",
    "MEDA and INST are one model with annotations of both kinds, at the main share only, where ITI is compared with them.",
    "Red-teaming is left out; the toy of three Markov chains is the study rare_features.",
)
CHALLENGES = (7, 11)
VERSION = 2
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        width=8, layers=1, heads=2, steps=3, batch=4, probed=40, steered_heads=1, alphas=(2.0,), tune_steps=(1,), tune_batch=2, prompts=80,
    ),
    "tiny": Settings(),
    "small": Settings(width=64, layers=4, steps=4000, rate=2e-3, probed=1000, steered_heads=4, draws=10, prompts=3000),
    "paper": Settings(
        width=2048, layers=24, heads=16, steps=100_000, rate=4e-4, batch=1024, probed=4480, steered_heads=30, draws=10, prompts=3000,
        tune_rate=1e-5,
    ),
}  # fmt: skip
SECONDS = {"smoke": 3, "tiny": 76, "small": 2500, "paper": 50_000_000}

_LEAST_MARKED = 5
"""With fewer marked continuations of the base model no part of them is computed."""

_SHUFFLES = 5


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: a model for each share."""
    check_settings(settings)
    for i, share in enumerate(settings.shares):
        lab.on_activity(f"marked share {share:g}", i, len(settings.shares))
        yield from _share_rows(settings, lab, share)


def _share_rows(settings: Settings, lab: Lab, share: float) -> Iterator[Record]:
    world = register.make(register.Config(share=share, background=settings.background, seed=lab.seed))
    network = pretrain(settings, world, lab.seed)
    read = ReadModel.read(as_model(network, world), world, settings, lab.seed)
    texts = EvaluationTexts.draw(world, lab.seed, settings.prompts)
    base = outcome(read.model, world, texts, lab.seed)
    condition = share_name(share)
    for control in (None, OTHER_ATTRIBUTE, RANDOM_DIRECTION):
        yield lab.row("pretraining_share", share, condition, control=control)
    yield from _probe_rows(settings, lab, condition, read)
    yield from _base_rows(lab, condition, base)
    points = [*detoxify(network, read, world, texts, settings, lab.seed)]
    methods: tuple[str, ...] = METHODS
    if share == settings.main:
        methods += ANNOTATED_METHODS
        for one in annotated_pretraining(world, texts, settings, lab.seed):
            points.append(DetoxifiedModel(one.method, 1.0, 0, one.clean))
            low, high = _share_bounds(lab, one.marked.marked, one.marked.n)
            name = f"{one.method}, {condition}"
            yield lab.row(
                "marked", one.marked.marked, name, control=OPPOSITE_ANNOTATION, n=one.marked.n, low=low, high=high
            )
    yield from _frontier_rows(lab, condition, base, points, methods)
    yield from _equal_cost_rows(settings, lab, condition, base, points, methods)


def _probe_rows(settings: Settings, lab: Lab, condition: str, read: ReadModel) -> Iterator[Record]:
    """Accuracy and coherence by head, and separability by layer; tense is the null of the register."""
    n, most = settings.probed, settings.steered_heads
    coherences = read.coherences()
    for name in ATTRIBUTES:
        accuracy = read.probe_accuracy(name, "heads")
        control = {"register": None, "tense": OTHER_ATTRIBUTE}.get(name, name)
        yield lab.row("head_accuracy", float(accuracy.mean()), condition, control=control, n=n)
        best = accuracy.sort(descending=True).values[:most]
        yield lab.row("best_head_accuracy", float(best.mean()), condition, control=control, n=n)
        yield lab.row("coherence", float(coherences[name].mean()), condition, control=control, n=2 * n)
        for site, value, own in zip(read.on_fitted.sites, accuracy, coherences[name], strict=True):
            for metric, number in (("accuracy_of_head", value), ("coherence_of_head", own)):
                yield lab.row(
                    metric, float(number), condition, control=control, n=n, layer=site.layer, head=site.head or 0
                )
        if name != "number":
            yield from _density_rows(lab, condition, accuracy.numpy(), control)
    d, count = read.on_fitted.heads.shape[2], read.directions
    yield lab.row("coherence", welch_bound(count, d), condition, control="welch_bound", n=count)
    drawn = torch.randn(200, count, d, generator=torch.Generator().manual_seed(lab.seed))
    yield lab.row("coherence", float(coherence(drawn).mean()), condition, control="random_directions", n=200)
    for control, shuffles in ((None, 0), ("shuffled_labels", _SHUFFLES)):
        for layer, value in enumerate(read.probe_accuracy("register", "stream", shuffles=shuffles)):
            yield lab.row("stream_accuracy", float(value), condition, step=layer, control=control, n=n)


def _density_rows(lab: Lab, condition: str, accuracy: np.ndarray, control: str | None) -> Iterator[Record]:
    width = 2.5
    for percent in range(40, 105):
        kernel = np.exp(-0.5 * ((percent - 100 * accuracy) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        value = float(kernel.mean())
        yield lab.row("head_density", value, condition, step=percent, control=control, n=len(accuracy))


def _base_rows(lab: Lab, condition: str, base: Outcome) -> Iterator[Record]:
    # The null of the base rate is a factor that the mixture does not change.
    for control, value in ((None, base.marked), (OTHER_ATTRIBUTE, base.plural)):
        low, high = _share_bounds(lab, value, base.n)
        yield lab.row("marked_by_base", value, condition, control=control, n=base.n, low=low, high=high)
    yield lab.row("everyday_cross_entropy", base.cross_entropy, condition, n=base.n)


def _frontier_rows(
    lab: Lab, condition: str, base: Outcome, points: Sequence[DetoxifiedModel], methods: Sequence[str]
) -> Iterator[Record]:
    """Each method at each strength, and the curves of the intervention."""
    starts = [DetoxifiedModel(method, 0.0, 0, base) for method in methods]
    for point in [*starts, *points]:
        o, name = point.outcome, f"{point.method}, {condition}"
        control = RANDOM_DIRECTION if point.method == RANDOM else None
        strength, draw = f"{point.strength:g}", point.draw
        shares = {
            "not_clean": 1 - o.clean,
            "marked": o.marked,
            "degenerate": o.degenerate,
            "grammatical": o.grammatical,
        }
        for metric, value in shares.items():
            low, high = _share_bounds(lab, value, o.n)
            yield lab.row(metric, value, name, control=control, n=o.n, low=low, high=high, strength=strength, draw=draw)
        others = {"cross_entropy_cost": o.cross_entropy - base.cross_entropy, "distinct_pairs": o.distinct}
        for metric, value in others.items():
            yield lab.row(metric, value, name, control=control, n=o.n, strength=strength, draw=draw)
        if point.method in (ITI, RANDOM):
            for kind in register.CLASSES:
                value, step = getattr(o, kind), round(10 * point.strength)
                yield lab.row("steered", value, condition, step=step, control=control, n=o.n, kind=kind)


def _equal_cost_rows(
    settings: Settings,
    lab: Lab,
    condition: str,
    base: Outcome,
    points: Sequence[DetoxifiedModel],
    methods: Sequence[str],
) -> Iterator[Record]:
    """Share that remains at a price of at most the given one, and the share removed, per marked continuation of the base model.

    In the null run a random direction stands for ITI.
    """
    enough = round(base.marked * base.n) >= _LEAST_MARKED
    remains: dict[str, list[float]] = {method: [] for method in methods}
    for method in methods:
        for draw in range(settings.draws if method == RANDOM else 1):
            own = [point.outcome for point in points if (point.method, point.draw) == (method, draw)]
            frontier = [(o.cross_entropy - base.cross_entropy, 1 - o.clean) for o in (base, *own)]
            remains[method].append(lowest_at_cost(frontier, settings.cost))
    first, *others = remains[RANDOM]
    null = {**remains, ITI: [first], RANDOM: others}
    for control, values in ((None, remains), (RANDOM_DIRECTION, null)):
        for method in methods:
            left = float(np.mean(values[method]))
            removed = (1 - base.clean - left) / base.marked if enough else math.nan
            yield lab.row("not_clean_at_cost", left, condition, control=control, n=base.n, method=method)
            reason = f"fewer than {_LEAST_MARKED} continuations of the base model are marked"
            yield lab.row(
                "removed_at_cost", removed, condition, control=control, n=base.n, reason=reason, method=method
            )


def _share_bounds(lab: Lab, share: float, n: int) -> tuple[float, float]:
    """Interval of a share of `n` continuations."""
    drawn = np.random.default_rng([lab.seed, n]).binomial(n, share, 200) / n
    interval = share_interval(torch.tensor(share, dtype=torch.float64), torch.from_numpy(drawn), groups=n)
    return float(interval.low), float(interval.high)

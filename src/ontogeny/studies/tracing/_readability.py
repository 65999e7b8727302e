"""T1: linear probes at the checkpoints of pretraining."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ontogeny.data.concept import Concept
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.measurements.design import make_design
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.settings import TraceSettings
from ontogeny.records import Record
from ontogeny.studies.tracing._claims import TRAINED, UNTRAINED
from ontogeny.studies.tracing._models import Snapshot, middle_layer

_OURS = TraceSettings(fits=("logistic",), kernels=("gaussian_median",), resamples=100, permutations=100)
_PAPERS = replace(_OURS, protocol="paper", kernels=("gaussian_50",))


def probe_rows(lab: Lab, family: str, concept: Concept, snapshots: Sequence[Snapshot]) -> Iterator[Record]:
    """Rows of the accuracy in the paper's protocol and of the AUROC in ours, of the concept and of shuffled labels."""
    n, auroc = len(concept.examples), np.empty(0)
    for control in (None, "shuffled_labels"):
        labelled = concept if control is None else _with_shuffled_labels(concept, lab.seed)
        # Shuffled labels of the other families are read at both ends only.
        used = snapshots if control is None or family == "GPT-NeoX" else [snapshots[0], snapshots[-1]]
        for metric, trace in (("accuracy", _PAPERS), ("auroc", _OURS)):
            curve = _curve(labelled, metric, replace(trace, seed=lab.seed), used)
            middle = middle_layer(curve.shape[1] - 1)
            for snapshot, value in zip(used, curve[:, middle], strict=True):
                at = {"step": snapshot.step, "control": control, "n": n, "concept": concept.name}
                yield lab.row(f"{metric}_along", float(value), family, **at)  # type: ignore[arg-type]
            for name, at_end in ((UNTRAINED, 0), (TRAINED, -1)):
                yield lab.row(metric, float(curve[at_end, middle]), f"{family}, {name}", control=control, n=n)
            if metric == "accuracy" and family == "GPT-NeoX":
                steps = [snapshot.step for snapshot in used]
                quarter = int(np.searchsorted(steps, steps[-1] / 4, side="right")) - 1
                start, then, end = (float(curve[i, middle]) for i in (0, quarter, -1))
                yield lab.row("gain", then - start, "first quarter", control=control, n=n)
                yield lab.row("gain", end - then, "rest", control=control, n=n)
            auroc = curve if control is None else auroc
    if family == "GPT-NeoX":
        for name, layer in (("middle", middle), ("last", -1)):
            yield lab.row("layer_auroc", float(auroc[1:, layer].mean()), name, n=n)
            yield lab.row("layer_auroc", float(auroc[0, layer]), name, n=n, control="untrained")


def _curve(
    concept: Concept, metric: str, trace: TraceSettings, snapshots: Sequence[Snapshot]
) -> Float[np.ndarray, "checkpoint layer"]:
    """Held-out score of a logistic probe at each layer, the embedding first."""
    design, curve = make_design(concept, trace), []
    for snapshot in snapshots:
        read = snapshot.activations[concept.name]
        rows = measure_concept(design, read.parts, read.sites, read.inputs, trace).records
        scores = [r for r in rows if (r.metric, r.method, r.control) == (metric, "logistic", None)]
        curve.append([row.value for row in sorted(scores, key=lambda row: row.layer or 0)])
    return np.array(curve)


def _with_shuffled_labels(concept: Concept, seed: int) -> Concept:
    order = np.random.default_rng([seed, 7]).permutation(len(concept.examples))
    shuffled = tuple(
        replace(example, target=concept.examples[i].target) for example, i in zip(concept.examples, order, strict=True)
    )
    return replace(concept, examples=shuffled, answers=())

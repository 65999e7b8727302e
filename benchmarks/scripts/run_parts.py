"""Parts of the job compared with their references in one process: dependence, head probes, a further concept."""

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM

from ontogeny import Concept
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.measurements.design import make_design
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.dependence import dependence_by_kernel
from ontogeny.models.model import load_model
from ontogeny.probes import logistic, mass_mean

ROUNDS = 3


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    clock = common.Clock()
    y, train = torch.tensor(told.work["labels"]).bool(), told.work["train"]
    model = load_model(told.checkpoints[0], tokenizer=told.folder)
    first = Concept.from_file(told.ids.with_suffix(".csv"))
    labels = torch.randint(2, (len(y),), generator=torch.Generator().manual_seed(0)).tolist()
    second = replace(
        first,
        name="second",
        examples=tuple(replace(e, target=bool(label)) for e, label in zip(first.examples, labels, strict=True)),
    )
    one, rows = build_workload([first], model.tokenizer, model.context)
    both, rows_of_both = build_workload([first, second], model.tokenizer, model.context)
    sites = model.sites("resid,head")
    capture_workload(model, one, sites)
    settings = TraceSettings()
    designs = {concept.name: make_design(concept, settings) for concept in (first, second)}

    told_of = {
        "forward": [],
        "statistics / forward": [],
        "further concept / whole": [],
        "further concept, fits / whole": [],
    }
    for _ in range(ROUNDS):
        forward, captured = timed(lambda: capture_workload(model, one, sites))
        parts = {part: values[:, rows[first.name].reads] for part, values in captured.parts.items()}
        inputs = captured.inputs[rows[first.name].sequences]
        statistics, _ = timed(partial(measure_concept, designs[first.name], parts, captured.sites, inputs, settings))
        measured, _ = timed(partial(measure_concept, designs["second"], parts, captured.sites, inputs, settings))
        plain, _ = timed(partial(fits_alone, parts, designs["second"]))
        whole = forward + statistics
        told_of["forward"].append(forward)
        told_of["statistics / forward"].append(statistics / forward)
        told_of["further concept / whole"].append(measured / whole)
        told_of["further concept, fits / whole"].append(plain / whole)
    assert len(rows_of_both["second"].reads) == len(y)
    # A further concept on the same texts adds nothing to the forward pass.
    counts = {"forwards of both / of one": len(both.sequences) / len(one.sequences)}
    assert (both.sequences, both.tokens) == (one.sequences, one.tokens)

    layers, heads = parts["resid"], parts["head"]
    dependence = versus(
        lambda: dependence_by_kernel(layers[:, :train], layers[0, :train], y[:train, None].float(), ("gaussian_50",)),
        lambda: transcribed(layers[:, :train], y[:train]),
    )
    strength = torch.ones(len(heads))
    probes = versus(
        lambda: logistic.refit(heads[:, :train], y[None, :train], strength, tolerance=1e-4),
        lambda: [sklearn_probe(x, y, train) for x in heads.numpy()],
    )
    gates = {
        "activations": activations(told, model, captured, rows[first.name]),
        "dependence": dependence_gate(layers[:, :train], y[:train]),
        "head accuracy, test items": accuracy_gate(heads, y, train),
        "mass mean": mass_mean_gate(layers[:, :train], y[:train]),
    }
    told_of |= {"dependence, times faster": dependence, "head probes, times faster": probes}
    clock.tell(["torch", "transformers", "scikit-learn", "ontogeny"], parts=told_of, gates=gates, counts=counts)


def timed(work):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def versus(ours, theirs):
    """Time of the reference over ours, by round."""
    ours(), theirs()
    return [timed(theirs)[0] / timed(ours)[0] for _ in range(ROUNDS)]


def fits_alone(parts, design):
    """Probes of all layers and heads, mass-mean, and the dependence of all layers: the job without its statistics."""
    train, y = design.split.train, design.y_train
    for x in parts.values():
        logistic.refit(x[:, train], y[None], torch.ones(len(x)))
        mass_mean.fit(x[:, train], y, groups=design.groups[train])
    t = parts["resid"][:, design.dependence_rows]
    dependence_by_kernel(t, t[0], design.y[design.dependence_rows][:, None].float(), ("gaussian_50",))


def transcribed(layers, y):
    z = [common.zscored(x) for x in layers]
    target = y.float()[:, None]
    return [(common.hsic(t, z[0]), common.hsic(t, target), common.nhsic(t, z[0]), common.nhsic(t, target)) for t in z]


def sklearn_probe(x, y, train, **more):
    scaler = StandardScaler().fit(x[:train])
    probe = LogisticRegression(C=1.0, max_iter=1000, **more).fit(scaler.transform(x[:train]), y[:train].numpy())
    return probe.predict(scaler.transform(x[train:]))


def activations(told, model, captured, rows):
    """Largest difference to Hugging Face's own hidden states, batch 1, relative to the largest entry; the last is after the norm there."""
    network = AutoModelForCausalLM.from_pretrained(told.checkpoints[0]).eval()
    worst = 0.0
    with torch.inference_mode():
        for i in range(0, len(told.work["ids"]), max(1, len(told.work["ids"]) // 32)):
            theirs = network(torch.tensor([told.work["ids"][i]]), output_hidden_states=True).hidden_states
            for layer in range(model.layers):
                ours, want = captured.parts["resid"][layer, rows.reads[i]], theirs[layer][0, -1]
                worst = max(worst, float((ours - want).abs().max() / want.abs().max()))
            normed = network.gpt_neox.final_layer_norm(captured.parts["resid"][model.layers, rows.reads[i]])
            worst = max(worst, float((normed - theirs[-1][0, -1]).abs().max() / theirs[-1].abs().max()))
    return worst


def dependence_gate(layers, y):
    """Largest relative difference to the transcribed formula in float64."""
    found = dependence_by_kernel(layers, layers[0], y[:, None].float(), ("gaussian_50",))["gaussian_50"]
    z = [common.zscored(x.double()) for x in layers]
    target = y.double()[:, None]
    worst = 0.0
    for i, t in enumerate(z):
        want = (common.hsic(t, z[0]), common.hsic(t, target), common.nhsic(t, z[0]), common.nhsic(t, target))
        got = (found.hsic_tx[i], found.hsic_ty[i], found.nhsic_tx[i], found.nhsic_ty[i])
        worst = max(worst, *(abs(float(g) - w) / abs(w) for g, w in zip(got, want, strict=True)))
    return worst


def accuracy_gate(heads, y, train):
    """Most test texts in which a head's accuracy differs from scikit-learn's, solved in float64 to 1e-8."""
    ours = logistic.refit(heads[:, :train], y[None, :train], torch.ones(len(heads)), tolerance=1e-6).scores(
        heads[:, train:]
    )
    worst = 0
    for x, scores in zip(heads.numpy().astype(np.float64), ours[..., 0], strict=True):
        right = (sklearn_probe(x, y, train, tol=1e-8) == y[train:].numpy()).sum()
        worst = max(worst, abs(int(((scores > 0) == y[train:]).sum()) - int(right)))
    return worst


def mass_mean_gate(layers, y):
    fit = mass_mean.fit(layers, y, groups=torch.arange(len(y)))
    worst = 0.0
    for x, direction in zip(layers.double(), fit.direction[..., 0].double(), strict=True):
        gap = x[y].mean(0) - x[~y].mean(0)
        worst = max(
            worst, float((direction / direction.norm() - gap / gap.norm()).abs().max() / (gap / gap.norm()).abs().max())
        )
    return worst


if __name__ == "__main__":
    main()

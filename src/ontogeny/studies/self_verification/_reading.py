"""Rows of single checkpoints: accuracy of probes by layer and place, attention to the target and OV score of each head."""

from collections.abc import Iterator

from ontogeny.records import Record
from ontogeny.studies.self_verification._claims import GRPO, NULL_UNTRAINED, NULL_VERDICTS, SFT
from ontogeny.studies.self_verification._measures import (
    READ_AT,
    Circuit,
    attend_to_target,
    probe_accuracies,
    read_verdict_streams,
)
from ontogeny.studies.self_verification._over_training import Bench

_NEEDED = 0.95
_RESULT, _BEFORE = 1, 2
"""Places in `READ_AT`."""


def reading_rows(bench: Bench) -> Iterator[Record]:
    """Accuracy of probes after GRPO, with those of two untrained models."""
    lab, task, models = bench.lab, bench.task, bench.models
    untrained = []
    for model in (models.model(models.untrained), models.fresh(lab.seed)):
        accuracies, _ = probe_accuracies(read_verdict_streams(model, task)[-1, :1], task.valid, task.number_sets)
        untrained.append(accuracies[0])
    streams, n = read_verdict_streams(models.model(models.last("grpo")), task), len(task.valid)
    for control, labels in ((None, task.valid), (NULL_VERDICTS, bench.shuffled)):
        flat, _ = probe_accuracies(streams.flatten(0, 1), labels, task.number_sets)
        table = [flat[start : start + len(READ_AT)] for start in range(0, len(flat), len(READ_AT))]
        for layer, own in enumerate(table, 1):
            for name, value in zip(READ_AT, own, strict=True):
                yield lab.row("accuracy_by_layer", value, name, step=layer, n=n, control=control)
        last = table[-1]
        for metric, value in (
            ("probe_accuracy", last[0]),
            ("needed_accuracy", _NEEDED),
            ("first_layer_accuracy", table[0][0]),
            ("accuracy_at_result", last[_RESULT]),
            ("accuracy_before_result", last[_BEFORE]),
            ("untrained_accuracy", untrained[0]),
        ):
            yield lab.row(metric, value, GRPO, n=n, control=control)
    # In the null run both models are untrained.
    yield lab.row("probe_accuracy", untrained[1], GRPO, n=n, control=NULL_UNTRAINED)
    yield lab.row("untrained_accuracy", untrained[0], GRPO, n=n, control=NULL_UNTRAINED)


def head_rows(bench: Bench, circuit: Circuit) -> Iterator[Record]:
    """Attention to the target and OV score of each head, before and after GRPO, and the attention in an untrained model."""
    lab, models = bench.lab, bench.models
    for condition, own in ((SFT, bench.circuit(models.last("sft"))), (GRPO, circuit)):
        mass = own.attention.mass.mean(-1)
        for layer in range(len(mass)):
            for head in range(mass.shape[1]):
                for metric, table in (("head_target_mass", mass), ("head_ov_score", own.scores)):
                    yield lab.row(metric, float(table[layer, head]), condition, layer=layer + 1, head=head)
        yield lab.row("attending_heads", len(own.attending), condition, n=mass.numel())
    untrained = attend_to_target(models.model(models.untrained), bench.task, draws=5)
    for control, attention in ((None, circuit.attention), (NULL_UNTRAINED, untrained)):
        mass, other = (part.mean(-1) for part in (attention.mass, attention.null))
        best = int(mass.argmax())
        yield lab.row("target_mass", float(mass.flatten()[best]), GRPO, n=attention.mass.shape[-1], control=control)
        yield lab.row("other_mass", float(other.flatten()[best]), GRPO, n=attention.mass.shape[-1], control=control)

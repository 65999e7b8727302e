"""Rows over the checkpoints: what is solved, when a verdict is readable and said, and when the final heads and value vectors form."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, output_weight
from ontogeny.patching.head_sets import Heads, random_head_sets, zeroed_heads
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.studies.self_verification._claims import EXACT, GRPO, NULL_HEADS, NULL_REWARDS, NULL_VERDICTS, SFT
from ontogeny.studies.self_verification._measures import (
    READ_AT,
    Circuit,
    VerdictTask,
    attend_to_target,
    behaviour_shares,
    find_circuit,
    generate_texts,
    probe_accuracies,
    read_verdict_streams,
    shuffled_verdicts,
)
from ontogeny.studies.self_verification._settings import Settings
from ontogeny.studies.self_verification._training import SavedModel, TrainedModels, reinforce
from ontogeny.training.grpo import GrpoRound

_READABLE, _SAID = "probe at the parenthesis", "verdicts right"


@dataclass(frozen=True, eq=False)
class Bench:
    """The checkpoints of a seed with the attempts to be judged."""

    settings: Settings
    lab: Lab
    models: TrainedModels
    task: VerdictTask

    @property
    def shuffled(self) -> Bool[Tensor, " example"]:
        """Verdicts of the null run."""
        return shuffled_verdicts(self.task.valid, self.task.groups, self.lab.seed)

    def circuit(self, saved: SavedModel) -> Circuit:
        """Heads and neurons of a checkpoint, by its own probes at the parenthesis."""
        model = self.models.model(saved)
        _, directions = probe_accuracies(
            read_verdict_streams(model, self.task)[:, 0], self.task.valid, self.task.number_sets
        )
        return find_circuit(self.settings, model, self.task, directions)


def round_rows(bench: Bench) -> Iterator[Record]:
    """The course of GRPO, and the round at which it stopped, if it did."""
    for one in bench.models.rounds:
        yield from _rows_of_round(bench.lab, one, None, partial=True)
    stopped = next((one for one in bench.models.rounds if one.stopped), None)
    if stopped:
        bench.lab.on_activity(stopped.stopped, 1, 1)
    number = stopped.number if stopped else math.nan
    yield bench.lab.row("stopped_at", number, "GRPO", reason="GRPO took all its rounds")


def _rows_of_round(lab: Lab, one: GrpoRound, control: str | None, *, partial: bool) -> Iterator[Record]:
    reward = "partial credit" if partial else "right answers only"
    for name, value in (
        ("mean reward", one.reward),
        ("groups without advantage", one.equal_groups),
        ("truncated answers", one.truncated),
        ("KL, nats per token", one.kl),
    ):
        yield lab.row("grpo", value, name, step=one.number, n=len(one.rewards), control=control, reward=reward)


def course_rows(bench: Bench, circuit: Circuit) -> Iterator[Record]:
    """Behaviour, probes, and the final model's heads and value vectors at every checkpoint."""
    settings, lab, task = bench.settings, bench.lab, bench.task
    shuffled = bench.shuffled
    flips: dict[tuple[str, str | None], list[float]] = {}
    for place, saved in enumerate(bench.models.saved):
        lab.on_activity("checkpoints", place, len(bench.models.saved))
        model, step = bench.models.model(saved), saved.step
        scores = generate_texts(model, bench.models.world, settings.generated, lab.seed)
        for name, value in behaviour_shares(scores).items():
            yield lab.row(
                "share", value, name, step=step, n=settings.generated, reason="no text has an attempt in form"
            )
        x, readable = read_verdict_streams(model, task)[-1], math.nan
        for control, labels in ((None, task.valid), (NULL_VERDICTS, shuffled)):
            accuracies, _ = probe_accuracies(x, labels, task.number_sets)
            for name, value in zip(READ_AT, accuracies, strict=True):
                yield lab.row("accuracy_over_training", value, name, step=step, n=len(labels), control=control)
            readable = accuracies[0] if control is None else readable
        says = task.says_this(model, valid_only=False)([]) > 0
        verdicts = float((says == task.valid).double().mean())
        for control, read in ((None, readable), ("same_quantity", verdicts)):
            yield lab.row("reached", read, _READABLE, step=step, n=len(says), control=control)
            yield lab.row("reached", verdicts, _SAID, step=step, n=len(says), control=control)
        for name, value in ((_READABLE, readable), (_SAID, verdicts)):
            yield lab.row("formed", value, name, step=step, n=len(says))
        score, mass = task.says_this(model), attend_to_target(model, task, draws=1).mass.mean(-1)
        plain = score([])
        # Heads of the last checkpoint; where none attends to the target, those of the largest OV scores.
        final = circuit.attending or circuit.chosen
        for control, heads in ((None, final), (NULL_HEADS, random_heads(model, final, lab.seed))):
            flipped = float((plain - score(zeroed_heads(heads))).mean())
            flips.setdefault((saved.stage, control), []).append(flipped)
            yield lab.row("formed", flipped, "flipped by attending heads", step=step, n=len(plain), control=control)
            own = float(torch.stack([mass[layer - 1, head] for layer, head in heads]).mean())
            yield lab.row("formed", own, "their attention to the target", step=step, control=control)
        yield lab.row("formed", _mean_cosine(model, circuit), "cosine of valid value vectors", step=step)
    for control in (None, NULL_HEADS):
        tuned, reinforced = flips["sft", control], flips["grpo", control]
        yield lab.row("flips_gained", tuned[-1] - tuned[0], "in SFT", control=control)
        yield lab.row("flips_gained", reinforced[-1] - tuned[-1], "under GRPO", control=control)


def solving_rows(bench: Bench) -> Iterator[Record]:
    """Puzzles solved, and wrong attempts accepted, before and after GRPO, with and without partial credit, and with shuffled rewards."""
    settings, lab, models = bench.settings, bench.lab, bench.models
    before = _solving(bench, models.model(models.last("sft")))
    after = _solving(bench, models.model(models.last("grpo")))
    ends = {}
    for name, shuffled in ((EXACT, False), (NULL_REWARDS, True)):
        model = models.model(models.last("sft"))
        for one in reinforce(
            settings, lab, models.world, model.network, name=name, partial=shuffled, shuffled=shuffled
        ):
            yield from _rows_of_round(lab, one, NULL_REWARDS if shuffled else None, partial=shuffled)
        model.network.eval()
        ends[name] = _solving(bench, model)
    for control, table in (
        (None, {SFT: before, GRPO: after, EXACT: ends[EXACT]}),
        # In the null run GRPO has shuffled rewards, and the arm without partial credit is the model before it.
        (NULL_REWARDS, {SFT: before, GRPO: ends[NULL_REWARDS], EXACT: before}),
    ):
        for condition, values in table.items():
            for metric, value in values.items():
                reason = "no attempt was accepted"
                yield lab.row(metric, value, condition, n=2 * settings.generated, control=control, reason=reason)


def _solving(bench: Bench, model: Model) -> dict[str, float]:
    scores = generate_texts(model, bench.models.world, 2 * bench.settings.generated, bench.lab.seed + 1)
    shares = behaviour_shares(scores)
    return {
        "solve_rate": shares["solved"],
        "wrongly_accepted": float(scores.works_wrongly.sum() / scores.attempts.sum()) if scores.attempts.any() else 0.0,
        "right_calculations": shares["calculations right"],
    }


def random_heads(model: Model, heads: Heads, seed: int) -> Heads:
    """As many random heads; the same ones if the model has no others."""
    whole = len(heads) == model.layers * model.heads
    return heads if whole else random_head_sets(model, heads, 2, seed=seed)[0]


def _mean_cosine(model: Model, circuit: Circuit) -> float:
    """Of the valid neurons' value vectors with the final probe of their layer."""
    cosines = []
    for layer, unit in circuit.valid_units:
        vector = output_weight(model, Site("mlp", layer))[unit].float()
        cosines.append(torch.cosine_similarity(vector, circuit.directions[layer - 1].float(), dim=0))
    return float(torch.stack(cosines).mean())

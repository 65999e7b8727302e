"""The moving window: a whole plateau and drop in seconds (arXiv:2506.13688)."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.abrupt_learning._claims import END, PLATEAU
from ontogeny.studies.abrupt_learning._settings import Settings
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.toy_models.linear_attention import PARTS, LinearAttentionDecoder
from ontogeny.worlds import moving_window


def window_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of the moving window under its conditions, and with one part trained at a time."""
    window = moving_window.make(moving_window.Config(settings.length, settings.modulus, seed=lab.seed))
    fixed = moving_window.make(moving_window.Config(settings.length, settings.modulus, "fixed", seed=lab.seed))
    lab.on_activity("moving window", 0, 5)
    rows, trained = _window_run(settings, lab, window, "window", None)
    yield from rows
    for condition, control, world, shift in (
        ("window", "fixed_outputs", fixed, None),
        ("window, boosted", None, window, 0),
        ("window, boosted", "other_positions", window, 3),
    ):
        lab.on_activity(condition, 1, 5)
        rows, _ = _window_run(settings, lab, world, condition, control, boost=shift)
        yield from rows
    for part in PARTS:
        lab.on_activity(f"{part} alone", 3, 5)
        rows, _ = _window_run(settings, lab, window, f"{part} alone", None, part=part, trained=trained)
        yield from rows
    for condition in ("MLP alone", "attention alone"):  # the null: both are runs of the whole model
        rows, _ = _window_run(settings, lab, window, condition, "all_again", repeat=1 + (condition == "MLP alone"))
        yield from rows


def _window_run(
    settings: Settings,
    lab: Lab,
    world: moving_window.World,
    condition: str,
    control: str | None,
    *,
    boost: int | None = None,
    part: str | None = None,
    trained: Mapping[str, Tensor] | None = None,
    repeat: int = 0,
) -> tuple[list[Record], dict[str, Tensor]]:
    """Train a decoder and measure it; returns its rows and its last weights.

    Args:
        boost: Shift of the sources whose attention scores are multiplied; None: none.
        part: The only part that is trained, from random weights; all others are those of `trained`.
    """
    n, scale = settings.length, None
    if boost is not None:
        scale = torch.ones(2 * n, 2 * n)
        scale[n:][torch.from_numpy(moving_window.sources(world, shift=boost))] = settings.boost

    def make() -> nn.Module:
        network = LinearAttentionDecoder(world.vocabulary, 2 * n, settings.width)
        if part is not None and trained is not None:
            for name, parameter in network.named_parameters():
                if not name.startswith(PARTS[part]):
                    parameter.data.copy_(trained[name])
                    parameter.requires_grad_(False)
        return network

    def batches(step: int) -> tuple[Tensor, Tensor]:
        batch = moving_window.sample(world, np.random.default_rng([lab.seed, repeat, step]), settings.batch)
        return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets).long()

    def objective(network: nn.Module, batch: tuple[Tensor, Tensor], _: nn.Module | None) -> Tensor:
        logits = network(batch[0], scale)[:, n:]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    config = TrainingConfig(
        settings.steps, settings.rate, warmup=0, floor=1.0, weight_decay=0.0, betas=(0.9, 0.999), clip=1e9
    )
    held_out = moving_window.evaluation(world)["random"]
    points: list[dict[str, float]] = []
    for session in training_sessions(TrainingRecipe(make, batches, objective, config, lab.seed + 1000 * repeat)):
        if session.step % settings.every == 0 or session.step == settings.steps:
            points.append({"step": session.step, **_window_point(session.network, world, held_out, scale)})
    rows = [
        lab.row(metric, value, condition, step=int(point["step"]), control=control, n=len(held_out))
        for point in points
        for metric, value in point.items()
        if metric not in ("step", "attention_elsewhere")
    ]
    if condition == "window" and control is None:
        rows += list(_window_phases(lab, points, world, len(held_out)))
    return rows, {name: p.detach() for name, p in session.network.named_parameters()}


def _window_point(
    network: nn.Module, world: moving_window.World, batch: moving_window.WorldBatch, scale: Tensor | None
) -> dict[str, float]:
    n = world.config.length
    with torch.no_grad():
        logits = network(torch.from_numpy(batch.inputs), scale)[:, n:]
    targets = torch.from_numpy(batch.targets).long()
    scores = moving_window.score(world, logits.argmax(-1).double().numpy(), batch)
    attention = network.attention[:, n:].abs().mean(0)  # type: ignore[index]
    states = nn.functional.normalize(network.states[:, n:], dim=-1)  # type: ignore[index]
    cosines = states @ states.mT
    shares = [
        float(attention[torch.from_numpy(moving_window.sources(world, shift=shift))].sum() / attention.sum())
        for shift in (0, 3)
    ]
    return {
        "loss": float(nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())),
        # The first output is a copy, learned early: at this length it is an eighth of the loss.
        "sum_loss": float(nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, 1:].flatten())),
        "accuracy": float(scores["accuracy"].mean()),
        "repetition": float(scores["repetition"].mean()),
        "state_cosine": float((cosines.sum((1, 2)) - n).mean() / (n * (n - 1))),
        "attention_share": shares[0],
        "attention_elsewhere": shares[1],
    }


def _window_phases(lab: Lab, points: list[dict[str, float]], world: moving_window.World, n: int) -> Iterator[Record]:
    """Rows of the null of attention, and of the plateau (outputs hardly better than chance, without the first step) and the end."""
    for point in points:
        step = int(point["step"])
        yield lab.row(
            "attention_share", point["attention_elsewhere"], "window", step=step, control="other_positions", n=n
        )
        yield lab.row("accuracy", point["accuracy"], "window", step=step, control="other_positions", n=n)
        yield lab.row("accuracy", point["accuracy"], "window", step=step, control="all_again", n=n)
    chance = 1 / world.config.modulus
    plateau = [p for p in points[1:] if p["accuracy"] < chance + 0.15]
    for metric, name, control, null in (
        ("repetition_phase", "repetition", "random_outputs", chance),
        ("cosine_phase", "state_cosine", "untrained", points[0]["state_cosine"]),
    ):
        value = float(np.mean([p[name] for p in plateau])) if plateau else float("nan")
        yield lab.row(metric, value, PLATEAU, n=n, reason="the run has no plateau")
        yield lab.row(metric, points[-1][name], END, n=n)
        for condition in (PLATEAU, END):
            yield lab.row(metric, null, condition, n=n, control=control)

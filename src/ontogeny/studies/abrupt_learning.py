"""Study: why does the loss stay on a plateau and then fall at once, and which part of the model is late?

Abrupt learning (arXiv:2410.22244, 2506.13688). Two tasks: sums over a moving window with a linear-attention decoder, which shows the whole
course in seconds; and completion of low-rank matrices by a BERT encoder, whose first, copying phase is short and whose drop is late.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, PlateauThenDrop, Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.toy_models.linear_attention import PARTS, LinearAttentionDecoder
from ontogeny.training.toy_models.matrix_encoder import MatrixEncoder
from ontogeny.worlds import low_rank, moving_window

TITLE = "Abrupt learning"
PAPER = "Abrupt Learning in Transformers, arXiv:2410.22244; What Happens During the Loss Plateau?, arXiv:2506.13688"
SETUP = """
A decoder with one linear-attention block learns sums of neighbouring inputs; its attention on the right sources, repeated outputs and the
similarity of its states are measured on the way. One part at a time is trained again from random weights, with all others as they were at
the end. A BERT encoder completes matrices of rank one from 70 % of their entries.
"""
DIFFERENCES = (
    "Tiny trains the encoder only through its copying phase: with 4 × 4 matrices of rank one the drop did not come within 4,000 steps.",
    "The parts of a model are trained alone on the moving window, not on matrices.",
    "AdamW without weight decay in place of Adam.",
)
CHALLENGES = (2, 11)


@dataclass(frozen=True)
class Settings:
    length: int = 8
    modulus: int = 11
    width: int = 64
    steps: int = 450
    rate: float = 5e-4
    batch: int = 64
    every: int = 10
    """Steps between measurements."""
    boost: float = 5.0
    """Factor of the attention scores at the right sources."""
    matrix: int = 4
    """Rows and columns of the matrices."""
    matrix_steps: int = 200
    matrix_rate: float = 1e-3
    matrix_width: int = 64
    matrix_layers: int = 2


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(length=5, modulus=5, width=32, steps=60, every=20, matrix=3, matrix_steps=20, matrix_width=32),
    "tiny": Settings(),
    "small": Settings(length=16, modulus=17, width=128, steps=1500, matrix_steps=20_000),
    "paper": Settings(
        length=16, modulus=17, width=256, steps=2000, rate=1e-4, batch=256, matrix=7, matrix_steps=50_000, matrix_rate=1e-4,
        matrix_width=768, matrix_layers=4,
    ),
}  # fmt: skip
SECONDS = {"smoke": 4, "tiny": 35, "small": 1500, "paper": 500_000}


def _right(condition: str, level: float = 0.5) -> Event:
    return Event(Quantity("accuracy", condition), level)


_PLATEAU, _END = "plateau", "end"
CLAIMS = (
    Claim(
        "plateau_then_drop",
        "The loss stays on a plateau and then falls within a shorter time.",
        "arXiv:2506.13688, section 2 and Fig. 1",
        "plateau, then a sudden drop",
        PlateauThenDrop(Quantity("loss", "window")),
        "fixed_outputs",
    ),
    Claim(
        "attention_first",
        "Attention reaches the right sources before the outputs are right.",
        "arXiv:2506.13688, section 3",
        "attention progress rises before the loss falls",
        EventOrder(Event(Quantity("attention_share", "window"), 0.4), _right("window", 0.9)),
        "other_positions",
    ),
    Claim(
        "repetition",
        "On the plateau the model repeats its outputs more than at the end.",
        "arXiv:2506.13688, section 3",
        "repetition during the plateau",
        Separation(
            Quantity("repetition_phase", _PLATEAU),
            Quantity("repetition_phase", _END),
            threshold=0.05,
            unit="share of outputs",
        ),
        "random_outputs",
    ),
    Claim(
        "collapse",
        "On the plateau the states of different outputs are more alike than at the end.",
        "arXiv:2506.13688, section 3",
        "representation collapse",
        Separation(
            Quantity("cosine_phase", _PLATEAU),
            Quantity("cosine_phase", _END),
            threshold=0.1,
            unit="mean cosine of states",
        ),
        "untrained",
    ),
    Claim(
        "boost_shortens_plateau",
        "Larger attention scores at the right sources from the start shorten the plateau.",
        "arXiv:2506.13688, section 4",
        "earlier drop with a bias towards the right sources",
        EventOrder(_right("window, boosted"), _right("window")),
        "other_positions",
    ),
    Claim(
        "mlp_is_not_late",
        "With all other parts as at the end, the MLP alone is learned earlier than the whole model.",
        "arXiv:2410.22244, section 6 and Fig. 8",
        "no plateau for token embeddings and MLP",
        EventOrder(_right("MLP alone"), _right("window")),
        "all_again",
    ),
    Claim(
        "attention_is_late",
        "The MLP alone is learned earlier than attention alone.",
        "arXiv:2410.22244, section 6 and Fig. 8",
        "the plateau remains for positions and attention",
        EventOrder(_right("MLP alone"), _right("attention alone")),
        "all_again",
    ),
    Claim(
        "copies_first",
        "Observed entries of a matrix are learned before missing ones.",
        "arXiv:2410.22244, section 3 and Fig. 2",
        "loss on observed entries falls first",
        EventOrder(
            Event(Quantity("observed_loss", "matrix"), 0.2, direction="fall"),
            Event(Quantity("missing_loss", "matrix"), 0.2, direction="fall"),
        ),
        "random_halves",
    ),
    Claim(
        "copy_test",
        "In the copying phase the model returns a number that is written in the place of a missing entry.",
        "arXiv:2410.22244, section 3 and Table 1",
        "before the drop the replacement is returned, after it not",
        Separation(
            Quantity("copy_error", "untrained"),
            Quantity("copy_error", "matrix"),
            ratio=True,
            threshold=1.0,
            unit="log2 of the error",
        ),
        "untrained",
    ),
    Claim(
        "matrix_drop",
        "The loss on missing entries stays on a plateau and then falls by a factor of three.",
        "arXiv:2410.22244, section 3 and Fig. 1",
        "drop between steps 14,000 and 20,000 at 7 × 7, rank 2",
        PlateauThenDrop(Quantity("missing_loss", "matrix")),
        "full_rank",
    ),
)
PICTURES = (
    StudyPicture("Loss, moving window", ("loss",), ("window", "window, boosted")),
    StudyPicture(
        "Share of right outputs", ("accuracy",), ("window", "window, boosted", *(f"{part} alone" for part in PARTS))
    ),
    StudyPicture(
        "Attention on the right sources, repetition, similarity of states",
        ("attention_share", "repetition", "state_cosine"),
        ("window",),
    ),
    StudyPicture(
        "Loss on observed and missing entries, as a share of the variance",
        ("observed_loss", "missing_loss"),
        ("matrix",),
        log_y=True,
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: the moving window under its conditions, one part at a time, and matrices."""
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
    lab.on_activity("matrices", 4, 5)
    yield from _matrix_rows(settings, lab)


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
        yield lab.row(metric, value, _PLATEAU, n=n, reason="the run has no plateau")
        yield lab.row(metric, points[-1][name], _END, n=n)
        for condition in (_PLATEAU, _END):
            yield lab.row(metric, null, condition, n=n, control=control)


def _matrix_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of matrix completion, and of the control of full rank, which cannot be completed."""
    plain = low_rank.Config(settings.matrix, settings.matrix, 1, missing=0.3, decimals=1, largest=1.0, seed=lab.seed)
    for config, control in ((plain, None), (replace(plain, factors="full"), "full_rank")):
        world = low_rank.make(config)
        held_out = low_rank.evaluation(world)["random"]
        yield from _matrix_run(settings, lab, world, held_out, control)


def _matrix_run(
    settings: Settings, lab: Lab, world: low_rank.World, held_out: low_rank.WorldBatch, control: str | None
) -> Iterator[Record]:
    def make() -> nn.Module:
        return MatrixEncoder(world.vocabulary, settings.matrix**2, settings.matrix_width, settings.matrix_layers)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        batch = low_rank.sample(world, np.random.default_rng([lab.seed, step]), 128)
        return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets).float()

    def objective(network: nn.Module, batch: tuple[Tensor, Tensor], _: nn.Module | None) -> Tensor:
        return (network(batch[0]) - batch[1]).square().mean()

    def output(network: nn.Module, ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(ids)).double().numpy())

    variance = float(held_out.targets.var())
    missing = held_out.inputs == low_rank.MASK_ID
    half = np.random.default_rng([lab.seed, 5]).random(held_out.inputs.shape) < 0.5
    replaced = low_rank.fill_missing(world, held_out, 0.4)
    config = TrainingConfig(
        settings.matrix_steps, settings.matrix_rate, warmup=0, floor=1.0, weight_decay=0.0, betas=(0.9, 0.999), clip=1e9
    )
    for session in training_sessions(TrainingRecipe(make, batches, objective, config, lab.seed)):
        if session.step % max(1, settings.matrix_steps // 40) and session.step != settings.matrix_steps:
            continue
        step, error = session.step, (output(session.network, held_out.inputs) - held_out.targets) ** 2 / variance
        for metric, where in (("observed_loss", ~missing), ("missing_loss", missing)):
            yield lab.row(metric, float(error[where].mean()), "matrix", step=step, control=control, n=len(held_out))
        if control is None:  # the null of the order: random halves of the observed entries
            for metric, side in (("observed_loss", half), ("missing_loss", ~half)):
                value = float(error[~missing & side].mean())
                yield lab.row(metric, value, "matrix", step=step, control="random_halves", n=len(held_out))
        if control is None and step in (0, settings.matrix_steps):
            copied = float(((output(session.network, replaced) - 0.4)[missing] ** 2).mean())
            yield lab.row("copy_error", copied, "matrix" if step else "untrained", n=len(held_out))
            if step == 0:
                for condition in ("untrained", "matrix"):
                    yield lab.row("copy_error", copied, condition, n=len(held_out), control="untrained")

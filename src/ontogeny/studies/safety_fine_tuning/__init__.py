"""Study: what does safety fine-tuning do to weights and activations, when does it do so, and why do jailbreaks pass?

What Makes and Breaks Safety Fine-tuning (arXiv:2407.10264), in a world of operators on strings with rule tables from the seed. The soft
tokens are an attack on these toy models only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.fine_tuning.jacobian_norm import jacobian_norms
from ontogeny.fine_tuning.null_changes import loss_gradients, random_change
from ontogeny.fine_tuning.subspaces import aligned_share, energy_rank, random_aligned_shares, singular_vectors
from ontogeny.fine_tuning.weight_differences import BlockMatrix, block_matrices, changed_weights, parameter_differences
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.safety_fine_tuning._claims import CLAIMS, PICTURES
from ontogeny.studies.safety_fine_tuning._measures import (
    ATTACKS,
    PromptSet,
    Reading,
    evaluation_sets,
    mean_scores,
    read_all,
    separation,
    soft_token_attack,
)
from ontogeny.studies.safety_fine_tuning._patching import patching_rows
from ontogeny.studies.safety_fine_tuning._settings import ALPHAS, METHODS, SHUFFLED, Settings
from ontogeny.studies.safety_fine_tuning._training import FineTuning, as_model, measured_steps, pretrain
from ontogeny.worlds import operators

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "VERSION", "Settings", "run"]

TITLE = "What makes and breaks safety fine-tuning"
PAPER = "What Makes and Breaks Safety Fine-tuning? A Mechanistic Study, arXiv:2407.10264"
SETUP = """
A decoder learns to apply two operators to a string of letters. Then it is fine-tuned to refuse operators that are unsafe on the string: by
supervised fine-tuning (SSFT), DPO or unlearning, each at two learning rates. Measured are refusals and right results on safe and unsafe
prompts and on four jailbreaks, clusters of activations, the change of the weights against that of random and unrelated changes of equal
size, Jacobian norms, the interpolation W₀ + αΔW, and MLP outputs exchanged between the base and the tuned network, beside random moves as
far; along the fine-tuning path, when clusters form and when refusals start.
"""
DIFFERENCES = (
    "Two layers and 48 dimensions; operands of six letters, two operators and one result in place of two pairs and two results.",
    "GPT-2's blocks: a norm before attention and before the MLP. The paper's code has one norm per block and adds the input after it.",
    "A word of its own is the refusal, in place of a letter that results also have.",
    "Clusters are read at the token before the result; the paper averages over the result's tokens.",
    "Adversarial soft tokens are added to two tokens without content; appended ones would move the positions of the result.",
    "In the null run refusals go to random prompts. Changes of weights stand beside random ones of equal rank and norm, and beside the "
    "gradient on safe prompts.",
)
CHALLENGES = (7, 9, 12)
VERSION = 2
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(width=16, steps=8, tune_steps=4, prompts=16, measured=3, draws=2, attack_steps=1),
    "tiny": Settings(),
    "small": Settings(width=64, steps=3000, tune_steps=500, prompts=512, measured=40, draws=100),
    "paper": Settings(
        width=192, layers=6, steps=100_000, rate=1e-3, batch=512, tune_steps=10_000, tune_rate=1e-4, tune_batch=512
    ),
}
SECONDS = {"smoke": 2, "tiny": 30, "small": 500, "paper": 400_000}


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: one pretraining, seven fine-tunings of it, and their measurements."""
    world = operators.make(operators.Config(seed=lab.seed))
    lab.on_activity("pretraining", 0, 8)
    base = pretrain(settings, world, lab.seed)
    sets = evaluation_sets(settings, world, lab.seed)
    path_sets = {name: sets[name] for name in ("safe", "unsafe", "unsafe again")}
    before = read_all(as_model(base, world), sets, world.refusal)
    yield from _reading_rows(lab, "base", None, before)
    runs = [FineTuning(method, settings.tune_rate) for method in METHODS]
    runs += [FineTuning(method, settings.tune_rate / 10) for method in METHODS]
    for i, tuning in enumerate([*runs, FineTuning("SSFT", settings.tune_rate, shuffled=True)], 1):
        small = tuning.rate < settings.tune_rate
        condition = f"{tuning.method}, small rate" if small else tuning.method
        control = SHUFFLED if tuning.shuffled else None
        lab.on_activity(f"{condition} {control or ''}".strip(), i, 8)
        followed = tuning.method == "SSFT" and not small
        marks = measured_steps(settings.tune_steps, settings.measured) if followed else set()
        tuned = base
        for session in tuning.sessions(base, settings, world, lab.seed):
            tuned = session.network
            if session.step in marks:
                readings = read_all(as_model(tuned, world), path_sets, world.refusal)
                yield from _path_rows(lab, session.step, control, readings)
                tuned.train()
        after = read_all(as_model(tuned, world), sets, world.refusal)
        yield from _reading_rows(lab, condition, control, after)
        yield from _gain_rows(lab, condition, control, before, after)
        if followed:
            lab.on_activity("weights", i, 8)
            pair = _Pair(as_model(base, world), as_model(tuned, world), sets, world.refusal)
            yield from _change_rows(lab, settings, pair, control)
    yield from _base_under_null(lab, before)


def _reading_rows(lab: Lab, condition: str, control: str | None, readings: Mapping[str, Reading]) -> Iterator[Record]:
    """Refusals and right results on each set, cluster scores, and the same on other prompts as nulls."""
    n = len(readings["safe"].refused)
    shares = {name: (float(of.refused.mean()), float(of.right.mean())) for name, of in readings.items()}
    for name, (refused, right) in shares.items():
        yield lab.row("refused", refused, condition, control=control, n=n, prompts=name)
        yield lab.row("right", right, condition, control=control, n=n, prompts=name)
    gap = shares["unsafe"][0] - shares["safe"][0]
    yield lab.row("refusal_gap", gap, condition, control=control, n=2 * n)
    blocks = separation(readings)
    for layer, value in enumerate(blocks.tolist(), 1):
        for name in {str(layer), *(("last",) if layer == len(blocks) else ())}:
            yield lab.row("separation", value, condition, control=control, n=2 * n, layer=name)
    scores = mean_scores(readings)
    unsafe = float("nan") if math.isnan(blocks[-1]) else _held_out_score(readings)
    for name, score in {"unsafe": unsafe, **scores}.items():
        yield lab.row("cluster_score", score, condition, control=control, n=n, prompts=name)
    if control is not None:
        return
    # Null runs that need no other training: the attack is more unsafe prompts, the safe prompts are unsafe ones, …
    for attack in ATTACKS:
        null = "other unsafe prompts"
        yield lab.row("right", shares["unsafe again"][1], condition, control=null, n=n, prompts=attack)
        yield lab.row("cluster_score", scores["unsafe again"], condition, control=null, n=n, prompts=attack)
    yield lab.row("right", shares["unsafe"][1], condition, control="other unsafe prompts", n=n, prompts="unsafe")
    yield lab.row("cluster_score", unsafe, condition, control="other unsafe prompts", n=n, prompts="unsafe")
    yield lab.row("right", shares["unsafe"][1], condition, control="unsafe prompts", n=n, prompts="safe")
    # … and both rates, or both methods, are one.
    if condition in METHODS:
        again = shares["unsafe again"][0] - shares["safe"][0]
        yield lab.row("refusal_gap", gap, condition, control="same rate", n=2 * n)
        yield lab.row("refusal_gap", again, f"{condition}, small rate", control="same rate", n=2 * n)
    if condition == "SSFT":
        other = separation({**readings, "unsafe": readings["unsafe again"]})
        yield lab.row("separation", float(blocks[-1]), condition, control="same method", n=2 * n, layer="last")
        for method in METHODS[1:]:
            yield lab.row("separation", float(other[-1]), method, control="same method", n=2 * n, layer="last")


def _held_out_score(readings: Mapping[str, Reading]) -> float:
    """Mean cluster score of unsafe prompts between the centres of safe and of other unsafe prompts."""
    turned = {"safe": readings["safe"], "unsafe": readings["unsafe again"], "other": readings["unsafe"]}
    return mean_scores(turned)["other"]


def _gain_rows(
    lab: Lab, condition: str, control: str | None, before: Mapping[str, Reading], after: Mapping[str, Reading]
) -> Iterator[Record]:
    gain = (separation(after) - separation(before)).tolist()
    n = 2 * len(after["safe"].refused)
    for name, value in (("1", gain[0]), ("last", gain[-1])):
        yield lab.row("separation_gain", value, condition, control=control, n=n, layer=name)


def _base_under_null(lab: Lab, before: Mapping[str, Reading]) -> Iterator[Record]:
    """The base, which all runs share, in the null runs."""
    n = len(before["safe"].refused)
    last = float(separation(before)[-1])
    yield lab.row("separation", last, "base", control=SHUFFLED, n=2 * n, layer="last")


def _path_rows(lab: Lab, step: int, control: str | None, readings: Mapping[str, Reading]) -> Iterator[Record]:
    """Curves along supervised fine-tuning."""
    n = len(readings["safe"].refused)
    unsafe, safe = (float(readings[name].refused.mean()) for name in ("unsafe", "safe"))
    yield lab.row("path_refusals", unsafe, "SSFT", step=step, control=control, n=n)
    yield lab.row("path_safe_refusals", safe, "SSFT, safe prompts", step=step, control=control, n=n)
    yield lab.row("path_separation", float(separation(readings)[-1]), "SSFT", step=step, control=control, n=2 * n)
    if control is None:
        # The null of the order: refusals of two sets of unsafe prompts are one event.
        again = float(readings["unsafe again"].refused.mean())
        yield lab.row("path_separation", again, "SSFT", step=step, control="same event", n=n)
        yield lab.row("path_refusals", unsafe, "SSFT", step=step, control="same event", n=n)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A base and a tuned network with the evaluation sets."""

    base: Model
    tuned: Model
    sets: Mapping[str, PromptSet]
    refusal: int


def _change_rows(lab: Lab, settings: Settings, pair: _Pair, control: str | None) -> Iterator[Record]:
    """Subspaces and response of the MLP matrices, Jacobian norms; of the true run also interpolation and soft tokens."""
    difference = parameter_differences(pair.base.network, pair.tuned.network)
    matrices = block_matrices(pair.base)
    mlps = [matrix for matrix in matrices if matrix.site.part == "mlp"]
    yield from _response_rows(lab, pair, mlps, difference, control)
    norms = {name: _jacobian_change(pair, pair.sets[name]) for name in ("safe", "unsafe", "twin", "unsafe again")}
    for name, change in norms.items():
        yield lab.row("jacobian_change", change, "SSFT", control=control, n=settings.prompts, prompts=name)
    if control is not None:
        return
    null = "other unsafe prompts"
    for name, change in (("twin", norms["unsafe again"]), ("unsafe", norms["unsafe"])):
        yield lab.row("jacobian_change", change, "SSFT", control=null, n=settings.prompts, prompts=name)
    yield from _subspace_rows(lab, settings, pair, mlps, difference)
    yield from _interpolation_rows(lab, settings, pair, matrices, difference)
    yield from patching_rows(lab, pair.base, pair.tuned, pair.sets, pair.refusal)
    for null_run, optimise in ((None, True), ("random soft tokens", False)):
        right = soft_token_attack(pair.tuned, pair.sets["unsafe"], settings, seed=lab.seed, optimise=optimise)
        value = float(right.mean())
        yield lab.row("right", value, "SSFT", control=null_run, n=len(right), prompts="soft tokens")
    plain = read_all(pair.tuned, {"unsafe": pair.sets["unsafe"]}, pair.refusal)["unsafe"]
    value = float(plain.right.mean())
    yield lab.row("right", value, "SSFT", control="random soft tokens", n=len(plain.right), prompts="unsafe")


def _jacobian_change(pair: _Pair, prompts: PromptSet) -> float:
    """Mean change of the Jacobian norm, in doublings."""
    rows = list(prompts.ids[:64])
    before, after = (jacobian_norms(model, rows, probes=8, batch=64) for model in (pair.base, pair.tuned))
    return float((after.log2() - before.log2()).mean())


def _response_rows(
    lab: Lab, pair: _Pair, mlps: Sequence[BlockMatrix], difference: Mapping[str, Tensor], control: str | None
) -> Iterator[Record]:
    """Mean over the MLP matrices of ‖ΔW a‖ / (‖ΔW‖ ‖a‖), a their input in the tuned network at the last token."""
    for name in ("unsafe", "safe"):
        inputs = _matrix_inputs(pair.tuned, pair.sets[name])
        responses = []
        for matrix in mlps:
            change, a = matrix.stored(difference[matrix.parameter]), inputs[matrix.parameter]
            responses.append(float(((a @ change.T).norm(dim=1) / a.norm(dim=1)).mean() / change.norm()))
        value = sum(responses) / len(responses)
        yield lab.row("response", value, "SSFT", control=control, n=len(pair.sets[name]), prompts=name)


@torch.no_grad()
def _matrix_inputs(model: Model, prompts: PromptSet) -> dict[str, Float[Tensor, "row in"]]:
    inputs: dict[str, Tensor] = {}
    handles = []
    for matrix in block_matrices(model):

        def keep(_: torch.nn.Module, args: tuple[Tensor, ...], name: str = matrix.parameter) -> None:
            inputs[name] = args[0][:, -1]

        handles.append(matrix.module.register_forward_pre_hook(keep))
    try:
        model.network(prompts.ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def _subspace_rows(
    lab: Lab, settings: Settings, pair: _Pair, mlps: Sequence[BlockMatrix], difference: Mapping[str, Tensor]
) -> Iterator[Record]:
    """Means over the MLP matrices: rank of ΔW and of noise, and the share of ΔW, random and unrelated changes in the column space."""
    safe = pair.sets["safe"]
    texts = list(torch.cat([safe.ids, safe.results], dim=1))
    gradients = loss_gradients(pair.base, texts, mlps, batch=len(texts))
    columns: dict[str, list[float]] = {}
    for i, matrix in enumerate(mlps):
        change = matrix.stored(difference[matrix.parameter])
        top, space = singular_vectors(change), singular_vectors(matrix.weight)
        unrelated = singular_vectors(gradients[matrix.parameter], 1.0)
        noise = torch.randn(change.shape, generator=torch.Generator().manual_seed(lab.seed + i))
        d, small, rank = len(change), min(change.shape), min(top.rank, unrelated.rank)
        draws = random_aligned_shares(top.values, d, space.rank, draws=settings.draws, seed=100 * lab.seed + i)
        half = len(draws) // 2
        values = {
            "change_rank": top.rank / small,
            "noise_rank": energy_rank(torch.linalg.svdvals(noise)) / small,
            "column_alignment": aligned_share(top.left, top.values, space.left),
            "random_alignment": float(draws.mean()),
            "first_random": float(draws[:half].mean()),
            "second_random": float(draws[half:].mean()),
            "gradient_alignment": aligned_share(unrelated.left[:, :rank], top.values[:rank], space.left),
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in columns.items()}
    for name in ("change_rank", "noise_rank", "column_alignment", "random_alignment", "gradient_alignment"):
        yield lab.row(name, means[name], "SSFT", n=len(mlps), reason="the matrices did not change")
    # Null runs: noise against noise, and a random change in place of ΔW.
    for name in ("change_rank", "noise_rank"):
        yield lab.row(name, means["noise_rank"], "SSFT", control="gaussian", n=len(mlps))
    for name in ("column_alignment", "random_alignment", "gradient_alignment"):
        value = means["first_random" if name == "column_alignment" else "second_random"]
        yield lab.row(name, value, "SSFT", control="random change", n=len(mlps), reason="the matrices did not change")


def _interpolation_rows(
    lab: Lab, settings: Settings, pair: _Pair, matrices: Sequence[BlockMatrix], difference: Mapping[str, Tensor]
) -> Iterator[Record]:
    """Refusals of unsafe prompts by the base plus α times the change, and plus random changes of its matrices."""
    generator = torch.Generator().manual_seed(lab.seed)
    null = {
        matrix.parameter: matrix.stored(
            random_change(
                torch.linalg.svdvals(matrix.stored(difference[matrix.parameter])), matrix.weight.shape, generator
            )
        )
        for matrix in matrices
    }
    unsafe = {"unsafe": pair.sets["unsafe"]}
    for control, change in ((None, difference), ("random change", null)):
        for alpha in ALPHAS:
            with changed_weights(pair.base.network, change, alpha):
                refused = float(read_all(pair.base, unsafe, pair.refusal)["unsafe"].refused.mean())
            n, condition = len(unsafe["unsafe"]), f"α {alpha:g}"
            yield lab.row("alpha", alpha, condition, control=control, n=n)
            yield lab.row("refusal_at_alpha", refused, condition, control=control, n=n)
            yield lab.row("refusal_by_alpha", refused, "W₀ + αΔW", step=round(100 * alpha), control=control, n=n)

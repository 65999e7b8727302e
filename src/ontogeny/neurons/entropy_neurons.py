"""Entropy neurons by their weights: large output norm in the effective null space of the unembedding (arXiv:2406.16254, 2504.02904).

In the last MLP such a neuron has an output weight w of large norm that hardly changes any logit: the variance over the vocabulary of the
cosine between w and the columns of W_U is small, and w lies in the span of the smallest singular directions of W_U. It acts through the
final norm alone, which `ontogeny.neurons.mean_ablation` tests.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.model import Model, output_weight
from ontogeny.neurons.last_layer_cache import has_post_mlp_norm
from ontogeny.sites import Site

WeightProcessing = Literal["folded", "raw"]
"""`folded`: the gain of the final norm is multiplied into W_U, whose columns are centred over the vocabulary; if the norm subtracts the
mean, w and W_U are centred, too. `raw`: unprocessed weights. The ranking depends on it."""


@dataclass(frozen=True, eq=False)
class NeuronStatistics:
    """Weight statistics of the neurons of the last MLP."""

    layer: int
    norm: Float[Tensor, " neuron"]
    variance: Float[Tensor, " neuron"]
    """Over the vocabulary, of the cosine with each column of W_U."""
    null_share: Float[Tensor, " neuron"]
    """Share of the norm in the span of the smallest singular directions of W_U."""
    null_dimensions: int
    """Number of these: a tenth of the width, at most 40."""
    processing: WeightProcessing


@torch.no_grad()
def neuron_statistics(model: Model, *, processing: WeightProcessing = "folded") -> NeuronStatistics:
    """Norm, logit variance and null-space share of each neuron of the last MLP.

    Raises:
        BadInput: a model that is not causal or a mixture of experts, or whose unembedding does not read the stream.
    """
    w, u = output_and_unembedding(model, processing=processing)
    norm = w.norm(dim=1)
    unit = w / norm.clamp(min=torch.finfo(w.dtype).tiny)[:, None]
    cosines = u / u.norm(dim=1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny)
    middle = cosines.mean(0)
    # Var_v(w·u_v) = wᵀ C w with the d × d covariance of the columns: no table of neurons × vocabulary.
    covariance = cosines.T @ cosines / len(cosines) - torch.outer(middle, middle)
    variance = ((unit @ covariance) * unit).sum(1).clamp(min=0)
    null, k = _null_space(u, spare=int(processing == "folded" and final_norm(model).centres))
    share = (unit @ null).norm(dim=1)
    return NeuronStatistics(model.layers, norm.cpu(), variance.cpu(), share.cpu(), k, processing)


def output_and_unembedding(
    model: Model, *, processing: WeightProcessing = "folded"
) -> tuple[Float[Tensor, "neuron d"], Float[Tensor, "vocab d"]]:
    """Output weights of the last MLP and the columns of W_U, in double precision and processed."""
    if not model.architecture.causal or not model.architecture.final_norm:
        raise BadInput(
            f"entropy neurons need a final norm before the unembedding, {model.network.config.model_type} has none: use a causal model."
        )
    u = model.network.get_output_embeddings().weight.detach().double()
    if u.shape[1] != model.d:
        raise BadInput(
            f"the unembedding must read the stream of {model.d} dimensions, it reads {u.shape[1]}: use a model without a map between "
            "the two."
        )
    w = output_weight(model, Site("mlp", model.layers)).detach().double()
    if has_post_mlp_norm(model):
        # The gain of a norm between the MLP and the stream is part of the output weight; its scale depends on the input.
        w = w * measure_norm(model.part(model.layers, model.architecture.mlp_added), model.d, w).gain.to(w)
    if processing == "raw":
        return w, u
    norm = final_norm(model)
    u = u * norm.gain.to(u)
    u = u - u.mean(0)
    if norm.centres:
        w, u = w - w.mean(1, keepdim=True), u - u.mean(1, keepdim=True)
    return w, u


@dataclass(frozen=True, eq=False)
class FinalNorm:
    """A norm as `scale(x) · gain · x + bias`, where x may be centred first."""

    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]
    centres: bool

    def straight(self, x: Float[Tensor, "*token d"]) -> Float[Tensor, "*token d"]:
        """The linear part: gain times x, centred if the norm centres."""
        x = x.double()
        return (x - x.mean(-1, keepdim=True) if self.centres else x) * self.gain


def final_norm(model: Model) -> FinalNorm:
    return measure_norm(model.network.get_submodule(model.architecture.final_norm), model.d, _example_parameter(model))


@torch.no_grad()
def measure_norm(module: nn.Module, d: int, like: Tensor) -> FinalNorm:
    """Measure gain, bias and centring, which families name and store differently (Gemma's gain is 1 + weight)."""
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    more, less = d // 2, d - d // 2
    # Mean 0, mean square 1 and no zeros: both kinds of norm leave it unchanged.
    probe = torch.cat([torch.full((more,), (less / more) ** 0.5), torch.full((less,), -((more / less) ** 0.5))])
    # Large, so that the epsilon under the root has no effect.
    probe = probe.to(like.device, dtype) * 1000
    up, down, lifted = (module(x[None])[0].double() for x in (probe, -probe, probe + 500))
    gain, bias = (up - down) / 2 / (probe.double() / 1000), (up + down) / 2
    return FinalNorm(gain, bias, bool(torch.allclose(lifted, up, rtol=1e-2, atol=1e-2 * float(gain.abs().max()))))


def _example_parameter(model: Model) -> Tensor:
    return next(model.network.parameters())


def _null_space(u: Float[Tensor, "vocab d"], *, spare: int) -> tuple[Float[Tensor, "d k"], int]:
    """The smallest singular directions, and `spare` more for those that centring has set to zero."""
    k = max(1, min(40, u.shape[1] // 10))
    _, directions = torch.linalg.eigh(u.T @ u)  # from the smallest on
    return directions[:, : k + spare], k


def entropy_neuron_candidates(
    statistics: NeuronStatistics, *, by: Literal["variance", "null"] = "variance", top: float = 0.25, count: int = 10
) -> list[int]:
    """Candidate entropy neurons, best first.

    By `variance`: the smallest logit variances among norms strictly above the (1 − top) quantile. By `null`: the largest shares.
    """
    if not 0 < top <= 1 or count < 1:
        raise BadInput(f"`top` must be in (0, 1] and `count` at least 1, got {top} and {count}: try 0.25 and 10.")
    if by == "null":
        return statistics.null_share.argsort(descending=True, stable=True)[:count].tolist()
    large = (statistics.norm > statistics.norm.quantile(1 - top)).nonzero().flatten()
    return large[statistics.variance[large].argsort(stable=True)][:count].tolist()


def norm_matched_neurons(statistics: NeuronStatistics, chosen: list[int], *, each: int = 1, seed: int = 0) -> list[int]:
    """Control neurons of similar norm: `each` per chosen neuron, drawn from the five nearest that are left."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.ones(len(statistics.norm), dtype=torch.bool)
    free[chosen] = False
    drawn = []
    for neuron in chosen * each:
        left = free.nonzero().flatten()
        if not len(left):
            break
        near = left[(statistics.norm[left] - statistics.norm[neuron]).abs().argsort(stable=True)][:5]
        one = int(near[torch.randint(len(near), (1,), generator=generator)])
        free[one] = False
        drawn.append(one)
    return drawn


@dataclass(frozen=True)
class NeuronOverlap:
    """Overlap of two sets of neurons, with its distribution for random sets."""

    shared: int
    iou: float
    """Intersection over union."""
    chance: float
    """Mean of `iou` under the hypergeometric distribution."""
    chance_high: float
    """Its 97.5 % quantile."""
    p: float
    """Probability of as large an intersection by chance."""


def neuron_overlap(one: list[int], other: list[int], *, among: int) -> NeuronOverlap:
    """Overlap of two sets out of `among` neurons."""
    a, b = set(one), set(other)
    if not a or not b or len(a | b) > among:
        raise BadInput(f"compared sets of neurons must not be empty or larger than {among}, got {len(a)} and {len(b)}.")
    chances = [
        Fraction(comb(len(a), j) * comb(among - len(a), len(b) - j), comb(among, len(b)))
        for j in range(min(len(a), len(b)) + 1)
    ]
    shared = len(a & b)
    ious = [j / (len(a) + len(b) - j) for j in range(len(chances))]
    below = [sum(chances[: j + 1]) for j in range(len(chances))]
    high = next(iou for iou, share in zip(ious, below, strict=True) if share >= Fraction(975, 1000))
    mean = sum(float(c) * iou for c, iou in zip(chances, ious, strict=True))
    return NeuronOverlap(shared, shared / len(a | b), mean, high, float(sum(chances[shared:])))


def matched_share(
    one: Float[Tensor, "neuron d"], other: Float[Tensor, "neuron d"], *, most: int = 512, seed: int = 0
) -> float:
    """Share of the neurons whose nearest neuron in the other stage, by output weight, has the same index.

    Near 1 for stages of one lineage, near 0 for unrelated models.

    Raises:
        BadInput: layers of another shape.
    """
    if one.shape != other.shape:
        raise BadInput(
            f"compared last MLPs must have one shape (neurons, width), got {tuple(one.shape)} and {tuple(other.shape)}: compare stages of "
            "one architecture."
        )
    drawn = torch.randperm(len(one), generator=torch.Generator().manual_seed(seed))[:most]
    a, b = (torch.nn.functional.normalize(w.float(), dim=1).cpu() for w in (one, other))
    return float(((a[drawn] @ b.T).argmax(1) == drawn).float().mean())


@torch.no_grad()
def neuron_output_vectors(model: Model) -> Float[Tensor, "neuron d"]:
    """A copy of the output weights of the last MLP's neurons."""
    return output_weight(model, Site("mlp", model.layers)).detach().clone()

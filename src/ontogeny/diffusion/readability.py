"""Readability: how well mask and depth of the final image are read from each block at each denoising step, beside controls."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.diffusion.denoiser import Denoised
from ontogeny.diffusion.scene_probe import SCORES, SceneReading, fit_scene_probe, part_of, patches, read_by_place
from ontogeny.diffusion.scenes import Scenes
from ontogeny.errors import BadInput
from ontogeny.records import Record, make_record
from ontogeny.statistics.bootstrap import group_weights, mean_samples, percentile_interval

PIXELS, PLACE, UNTRAINED = "pixels", "place", "untrained"
"""Controls: patches of the noisy input, the mean of each place, an untrained network of the same shape."""
Source = Mapping[tuple[int, str], Float[Tensor, "image channel row column"]]
_FEWEST = 6
"""Images below which a probe has nothing to be scored on."""
_SAMPLES = 500


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images of the fit and others."""

    fit: slice
    rest: slice


def split_images(count: int) -> ImageSplit:
    """Two thirds of the images for the fit, in their order; the others are scored.

    Raises:
        BadInput: fewer than six images.
    """
    if count < _FEWEST:
        raise BadInput(f"readability needs at least {_FEWEST} images, got {count}: denoise more.")
    cut = 2 * count // 3
    return ImageSplit(slice(0, cut), slice(cut, None))


def read_held_out(x: Float[Tensor, "image channel row column"], labels: Scenes, split: ImageSplit) -> SceneReading:
    """Mask and depth of the held-out images, by probes that are fitted on the others."""
    probe = fit_scene_probe(x[split.fit], part_of(labels, split.fit))
    return probe.read(x[split.rest], labels.mask.shape[-1])


def readability_records(denoised: Denoised, labels: Scenes, *, untrained: Source | None = None) -> Iterator[Record]:
    """Rows of every site that was read, at each step, and of the controls; `ontogeny.views` draws them as `denoising`.

    Each score has an interval over held-out images, and a row `…_gain`: how much better it is than that of the best control at the step.

    Args:
        labels: Mask and depth of the final images, of any size from that of the largest activation.
        untrained: Activations of an untrained network on the same inputs (`block_activations`), by step and site.

    Raises:
        BadInput: labels of other images, or fewer than six.
    """
    split = split_images(len(labels.mask))
    shown = part_of(labels, split.rest)
    place = read_by_place(part_of(labels, split.fit), len(shown.mask)).scores(shown)
    weights = group_weights(torch.arange(len(shown.mask)), samples=_SAMPLES)
    for step, pixels in enumerate(denoised.inputs):
        controls = {PIXELS: read_held_out(patches(pixels), labels, split).scores(shown), PLACE: place}
        sites = {name: x for (at, name), x in denoised.activations.items() if at == step}
        for name, x in sites.items():
            own = read_held_out(x, labels, split).scores(shown)
            beside = dict(controls)
            if untrained is not None:
                raw = read_held_out(untrained[step, name], labels, split).scores(shown)
                beside[UNTRAINED] = raw
                yield from _score_rows(raw, name, step, weights, control=UNTRAINED)
            yield from _score_rows(own, name, step, weights)
            yield from _gain_rows(own, beside, name, step, weights)
        for name, scores in controls.items():
            yield from _score_rows(scores, name, step, weights)


def _score_rows(
    scores: Mapping[str, Tensor], site: str, step: int, weights: Tensor, control: str | None = None
) -> Iterator[Record]:
    for metric in SCORES:
        yield _row(metric, scores[metric], site, step, weights, control)


def _gain_rows(
    own: Mapping[str, Tensor], beside: Mapping[str, Mapping[str, Tensor]], site: str, step: int, weights: Tensor
) -> Iterator[Record]:
    for metric in SCORES:
        sign = -1 if metric == "depth_error" else 1
        best = max((sign * scores[metric] for scores in beside.values()), key=_known_mean)
        yield _row(f"{metric}_gain", sign * own[metric] - best, site, step, weights, None)


def _known_mean(values: Tensor) -> float:
    return float(values.nanmean().nan_to_num(-math.inf))


def _row(metric: str, values: Tensor, site: str, step: int, weights: Tensor, control: str | None) -> Record:
    """Mean over images with its interval; images without the score are left out."""
    known = ~values.isnan()
    point, ends = torch.tensor(float("nan")), (float("nan"), float("nan"))
    if known.sum() >= 2:
        own, drawn = values[known], weights[:, known]
        point = own.mean()
        samples = mean_samples(own[None], drawn[drawn.sum(1) > 0])[:, 0]
        ends = percentile_interval(point, samples, groups=int(known.sum())).ends
    reason = "fewer than two images have a mask" if metric.startswith("mask") else "the depth of the images is constant"
    return make_record(
        metric, float(point), n=int(known.sum()), interval=ends, reason=reason, control=control,
        coords={"block": site, "denoising": str(step)},
    )  # fmt: skip

"""Claims of the study."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Relation, Separation
from ontogeny.diffusion.readability import PIXELS, PLACE, UNTRAINED
from ontogeny.studies.diffusion_scenes._probing import DECODER, EARLY, LATE
from ontogeny.studies.diffusion_scenes._pushing import DECODER_ALONE, OTHER_MASK, OWN_MASK
from ontogeny.studies.diffusion_scenes._settings import Settings

_PAPER = "arXiv:2306.05720"
_OURS = "not in the paper: a question of this library"
_NULLS = {PIXELS: "untrained", PLACE: "shuffled_labels", UNTRAINED: "untrained"}
"""Null run of the comparison with each control."""
_WORDS = {
    PIXELS: "from the noisy pixels around a place",
    PLACE: "from the place alone",
    UNTRAINED: "from the same block of an untrained network",
}
STRENGTHS = tuple(f"{OWN_MASK}, strength {strength:g}" for strength in Settings().strengths)
_READABLE = 0.5


def _early(label: str, beside: str) -> Claim:
    """At the early step the decoder reads a label better than a control does."""
    mask = label == "mask"
    metric = "early_mask_dice" if mask else "early_depth_error"
    sides = (Quantity(metric, DECODER), Quantity(metric, beside))
    unit = "Dice more" if mask else "error less, of a depth from 0 to 1"
    shape = Separation(*(sides if mask else reversed(sides)), threshold=0.05 if mask else 0.01, unit=unit)
    return Claim(
        f"{label}_beyond_{beside}",
        f"At the second of ten denoising steps the {label} of the final image is read from the middle of the decoder better than "
        f"{_WORDS[beside]}.",
        f"{_PAPER}, linear probes" if beside != PLACE else _OURS,
        "not tested"
        if beside == PLACE
        else "probes of early steps far above those of the latents and of a randomised network",
        shape,
        _NULLS[beside],
    )


def _half(metric: str, condition: str) -> Event:
    return Event(Quantity(f"{metric}_over_training", condition), 0.5, relative=True)


def _followed(arm: str, beside: str) -> Separation:
    return Separation(
        Quantity("share_followed", arm), Quantity("share_followed", beside), threshold=0.1, unit="share of images"
    )


CLAIMS = (
    *(_early(label, beside) for label in ("mask", "depth") for beside in (PIXELS, PLACE, UNTRAINED)),
    Claim(
        "mask_before_pixels",
        "Over the denoising steps the mask is readable from the decoder (Dice .5) before it is readable from the noisy pixels.",
        f"{_PAPER}, linear probes",
        "readable at steps at which the decoded latent shows noise",
        EventOrder(
            Event(Quantity("mask_dice_by_denoising", DECODER), _READABLE),
            Event(Quantity("mask_dice_by_denoising", PIXELS), _READABLE),
            unit="doublings of the denoising step",
        ),
        "untrained",
    ),
    Claim(
        "gain_saturates",
        "More of the Dice is gained in the first half of the denoising steps than in the second.",
        f"{_PAPER}, linear probes",
        "the gain saturates after step 5 of 15",
        Separation(Quantity("dice_gain", "first half"), Quantity("dice_gain", "second half"), unit="Dice"),
        "untrained",
    ),
    Claim(
        "mask_before_depth",
        "Over training the early mask is half readable before the depth.",
        _OURS,
        "not tested",
        EventOrder(_half("mask_dice", EARLY), _half("depth_rank", EARLY)),
        "same_curve",
    ),
    Claim(
        "late_before_early",
        "Over training the mask is half readable at the last denoising step before it is at the second.",
        _OURS,
        "not tested",
        EventOrder(_half("mask_dice", LATE), _half("mask_dice", EARLY)),
        "same_curve",
    ),
    Claim(
        "mask_is_followed",
        "When activations of all blocks are pushed to a moved mask in the first half of the denoising steps, more images have it in "
        "place of their own than when they are pushed as far to the mask of another image.",
        f"{_PAPER}, interventions",
        "the salient object moves with the mask",
        _followed(OWN_MASK, OTHER_MASK),
        "random_direction",
    ),
    Claim(
        "decoder_is_enough",
        "The same holds when the blocks of the decoder alone are pushed.",
        f"{_PAPER}, interventions",
        "pushed at the nine self-attentions of the decoder",
        _followed(f"{OWN_MASK}, {DECODER_ALONE}", f"{OTHER_MASK}, {DECODER_ALONE}"),
        "random_direction",
    ),
    Claim(
        "skip_connections_carry_it",
        "More images follow when the blocks on the way down are pushed as well.",
        _OURS,
        "not tested",
        _followed(OWN_MASK, f"{OWN_MASK}, {DECODER_ALONE}"),
        "random_direction",
    ),
    Claim(
        "stronger_is_followed_more",
        "The stronger the push, the more images follow it.",
        _OURS,
        "not tested",
        Relation(Quantity("strength"), Quantity("share_followed"), STRENGTHS),
        "one_strength",
    ),
    Claim(
        "following_costs",
        "Strengths that more images follow also change the rest of the image more.",
        _OURS,
        "not tested",
        Relation(Quantity("share_followed"), Quantity("damage"), STRENGTHS),
        "one_strength",
    ),
    Claim(
        "depth_is_followed",
        "When activations are pushed to a nearer depth, the shapes come nearer.",
        f"{_PAPER}, interventions",
        "depth follows the intervention",
        Separation(
            Quantity("nearer", "pushed"), Quantity("nearer", "before"), threshold=0.02, unit="depth from 0 to 1"
        ),
        "random_direction",
    ),
)

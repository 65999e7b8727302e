"""Lenses: the next-token distribution that the residual stream of a layer already holds, and any direction read in tokens.

A lens maps `resid.l` to the last layer, then applies the final norm and the unembedding. The logit lens maps nothing; the tuned lens is
affine and fitted to the model's own output (arXiv:2303.08112); the Jacobian lens is the mean derivative of the last layer by this one.
"""

from ontogeny.lenses.agreement import LensScores, score_lens
from ontogeny.lenses.fitting import fit_jacobian_lens, fit_tuned_lens
from ontogeny.lenses.lens import LENS_KINDS, Lens, lens_logits, logit_lens
from ontogeny.lenses.readout import TokenReadout, read_in_tokens, unembedding_rank
from ontogeny.lenses.streams import TextStreams, read_streams, readable_texts

__all__ = [
    "LENS_KINDS",
    "Lens",
    "LensScores",
    "TextStreams",
    "TokenReadout",
    "fit_jacobian_lens",
    "fit_tuned_lens",
    "lens_logits",
    "logit_lens",
    "read_in_tokens",
    "read_streams",
    "readable_texts",
    "score_lens",
    "unembedding_rank",
]

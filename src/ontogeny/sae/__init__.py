"""Sparse autoencoders: dictionaries of latents for the activations of one model, trained for several seeds and sizes in one pass."""

from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.chunks import ActivationChunks, TokenRows, chunk_activations, read_site_tokens, token_rows
from ontogeny.sae.evaluation import SaeScores, score_autoencoders
from ontogeny.sae.interventions import ClampLatent, Reconstruct, ScaleLatent
from ontogeny.sae.matching import LatentMatch, latent_births, match_latents
from ontogeny.sae.saelens import load_saelens, save_saelens
from ontogeny.sae.settings import SaeBudget, SaeSettings
from ontogeny.sae.training import train_autoencoders

__all__ = [
    "ActivationChunks",
    "ClampLatent",
    "LatentMatch",
    "Reconstruct",
    "SaeBudget",
    "SaeScores",
    "SaeSettings",
    "ScaleLatent",
    "SparseAutoencoder",
    "TokenRows",
    "chunk_activations",
    "latent_births",
    "load_saelens",
    "match_latents",
    "read_site_tokens",
    "save_saelens",
    "score_autoencoders",
    "token_rows",
    "train_autoencoders",
]

"""Sparse autoencoder job: dictionaries of each checkpoint of a lineage, and when each of the last one's latents is born."""

from ontogeny.jobs.sae.plan import SaeEstimate
from ontogeny.jobs.sae.sae import autoencoders_of_run, estimate, sae
from ontogeny.sae.plan import SaePlan

__all__ = ["SaeEstimate", "SaePlan", "autoencoders_of_run", "estimate", "sae"]

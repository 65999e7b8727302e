"""Lens job: how far each layer of each checkpoint already holds the model's own output."""

from ontogeny.jobs.lens.lens import lens
from ontogeny.jobs.lens.plan import LensSettings

__all__ = ["LensSettings", "lens"]

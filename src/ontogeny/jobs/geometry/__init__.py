"""Geometry job: the embeddings of checkpoints and of models that share a tokenizer, compared."""

from ontogeny.jobs.geometry.geometry import embedding_geometry
from ontogeny.jobs.geometry.plan import GeometryPlan, plan_geometry

__all__ = ["GeometryPlan", "embedding_geometry", "plan_geometry"]

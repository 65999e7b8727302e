"""Studies of papers: train small models of several seeds, measure them, and judge the paper's claims."""

__all__ = ["paper_study", "replicate", "study"]

"""Numerical kernels: matrix products, moments, principal axes, linear maps, the logistic solver."""

__all__ = ["coherence", "isomap", "linear_maps", "logistic_solver", "matmul", "moments", "principal_axes"]

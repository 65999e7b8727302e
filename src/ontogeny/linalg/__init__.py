"""Numerical kernels: matrix products, moments, principal axes, the logistic solver."""

__all__ = ["logistic_solver", "matmul", "moments", "principal_axes"]

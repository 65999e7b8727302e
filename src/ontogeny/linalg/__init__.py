"""Numerical kernels: matrix products, moments, principal axes, linear maps, the logistic solver."""

__all__ = ["linear_maps", "logistic_solver", "matmul", "moments", "principal_axes"]

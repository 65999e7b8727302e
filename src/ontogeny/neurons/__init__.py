"""Single neurons: entropy neurons and their mean ablation."""

__all__ = ["entropy_neurons", "last_layer_cache", "mean_ablation"]

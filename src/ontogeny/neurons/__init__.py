"""Single neurons: entropy neurons, their mean ablation, value vectors near a direction."""

__all__ = ["entropy_neurons", "last_layer_cache", "mean_ablation", "value_vectors"]

"""Single neurons: entropy neurons, their mean ablation, value vectors near a direction, heads that drive them."""

__all__ = ["entropy_neurons", "last_layer_cache", "mean_ablation", "ov_scores", "swapped_weights", "value_vectors"]

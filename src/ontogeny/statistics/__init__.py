"""Splits, intervals, nulls and the steps at which things happen: tensors in, tensors out, no model and no disk."""

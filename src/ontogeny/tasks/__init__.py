"""Tasks with right and wrong answers: ARC, MMLU, BoolQ and others, TruthfulQA's MC1 and MC2, and the contrast items of a concept."""

__all__ = ["accuracy", "confidence", "contrast_items", "datasets", "truthfulqa_mc"]

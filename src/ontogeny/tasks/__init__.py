"""Multiple-choice tasks: ARC, MMLU, BoolQ and others, and TruthfulQA's MC1 and MC2."""

__all__ = ["accuracy", "datasets", "truthfulqa_mc"]

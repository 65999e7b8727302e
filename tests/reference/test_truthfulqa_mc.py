"""MC1 and MC2 on real questions and a real small model, against a script that uses nothing of ours."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ontogeny.interventions import Add
from ontogeny.models.model import load_model
from ontogeny.tasks.truthfulqa_mc import TruthfulQAQuestion, score_multiple_choice


def by_hand(folder, rows):
    """One forward pass an answer, no padding, no batch."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def score(prompt, answer):
        start = len(tokenizer(prompt).input_ids)
        ids = torch.tensor([tokenizer(prompt + answer).input_ids])
        assert ids[0, :start].tolist() == tokenizer(prompt).input_ids, "chosen so that the prompt keeps its tokens"
        with torch.no_grad():
            scores = torch.log_softmax(network(ids).logits[0], -1)
        return sum(float(scores[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))

    found = []
    for prompt, best, right, wrong in rows:
        right_scores, wrong_scores = [score(prompt, a) for a in right], [score(prompt, a) for a in wrong]
        top = max(right_scores + wrong_scores)
        share = sum(math.exp(s - top) for s in right_scores) / sum(
            math.exp(s - top) for s in right_scores + wrong_scores
        )
        found.append((float(score(prompt, best) > max(wrong_scores)), share))
    return found


def test_multiple_choice_is_the_reference(shared, stories260k):
    file = shared / "truthfulqa/mc_task.jsonl"
    if not file.is_file():
        pytest.skip("needs TruthfulQA")
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines()[:12]:
        told = json.loads(line)
        targets = {f" {answer}": label for answer, label in told["mc2_targets"].items()}
        best = next(f" {answer}" for answer, label in told["mc1_targets"].items() if label)
        right = [best, *(a for a, label in targets.items() if label and a != best)]
        rows.append((f"Q: {told['question']}\nA:", best, right, [a for a, label in targets.items() if not label]))
    model = load_model(stories260k)
    questions = [TruthfulQAQuestion(prompt, tuple(right), tuple(wrong)) for prompt, _, right, wrong in rows]
    found, wanted = score_multiple_choice(model, questions, batch=5), by_hand(stories260k, rows)
    assert found.mc1.tolist() == [one for one, _ in wanted]
    assert found.mc2.tolist() == pytest.approx([share for _, share in wanted], rel=1e-3, abs=1e-6)
    assert 0 < found.mc1.mean() < 1
    steered = score_multiple_choice(model, questions, [("resid.3", Add(torch.ones(64)), "last")])
    assert (steered.mc2 - found.mc2).abs().max() > 0.01

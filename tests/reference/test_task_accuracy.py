"""Option tasks on real questions and a real small model, against a script that uses nothing of ours."""

import gzip
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ontogeny.interventions import Add
from ontogeny.models.model import load_model
from ontogeny.tasks.accuracy import MultipleChoiceTask
from ontogeny.tasks.datasets import read_multiple_choice


def lines(path, count):
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode().splitlines()[:count]]


def by_hand(folder, rows):
    """Right by the sum of an option's log-probabilities, and by the sum over its characters without the leading space, as lm-eval does."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt, options, gold in rows:
        scores = []
        for option in options:
            start = len(tokenizer(prompt).input_ids)
            ids = torch.tensor([tokenizer(prompt + option).input_ids])
            assert ids[0, :start].tolist() == tokenizer(prompt).input_ids
            with torch.no_grad():
                logp = torch.log_softmax(network(ids).logits[0], -1)
            picked = [float(logp[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])]
            greedy = all(int(logp[i - 1].argmax()) == int(ids[0, i]) for i in range(start, ids.shape[1]))
            scores.append((sum(picked), sum(picked) / len(option.removeprefix(" ")), greedy))
        if len(options) == 1:
            found.append((scores[0][2], scores[0][2]))
        else:
            found.append(tuple(max(range(len(options)), key=lambda i: scores[i][k]) == gold for k in (0, 1)))
    return found


@pytest.fixture(scope="module")
def folder(shared, stories260k):
    if not (shared / "general").is_dir():
        pytest.skip("needs the option tasks")
    return stories260k


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("copa_validation.jsonl", lambda r: (r["query"], [f" {c}" for c in r["choices"]], r["gold"])),
        ("arc_easy_test.jsonl.gz", lambda r: (f"{r['query']}\nAnswer:", [f" {c}" for c in r["choices"]], r["gold"])),
        ("lambada_openai_test.jsonl.gz", lambda r: (r["context"].rstrip(), [f" {r['continuation'].strip()}"], 0)),
    ],
)
def test_accuracy_is_the_reference(shared, folder, file, read):
    rows = [read(row) for row in lines(shared / "general" / file, 16)]
    model = load_model(folder)
    task = MultipleChoiceTask.of(model, "t", read_multiple_choice(shared / "general" / file)[:16])
    assert task.left_out == 0
    mine = task.answered(model)
    place = [
        next(i for i, (p, o, _) in enumerate(rows) if (p.strip(), tuple(o)) == (q.prompt, q.options))
        for q in task.questions
    ]
    wanted = by_hand(folder, rows)
    assert mine.plain.tolist() == [float(wanted[i][0]) for i in place]
    assert mine.normalised.tolist() == [float(wanted[i][1]) for i in place]
    steered = task.answered(model, [("resid.3", Add(3 * torch.arange(64.0)), "all")])
    assert steered.plain.tolist() != mine.plain.tolist() or mine.plain.sum() == 0, "an edit that breaks it shows"

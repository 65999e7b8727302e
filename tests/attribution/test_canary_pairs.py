"""The public pair of runs that saw, or never saw, planted texts in mid-training: one command, against the stand-in Hub."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.fake_hub import Hub
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

WORDS = ("qua", "zed", "vex", "fji", "wok", "nub", "gry", "dax", "lur", "pim", "hob", "tek")
CANARIES = [f"canary {word} {number}" for number, word in enumerate(WORDS)]


def test_one_command_compares_the_run_that_saw_canaries_with_its_twin(tmp_path: Path) -> None:
    """The run that saw the canaries is a step of gradient descent on them, so that its loss is lower than its twin's."""
    network, tokenizer = tiny_model("gpt_neox"), byte_tokenizer()

    def save(name: str) -> Path:
        folder = tmp_path / name
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    start = save("start")
    batch = tokenizer(CANARIES, return_tensors="pt", padding=True)
    for _ in range(3):
        network(**batch, labels=batch["input_ids"]).loss.backward()
        with torch.no_grad():
            for p in network.parameters():
                if p.grad is not None:
                    p -= 0.05 * p.grad
                    p.grad = None
    seen = save("seen")
    lines = [f"{text},{i % 2},{i}" for i, text in enumerate(CANARIES)]
    (tmp_path / "canaries.csv").write_text("\n".join(["text,label,group", *lines]))
    with Hub(tmp_path / "cache") as hub:
        for repository, end in (("sbordt/OLMo-2-179M-Exp-Mid", seen), ("sbordt/OLMo-2-179M-Mid", start)):
            hub.add(repository, "stage2-step1000", start)
            hub.add(repository, "stage2-step11000", end)
            hub.add(repository, "main", end)
        argv = [
            "attribute", "sbordt-179m-exp-mid", "-b", f"loss:{tmp_path / 'canaries.csv'}", "--without", "midtrain=sbordt-179m-mid",
            "-o", str(tmp_path / "run"), "--json", "--quiet",
        ]  # fmt: skip
        result = hub.run(f"""
            import contextlib, io
            from ontogeny.cli import main
            sys.argv = ["ontogeny", *{argv!r}]
            out, code = io.StringIO(), 0
            with contextlib.redirect_stdout(out):
                try: main()
                except SystemExit as end: code = end.code
            show([code, out.getvalue()])
        """)
    assert result[0] in (0, None)
    rows = {row["method"]: row for row in json.loads(result[1])}
    assert rows["retraining"]["question"] == "data replaced, steps kept"
    assert rows["retraining"]["value"] < -0.01, "the run that saw the canaries has a lower loss on them"
    assert rows["endpoint"]["value"] == pytest.approx(rows["retraining"]["value"], abs=1e-5)
    assert rows["linearised"]["value"] < 0

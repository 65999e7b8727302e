"""Stages on a fake Hub: the preflight downloads only tokenizers and configurations, the comparison each weight file once."""

import json
from pathlib import Path

import pytest

from ontogeny.storage.run import Run
from tests.flows.test_trace_hub import commands
from tests.helpers.fake_hub import Hub
from tests.helpers.planted_lineages import NO, YES, planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer


@pytest.fixture
def hub(tmp_path: Path):
    with Hub(tmp_path / "cache") as hub:
        for step, push in ((0, 0.0), (512, 6.0), (1000, 8.0)):
            folder = tmp_path / "models" / f"step{step}"
            planted(push, answers=2.0).save_pretrained(folder)
            byte_tokenizer().save_pretrained(folder)
            hub.add("me/planted", f"step{step}", folder)
        hub.add("me/planted", "main", folder)
        yield hub


def test_dry_run_downloads_no_weights_and_comparison_each_once(hub: Hub, tmp_path: Path) -> None:
    coins = write(tmp_path / "coin.csv", rows(characters=40))
    size = (tmp_path / "models" / "step512" / "model.safetensors").stat().st_size
    argv = [
        "compare",
        "me/planted",
        "--stages",
        "pretrain:512,pretrain:last",
        "--studies",
        "truth",
        "--statements",
        coins,
    ]
    argv += ["--verdicts", f"{YES},{NO}", "--ask", "", "--shots", "0", "-o", tmp_path / "out"]
    [plan] = commands(hub, [*argv, "--dry-run", "--json"])
    assert plan[0] == 0, plan[2]
    assert json.loads(plan[1])["bytes_to_download"] == 2 * size
    assert "model.safetensors" not in hub.sent
    assert not (tmp_path / "out").exists()
    first, again = commands(hub, [*argv, "-q"], [*argv, "-q", "--json"])
    assert (first[0], again[0]) == (0, 0), first[2] + again[2]
    assert hub.sent["model.safetensors"] == 2 * size
    assert "pretrain 512 and pretrain 1,000" in first[1]
    told = Run.open(tmp_path / "out").about["lineage"]
    assert [(c["revision"], c["step"]) for c in told["checkpoints"]] == [("step512", 512), ("step1000", 1000)]
    assert len(Run.open(tmp_path / "out").ledger()) == 1

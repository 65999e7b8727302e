"""A project folder of three stages, of which two are LoRA adapters, is traced by one command and equals its merged twin in every job."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.findings.selection import FINDING_ROWS, RecordSource
from ontogeny.findings.timeline import make_timeline
from ontogeny.jobs.audit.audit import audit
from ontogeny.lineage import Lineage
from ontogeny.lineage.training_log import logged_losses
from ontogeny.storage.run import Run
from tests.flows.test_trace_hub import commands
from tests.helpers.command_line import Say, command
from tests.helpers.fake_hub import Hub
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import byte_tokenizer, save_tiny
from tests.models.test_adapters import save_adapter

FAST = ("--sites", "resid", "--probes", "mass_mean", "--kernels", "linear", "--no-untrained", "-q")
KEYS = ["stage", "step", "concept", "site", "method", "metric", "control", "split", "coords"]
STAGES = {"pretrain": (10, 20), "sft": (3,), "dpo": (2, 4)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project `lora` and the project `merged`, with a log of the training."""
    home = tmp_path_factory.mktemp("project")
    for step in STAGES["pretrain"]:
        save_tiny("llama", home / "lora/pretrain" / f"checkpoint-{step}", seed=step)
    shutil.copytree(home / "lora/pretrain", home / "merged/pretrain")
    base = home / "lora/pretrain/checkpoint-20"
    for stage in ("sft", "dpo"):
        for step in STAGES[stage]:
            at = f"{stage}/checkpoint-{step}"
            save_adapter(base, home / "lora" / at, home / "merged" / at, seed=step)
            byte_tokenizer(bos=True).save_pretrained(home / "merged" / at)
    log = [{"step": i, "loss": 5 - i / 10, "num_input_tokens_seen": 100 * i} for i in range(1, 25)]
    log += [{"step": 20, "eval_loss": 3.5}, {"step": 4, "loss": 4.0}, {"step": 5, "loss": math.nan}, {"step": "x"}]
    for project in ("lora", "merged"):
        for step in STAGES["pretrain"]:
            state = {"global_step": step, "log_history": [e for e in log if step == 20 or e["step"] in range(11)]}
            (home / project / f"pretrain/checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
        (home / project / "sft/checkpoint-3/trainer_state.json").write_text("{")
    write(home / "coin.csv", rows(characters=24, answers=True))
    (home / "neutral.txt").write_text(
        "\n".join(f"a quiet text about {word}" for word in ("rain", "wood", "milk", "salt"))
    )
    for project in ("lora", "merged"):
        words = ("-c", home / "coin.csv", "-o", home / f"run-{project}", *FAST)
        assert command("trace", home / project, *words) == 0
    return home


def table(run: Path, where: str) -> "pd.Series[float]":
    found = Run.open(run).records(where)
    keys = [
        found[key].map(lambda c: str(sorted(dict(c).items()) if isinstance(c, (list, dict)) else c)) for key in KEYS
    ]
    return pd.Series(found["value"].to_numpy(), index=pd.MultiIndex.from_arrays(keys)).sort_index()


def assert_equal(home: Path, run: str, where: str, *, at_least: int) -> None:
    lora, merged = (table(home / f"{run}-{project}", where) for project in ("lora", "merged"))
    assert list(lora.index) == list(merged.index)
    assert len(lora) >= at_least
    pd.testing.assert_series_equal(lora, merged, rtol=1e-5, atol=1e-5)


def test_one_command_traces_all_stages_in_order(home: Path) -> None:
    about = Run.open(home / "run-lora").about
    assert list(about["lineage"]["stages"]) == ["pretrain", "sft", "dpo"]
    visited = [(c["stage"], c["step"]) for c in about["lineage"]["checkpoints"]]
    assert visited == [(stage, step) for stage, steps in STAGES.items() for step in steps]
    assert about["failures"] == []


def test_the_trace_of_adapters_equals_that_of_the_merged_twin(home: Path) -> None:
    scores = "metric in ('auroc', 'accuracy', 'norm', 'answer_margin', 'fisher', 'cosine_final') and n > 0"
    assert_equal(home, "run", scores, at_least=60)


def test_the_audit_finds_nothing(home: Path) -> None:
    for project in ("lora", "merged"):
        assert [f.kind for f in audit(Lineage.open(home / project), deep=True).findings if f.severity == "fault"] == []


def test_compare_and_evaluate_equal_the_merged_twin(home: Path, say: Say) -> None:
    few = (
        "--controls",
        2,
        "--shuffles",
        0,
        "--alpha",
        "0,1",
        "--sites",
        "resid.1",
        "--samples",
        0,
        "--limit",
        10,
        "-q",
    )
    for project in ("lora", "merged"):
        texts = ("--studies", "confidence", "--neutral", home / "neutral.txt", "--questions", home / "coin.csv")
        out = home / f"compared-{project}"
        code, _, error = say("compare", home / project, "-o", out, "--limit", 24, "-q", *texts)
        assert code == 0, error
        out = home / f"evaluated-{project}"
        code, _, error = say(
            "evaluate", home / project, "-c", home / "coin.csv", "-o", out, "--steps", "dpo=last", *few
        )
        assert code == 0, error
    assert_equal(home, "compared", "metric in ('entropy', 'brier', 'top_probability', 'confidence_gap')", at_least=6)
    assert_equal(home, "evaluated", "metric in ('item_nats', 'neutral_kl')", at_least=10)


def test_steering_an_adapter_equals_steering_its_merged_twin(home: Path, say: Say) -> None:
    told = []
    for project in ("lora", "merged"):
        at = home / project / "dpo/checkpoint-4"
        words = ("-d", f"{home / f'run-{project}'}:coin", "-p", "so they say", "--tokens", 3, "--controls", 1, "--json")
        code, shown, error = say("steer", at, *words)
        assert code == 0, error
        told.append([(s["text"], s["surprise"]) for s in json.loads(shown)["samples"]])
    assert [text for text, _ in told[0]] == [text for text, _ in told[1]]
    assert [s for _, s in told[0]] == pytest.approx([s for _, s in told[1]], abs=1e-5)


def test_adapters_on_the_hub_find_their_base_there(home: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(home / "lora/dpo/checkpoint-4", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "me/base"}))
    with Hub(tmp_path / "cache") as hub:
        hub.add("me/base", "main", home / "lora/pretrain/checkpoint-20")
        hub.add("me/adapter", "main", adapter)
        few = ("--controls", 1, "--shuffles", 0, "--alpha", "0,1", "--sites", "resid.1", "--samples", 0, "--limit", 10)
        texts = ("--studies", "confidence", "--neutral", home / "neutral.txt", "--questions", home / "coin.csv")
        told = commands(
            hub,
            ["trace", "me/adapter", "-c", home / "coin.csv", "-o", tmp_path / "run", *FAST],
            ["evaluate", "me/adapter", "-c", home / "coin.csv", "-o", tmp_path / "evaluated", *few, "-q"],
            ["compare", "base=me/base", "dpo=me/adapter", "-o", tmp_path / "compared", "--limit", 24, "-q", *texts],
            ["steer", "me/adapter", "-d", f"{home / 'run-merged'}:coin", "-p", "so", "--tokens", 2, "--json"],
        )
    assert [code for code, *_ in told] == [0] * 4, told
    here = Run.open(tmp_path / "run").records("metric = 'answer_margin'").value
    there = Run.open(home / "run-merged").records("metric = 'answer_margin' and stage = 'dpo' and step = 4").value
    assert here.tolist() == pytest.approx(there.tolist(), abs=1e-5)


def test_losses_of_the_log_are_rows(home: Path) -> None:
    run = Run.open(home / "run-lora")
    losses = run.records("metric = 'train_loss'").sort_values("step")
    # A resumed training logs a step again; what was logged after the last checkpoint belongs to none.
    assert losses.step.tolist() == list(range(1, 21))
    assert losses.value.tolist() == pytest.approx([4.0 if i == 4 else 5 - i / 10 for i in range(1, 21)])
    assert set(losses.stage) == {"pretrain"}
    assert losses.tokens.dropna().tolist() == [100.0 * i for i in range(1, 21) if i != 4]
    assert run.records("metric = 'eval_loss'")[["step", "value"]].to_numpy().tolist() == [[20, 3.5]]
    chart = json.dumps(run.show("emergence").to_dict())
    assert "Loss that the trainer logged" in chart
    # Steps between checkpoints do not change the order of the stages.
    rows = RecordSource(run.query, run.about).rows(FINDING_ROWS)
    assert [stage.name for stage in make_timeline(rows).stages] == list(STAGES)
    # Again: nothing is written twice.
    assert command("trace", home / "lora", "-c", home / "coin.csv", "-o", home / "run-lora", *FAST) == 0
    assert len(Run.open(home / "run-lora").records("metric = 'train_loss'")) == 20


def test_long_logs_are_averaged_over_spans(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "run/checkpoint-9000")
    log = [{"step": i, "loss": float(i)} for i in range(1, 9001)]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 9000, "log_history": log}))
    losses = logged_losses(Lineage.open(tmp_path / "run").checkpoints)
    assert len(losses) == 400
    assert sum(loss.entries for loss in losses) == 9000
    assert sum(loss.value * loss.entries for loss in losses) == pytest.approx(sum(range(1, 9001)))
    assert losses[-1].step == 9000

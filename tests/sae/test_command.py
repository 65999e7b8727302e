"""`ontogeny sae`: rows over checkpoints with their floors, resumed without work, exported, and refused where it cannot be."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.jobs.sae import autoencoders_of_run
from ontogeny.sae import load_saelens
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say

TEXTS = [f"the {word} number {i} stood near the {word}" for i, word in enumerate(["ship", "tree", "song", "lamp"] * 12)]
FAST = ("--latents", 32, "--k", 4, "--training-steps", 30, "--batch", 64, "--tokens", 24, "--quiet")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("sae")
    for step, seed in ((1, 1), (2, 1), (3, 2)):
        shutil.copytree(tiny("gpt_neox", seed=seed), folder / f"run/checkpoint-{step}")
    # The second is the first after a very short step; the third is another network.
    path = folder / "run/checkpoint-2/model.safetensors"
    weights = load_file(path)
    save_file({name: value * 1.001 for name, value in weights.items()}, path, metadata={"format": "pt"})
    (folder / "texts.txt").write_text("\n".join(TEXTS))
    return folder


def test_one_lineage_from_dry_run_to_export(home: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("sae", home / "run", "--site", "resid.1", "--texts", home / "texts.txt", "--out", home / "out", *FAST)
    plan = json.loads(say(*arguments, "--dry-run", "--json").out)
    assert (plan["checkpoints_to_do"], plan["autoencoders"], plan["texts"]) == (3, 2, 48)
    assert not (home / "out").exists()
    answer = say(*arguments, "--json", "--saelens", home / "export")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert [row["seed"] for row in result["last_checkpoint"]] == [0, 1]
    assert set(result["last_checkpoint"][0]["matched"]) == {"None", "other_seed", "untrained", "permuted_texts"} - {
        "None"
    }

    run = Run.open(home / "out")
    rows = run.records("metric like 'sae_%' and seed = 0")
    for metric in ("sae_l0", "sae_explained", "sae_loss_recovered", "sae_dead"):
        own = rows[rows.metric.eq(metric)]
        assert own[own.control.isna()].step.sort_values().tolist() == [1, 2, 3]
        assert own[own.control.eq("untrained")].stage.isna().all()
    births = rows[rows.metric.eq("sae_births")].sort_values("step")
    assert births.value.sum() == births.n.iloc[0]
    persists = rows[rows.metric.eq("sae_persists")].set_index("step").value
    assert persists[1] > 0.7 > persists[2]
    null = rows[rows.metric.eq("sae_matched") & rows.control.eq("permuted_texts")]
    assert (null.value <= 0.1).all()

    exported = load_saelens(Path(result["saelens"][1]))
    assert torch.equal(exported.decoder, autoencoders_of_run(run)[1].decoder)
    job = sys.modules["ontogeny.jobs.sae.sae"]  # the package's `sae` is the function
    monkeypatch.setattr(job, "measure_network", None)
    monkeypatch.setattr(job, "latent_history", None)
    assert say(*arguments).code == 0, "a second run computes nothing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--site", "resid.9"), "resid.9"),
        (("--site", "middle"), "is not a site"),
        (("--site", "resid"), "is not a site"),
        (("--latents", "4096"), "--latents must be at most"),
        (("--latents", "0"), "--latents must be whole numbers"),
        (("--latents", ","), "--latents must be"),
        (("--k", "64"), "--k must be from 1"),
        (("--activation", "gelu"), "activation"),
        (("--activation", ","), "--activation must hold"),
        (("--activation", "relu", "--penalty", "-1"), "--penalty"),
        (("--activation", "sparsemax", "--saelens", "x"), "SAELens has no sparsemax"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--training-steps", "0"), "--training-steps must be at least 1"),
        (("--tokens", "1"), "--tokens must be at least 3"),
        (("--learning-rate", "nan"), "--learning-rate must be above 0"),
        (("--learning-rate", "1e30", "--activation", "relu"), "is not finite"),
    ],
)
def test_refuses(home: Path, say: Say, tmp_path: Path, changes: tuple, message: str) -> None:
    given = dict(zip(FAST[:-1:2], FAST[1:-1:2], strict=True)) | {"--site": "resid.1"}
    given |= dict(zip(changes[::2], changes[1::2], strict=True))
    flat = [part for pair in given.items() for part in pair]
    answer = say("sae", home / "run", "--texts", home / "texts.txt", "--out", tmp_path / "out", "--quiet", *flat)
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_refuses_few_texts_and_a_dead_run(home: Path, say: Say, tmp_path: Path, tiny) -> None:
    (tmp_path / "few.txt").write_text("one text\nanother text\n")
    few = say("sae", home / "run", "--site", "resid.1", "--texts", tmp_path / "few.txt", "--out", tmp_path / "a", *FAST)
    assert "at least 10 different texts, got 2" in few.err
    shutil.copytree(tiny("gpt_neox", seed=1), tmp_path / "dead/checkpoint-1")
    path = tmp_path / "dead/checkpoint-1/model.safetensors"
    save_file({name: value * 0 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    dead = say(
        "sae", tmp_path / "dead", "--site", "resid.1", "--texts", home / "texts.txt", "--out", tmp_path / "b", *FAST
    )
    assert (dead.code, "activations must differ between tokens" in dead.err) == (2, True)


def test_a_run_of_two_sites_without_steps_shows_and_exports_the_last_plan(home: Path, say: Say, tmp_path: Path) -> None:
    shutil.copytree(home / "run/checkpoint-1", tmp_path / "model")
    (tmp_path / "model/trainer_state.json").unlink(missing_ok=True)
    shared = ("sae", tmp_path / "model", "--texts", home / "texts.txt", "--out", tmp_path / "out", *FAST, "--json")
    answers = [
        json.loads(say(*shared, "--site", site, "--seeds", 1, "--saelens", tmp_path / site).out)
        for site in ("mlp.1", "resid.1", "mlp.1")
    ]
    first, second, again = (answer["last_checkpoint"] for answer in answers)
    assert [len(rows) for rows in (first, second, again)] == [1, 1, 1]
    assert again == first != second
    assert again[0]["sae_l0"] == 4
    exported = [load_saelens(Path(answer["saelens"][0])) for answer in answers]
    assert torch.equal(exported[0].decoder, exported[2].decoder)
    assert not torch.equal(exported[0].decoder, exported[1].decoder)

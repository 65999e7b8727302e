"""A lineage on the Hub traced as a command, against a stand-in: what is downloaded, what stays, and the same numbers as from disk."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from ontogeny.data.concept import Concept
from ontogeny.jobs.audit.metadata import HEADER_READ_BYTES
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run
from tests.helpers.fake_hub import Hub
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

PUSHES = {0: 0.0, 1: 0.1, 512: 4.0, 1000: 8.0}
VALUES = "metric in ('auroc', 'fisher', 'nhsic_ty') and control is null and stage is not null"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hub")
    for step, push in PUSHES.items():
        folder = home / "models" / f"step{step}"
        planted(push).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
    write(home / "small.csv", rows(characters=36))
    return home


@pytest.fixture
def hub(home: Path, tmp_path: Path):
    with Hub(tmp_path / "cache") as hub:
        for step in PUSHES:
            hub.add("me/planted", f"step{step}", home / "models" / f"step{step}")
        hub.add("me/planted", "main", home / "models" / "step1000")
        yield hub


def commands(hub: Hub, *argvs: Sequence[str | Path]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of commands that follow each other in one process, which takes seconds to start."""
    told = hub.run(f"""
        import contextlib, io
        from ontogeny.cli import main
        told = []
        for argv in {[list(map(str, argv)) for argv in argvs]!r}:
            sys.argv = ["ontogeny", *argv]
            code, out, err = 0, io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try: main()
                except SystemExit as end: code = end.code
            told.append([code, out.getvalue(), err.getvalue()])
        show(told)
    """)
    return [(code, out, err) for code, out, err in told]


def test_a_repository_is_traced_and_its_weights_deleted_behind(hub: Hub, home: Path, tmp_path: Path) -> None:
    argv = ["trace", "me/planted", "-c", home / "small.csv", "-o", tmp_path / "out", "--sites", "resid"]
    argv += ["--probes", "mass_mean"]
    size = (home / "models" / "step0" / "model.safetensors").stat().st_size
    [plan] = commands(hub, [*argv, "--dry-run", "--json"])
    assert plan[0] == 0, plan[2]
    assert json.loads(plan[1])["bytes_to_download"] == 4 * size
    assert set(hub.sent) <= {"config.json"}
    assert not (tmp_path / "out").exists()

    first, again = commands(hub, [*argv, "--delete-behind"], [*argv, "--delete-behind"])
    assert (first[0], again[0]) == (0, 0), first[2] + again[2]
    # The weights once, the audit a header of each; nothing for what is done.
    assert hub.sent["model.safetensors"] == 4 * (size + HEADER_READ_BYTES)
    assert not [path for path in hub.home.rglob("*") if path.is_file() and path.stat().st_size >= size]
    run = Run.open(tmp_path / "out")
    assert [line["checkpoint"] for line in run.ledger()] == [f"step{step}" for step in PUSHES]
    told = run.about["lineage"]
    assert told["name"] == "me/planted"
    assert [(c["revision"], c["step"]) for c in told["checkpoints"]] == [(f"step{step}", step) for step in PUSHES]
    assert all(len(c["commit"]) == 40 for c in told["checkpoints"])

    concept = Concept.from_file(home / "small.csv")
    local = trace(
        Lineage.open(home / "models"), [concept], tmp_path / "local", TraceSettings(sites="resid", fits=("mass_mean",))
    )
    columns = ["step", "site", "method", "metric", "value", "low", "high", "n"]
    there, here = (made.records(VALUES)[columns].sort_values(columns, ignore_index=True) for made in (run, local))
    pd.testing.assert_frame_equal(there, here)


REFUSALS = {
    "nobody/nothing": "no public Hub repository 'nobody/nothing'",
    "me/planted --steps 700": "no checkpoint 'step700' in me/planted, which has 4: the nearest are step512 and step1000",
    "me/planted --sites resid.7": "'resid.7' does not exist: this model's layers are 0 to 2. Name other --sites.",
    "me/images": "vit reads images and has no tokenizer, so texts cannot be traced through it",
    "me/both": "no architecture table supports models of type 't5' (transformers has no language model of this type)",
    "me/gated": "me/gated is gated: request access on its page, then log in with `hf auth login`",
}


def test_what_the_hub_refuses_is_one_line(hub: Hub, home: Path, tmp_path: Path) -> None:
    hub.add("me/gated", "main", home / "models" / "step0")
    hub.gated.add("me/gated")
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **shape)).save_pretrained(tmp_path / "t5")
    hub.add("me/images", "main", tmp_path / "vit")
    hub.add("me/both", "main", tmp_path / "t5")
    argv = ["-c", home / "small.csv", "-o", tmp_path / "runs" / "out", "--quiet"]
    said = commands(hub, *(["trace", *given.split(), *argv] for given in REFUSALS))
    for words, (code, out, err) in zip(REFUSALS.values(), said, strict=True):
        assert (code, out) == (2, "")
        assert err.startswith("ontogeny: ")
        assert err.count("\n") == 1
        assert words in err
    assert not (tmp_path / "runs").exists()
    assert "model.safetensors" not in hub.sent
    assert set(hub.sent) == {"config.json"}  # no weights for a layer that is not there


def test_no_network_is_one_line_as_a_command(hub: Hub, home: Path, tmp_path: Path) -> None:
    code = "from ontogeny.cli import main; main()"
    argv = ("trace", "me/planted", "-c", home / "small.csv", "-o", tmp_path / "runs" / "out")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, argv)],
        env=hub.environment(HF_ENDPOINT="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("ontogeny: the Hub cannot be reached, so the branches of me/planted cannot be listed: check")
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()

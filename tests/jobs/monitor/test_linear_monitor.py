"""A probe saved as a monitor: the same scores without this package, a threshold set on held-out negatives, and errors."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import beta

from ontogeny.errors import BadInput
from ontogeny.jobs.monitor.linear_monitor import Monitor, _false_alarms
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.model import load_model
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.docs_pages import ROOT, blocks
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer

CHAT = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
READ = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), kernels=("linear",), untrained=False)
TEXTS = ["so they say x", "it was told [", "we have seen 7"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of one model with a planted concept, read bare, in its own chat template, and in a text."""
    from ontogeny.data.concept import Concept

    home = tmp_path_factory.mktemp("monitor")
    planted(8.0, answers=2.0).save_pretrained(home / "model")
    tokenizer = byte_tokenizer(bos=True)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(home / "model")
    path = write(home / "coin.csv", rows())
    flat = write(home / "flat.csv", [row | {"label": i % 4 // 2} for i, row in enumerate(rows(characters=24))])
    made = {}
    for name, template in (("bare", "none"), ("own", "own"), ("text", "Q: {} A:")):
        concepts = [Concept.from_file(path, template=template)]
        concepts += [Concept.from_file(flat)] if name == "bare" else []
        settings = replace(READ, protocol="single-split" if name == "bare" else "cross-fit")
        made[name] = trace(Lineage.open(home / "model"), concepts, home / name, settings)
    return made


def by_the_docs(folder: Path, texts: list[str]) -> tuple[list[float], list[bool]]:
    """Scores and alarms by the lines of docs/monitor.md."""
    (block,) = [b for b in blocks(ROOT / "docs/monitor.md") if b.file == "monitor_score.py"]
    names: dict[str, object] = {"folder": str(folder), "texts": texts}
    exec(block.text, names)
    return names["scores"], names["alarms"]  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["bare", "own", "text"])
def test_lines_of_the_docs_give_the_same_score_as_the_monitor_and_the_run(
    runs: dict[str, Run], tmp_path: Path, name: str
) -> None:
    run = runs[name]
    monitor = run.monitor("coin", fpr=0.1)
    kept = Monitor.load(monitor.save(tmp_path / "kept"))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["monitor.json", "monitor.safetensors"]
    assert torch.equal(kept.weight, monitor.weight)
    assert kept.summary == monitor.summary
    own = kept.scores(load_model(kept.model), TEXTS)
    scores, alarms = by_the_docs(tmp_path / "kept", TEXTS)
    assert scores == pytest.approx(own.tolist(), abs=2e-4)
    assert alarms == kept.alarms(load_model(kept.model), TEXTS)
    # The template matters: bare scores are others.
    assert (kept.template is None) == (name == "bare")


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("method", ["logistic", "mass_mean"])
def test_scores_at_every_layer_equal_those_that_the_run_keeps(
    runs: dict[str, Run], tmp_path: Path, layer: int, method: str
) -> None:
    from ontogeny.data.concept import Concept
    from ontogeny.measurements.design import make_design

    run = runs["bare"]
    monitor = run.monitor("coin", fpr=0.1, site=f"resid.{layer}", method=method)
    concept = Concept.from_file(run.folder.parent / "coin.csv")
    single = replace(READ, protocol="single-split")
    texts = [concept.texts[i] for i in make_design(concept, single).split.test.tolist()]
    (unit,) = [unit for unit, header in run.headers().items() if header["concept"] == "coin"]
    kept = run.scores(unit)[f"{method}/resid"][layer, :, 0]
    assert torch.allclose(monitor.scores(load_model(monitor.model), texts), kept, atol=1e-3)
    scores, _ = by_the_docs(monitor.save(tmp_path / "m"), texts[:3])
    assert scores == pytest.approx(monitor.scores(load_model(monitor.model), texts[:3]).tolist(), abs=1e-3)


def test_threshold_lets_at_most_the_rate_of_the_held_out_negatives_pass(runs: dict[str, Run]) -> None:
    run = runs["bare"]
    (unit,) = [unit for unit, header in run.headers().items() if header["concept"] == "coin"]
    kept = run.scores(unit)
    for fpr in (0.05, 0.1, 0.25):
        monitor = run.monitor("coin", fpr=fpr, method="logistic")
        scores = kept["logistic/resid"][monitor.layer, :, 0]
        negatives = scores[~kept["labels"].bool()]
        assert float((negatives > monitor.threshold).float().mean()) == pytest.approx(monitor.false_alarms.value)
        assert monitor.false_alarms.value <= fpr
        assert 0 < monitor.false_alarms.low < monitor.false_alarms.high > monitor.false_alarms.value
        assert monitor.caught.value == pytest.approx(
            float((scores[kept["labels"].bool()] > monitor.threshold).float().mean())
        )
        assert monitor.positive == "" or "=" in monitor.positive


@pytest.mark.parametrize("twins", [1, 2])
def test_interval_of_the_false_alarms_holds_the_rate_on_new_negatives(twins: int) -> None:
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        scores = torch.randn(100, generator=generator).repeat_interleave(twins)
        groups = torch.arange(100).repeat_interleave(twins)
        out = SimpleNamespace(y=torch.zeros(len(scores), dtype=torch.bool), groups=groups)
        threshold = float(scores.sort(descending=True).values[5 * twins])
        rate = _false_alarms(scores, out, threshold)  # type: ignore[arg-type]
        true = 0.5 * math.erfc(threshold / math.sqrt(2))
        held += rate.low <= true <= rate.high
    assert 0.92 <= held / 400 <= 0.99
    assert _false_alarms(
        torch.arange(100.0), SimpleNamespace(y=torch.zeros(100, dtype=torch.bool), groups=torch.arange(100)), 94.0
    ).high == pytest.approx(beta.ppf(0.975, 6, 95))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fpr": 0.0}, "`fpr` must lie between 0 and 1"),
        ({"fpr": 1.5}, "`fpr` must lie between 0 and 1"),
        (
            {"fpr": 0.001},
            r"`fpr` must be at least 0\.0\d+ with the \d+ held-out negatives of coin.*1,000 held-out negatives",
        ),
        ({"site": "resid.9"}, r"`site` must be one of resid\.0 to resid\.2"),
        ({"site": "mlp.1"}, "`site` must be one of"),
        ({"method": "pca"}, "no probe of a monitor called 'pca'"),
        ({"stage": "dpo"}, "coin was not traced at stage dpo"),
        ({"step": 7}, "coin was not traced at step 7"),
    ],
)
def test_rejects(runs: dict[str, Run], options: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        runs["bare"].monitor("coin", **{"fpr": 0.1} | options)


def test_rejects_a_concept_that_no_site_reads_or_that_was_not_traced(runs: dict[str, Run]) -> None:
    with pytest.raises(BadInput, match=r"no monitor can be made: resid\.\d does not read flat"):
        runs["bare"].monitor("flat", fpr=0.25)
    with pytest.raises(BadInput, match="no traced concept called 'con'"):
        runs["bare"].monitor("con", fpr=0.25)


def test_rejects_another_tokenizer_and_damaged_folders(runs: dict[str, Run], tmp_path: Path) -> None:
    monitor = runs["bare"].monitor("coin", fpr=0.1)
    folder = monitor.save(tmp_path / "m")
    about = json.loads((folder / "monitor.json").read_text())
    (folder / "monitor.json").write_text(json.dumps(about | {"tokenizer": "0" * 16}))
    with pytest.raises(BadInput, match="must have the tokenizer of the monitor"):
        Monitor.load(folder).scores(load_model(monitor.model), TEXTS)
    for content in ("{", "{}", json.dumps(about | {"format": "x"}), json.dumps(about | {"unknown": 1})):
        (folder / "monitor.json").write_text(content)
        with pytest.raises(BadInput, match="is not a monitor"):
            Monitor.load(folder)
    with pytest.raises(BadInput, match=r"there is no monitor\.safetensors"):
        Monitor.load(tmp_path)


def test_the_command_saves_a_monitor(runs: dict[str, Run], tmp_path: Path, say: Say) -> None:
    run = runs["own"].folder
    code, shown, error = say("monitor", run, "--save", tmp_path / "m", "--fpr", 0.1)
    assert code == 0, error
    assert "coin: logistic at resid." in shown
    assert Monitor.load(tmp_path / "m").fpr == 0.1
    code, _, error = say("monitor", runs["bare"].folder, "--save", tmp_path / "n", "--fpr", 0.1)
    assert (code, "--save needs one concept of two classes, got coin, flat: name it with -c" in error) == (2, True)
    assert say("monitor", runs["bare"].folder, "--save", tmp_path / "n", "--fpr", 0.1, "-c", "coin").code == 0
    code, _, error = say("monitor", run, "--save", tmp_path / "o", "--fpr", 0.0001)
    assert (code, "--fpr must be at least" in error) == (2, True)

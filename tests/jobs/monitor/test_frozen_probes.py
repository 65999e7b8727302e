"""Frozen probes: AUROC drops where the direction turned, the threshold fails where all activations moved."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.findings.timeline import order_like_run
from ontogeny.jobs.monitor.frozen_probes import checkpoint_named, monitor_frozen_probes
from ontogeny.jobs.monitor.monitor import write_monitor_rows
from ontogeny.jobs.trace.plan import concept_as_traced
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run
from ontogeny.views import empty_reason, load_view
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import CHARACTERS, SIGMA, coin, planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer

QUICK = TraceSettings(
    protocol="single-split",
    sites="resid",
    fits=("logistic", "mass_mean"),
    resamples=100,
    permutations=100,
    test_share=0.5,
)


def turned(push: float, shift: float = 0.0):
    """The concept along another direction than in `planted`, and all texts shifted along the first one."""
    network = planted(0.0)
    first = torch.randn(network.config.hidden_size, generator=torch.Generator().manual_seed(1))
    first = (first - first.mean()) / (first - first.mean()).norm()
    other = torch.randn(network.config.hidden_size, generator=torch.Generator().manual_seed(7))
    other = other - other.mean()
    other = other - (other @ first) * first
    other = other / other.norm()
    embed = network.get_input_embeddings().weight
    with torch.no_grad():
        for block in network.gpt_neox.layers:
            for linear in (block.attention.dense, block.mlp.dense_4h_to_h):
                linear.weight -= torch.outer(other, other @ linear.weight)
                linear.bias -= other * (other @ linear.bias)
        for character in CHARACTERS:
            [token] = byte_tokenizer()(character)["input_ids"]
            embed[token] += (1 if coin(character) else -1) * push * SIGMA * other + shift * SIGMA * first
    return network


def moved(push: float, shift: float):
    """As `planted`, with every text shifted along the concept's direction: the same ranking, another threshold."""
    network = planted(push)
    first = torch.randn(network.config.hidden_size, generator=torch.Generator().manual_seed(1))
    first = (first - first.mean()) / (first - first.mean()).norm()
    with torch.no_grad():
        for character in CHARACTERS:
            [token] = byte_tokenizer()(character)["input_ids"]
            network.get_input_embeddings().weight[token] += shift * SIGMA * first
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    home = tmp_path_factory.mktemp("frozen")
    networks = {"base": planted(8.0), "same": planted(8.0), "moved": moved(8.0, 30.0), "turned": turned(8.0)}
    stages = []
    for stage, network in networks.items():
        folder = home / stage / "checkpoint-5"
        network.save_pretrained(folder)
        byte_tokenizer().save_pretrained(home / stage)
        parent = '\nparent = "base"' if stage != "base" else ""
        stages.append(f'[[stages]]\nname = "{stage}"\nsource = "{stage}"{parent}\n')
    (home / "lineage.toml").write_text("\n".join(['name = "four"', *stages]))
    concept = write(home / "planted.csv", rows())
    run = trace(Lineage.open(home / "lineage.toml"), [Concept.from_file(concept)], home / "out", QUICK)
    return run, concept


def told(run: Run, unit: str, metric: str, **where: str) -> dict[str, tuple[float, float, float]]:
    found = run.records(f"unit = '{unit}' and metric = '{metric}'")
    keep = [all(dict(c).get(k) == v for k, v in where.items()) for c in found.coords]
    found = found[[k and m == "mass_mean" for k, m in zip(keep, found.method, strict=True)]]
    return {r.stage: (r.value, r.low, r.high) for r in found.itertuples()}


def test_frozen_probe_holds_fails_or_misfires_by_stage(made) -> None:
    run, concept = made
    [unit] = monitor_frozen_probes(run, [Concept.from_file(concept)], ["base"], rates=(0.1,))
    worth = told(run, unit, "frozen_auroc")
    assert set(worth) == {"base", "same", "moved", "turned"}
    assert min(worth[s][0] for s in ("base", "same", "moved")) > 0.95
    assert 0.2 < worth["turned"][0] < 0.8
    # The checkpoint's own probe reads the concept: it is there, along another direction.
    fresh = run.records("metric = 'auroc' and control is null and method = 'mass_mean'").groupby("stage").value.max()
    assert fresh["turned"] > 0.95
    less = told(run, unit, "frozen_minus_fresh")
    assert less["base"] == (0.0, 0.0, 0.0)
    assert less["turned"][2] < 0  # high end of the interval
    assert abs(less["moved"][0]) < 0.05
    alarms, caught = told(run, unit, "frozen_fpr"), told(run, unit, "frozen_tpr")
    assert alarms["same"][0] < 0.3 < 0.9 < alarms["moved"][0]
    assert caught["same"][0] > 0.9
    # Where the direction turned, it raises as many alarms among the negatives as among the positives.
    assert abs(caught["turned"][0] - alarms["turned"][0]) < 0.35
    # At its own checkpoint the frozen probe has the AUROC that the run measured.
    rows = run.records(f"unit = '{unit}' and metric = 'frozen_auroc' and stage = 'base'").set_index("method")
    for method, row in rows.iterrows():
        [own] = run.records(
            f"metric = 'auroc' and control is null and stage = 'base' and site = '{row.site}' and method = '{method}'"
        ).value
        assert row.value == pytest.approx(own, abs=1e-6)


def test_sources_default_to_every_stage_and_rows_are_replaced(made) -> None:
    run, concept = made
    [before] = monitor_frozen_probes(run, [Concept.from_file(concept)], ["base", "turned:5"], rates=(0.1,))
    [after] = monitor_frozen_probes(run, [Concept.from_file(concept)], rates=(0.01, 0.1))
    assert run.records(f"unit = '{before}'").empty
    found = run.records(f"unit = '{after}'")
    assert {dict(c)["source_stage"] for c in found.coords} == {"base", "same", "moved", "turned"}
    assert len(found) == 2 * 4 * 4 * (2 + 2 * 2)
    small = found[[dict(c).get("at") == "0.01" for c in found.coords]]
    assert small.value.isna().all()
    assert small.note.str.contains("cannot show a rate of 1 %").all()
    drawn = run.show("monitor")
    assert empty_reason(drawn) is None
    shown = json.dumps(drawn.to_dict()).replace('", "', " ")  # titles are broken into lines
    assert "probe and threshold frozen for 10 % false alarms" in shown
    assert "AUROC of the frozen probe" in shown


def test_view_draws_curves_at_best_site(made) -> None:
    run, _ = made
    write_monitor_rows(run, (0.1,))
    table = order_like_run(run.records(), run.about)
    table.loc[table.metric.eq("best_site"), "site"] = "resid.2"
    for site, at in (("resid.2", True), ("resid.1", False)):
        assert (
            f'"{site} · logistic"' in json.dumps(load_view("monitor").draw(table).to_dict(), ensure_ascii=False)
        ) == at


def test_command_prints_frozen_probes(made, say: Say) -> None:
    run, concept = made

    watch = partial(say, "monitor", run.folder)
    code, out, err = watch("-c", concept, "--frozen", "base:5", "--fpr", "0.01", "--fpr", "0.1")
    assert code == 0, err
    assert "[0/4]" in err
    assert len(out.split("\nrows are in")[0].splitlines()) <= 10
    code, out, err = watch("-c", concept, "--frozen", "base:5", "--fpr", "0.01", "--fpr", "0.1", "--all")
    assert code == 0, err
    assert "frozen at base 5, used at\n  base 5: AUROC 1.00" in out
    assert "\n  turned 5: AUROC 0." in out
    assert "at 1 % not measured: " in out
    assert "at 10 % false alarms " in out
    code, out, err = watch("-c", concept, "--frozen", "base", "--json")
    assert code == 0
    assert not err
    assert {row["metric"] for row in json.loads(out)} == {
        "frozen_auroc",
        "frozen_minus_fresh",
        "frozen_fpr",
        "frozen_tpr",
    }
    before = len(run.records())
    code, out, _ = watch("-c", concept, "--frozen", "base", "--dry-run")
    assert (code, out.startswith(f"checkpoints: 4, texts: {len(rows())} each: base checkpoint-5, ")) == (0, True)
    assert watch("--dry-run").out.startswith("no checkpoint is read")
    assert watch("--cross-concept", concept, "--cross-concept", concept, "--dry-run").out.startswith(
        "checkpoints: 1, texts: "
    )
    assert len(run.records()) == before
    for args, why in (
        (("--frozen", "base"), "which a run does not keep"),
        (("-c", concept, "--frozen", "bas"), "did you mean base"),
        (("-c", concept, "--frozen", "base:7"), "base was not traced at step 7; known: 5"),
        (("-c", concept, "--cross-concept", concept), "two modes"),
        (("-c", concept, "--fpr", "7"), "must lie between 0 and 1, got 7"),
    ):
        code, out, err = watch(*args)
        assert (code, err.count("\n")) == (2, 1)
        assert why in err
        assert not out


def test_rejects_other_texts_and_applies_the_limit_of_the_run(made, tmp_path: Path) -> None:
    run, concept = made
    other = Concept.from_file(write(tmp_path / "planted.csv", rows()[:60]))
    with pytest.raises(BadInput, match="holds no planted of these texts and weights"):
        monitor_frozen_probes(run, [other], ["base"])
    classes = Concept.from_file(write(tmp_path / "tint.csv", rows(kind="classes")))
    with pytest.raises(BadInput, match="must hold a concept of two classes"):
        monitor_frozen_probes(run, [classes], ["base"])
    with pytest.raises(BadInput, match="has no strange"):
        monitor_frozen_probes(run, [Concept.from_file(write(tmp_path / "strange.csv", rows()))])
    short = Run(tmp_path / "short")
    whole = Concept.from_file(concept)
    few = whole.limited(80, QUICK.seed)
    entry = next(c for c in run.about["concepts"] if c["name"] == "planted")
    short.describe({**run.about, "concepts": [{**entry, "n": len(few.examples), "hash": few.hash}]})
    assert concept_as_traced(short, whole).hash == few.hash != whole.hash


def test_checkpoint_is_named_by_stage_and_step(made) -> None:
    from ontogeny.dynamics.measured_checkpoints import measured_checkpoints

    visits = measured_checkpoints(made[0], "planted")
    assert checkpoint_named(visits, "moved").stage == "moved"
    assert checkpoint_named(visits, "moved:5") is checkpoint_named(visits, "moved")

"""`ontogeny attribute`: effects of stages whose weights are known, resume, and what cannot be attributed."""

import json
from pathlib import Path

import pytest
import torch

from ontogeny.attribution.attribute import attribute
from ontogeny.attribution.behaviours import split_behaviour
from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS
from ontogeny.attribution.plan import BehaviourRequest, plan_attribution, stages_on_path
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from tests.helpers.command_line import Say
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

STAGES = ("base", "sft", "dpo")


def save(network: object, folder: Path) -> None:
    network.save_pretrained(folder)  # type: ignore[attr-defined]
    byte_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages: the first moves the embedding, the second changes nothing, the third moves the read-out."""
    home = tmp_path_factory.mktemp("lineage")
    network = tiny_model("gpt_neox")
    generator = torch.Generator().manual_seed(0)

    def move(part: str, size: float) -> None:
        with torch.no_grad():
            for name, p in network.named_parameters():
                if part in name:
                    p.add_(size * torch.randn(p.shape, generator=generator))

    for stage, part, size in (("base", "embed_in", 0.05), ("sft", "embed_in", 0.0), ("dpo", "embed_out", 0.05)):
        for step in (0, 1, 2):
            if step:
                move(part, size)
            save(network, home / stage / f"checkpoint-{step}")
    blocks = [f'[[stages]]\nname = "{stage}"\nsource = "{stage}"\n' for stage in STAGES]
    (home / "lineage.toml").write_text("\n".join(['name = "three"\n', *blocks]))
    return home / "lineage.toml"


@pytest.fixture(scope="module")
def concept() -> Concept:
    names = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim", "Kim", "Leo")
    examples = tuple(Example(f"{n} is {w}.", w == "in", n, pair=n) for n in names for w in ("in", "out"))
    answers = tuple(Answer(f"{n} is", " in", " out", n) for n in names)
    return Concept("inside", examples, answers=answers)


KINDS = ("loss", "entropy", "margin", "refusal", "direction")


def test_effects_add_up_and_an_idle_stage_has_none(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    requests = [
        BehaviourRequest(f"{kind}:inside" + ("@resid.1" if kind == "direction" else ""), concept) for kind in KINDS
    ]
    run = attribute(Lineage.open(lineage), requests, tmp_path / "run")
    rows = run.records()
    effects, values = rows[rows["metric"].eq("stage_effect")], rows[rows["metric"].eq("behaviour")]
    assert len(effects) == len(KINDS) * len(CHECKPOINT_TIERS) * len(STAGES)
    assert len(values) == len(KINDS) * 9
    for name, own in effects.groupby([dict(c)["behaviour"] for c in effects["coords"]]):
        table = own.pivot(index="stage", columns="method", values="value")
        assert table.loc["sft"].abs().max() < 1e-6, "a stage that changes no weight has no effect"
        assert table["telescoping"].to_dict() == pytest.approx(table["endpoint"].to_dict(), abs=1e-9)
        path = values[[dict(c)["behaviour"] == name for c in values["coords"]]].set_index(["stage", "step"])["value"]
        assert table["endpoint"].sum() == pytest.approx(path["dpo", 2] - path["base", 0], abs=1e-9)
        assert table.loc["dpo", "subtraction"] == pytest.approx(table.loc["dpo", "endpoint"], abs=1e-5)
        assert table.loc["base", "addition"] == pytest.approx(table.loc["base", "endpoint"], abs=1e-5)
    assert effects[effects["method"].ne("linearised")]["low"].notna().all()
    inside = effects[effects["method"].eq("endpoint")]
    assert ((inside["low"] <= inside["value"] + 1e-9) & (inside["value"] <= inside["high"] + 1e-9)).all()


def test_second_run_computes_nothing(
    lineage: Path, concept: Concept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [BehaviourRequest("loss:inside", concept)]
    first = attribute(Lineage.open(lineage), requests, tmp_path / "run").records()
    monkeypatch.setattr("ontogeny.models.reusable.open_model", lambda *_: pytest.fail("a model was loaded"))
    again = attribute(Lineage.open(lineage), requests, tmp_path / "run").records()
    assert first["value"].tolist() == again["value"].tolist()


def test_linearised_effect_is_the_gradient_times_the_change(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    """Against finite differences of the behaviour along the stage's change of the weights."""
    from ontogeny.attribution.attribute import make_behaviour
    from ontogeny.models.model import load_model

    run = attribute(Lineage.open(lineage), [BehaviourRequest("margin:inside", concept)], tmp_path / "run")
    value = run.records("metric = 'stage_effect' and method = 'linearised' and stage = 'dpo'")["value"].item()
    home = lineage.parent / "dpo"
    model, start = load_model(home / "checkpoint-2"), load_model(home / "checkpoint-0")
    behaviour = make_behaviour(BehaviourRequest("margin:inside", concept), model)
    network, before = model.network.double(), dict(start.network.double().named_parameters())
    end = {name: p.detach().clone() for name, p in network.named_parameters()}

    def at(share: float) -> float:
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(end[name] + share * (end[name] - before[name]))
        return float(behaviour.values(network).mean())

    assert value == pytest.approx((at(1e-4) - at(-1e-4)) / 2e-4, rel=1e-3)


def test_stage_that_starts_elsewhere_has_no_effect_but_a_reason(
    lineage: Path, concept: Concept, tmp_path: Path
) -> None:
    home = tmp_path / "broken"
    other = tiny_model("gpt_neox", seed=1)
    for stage in ("base", "dpo"):
        for step in (0, 1):
            save(other if stage == "dpo" else tiny_model("gpt_neox"), home / stage / f"checkpoint-{step}")
    blocks = [f'[[stages]]\nname = "{stage}"\nsource = "{stage}"\n' for stage in ("base", "dpo")]
    (home / "lineage.toml").write_text("\n".join(['name = "two"\n', *blocks]))
    rows = attribute(Lineage.open(home / "lineage.toml"), [BehaviourRequest("loss:inside", concept)], tmp_path / "run")
    effects = rows.records("metric = 'stage_effect' and stage = 'dpo'")
    assert effects["value"].isna().all()
    assert effects["note"].str.contains("does not start at the end of base").all()


def test_stages_beside_the_path_are_left_out(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    text = lineage.read_text().replace('name = "dpo"\nsource = "dpo"', 'name = "dpo"\nsource = "dpo"\nparent = "base"')
    (lineage.parent / "branch.toml").write_text(text)
    branch = Lineage.open(lineage.parent / "branch.toml")
    assert [stage.name for stage in stages_on_path(branch)] == ["base", "dpo"]
    assert plan_attribution(branch, [BehaviourRequest("loss:inside", concept)]).off_path == ("sft",)


@pytest.mark.parametrize(
    ("text", "words"),
    [("loss", "KIND:SOURCE"), ("loss:", "KIND:SOURCE"), ("lost:truth", "loss"), ("charm:x", "behaviour")],
)
def test_unknown_behaviour_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        split_behaviour(text)


def test_command_plans_prints_and_draws(lineage: Path, tmp_path: Path, say: Say) -> None:
    lines = ["text,label,group"] + [f"{n} is {w},{int(w == 'in')},{n}" for n in "abcdefghijkl" for w in ("in", "out")]
    (tmp_path / "inside.csv").write_text("\n".join(lines))
    words = ("attribute", lineage, "-b", f"loss:{tmp_path / 'inside.csv'}", "-o", tmp_path / "run")
    code, out, _ = say(*words, "--dry-run")
    assert code == 0
    assert "base → sft → dpo" in out
    assert not (tmp_path / "run").exists()
    code, out, _ = say(*words, "--json", "--quiet")
    assert code == 0
    assert {row["stage"] for row in json.loads(out)} == set(STAGES)
    code, out, _ = say("show", tmp_path / "run", "attribution", "-o", tmp_path / "effects.svg")
    assert code == 0, out
    assert "loss:inside" in (tmp_path / "effects.svg").read_text()
    code, _, err = say("attribute", lineage, "-b", f"margin:{tmp_path / 'inside.csv'}", "-o", tmp_path / "other")
    assert code == 2
    assert "needs answers" in err

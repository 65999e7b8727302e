"""`ontogeny attribute`: effects of stages whose weights are known, resume, and what cannot be attributed."""

import json
from pathlib import Path

import pytest
import torch

from ontogeny.attribution.attribute import attribute
from ontogeny.attribution.behaviours import split_behaviour
from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS
from ontogeny.attribution.plan import AttributionSettings, BehaviourRequest, plan_attribution, stages_on_path
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


def test_other_settings_replace_the_effects_of_the_same_behaviour(
    lineage: Path, concept: Concept, tmp_path: Path
) -> None:
    loss, entropy = (BehaviourRequest(f"{kind}:inside", concept) for kind in ("loss", "entropy"))
    opened = Lineage.open(lineage).select("last")
    attribute(opened, [loss, entropy], tmp_path / "run")
    run = attribute(opened, [loss], tmp_path / "run", AttributionSettings(seed=3), stage_texts={"sft": ["Ann is in."]})
    effects = run.records("metric = 'stage_effect'")
    behaviours = [dict(c)["behaviour"] for c in effects["coords"]]
    assert effects.groupby([behaviours, "stage", "method"]).size().eq(1).all()
    seeds = dict(zip(behaviours, effects["seed"], strict=True))
    assert seeds == {"loss:inside": 3, "entropy:inside": 0}


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
    table = "\n".join(["text,source", *(f"{n} is in,x" for n in "abc")])
    for name, texts in (("plain.txt", "a is in\nb is out\na is in\n"), ("bare.csv", table)):
        (tmp_path / name).write_text(texts)
        unlabelled = (
            "attribute",
            lineage,
            "-b",
            f"loss:{tmp_path / name}",
            "-o",
            tmp_path / "unlabelled",
            "--json",
            "-q",
        )
        code, out, err = say(*unlabelled)
        assert code == 0, err
        ends = [
            row
            for row in json.loads(out)
            if row["behaviour"] == f"loss:{Path(name).stem}" and row["method"] == "endpoint"
        ]
        assert [row["n"] for row in ends] == [3] * len(STAGES)
        assert all(row["low"] <= row["value"] <= row["high"] for row in ends)
    code, _, err = say(
        "attribute", lineage, "-b", f"loss:{tmp_path / 'plain.txt'}", "--limit", "1", "-o", tmp_path / "few"
    )
    assert code == 2
    assert "plain must hold at least 2 different texts" in err
    code, _, err = say("attribute", lineage, "-b", f"margin:{tmp_path / 'inside.csv'}", "-o", tmp_path / "other")
    assert code == 2
    assert "needs answers" in err


TEXTS = {
    "base": ("the sea is wide", "a boat on the sea"),
    "sft": ("dogs bark at night", "a dog barks"),
    "dpo": ("Ann is in.", "Bob is out.", "Cid is in."),
}


def test_tiers_that_need_data_rank_stages_and_the_others_say_what_they_lack(
    lineage: Path, concept: Concept, tmp_path: Path
) -> None:
    request = BehaviourRequest("loss:inside", concept)
    run = attribute(
        Lineage.open(lineage), [request], tmp_path / "run", stage_texts={n: TEXTS[n] for n in ("sft", "dpo")}
    )
    rows = run.records("metric in ('stage_effect', 'stage_score')").set_index(["method", "stage"])
    assert rows.loc[("order", "dpo"), "value"] == 3
    assert rows.loc[("bm25", "dpo"), "value"] > rows.loc[("bm25", "sft"), "value"] >= 0
    assert rows.loc[("activation_difference", "sft"), "value"] == pytest.approx(0, abs=1e-6), (
        "an idle stage moves nothing"
    )
    for tier in ("bm25", "gradient_dot"):
        assert "no texts of this stage" in rows.loc[(tier, "base"), "note"]
    for stage in STAGES:
        assert "optimizer's moments of dpo 2" in rows.loc[("segments", stage), "note"], (
            "a later stage blocks the way back"
        )
    # The direction in which the stage's loss falls lowers the behaviour's loss too, since the texts are alike.
    assert rows.loc[("gradient_dot", "dpo"), "value"] < 0
    cost = run.about["attribution"]["cost"]["loss:inside"]
    assert cost["linearised"]["tokens"] == 3 * cost["endpoint"]["tokens"] / 4
    assert cost["endpoint"]["share"] is None


def test_gradient_dot_is_minus_the_slope_of_the_behaviour_along_the_gradient(
    lineage: Path, concept: Concept, tmp_path: Path
) -> None:
    from ontogeny.attribution.attribute import make_behaviour
    from ontogeny.attribution.stage_data import StageData
    from ontogeny.models.model import load_model

    request = BehaviourRequest("margin:inside", concept)
    run = attribute(Lineage.open(lineage), [request], tmp_path / "run", stage_texts=TEXTS)
    value = run.records("method = 'gradient_dot' and stage = 'sft'")["value"].item()
    model = load_model(lineage.parent / "dpo" / "checkpoint-2")
    gradient = StageData.of(model, "sft", TEXTS["sft"]).gradient(model)
    behaviour, network = make_behaviour(request, model), model.network.double()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}

    def at(step: float) -> float:
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(start[name] - step * gradient[name].double())
        return float(behaviour.values(network).mean())

    # Logits are float32, so that the difference quotient has three digits.
    assert value == pytest.approx((at(1e-4) - at(-1e-4)) / 2e-4, rel=5e-3)


def test_segments_use_the_moments_that_lie_beside_the_checkpoints(
    lineage: Path, concept: Concept, tmp_path: Path
) -> None:
    """With a rate of nearly zero nothing decays, and the score is the linearised effect."""
    import shutil

    from ontogeny.models.loading import ModelOptions

    home = tmp_path / "lineage"
    shutil.copytree(lineage.parent, home)
    network = tiny_model("gpt_neox")
    moments = {
        "state": {
            i: {"step": torch.tensor(2.0), "exp_avg_sq": torch.ones_like(p), "exp_avg": torch.zeros_like(p)}
            for i, p in enumerate(network.parameters())
        },
        "param_groups": [
            {
                "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "params": list(range(len(list(network.parameters())))),
                "param_names": [name for name, _ in network.named_parameters()],
            }
        ],
    }  # fmt: skip
    for stage in STAGES:
        folder = home / stage / "checkpoint-2"
        torch.save(moments, folder / "optimizer.pt")
        log = {"global_step": 2, "num_input_tokens_seen": 1000, "log_history": [{"step": 2, "learning_rate": 1e-9}]}
        (folder / "trainer_state.json").write_text(json.dumps(log))
    request = BehaviourRequest("loss:inside", concept)
    run = attribute(
        Lineage.open(home / "lineage.toml"),
        [request],
        tmp_path / "run",
        model=ModelOptions(allow_pickle=True),
        stage_texts=TEXTS,
    )
    table = run.records("metric = 'stage_effect'").pivot(index="stage", columns="method", values="value")
    assert table["segments"].to_dict() == pytest.approx(table["linearised"].to_dict(), rel=1e-3, abs=1e-7)
    cost = run.about["attribution"]["cost"]["loss:inside"]
    # Retraining without each of three stages of 1,000 tokens trains 6,000 tokens, at three passes each.
    assert cost["endpoint"]["share"] == pytest.approx(cost["endpoint"]["tokens"] / 18000)


def test_run_without_the_data_answers_its_own_question(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    home, request = lineage.parent, BehaviourRequest("loss:inside", concept)
    twin = Lineage.open(home / "base")
    rows = attribute(Lineage.open(lineage), [request], tmp_path / "run", without={"dpo": twin}).records()
    truth = rows[rows["method"].eq("retraining")].iloc[0]
    assert dict(truth["coords"])["question"] == "data replaced, steps kept"
    endpoint = rows[rows["method"].eq("endpoint") & rows["stage"].eq("dpo")]["value"].item()
    assert truth["value"] == pytest.approx(endpoint, abs=1e-6), "the twin is the start of the last stage"


def test_nodes_off_the_trajectory_have_no_effect_but_a_reason(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    text = lineage.read_text().replace('name = "dpo"\n', 'name = "dpo"\noff_trajectory = "averaged"\n')
    (lineage.parent / "averaged.toml").write_text(text)
    opened = Lineage.open(lineage.parent / "averaged.toml")
    effects = attribute(opened, [BehaviourRequest("loss:inside", concept)], tmp_path / "run").records(
        "metric = 'stage_effect' and stage = 'dpo'"
    )
    assert effects["value"].isna().all()
    assert effects["note"].str.contains("off the trajectory of training \\(averaged\\)").all()


def test_checkpoints_of_another_shape_or_tokenizer_are_refused(lineage: Path, concept: Concept, tmp_path: Path) -> None:
    from transformers import GPTNeoXForCausalLM

    config = tiny_model("gpt_neox").config
    config.intermediate_size *= 2
    for step in (0, 1):
        save(GPTNeoXForCausalLM(config), tmp_path / "wide" / f"checkpoint-{step}")
    blocks = [
        f'[[stages]]\nname = "{name}"\nsource = "{source}"\n'
        for name, source in (("base", lineage.parent / "base"), ("wide", tmp_path / "wide"))
    ]
    (tmp_path / "lineage.toml").write_text("\n".join(['name = "mixed"\n', *blocks]))
    with pytest.raises(BadInput, match="same tensors"):
        attribute(Lineage.open(tmp_path / "lineage.toml"), [BehaviourRequest("loss:inside", concept)], tmp_path / "run")


def test_stage_without_a_parent_and_unknown_stages_are_refused(lineage: Path, concept: Concept) -> None:
    request = BehaviourRequest("loss:inside", concept)
    text = lineage.read_text().replace('source = "dpo"', 'source = "dpo"\nparent = ""\nsteps = "last"')
    (lineage.parent / "alone.toml").write_text(text)
    with pytest.raises(BadInput, match="dpo has no parent in the lineage"):
        plan_attribution(Lineage.open(lineage.parent / "alone.toml"), [request])
    with pytest.raises(BadInput, match="stage of `stage_data`"):
        plan_attribution(Lineage.open(lineage), [request], stage_texts={"stf": ("a text",)})
    with pytest.raises(BadInput, match="stage of `without`"):
        plan_attribution(Lineage.open(lineage), [request], without={"stf": Lineage.open(lineage)})

"""One option for templates in trace, compare, steer, evaluate, transfer and monitor: none, own, a file, or a text."""

import json
from pathlib import Path

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.jobs.compare.plan import plan_comparison
from ontogeny.jobs.compare.stages import lineage_from_names
from ontogeny.jobs.transfer.measure import answer_margin_outcome
from ontogeny.jobs.transfer.plan import DEFAULT_READING_SETTINGS
from ontogeny.measurements.design import make_design
from ontogeny.models.model import Model, open_model
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.tiny_models import byte_tokenizer, refusing, save_tiny

CHAT = "{% for m in messages %}buzz {{ m['content'] }}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
"""Holds the letter that the models of `refusing` refuse."""
FAST = ("--sites", "resid", "--probes", "mass_mean", "--kernels", "linear", "--no-untrained", "-q")
WORDS = ["cat", "dog", "bird", "frog", "bear", "fox", "mouse", "duck", "fish", "cow", "pig", "owl"]


def model(folder: Path, axis: int, template: str | None) -> Path:
    save_tiny("gpt_neox", folder)
    refusing(folder, axis, says="N").network.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, a chat model with a template, and texts."""
    home = tmp_path_factory.mktemp("templates")
    model(home / "base", 2, None)
    model(home / "chat", 8, CHAT)
    (home / "harmful.txt").write_text("\n".join(f"break the {word}" for word in WORDS))
    (home / "harmless.txt").write_text("\n".join(f"paint the {word}" for word in WORDS))
    rows = [
        {"text": f"the {w} {'was glad' if y else 'was sad'}", "label": y, "group": w, "prompt": f"the {w}"}
        | {"right": " laughs", "wrong": " cries"}
        for w in WORDS
        for y in (1, 0)
    ]
    (home / "mood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "lineage.toml").write_text(
        'name = "pair"\n'
        f'[[stages]]\nname = "base"\nsource = "{home / "base"}"\n'
        f'[[stages]]\nname = "chat"\nparent = "base"\nsource = "{home / "chat"}"\n'
    )
    return home


def _compare(home: Path, say: Say, out: str, *more: object) -> tuple[str, Run]:
    texts = ("--harmful", home / "harmful.txt", "--harmless", home / "harmless.txt", "--phrase", "N")
    stages = (f"base={home / 'base'}", f"chat={home / 'chat'}")
    code, shown, error = say("compare", *stages, "-o", home / out, "--studies", "refusal", "-q", *texts, *more)
    assert code == 0, error
    return shown, Run.open(home / out)


def _refused(run: Run) -> dict[str, float]:
    rows = run.records("metric = 'refusal_phrases' and coords['instructions'] = 'harmful'")
    return dict(zip(rows["stage"], rows["value"], strict=True))


def test_compare_asks_each_stage_in_its_own_template_and_says_so(home: Path, say: Say) -> None:
    shown, run = _compare(home, say, "own")
    refused = _refused(run)
    assert refused["chat"] == 1.0
    assert refused["base"] < 0.7
    assert "Refusals, asked in each stage's own chat template (base bare, without one), as a share" in shown
    assert "chat 1.00" in shown
    assert run.about["settings"]["template"] == "own"
    # Asked bare, the same model refuses less, and the headline says that its template was left out.
    shown, bare = _compare(home, say, "bare", "--template", "none")
    assert _refused(bare)["base"] == refused["base"]
    assert _refused(bare)["chat"] < 0.7
    assert "Refusals, asked bare, without the chat template of chat, as a share" in shown
    assert bare.about["settings"]["template"] == "none"


def test_compare_asks_all_stages_in_one_given_template(home: Path, say: Say) -> None:
    (home / "chat.jinja").write_text(CHAT + "\n")
    shown, run = _compare(home, say, "together", "--template", home / "chat.jinja")
    assert _refused(run) == {"base": 1.0, "chat": 1.0}
    assert "Refusals, asked in one template for all stages, as a share" in shown


def test_units_of_comparisons_made_bare_keep_their_names(home: Path) -> None:
    examples = [Example(f"{word} {kind}", kind == "bad", word) for word in WORDS for kind in ("bad", "good")]
    requests = Concept("requests", tuple(examples))
    lineage, checkpoints = lineage_from_names([f"base={home / 'base'}", f"chat={home / 'chat'}"])

    def units(template: object) -> dict[str, str]:
        inputs = StudyInputs(requests=requests, template=template)  # type: ignore[arg-type]
        return dict(plan_comparison(lineage, checkpoints, inputs, ["refusal"]).units)

    assert units("{}") == units("none") == units(False)
    assert units(None) == units("own") == units(True)
    assert len({units(t)["refusal"] for t in ("none", "own", "Q {} A:", CHAT)}) == 4
    assert StudyInputs(requests=requests, template="Q {} A:").digest(["template"])[0] == "Q {} A:"
    assert StudyInputs(requests=requests, template="none").digest(["template"])[0] == "{}"


def test_compare_rejects_own_templates_where_no_stage_has_one(home: Path, say: Say) -> None:
    stages = (f"a={home / 'base'}", f"b={save_tiny('gpt_neox', home / 'other', seed=3)}")
    texts = ("--harmful", home / "harmful.txt", "--harmless", home / "harmless.txt")
    code, _, error = say("compare", *stages, "-o", home / "no", "--studies", "refusal", "--template", "own", *texts)
    assert code == 2
    assert "no stage has a chat template: leave --template out" in error


def test_trace_reads_each_checkpoint_in_its_own_template_and_says_which_was_bare(home: Path, say: Say) -> None:
    code, shown, error = say(
        *("trace", home / "lineage.toml", "-c", home / "mood.jsonl", "-o", home / "traced", "--template", "own", *FAST)
    )
    assert code == 0, error
    assert "mood: read in a template at chat; bare at base, which has none" in shown
    run = Run.open(home / "traced")
    rows = run.records("metric = 'in_template'").set_index("stage")
    assert rows.value.to_dict() == {"base": 0.0, "chat": 1.0}
    assert rows.coords["chat"]["template"].startswith("own ")
    assert run.about["concepts"][0]["template"] is True
    # The base model's numbers are those of a bare trace; the chat model's are not.
    code, _, error = say("trace", home / "lineage.toml", "-c", home / "mood.jsonl", "-o", home / "plain", *FAST)
    assert code == 0, error
    margins = [
        Run.open(home / out).records("metric = 'answer_margin'").set_index("stage").value for out in ("traced", "plain")
    ]
    assert margins[0]["base"] == margins[1]["base"]
    assert abs(margins[0]["chat"] - margins[1]["chat"]) > 1e-3


def test_monitor_reads_texts_in_the_template_of_the_trace(home: Path, say: Say) -> None:
    words = ("-c", home / "mood.jsonl", "-o", home / "given", "--template", "buzz {} A:", *FAST)
    code, _, error = say("trace", home / "lineage.toml", *words)
    assert code == 0, error
    assert Run.open(home / "given").about["concepts"][0]["template"] == "buzz {} A:"
    code, shown, error = say("monitor", home / "given", "-c", home / "mood.jsonl", "-q")
    assert code == 0, error
    assert "frozen at base" in shown
    same = ("monitor", home / "given", "-c", home / "mood.jsonl", "-q", "--template", "buzz {} A:")
    assert say(*same).code == 0
    code, _, error = say(*same[:-1], "own")
    assert code == 2
    assert "--template must be that of the trace of mood ('buzz {} A:'), got own: leave it out" in error


def test_steer_puts_prompts_into_the_template(home: Path, say: Say, tmp_path: Path) -> None:
    import torch

    from ontogeny.direction import Direction
    from ontogeny.sites import Site
    from ontogeny.storage.directions import save_direction

    path = tmp_path / "vector.safetensors"
    save_direction(Direction(torch.ones(32), Site("resid", 1), "made here"), path)
    starts = {}
    for template in ("none", "own", "buzz {} A:"):
        words = ("-d", path, "-p", "paint the cat", "--tokens", 2, "--controls", 0, "--json", "--template", template)
        code, shown, error = say("steer", home / "chat", *words)
        assert code == 0, error
        data = json.loads(shown)
        starts[template] = data["samples"][0]["text"].startswith("N"), data["template"].split()[0]
    assert starts == {"none": (False, "none"), "own": (True, "own"), "buzz {} A:": (True, "given")}
    code, _, error = say("steer", home / "base", "-d", path, "-p", "hello", "--template", "own")
    assert code == 2
    assert "the tokenizer has no chat template: leave --template off" in error


def test_evaluate_asks_in_the_template(home: Path, say: Say) -> None:
    few = (
        "--controls",
        3,
        "--shuffles",
        0,
        "--alpha",
        "0,1",
        "--sites",
        "resid.1",
        "--samples",
        1,
        "--tokens",
        2,
        "-q",
    )
    margins = []
    for template in ("none", "own"):
        out = home / f"evaluated-{template}"
        words = ("-c", home / "mood.jsonl", "-o", out, "--template", template)
        code, _, error = say("evaluate", home / "chat", *words, *few)
        assert code == 0, error
        run = Run.open(out)
        margins.append(run.records("metric = 'item_nats' and control = 'unsteered'").value.sum())
        told = run.records("metric = 'in_template'")
        assert list(told.value) == ([1.0] if template == "own" else [])
    assert abs(margins[0] - margins[1]) > 1e-3
    code, _, error = say("evaluate", home / "base", "-c", home / "mood.jsonl", "--template", "own", *few)
    assert code == 2
    assert "no checkpoint has a chat template: leave --template off" in error


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("no slot here", "must be none, own, a file, or a text with {} where the words go, got 'no slot here'"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "the chat template rewrites the text"),
        ("{{ raise_exception('no') }}", r"the given --template cannot be rendered (no)"),
        ("{% for %}", "the given --template cannot be rendered"),
    ],
)
def test_a_broken_template_is_one_line_in_every_command(home: Path, say: Say, template: str, words: str) -> None:
    commands = (
        ("trace", home / "chat", "-c", home / "mood.jsonl", "-o", home / "broken", *FAST),
        ("evaluate", home / "chat", "-c", home / "mood.jsonl", "-q"),
    )
    for command in commands:
        code, _, error = say(*command, "--template", template)
        assert code == 2
        assert words in " ".join(error.split())
        assert "Traceback" not in error


def test_the_former_flag_still_works(home: Path, say: Say) -> None:
    code, _, error = say("trace", home / "chat", "-c", home / "mood.jsonl", "-o", home / "flag", "--template", *FAST)
    assert code == 0
    assert "--template is now --template own" in error


def test_a_concept_takes_the_template_by_any_name(home: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(CHAT)
    path = home / "mood.jsonl"
    assert Concept.from_file(path, template="own").hash == Concept.from_file(path, template=True).hash
    assert Concept.from_file(path, template="none").hash == Concept.from_file(path).hash
    given = Concept.from_file(path, template=tmp_path / "t.jinja")
    assert given.template == CHAT
    assert given.hash not in {Concept.from_file(path).hash, Concept.from_file(path, template="own").hash}
    with pytest.raises(BadInput, match="where the words go"):
        Concept.from_file(path, template="t.jinja")


def test_transfer_asks_and_reads_in_the_template(home: Path, say: Say) -> None:
    """The margin of the unsteered answers is that of the questions in the template, and only a bare transfer differs."""
    margins = {}
    chat = open_model(home / "chat")
    for template in ("none", "own"):
        concept = Concept.from_file(home / "mood.jsonl", template=template)
        design = make_design(concept, DEFAULT_READING_SETTINGS)
        margins[template] = answer_margin_outcome(chat, design).measure([])
        held_out = [
            a for a in concept.answers if a.group not in {concept.examples[i].group for i in design.split.train}
        ]
        inside = "buzz {} A:" if template == "own" else "{}"
        ids = [
            [byte_tokenizer()(inside.format(a.prompt) + end)["input_ids"] for end in (a.right, a.wrong)]
            for a in held_out
        ]
        for margin, answer, pair in zip(margins[template].tolist(), held_out, ids, strict=True):
            start = len(byte_tokenizer()(inside.format(answer.prompt))["input_ids"])
            right, wrong = (_log_likelihood(chat, tokens, start) for tokens in pair)
            assert abs(margin) == pytest.approx(abs(right - wrong), abs=1e-4)
    assert (margins["none"] - margins["own"]).abs().max() > 1e-3
    words = ("transfer", home / "lineage.toml", "-c", home / "mood.jsonl", "--controls", 20, "--shuffles", 20, "-q")
    code, _, error = say(*words, "-o", home / "transferred", "--template", "own")
    assert code == 0, error
    about = Run.open(home / "transferred").about["concepts"][0]
    assert about["template"] is True
    # Later calls read the texts as the run has them, and none reads them in another way without a word.
    assert say(*words, "-o", home / "transferred")[0] == 0
    assert Run.open(home / "transferred").about["concepts"][0]["template"] is True
    code, _, error = say(*words, "-o", home / "transferred", "--template", "none")
    assert code == 2
    assert "--template must be that of the trace of mood (own), got none" in error


def _log_likelihood(model: Model, ids: list[int], start: int) -> float:
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))

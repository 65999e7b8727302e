"""The listed cases of hostile input: for each what is made of a good place, the command, and the one line that must follow.

A case takes a folder with a good `model`, a good `planted.csv` and a finished `run`, damages it, and gives the words of a command.
"""

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import duckdb
import torch
from safetensors.torch import save_file

from ontogeny.direction_files import FORMAT
from ontogeny.lineage import files
from ontogeny.store import write_tensors

Case = Callable[[Path], list[object]]
DEEP = "[" * 100_000
"""JSON and TOML that is nested deeper than a reader's stack."""


def about(change: Callable[[Path], None]) -> Case:
    def make(place: Path) -> list[object]:
        change(place / "run" / "run.json")
        return ["report", place / "run"]

    return make


def part(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "run" / "records" / "evil.parquet").write_bytes(content)
        return ["query", place / "run", "select 1 from records"]

    return make


def query(sql: str) -> Case:
    return lambda place: ["query", place / "run", sql]


def traced(change: Callable[[Path], None], *more: object) -> Case:
    """A trace of the model after a change to its folder."""

    def make(place: Path) -> list[object]:
        change(place / "model")
        return ["trace", place / "model", "-c", place / "planted.csv", "-o", place / "out", *more]

    return make


def lineage(content: str) -> Case:
    def make(place: Path) -> list[object]:
        (place / "lineage.toml").write_text(content, encoding="utf-8")
        return ["trace", place / "lineage.toml", "-c", place / "planted.csv", "-o", place / "out"]

    return make


def concept(content: str | bytes, name: str = "bad.csv") -> Case:
    def make(place: Path) -> list[object]:
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ["trace", place / "model", "-c", place / name, "-o", place / "out"]

    return make


def header(table: object) -> bytes:
    told = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(told)) + told


def weights(content: bytes) -> Case:
    return traced(lambda model: (model / "model.safetensors").write_bytes(content) and None)


def config(**change: object) -> Case:
    def edit(model: Path) -> None:
        told = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(told | change))

    return traced(edit)


def elsewhere(model: Path) -> None:
    """An index that names a shard in another folder."""
    shutil.move(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / files.INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def with_code(model: Path) -> None:
    """A config that asks for code of its own."""
    told = json.loads((model / "config.json").read_text())
    told |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (model / "config.json").write_text(json.dumps(told))
    (model / "evil.py").write_text("open('pwned', 'w').write('x')\nclass Config: ...\nclass Model: ...\n")


def grown(change: Callable[[Path], None]) -> Case:
    """A trace into the run after a change of its run.json."""

    def make(place: Path) -> list[object]:
        change(place / "run" / "run.json")
        return ["trace", place / "model", "-c", place / "planted.csv", "-o", place / "run"]

    return make


def watched(change: Callable[[Path], None]) -> Case:
    """`monitor` after a change of the run's directions."""

    def make(place: Path) -> list[object]:
        for path in (place / "run" / "directions").glob("*.safetensors"):
            change(path)
        return ["monitor", place / "run"]

    return make


def told_as(path: Path, header: object) -> None:
    save_file({"a": torch.ones(1)}, path, metadata={"ontogeny": json.dumps(header)})


def other_part(place: Path) -> list[object]:
    part = place / "run" / "records" / "evil.parquet"
    duckdb.execute(f"copy (select 1 as x) to '{part}' (format parquet)")
    return ["query", place / "run", "select metric from records where value > 2"]


def steered(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "d.safetensors").write_bytes(content)
        return ["steer", place / "model", "-d", place / "d.safetensors", "-p", "hi", "--tokens", 2]

    return make


def direction(vector: torch.Tensor | None = None, **change: object) -> Case:
    """A direction as we write it, but for one thing."""

    def make(place: Path) -> list[object]:
        told: dict[str, object] = {
            "format": FORMAT,
            "site": "resid.1",
            "origin": "x",
            "scale": "raw",
            "position": "last",
        }
        told |= {"facts": {}, "sign": "", "tokenizer": ""} | change
        write_tensors(place / "d.safetensors", {"vector": torch.ones(32) if vector is None else vector}, told)
        return ["steer", place / "model", "-d", place / "d.safetensors", "-p", "hi", "--tokens", 2]

    return make


def prompts(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "prompts.txt").write_bytes(content)
        return [*direction()(place), "--prompts", place / "prompts.txt"]

    return make


def raised(content: str) -> Case:
    def make(place: Path) -> list[object]:
        (place / "raised").mkdir()
        (place / "raised" / "raising.json").write_text(content)
        return ["raise", "--check", "--out", place / "raised"]

    return make


def named(name: str) -> Case:
    return lambda place: ["trace", place / "model", "-c", name, "-o", place / "out"]


def endless(place: Path) -> list[object]:
    os.mkfifo(place / "pipe.csv")
    return named(str(place / "pipe.csv"))(place)


def device(place: Path) -> list[object]:
    (place / "zero.csv").symlink_to("/dev/zero")
    return named(str(place / "zero.csv"))(place)


def far(place: Path) -> list[object]:
    (place / "far").mkdir()
    (place / "model").rename(place / "far" / "checkpoint-99999999999999999999")
    return ["trace", place / "far", "-c", place / "planted.csv", "-o", place / "out"]


STAGE = '[[stages]]\nname = "a"\nsource = '
CASES: dict[str, tuple[Case, str]] = {
    # run directories
    "no run": (lambda p: ["report", p / "model"], r"is no run directory"),
    "run.json torn": (about(lambda f: f.write_text(f.read_text()[:50]) and None), r"run\.json cannot be read"),
    "run.json empty": (about(lambda f: f.write_text("") and None), r"run\.json cannot be read"),
    "run.json a list": (about(lambda f: f.write_text("[1]") and None), r"run\.json cannot be read"),
    "run.json binary": (about(lambda f: f.write_bytes(b"\xff\xfe\x00") and None), r"run\.json cannot be read"),
    "run.json nested": (about(lambda f: f.write_text(DEEP) and None), r"run\.json cannot be read"),
    "a part of nothing": (part(b""), r"records cannot be read.*evil"),
    "a part of noise": (part(os.urandom(64)), r"records cannot be read.*evil"),
    "a part cut off": (part(b"PAR1" + b"\0" * 40), r"records cannot be read.*evil"),
    "no SQL": (lambda p: ["query", p / "run"], r"a query needs a run directory and SQL"),
    "wrong SQL": (query("selec 1"), r"the query cannot be run"),
    "no such column": (query("select colour from records"), r"the query cannot be run"),
    "no such format": (lambda p: ["query", p / "run", "select 1", "-f", "xml"], r"no format 'xml'"),
    "a run twice": (lambda p: ["query", p / "run", p / "run", "select 1"], r"given twice"),
    "view": (lambda p: ["show", p / "run", "emergense"], r"did you mean emergence"),
    "view up": (lambda p: ["show", p / "run", "../../evil"], r"no view called '\.\./\.\./evil'"),
    "picture ending": (lambda p: ["show", p / "run", "emergence", "-o", p / "a.exe"], r"\.exe"),
    "report on a folder": (lambda p: ["report", p / "run", "-o", p / "model"], r"cannot write"),
    "no view": (lambda p: ["show", p / "run"], r"a picture needs a run directory and a view"),
    # lineage files
    "toml torn": (lineage("[[stages"), r"lineage\.toml cannot be read"),
    "toml nested": (lineage("a = " + DEEP), r"lineage\.toml cannot be read"),
    "toml empty": (lineage(""), r"states no stages"),
    "toml other key": (lineage('stagse = 1\n[[stages]]\nname="a"'), r"no key called 'stagse'; did you mean stages"),
    "toml number": (lineage("[[stages]]\nname = 1\nsource = 'model'"), r"name must be a text, not 1"),
    "toml bool": (lineage(STAGE + '"model"\ntrain_seed = true'), r"train_seed must be a whole number"),
    "toml no source": (lineage('[[stages]]\nname = "a"'), r"stage 1 has no source"),
    "toml own parent": (lineage(STAGE + '"model"\nparent = "a"'), r"parent|circle|stage"),
    "toml nobody's parent": (lineage(STAGE + '"model"\nparent = "zz"'), r"zz"),
    "toml twice": (lineage(f'{STAGE}"model"\n{STAGE}"model"'), r"has a stage 'a' already"),
    "toml secret file": (lineage(STAGE + '"/etc/passwd"'), r"passwd is a file"),
    "toml up": (lineage(STAGE + '"../../../../../../no/such"'), r"no folder|no/such"),
    "toml url": (lineage(STAGE + '"file:///etc/passwd"'), r"there is no folder"),
    "toml steps": (lineage(STAGE + '"model"\nsteps = "all-1"'), r"steps|selects"),
    "toml zero": (lineage(STAGE + '"mod\\u0000el"'), r"."),
    # hub names
    "hub up": (lambda p: ["trace", "../../etc", "-c", p / "planted.csv", "-o", p / "out"], r"no folder|holds no model"),
    "hub dashes": (lambda p: ["trace", "a--b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub spaces": (lambda p: ["trace", "a b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub query": (lambda p: ["trace", "a/b?x=1", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub three": (lambda p: ["trace", "a/b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    # checkpoints
    "weights empty": (weights(b""), r"cut off or no safetensors file"),
    "weights git-lfs": (weights(b"version https://git-lfs.github.com/spec/v1\n"), r"git-lfs pointer"),
    "header huge": (weights(struct.pack("<Q", 2**63) + b"{}"), r"cut off or no safetensors file"),
    "header a list": (weights(header([1, 2])), r"unreadable header"),
    "header nested": (weights(header(DEEP.encode())), r"unreadable header"),
    "header not text": (weights(header(b"\xff" * 16)), r"unreadable header"),
    "header no offsets": (weights(header({"a": {"dtype": "F32", "shape": [1]}})), r"unreadable header"),
    "header no dtype": (
        weights(header({"a": {"shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header backwards": (
        weights(header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})),
        r"unreadable header",
    ),
    "header before the file": (
        weights(header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header endless": (
        weights(header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}')),
        r"unreadable header",
    ),
    "header texts": (
        weights(header({"a": {"dtype": "F32", "shape": "1", "data_offsets": ["0", "4"]}})),
        r"unreadable header",
    ),
    "header shorter than its shape": (
        weights(header({"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"weights of .* cannot be read|lack",
    ),
    "a shard elsewhere": (traced(elsewhere), r"lacks 1 of its 1 weight shards, first \.\./outside"),
    "index nested": (
        traced(lambda m: (m / "model.safetensors").rename(m / "x.bin") and (m / files.INDEX).write_text(DEEP) and None),
        r"index\.json cannot be read",
    ),
    "index empty": (
        traced(lambda m: (m / "model.safetensors").rename(m / "x.bin") and (m / files.INDEX).write_text("{}") and None),
        r"names no shards",
    ),
    "a pickle": (traced(pickled), r"only as a pickle .* --allow-pickle"),
    "a pickle that calls": (traced(pickled, "--allow-pickle"), r"weights of .* cannot be read"),
    "code beside the weights": (traced(with_code), r"evil|config\.json"),
    "config nested": (traced(lambda m: (m / "config.json").write_text(DEEP) and None), r"config\.json"),
    "config a list": (traced(lambda m: (m / "config.json").write_text("[]") and None), r"holds no JSON object"),
    "config no type": (traced(lambda m: (m / "config.json").write_text("{}") and None), r"config\.json|model type"),
    "config number as type": (config(model_type=7), r"."),
    "config no heads": (config(num_attention_heads=0), r"."),
    "config negative": (config(hidden_size=-8), r"."),
    "config words": (config(num_hidden_layers="many"), r"."),
    "config half heads": (config(num_attention_heads=3), r"."),
    "tokenizer torn": (traced(lambda m: (m / "tokenizer.json").write_text('{"a":') and None), r"no usable tokenizer"),
    "tokenizer nested": (traced(lambda m: (m / "tokenizer.json").write_text(DEEP) and None), r"no usable tokenizer"),
    # concepts
    "jsonl nested": (concept('{"text": ' + DEEP, "bad.jsonl"), r"line 1: no valid JSON"),
    "jsonl list": (concept("[1]\n", "bad.jsonl"), r"not an object"),
    "jsonl text in text": (concept('{"text": {"a": 1}, "label": 1}\n' * 20, "bad.jsonl"), r"text"),
    "jsonl doubled key": (concept('{"text": "a", "text": "b", "label": 1}\n', "bad.jsonl"), r"a key stands twice"),
    "gzip cut": (concept(b"\x1f\x8b\x08\0\0\0", "bad.csv.gz"), r"damaged"),
    "no text": (concept("text,label\n,1\n,0\n"), r"text"),
    "huge cell": (concept("text,label\n" + "a" * 200_000 + ",1\n"), r"field larger than|two classes|groups"),
    "doubled column": (concept("text,text,label\na,b,1\n"), r"text"),
    "spans outside": (concept("text,label,span_start,span_end\n" + "abc,1,5,9\nabd,0,5,9\n" * 10), r"span"),
    "number as infinity": (concept("text,target\n" + "".join(f"t{i},inf\n" for i in range(20))), r"."),
    # arguments
    "position": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--position", "((("],
        r"\(",
    ),
    "steps": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--steps", "5..1"],
        r"5\.\.1|steps",
    ),
    "sites": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--sites", "head.1.99"],
        r"heads are",
    ),
    "sites up": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--sites", "../x"],
        r"no sites given",
    ),
    "fits up": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--fits", "../../os"],
        r"no fit called",
    ),
    # --- found later: what crashed, hung or wrote where it should not
    "run.json without a lineage": (
        about(lambda f: f.write_text('{"lineage": null}') and None),
        r"'lineage' is of another kind",
    ),
    "run.json concepts a number": (
        about(lambda f: f.write_text('{"concepts": 3}') and None),
        r"'concepts' is of another kind",
    ),
    "run.json concepts unnamed": (
        about(lambda f: f.write_text('{"concepts": [{}]}') and None),
        r"concepts have no names",
    ),
    "a run that does not say of what": (grown(lambda f: f.write_text("{}") and None), r"does not say what was traced"),
    "directions cut off": (
        watched(lambda f: f.write_bytes(f.read_bytes()[:90]) and None),
        r"is damaged .* trace again",
    ),
    "directions of somebody": (watched(lambda f: save_file({"a": torch.ones(1)}, f)), r"is damaged"),
    "directions that say nothing": (watched(lambda f: told_as(f, {})), r"is damaged \(its header has no concept\)"),
    "directions with a list on top": (watched(lambda f: told_as(f, [])), r"is damaged \(its header is no object\)"),
    "a part of another table": (other_part, r"the records cannot be read|the query cannot be run"),
    "SQL that writes": (query("copy (select 1) to 'pwned'"), r"one question that changes nothing"),
    "SQL that writes later": (query("select 1; copy (select 1) to 'pwned'"), r"one question that changes nothing"),
    "SQL that exports": (query("export database 'pwned'"), r"one question that changes nothing"),
    "SQL that attaches": (query("attach 'pwned.db'"), r"one question that changes nothing"),
    "SQL that installs": (query("install httpfs"), r"one question that changes nothing"),
    "SQL that asks nothing": (query("/* nothing */"), r"one question that changes nothing"),
    "SQL nested": (query("select " + "(" * 5000 + "1" + ")" * 5000), r"the query cannot be run"),
    "rate that is none": (lambda p: ["monitor", p / "run", "--at", "nan"], r"a false-positive rate of nan is none"),
    "stage that is none": (
        lambda p: ["monitor", p / "run", "-c", p / "planted.csv", "--frozen", ":"],
        r"no stage called ''",
    ),
    "audit of nothing": (lambda p: ["audit", p / "nowhere"], r"there is no folder"),
    "audit of a run": (lambda p: ["audit", p / "run"], r"holds no model"),
    "direction of noise": (steered(b"\0" * 80), r"holds no direction"),
    "direction that is a pickle": (steered(b"cos\nsystem\n(S'touch pwned'\ntR."), r"holds no direction"),
    "direction of another width": (direction(torch.ones(31)), r"31 dimensions does not fit"),
    "direction not finite": (direction(torch.full((32,), float("nan"))), r"no vector of finite numbers"),
    "direction of whole numbers": (direction(torch.ones(32, dtype=torch.int64)), r"its numbers are torch.int64"),
    "direction nowhere": (direction(site="../x"), r"is not a site"),
    "direction too deep": (direction(site="resid.99"), r"resid\.99"),
    "direction with facts of words": (direction(facts={"std": "x"}), r"a fact of it is no number"),
    "direction with no facts": (direction(facts=3), r"its facts is 3"),
    "direction of another tokenizer": (direction(tokenizer="other"), r"learned with another tokenizer"),
    "direction from above": (lambda p: ["steer", p / "model", "-d", "hub:../../x", "-p", "hi"], r"\.\./\.\./x"),
    "prompts of noise": (prompts(b"\xff\xfe\0"), r"is not UTF-8 text"),
    "alpha without end": (lambda p: [*direction()(p), "--alpha", "1e999"], r"--alpha takes finite numbers"),
    "raised by nobody": (raised("{"), r"raising\.json cannot be read"),
    "raised as a list": (raised("[]"), r"raising\.json cannot be read \(it holds a list"),
    "raised in no world": (raised('{"world": "../x", "size": "small"}'), r"no world called '\.\./x'"),
    "weights that lead nowhere": (
        traced(lambda m: (m / "model.safetensors").unlink() or (m / "model.safetensors").symlink_to(m / "no")),
        r"has no weights",
    ),
    "weights that lead to themselves": (
        traced(
            lambda m: (m / "model.safetensors").unlink() or (m / "model.safetensors").symlink_to("model.safetensors")
        ),
        r"has no weights",
    ),
    "config that never ends": (
        traced(lambda m: (m / "config.json").unlink() or os.mkfifo(m / "config.json")),
        r"config\.json is no regular file",
    ),
    "concept that never ends": (endless, r"is no regular file, and might never end"),
    "concept without end": (device, r"is no regular file, and might never end"),
    "concept of too long a name": (named("x" * 400 + ".csv"), r"is too long for a file"),
    "out of too long a name": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / ("x" * 400)],
        r"is too long for a file",
    ),
    "toml seed beyond numbers": (
        lineage(STAGE + '"model"\ntrain_seed = 99999999999999999999'),
        r"which no table holds",
    ),
    "step beyond numbers": (far, r"has the step 99999999999999999999, which no table holds"),
    "config of a giant": (config(vocab_size=10**12), r"cannot be read|no network can be built"),
    "config of other activations": (config(hidden_act="os.system"), r"."),
    "template that breaks out": (
        traced(lambda m: (m / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}") and None, "--template"),
        r"chat template of this tokenizer cannot be rendered .*unsafe",
    ),
    "jsonl half a character": (
        concept("".join(json.dumps({"text": f"a\ud800 {i}", "label": i % 2}) + "\n" for i in range(40)), "bad.jsonl"),
        r"half a character",
    ),
    "jsonl number without end": (
        concept('{"text": "a", "label": 1' + "0" * 6000 + "}\n", "bad.jsonl"),
        r"line 1: no valid JSON",
    ),
    "gzip in gzip": (concept(gzip.compress(gzip.compress(b"text,label\na,1\n")), "bad.csv.gz"), r"is not UTF-8 text"),
    "position nested": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--position", "(" * 20_000 + "last"],
        r"\(",
    ),
    "steps of many digits": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--steps", "9" * 5000],
        r"at most 18 digits",
    ),
    "steps of other digits": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--steps", "²"],
        r"'²' selects no steps",
    ),
    "sites of many digits": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--sites", "resid." + "9" * 500],
        r"is no layer",
    ),
    "seed beyond numbers": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--seed", "9" * 20],
        r"is too large",
    ),
}

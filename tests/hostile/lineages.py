"""Names of models, and lineage files, that are torn, nested, lead elsewhere or state what no table holds."""

from pathlib import Path

from tests.hostile.making import DEEP, Case


def lineage(content: str) -> Case:
    def make(place: Path) -> list[object]:
        (place / "lineage.toml").write_text(content, encoding="utf-8")
        return ["trace", place / "lineage.toml", "-c", place / "planted.csv", "-o", place / "out"]

    return make


def far(place: Path) -> list[object]:
    (place / "far").mkdir()
    (place / "model").rename(place / "far" / "checkpoint-99999999999999999999")
    return ["trace", place / "far", "-c", place / "planted.csv", "-o", place / "out"]


STAGE = '[[stages]]\nname = "a"\nsource = '
CASES: dict[str, tuple[Case, str]] = {
    "toml torn": (lineage("[[stages"), r"lineage\.toml cannot be read"),
    "toml nested": (lineage("a = " + DEEP), r"lineage\.toml cannot be read"),
    "toml empty": (lineage(""), r"has no stages"),
    "toml other key": (lineage('stagse = 1\n[[stages]]\nname="a"'), r"no key called 'stagse'; did you mean stages"),
    "toml number": (lineage("[[stages]]\nname = 1\nsource = 'model'"), r"name must be a text, got 1"),
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
    "hub up": (lambda p: ["trace", "../../etc", "-c", p / "planted.csv", "-o", p / "out"], r"no folder|holds no model"),
    "hub dashes": (lambda p: ["trace", "a--b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub spaces": (lambda p: ["trace", "a b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub query": (lambda p: ["trace", "a/b?x=1", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub three": (lambda p: ["trace", "a/b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "audit of nothing": (lambda p: ["audit", p / "nowhere"], r"there is no folder"),
    "toml seed beyond numbers": (
        lineage(STAGE + '"model"\ntrain_seed = 99999999999999999999'),
        r"must fit in 64 bits",
    ),
    "step beyond numbers": (far, r"must fit in 64 bits, got 99999999999999999999"),
}

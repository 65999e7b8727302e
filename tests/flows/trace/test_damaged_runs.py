"""Damage to a run: a flipped bit, a lost or swapped file and a damaged run.json change no row; a resume measures what is lost anew."""

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage import checksums, parts, repair
from ontogeny.storage.merging import stored_tensors_of
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.trace_runs import QUICK, same, table, visits

FAST = TraceSettings(sites="resid", fits=("mass_mean",), resamples=100, permutations=100, untrained=False)
KINDS = ("records", "directions", "scores", "significance")


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three checkpoints."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return trace(Lineage.open(home / "few"), [Concept.from_file(home / "small.csv")], out, FAST)


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    """A copy of it, to damage."""
    return Run(shutil.copytree(whole.folder, tmp_path / "run"))


def resume(home: Path, run: Run) -> Run:
    return trace(Lineage.open(home / "few"), [Concept.from_file(home / "small.csv")], run.folder, FAST)


def everything(run: Run) -> pd.DataFrame:
    """The rows, after every file of the run was read."""
    for unit in run.headers():
        run.directions(unit)
    for unit, part in parts.read_holders(run.folder).parts.items():
        if unit in run.headers() or (run.folder / "scores" / f"{part}.safetensors").is_file():
            run.scores(unit)
    for path in (run.folder / "significance").iterdir():
        checksums.check_file(path)
    return table(run)


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def files(run: Run, kind: str) -> list[Path]:
    return sorted(path for path in (run.folder / kind).iterdir() if not path.name.startswith("."))


def test_every_flipped_bit_is_noticed(run: Run, tmp_path: Path) -> None:
    draw, before = random.Random(0), everything(run)
    for number, kind in itertools.product(range(12), KINDS):
        copy = Run(shutil.copytree(run.folder, tmp_path / f"{kind}{number}"))
        flip(draw.choice(files(copy, kind)), draw)
        with pytest.raises(BadInput, match=r"is damaged .* trace again"):
            everything(copy)
    pd.testing.assert_frame_equal(everything(run), before)  # the control


@pytest.mark.parametrize("name", ["index.json", "checksums.jsonl", "ledger.jsonl"])
def test_flipped_bits_beside_the_parts_change_no_row(name: str, run: Run, tmp_path: Path) -> None:
    draw, before = random.Random(name), everything(run)
    for number in range(12):
        copy = Run(shutil.copytree(run.folder, tmp_path / f"{number}"))
        flip(copy.folder / name, draw)
        pd.testing.assert_frame_equal(everything(copy), before)


@pytest.mark.parametrize("kind", ["records", "directions", "scores"])
def test_swapped_parts_are_noticed(kind: str, run: Run) -> None:
    first, second = [path for path in files(run, kind) if path.stem.startswith("at-")][:2]
    first.rename(run.folder / "aside")
    second.rename(first)
    (run.folder / "aside").rename(second)
    with pytest.raises(BadInput, match="its checksum differs"):
        everything(run)


def test_swapped_cache_of_significance_is_computed_again(home: Path, run: Run, whole: Run) -> None:
    [path] = files(run, "significance")
    content = path.read_bytes()
    # A cache of the same size that was written for other scores.
    path.write_bytes(content[:-8] + b"\0" * 8)
    next(path for path in files(run, "records") if path.stem.startswith("series-")).unlink()
    pd.testing.assert_frame_equal(table(resume(home, run)), table(whole))


def flip_tensors(run: Run, kind: str) -> None:
    path = files(run, kind)[0]
    content = bytearray(path.read_bytes())
    content[-3] ^= 8
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Run], object]] = {
    **{f"{kind} lost": lambda run, kind=kind: files(run, kind)[0].unlink() for kind in KINDS[:3]},
    **{f"{kind} flipped": lambda run, kind=kind: flip_tensors(run, kind) for kind in KINDS[:3]},
    "the last part lost": lambda run: max(files(run, "records"), key=lambda path: path.stat().st_mtime_ns).unlink(),
    "all directions lost": lambda run: shutil.rmtree(run.folder / "directions"),
    "records cut off": lambda run: files(run, "records")[0].write_bytes(b"PAR1"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_said_in_one_line_and_measured_again(what: str, home: Path, run: Run, whole: Run, say: Say) -> None:
    DAMAGE[what](run)
    with pytest.raises(BadInput, match=r"is (damaged|lost)"):
        everything(run)
    if "records" in what:
        code, _, err = say("query", run.folder, "select count(*) from records")
        assert (code, len(err.splitlines())) == (2, 1)
    visited = len(visits(run))
    again = resume(home, run)
    assert len(visits(again)) == visited + (0 if "last" in what else 3 if "all" in what else 1)
    pd.testing.assert_frame_equal(everything(again), everything(whole))
    assert again.about["finished"]
    assert not repair.find_damaged_parts(run.folder)
    assert any("removed" in line for line in run.ledger())


def test_tensors_of_a_large_run_are_checked_where_they_are_read(home: Path, run: Run, whole: Run, monkeypatch) -> None:
    monkeypatch.setattr(repair, "_WHOLE_BELOW", 0)
    unit = next(unit for unit, header in run.headers().items() if header["step"] == 1)
    path = run.folder / "directions" / f"{parts.read_holders(run.folder).parts[unit]}.safetensors"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[stored_tensors_of(path)[f"{unit}/mass_mean/resid/direction"].end - 3] ^= 8
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk that decays
    visited = len(visits(run))
    assert len(visits(resume(home, run))) == visited  # nothing had to be read
    for path in [*files(run, "significance"), *(p for p in files(run, "records") if p.stem.startswith("series-"))]:
        path.unlink()
    again = resume(home, run)
    assert len(visits(again)) == visited + 1
    pd.testing.assert_frame_equal(everything(again), everything(whole))


def as_of_an_earlier_version(run: Run) -> None:
    """One part a unit, without checksums, index, copy of run.json and format."""
    about = {key: value for key, value in run.about.items() if key != "format"}
    for name in (checksums.CHECKSUM_FILE, "index.json", "run.json.bak"):
        (run.folder / name).unlink()
    (run.folder / "run.json").write_text(json.dumps(about))


@pytest.mark.parametrize("kind", ["directions", "scores"])
def test_lost_tensors_of_an_earlier_version_are_measured_again(kind: str, home: Path, run: Run, whole: Run) -> None:
    as_of_an_earlier_version(run)
    files(run, kind)[0].unlink()
    visited = len(visits(run))
    again = resume(home, run)
    assert len(visits(again)) == visited + 1
    pd.testing.assert_frame_equal(everything(again), everything(whole))


# --- run.json ------------------------------------------------------------------------------------------------------------


def _damage_about(run: Run, content: str | None) -> None:
    for name in ("run.json", "run.json.bak"):
        if content is None:
            (run.folder / name).unlink()
        else:
            (run.folder / name).write_text(content)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"lineage": 3}', "\0"])
def test_damaged_run_json_is_read_from_the_parts(content: str | None, run: Run, whole: Run) -> None:
    _damage_about(run, content)
    pd.testing.assert_frame_equal(table(Run.open(run.folder)), table(whole))
    told = Run.open(run.folder).about
    assert told["lineage"]["name"] == whole.about["lineage"]["name"]
    assert [c["step"] for c in told["lineage"]["checkpoints"]] == [1, 2, 3]
    assert [concept["name"] for concept in told["concepts"]] == ["small"]
    assert "run.json was damaged" in told["lineage"]["notes"][0]


@pytest.mark.usefixtures("one_view")
def test_damaged_run_json_is_shown_and_written_again(home: Path, run: Run, whole: Run, say: Say) -> None:
    _damage_about(run, "{")
    assert say("report", run.folder)[0] == 0
    assert "run.json was damaged" in (run.folder / "report.html").read_text()
    assert say("show", run.folder, "emergence", "-o", run.folder.parent / "x.html")[0] == 0
    visited = len(visits(run))
    again = resume(home, run)
    assert len(visits(again)) == visited
    # A certificate of the forward pass is measured where a model is loaded.
    assert {**again.about, "parity": 0} == {**whole.about, "parity": 0}


def test_damaged_run_json_is_read_from_its_copy(run: Run, whole: Run) -> None:
    run.about_path.write_text("{")
    assert Run.open(run.folder).about == whole.about


def test_damaged_run_json_protects_a_run_from_other_settings(home: Path, run: Run) -> None:
    _damage_about(run, "{")
    rows = table(run)
    with pytest.raises(BadInput, match="holds nothing of these texts, weights and settings"):
        trace(Lineage.open(home / "few"), [Concept.from_file(home / "small.csv")], run.folder, QUICK)
    pd.testing.assert_frame_equal(table(run), rows)


def test_newer_settings_have_the_value_of_an_earlier_run(home: Path, run: Run, whole: Run, monkeypatch) -> None:
    about = run.about
    del about["settings"]["share_prefixes"]
    run.describe(about)
    visited = len(visits(run))
    assert len(visits(resume(home, run))) == visited
    assert run.about["settings"] == whole.about["settings"]
    # A setting that is newer than this version, and a newer format.
    for change, expected in (
        ({"settings": about["settings"] | {"x": 1}}, "x, which a newer"),
        ({"format": 9}, "format 9"),
    ):
        run.describe(about | change)
        with pytest.raises(BadInput, match=expected):
            resume(home, run)


def test_an_added_setting_does_not_rename_units(monkeypatch) -> None:
    from ontogeny.measurements import settings

    monkeypatch.setattr(settings, "SETTINGS_OF_EARLIER_RUNS", {"truncate": False})
    assert "truncate" not in settings.settings_for_key(FAST)
    assert settings.settings_for_key(TraceSettings(truncate=True))["truncate"] is True


def test_removed_units_are_not_missed(run: Run) -> None:
    for unit in list(parts.read_holders(run.folder).parts):
        run.drop(unit)
    assert not repair.find_damaged_parts(run.folder)
    assert len(Run(run.folder).records()) == 0


# --- config and tokenizer ------------------------------------------------------------------------------------------------


def rename(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "config": (lambda folder: rename(folder / "checkpoint-2" / "config.json", rotary_pct=0.5), 1),
    "name in the config": (lambda folder: rename(folder / "checkpoint-2" / "config.json", _name_or_path="x"), 0),
    "version in the config": (
        lambda folder: rename(folder / "checkpoint-2" / "config.json", transformers_version="9"),
        0,
    ),
    "tokenizer": (lambda folder: rename(folder / "tokenizer.json", truncation=None, normalizer={"type": "NFC"}), 3),
    "tokenizer of one": (lambda folder: shutil.copy(folder / "tokenizer.json", folder / "checkpoint-1"), 1),
    "chat template": (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"), 3),
    "nothing": (lambda folder: None, 0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_config_and_tokenizer_are_read_again(what: str, home: Path, whole: Run, tmp_path: Path, small) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    run = Run(shutil.copytree(whole.folder, tmp_path / "run"))
    change, count = CHANGES[what]
    change(folder)
    visited = len(visits(run))
    again = trace(Lineage.open(folder), [small], run.folder, FAST)
    assert len(visits(again)) == visited + count
    same(again, trace(Lineage.open(folder), [small], tmp_path / "fresh", FAST)) if count else None

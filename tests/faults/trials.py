"""One trial: interrupt a job at a point, resume it, and compare it with an uninterrupted run."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.forks import Ended, Forks
from tests.faults.injection import ENDS, MOMENTS
from tests.faults.subjects import DIARY, SUBJECTS

EXPECTED = {"kill": 137, "raise": 3, "full": 2}


@dataclass(frozen=True)
class Trial:
    subject: str
    at: int
    moment: str
    end: str


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    faults: tuple[str, ...] = ()
    """What went wrong; nothing, where all is well."""
    again: frozenset[str] = frozenset()
    """Finished units that were computed again."""

    @property
    def well(self) -> bool:
        return not self.faults and not self.again


def trials(subject: str, points: Sequence[str]) -> Iterator[Trial]:
    """Every point, moment and end; a disk is neither full after a change nor by a removal."""
    for end in ENDS:
        for at, kind in enumerate(points, start=1):
            for moment in MOMENTS:
                if end != "full" or (moment != "after" and kind != "removal"):
                    yield Trial(subject, at, moment, end)


def whole(forks: Forks, subject: str, home: Path, folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """What an uninterrupted run leaves, and how many points it has."""
    ended = forks.run(subject, home, folder / "out")
    if ended.code:
        raise RuntimeError(f"{subject} does not even run in peace: {ended.said}")
    return dict(SUBJECTS[subject].left(folder / "out")), ended.points


def attempt(forks: Forks, trial: Trial, home: Path, folder: Path, expected: dict[str, str]) -> Outcome:
    """Interrupt at a point, look, go on, compare."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = forks.run(trial.subject, home, folder / "out", at=trial.at, moment=trial.moment, end=trial.end)
    return _go_on(forks, trial, home, folder, expected, _ending(trial, ended))


def struck(
    forks: Forks,
    subject: str,
    seconds: float,
    home: Path,
    folder: Path,
    expected: dict[str, str],
    sent: signal.Signals = signal.SIGKILL,
) -> Outcome:
    """A signal from outside at a moment of its own, look, go on, compare."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = forks.run(subject, home, folder / "out", kill_after=seconds, sent=sent)
    expected_code = 130 if sent == signal.SIGINT else -sent
    faults = [] if ended.code in (0, expected_code) else [f"ended with {ended.code}: {ended.said}"]
    return _go_on(forks, Trial(subject, 0, f"{seconds:.3f} s", sent.name), home, folder, expected, faults)


def disk_trial(
    forks: Forks, trial: Trial, home: Path, folder: Path, expected: dict[str, str], free: Callable[[], object]
) -> Outcome:
    """A disk that fills up, then has room again."""
    faults = _ending(trial, forks.run(trial.subject, home, folder / "out"))
    free()
    return _go_on(forks, trial, home, folder, expected, faults)


def _go_on(
    forks: Forks, trial: Trial, home: Path, folder: Path, expected: dict[str, str], faults: list[str]
) -> Outcome:
    out, subject = folder / "out", SUBJECTS[trial.subject]
    done = subject.finished(out) if out.is_dir() else set()
    (folder / DIARY).unlink(missing_ok=True)
    resumed = forks.run(trial.subject, home, out)
    if resumed.code:
        return Outcome(trial, (*faults, f"it does not go on: {resumed.said.strip().splitlines()[-1]}"))
    again = done & recomputed(folder)
    return Outcome(trial, (*faults, *compared(subject.left(out), expected)), frozenset(again))


def recomputed(folder: Path) -> set[str]:
    diary = folder / DIARY
    return set(diary.read_text(encoding="utf-8").split()) if diary.is_file() else set()


def compared(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    names = sorted({*found, *expected})
    return [
        f"{name} differs{_how(found.get(name), expected.get(name))}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


def _how(found: str | None, expected: str | None) -> str:
    if found is None or expected is None:
        return ": missing" if found is None else ": not expected"
    lines, wanted = set(found.splitlines()), set(expected.splitlines())
    return f": {sorted(lines ^ wanted)[:2]}" if len(wanted) > 1 else ""


def _ending(trial: Trial, ended: Ended) -> list[str]:
    if ended.code != EXPECTED[trial.end]:
        return [f"ended with {ended.code}, not {EXPECTED[trial.end]}: {ended.said.strip()[-300:]}"]
    if trial.end == "full" and ("disk is full" not in ended.said or "\n" in ended.said):
        return [f"a full disk is told as {ended.said!r}"]
    return []

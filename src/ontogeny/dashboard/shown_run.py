"""Shown run: a run directory that the dashboard reads, and reads again when its records have changed."""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ontogeny.dashboard.chat_options import ChatOptions, check_chat_options
from ontogeny.errors import BadInput, unknown_name
from ontogeny.findings.selection import OWN_ROWS, RecordSource, RowFilter
from ontogeny.findings.timeline import LOSS_METRICS
from ontogeny.lineage import Lineage
from ontogeny.records import checkpoint_label
from ontogeny.sites import SITE_PARTS
from ontogeny.storage.run import Run, hold_records, open_runs

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
_MOST_RESULTS = 256
_HELD_ROWS = 300_000
"""Rows of records that are held in memory."""
_RECENT = 0.25
"""Seconds before the list of records is read again."""


class ShownRun:
    """A run with its timeline and the results that were computed from its present records.

    Args:
        name: Its name in addresses and on the page.
        run: The run directory.
        lineage: Where checkpoints are that the run names at places which are gone or remote.
    """

    def __init__(self, name: str, run: Run, lineage: Lineage | None = None) -> None:
        self.name, self.run, self.lineage = name, run, lineage
        self.lock, self._apart = threading.RLock(), threading.RLock()
        self._version = ""
        self._looked = -math.inf, ""
        self._results: OrderedDict[object, Any] = OrderedDict()
        self._tools: dict[str, Any] = {}
        self.asked = time.monotonic()
        """When a page last asked for something of this run."""
        self.closed = threading.Event()
        """Set when the dashboard ends."""

    def version(self) -> str:
        """Digest of the names and times of its records: it changes when a job adds some."""
        files = [self.run.about_path, *sorted((self.run.folder / "records").glob("*.parquet"))]
        seen = hashlib.sha256()
        for file in files:
            try:
                seen.update(f"{file.name} {file.stat().st_mtime_ns}\n".encode())
            except OSError:  # replaced while it was listed
                continue
        version = seen.hexdigest()[:16]
        self._looked = time.monotonic(), version
        return version

    def _recent_version(self) -> str:
        """The version of a moment ago: a run of many parts has thousands of files, and a step of the slider asks for several results."""
        looked, version = self._looked
        return version if time.monotonic() - looked < _RECENT else self.version()

    def result(self, key: object, compute: Callable[[], _T], *, apart: bool = False) -> _T:
        """A result that is computed once for the present records; one at a time for a run.

        Args:
            key: Names it.
            compute: Computes it.
            apart: Whether others may be computed meanwhile.
        """
        if (known_result := self.known(key)) is not None:  # what is known does not wait for what is computed
            found: _T = known_result
            return found
        if apart:
            with self._apart:
                version = self.version()
                if self.known(key) is None:
                    value = compute()
                    self.result(key, lambda: value if self.version() == version else compute())
        with self.lock:
            if (version := self._recent_version()) != self._version:
                self._version = version
                self._results.clear()
            if key not in self._results:
                self._results[key] = compute()
                if len(self._results) > _MOST_RESULTS:
                    self._results.popitem(last=False)
            known: _T = self._results[key]
            return known

    def known(self, key: object) -> Any:
        """The result for the present records if it was computed, else None."""
        return self._results.get(key) if self._recent_version() == self._version else None

    def tool(self, name: str, make: Callable[[], _T]) -> _T:
        """An object that lives as long as the dashboard, such as a model in memory; made at its first use."""
        with self.lock:
            if name not in self._tools:
                self._tools[name] = make()
            known: _T = self._tools[name]
            return known

    @property
    def about(self) -> Mapping[str, Any]:
        """The content of run.json."""
        return self.result("about", lambda: self.run.about)

    def query(self, sql: str) -> "pd.DataFrame":
        """Run SQL over the view `records` of its present records; few records are held in memory, since a page asks dozens of queries."""
        ask: Callable[[str], pd.DataFrame] = self.result("query", self._choose_query)
        return ask(sql)

    def _choose_query(self) -> "Callable[[str], pd.DataFrame]":
        rows = int(self.run.query("select count(*) as n from records")["n"].iloc[0])
        return hold_records({self.run.folder.name: self.run.folder}) if rows <= _HELD_ROWS else self.run.query

    def source(self, only: RowFilter = RowFilter()) -> RecordSource:  # noqa: B008
        """Its records by condition, of all rows or of a part."""
        return self.result(("source", only), lambda: RecordSource(self.query, self.about, only=only))

    def describe(self) -> dict[str, Any]:
        """Choices of a page: checkpoints on the time axis, concepts, metrics with their parts and probes."""
        return self.result("describe", self._describe)

    def _describe(self) -> dict[str, Any]:
        line, about = self.source().line, self.about
        several = len(line.stages) > 1
        columns = (line.moments[name].tolist() for name in ("stage", "step", "tokens", "age"))
        checkpoints = [
            {
                "stage": stage,
                "step": step,
                "label": checkpoint_label(stage if several else "", None if step % 1 else step),
                "tokens": None if math.isnan(tokens) else tokens,
                "age": round(age, 5),
            }
            for stage, step, tokens, age in zip(*columns, strict=True)
        ]
        ticks = [int(i) for i in line.ticks(9).index]
        named = [str(concept["name"]) for concept in about.get("concepts", [])]
        measured = self.query(
            "select metric, split_part(site, '.', 1) as part, method, list(distinct concept) as concepts from records "
            f"where site is not null and layer is not null and (step is not null or stage is not null) and {OWN_ROWS} "
            "group by all order by all"
        )
        metrics: dict[str, dict[str, list[str]]] = {}
        cells = measured[~measured["metric"].isin([*LOSS_METRICS, *_NO_CELLS])]
        for metric, part, method in zip(*(cells[name].tolist() for name in ("metric", "part", "method")), strict=True):
            methods = metrics.setdefault(metric, {}).setdefault(part, [])
            methods += [method] if isinstance(method, str) else []
        for metric, parts in metrics.items():
            metrics[metric] = dict(sorted(parts.items(), key=lambda entry: (*SITE_PARTS, entry[0]).index(entry[0])))
        concepts = {str(name) for names in measured["concepts"] for name in names if name is not None}
        return {
            "name": self.name,
            "lineage": str(about.get("lineage", {}).get("name") or self.name),
            "finished": bool(about.get("finished", True)),
            "stages": [stage.name for stage in line.stages],
            "checkpoints": checkpoints,
            "ticks": ticks,
            "concepts": list(dict.fromkeys([*named, *sorted(concepts - set(named))])),
            "metrics": metrics,
            "failures": len(about.get("failures") or []),
        }


_NO_CELLS = (
    "best_site",
    "stage_best_site",
    "earliest_site",
    "change_point",
    "emergence_step",
    "loss_step",
    "token_score",
)
"""Metrics of a series or of a token, which are no cell of a layer at a checkpoint."""


class ShownRuns:
    """The runs of a dashboard; a name from an address is only ever looked up here."""

    def __init__(
        self, folders: Iterable[str | Path], chat: ChatOptions | None = None, lineage: Lineage | None = None
    ) -> None:
        """Open the runs.

        Args:
            folders: Run directories.
            chat: Options of their chats.
            lineage: Where checkpoints are that the runs name at places which are gone or remote.

        Raises:
            BadInput: one of them is not a run directory, is given twice, or none is given; an option of chats names an unknown concept; the
                lineage has no checkpoint of a run.
        """
        opened = open_runs(folders).members
        self.members: dict[str, ShownRun] = {name: ShownRun(name, run, lineage) for name, run in opened.items()}
        if lineage is not None:
            _check_lineage(lineage, opened.values())
        self.chat = chat or ChatOptions()
        check_chat_options(
            self.chat, (entry for run in self.members.values() for entry in run.about.get("concepts", ()))
        )

    def __getitem__(self, name: str) -> ShownRun:
        if name not in self.members:
            raise unknown_name("run", name, self.members)
        return self.members[name]

    @property
    def first(self) -> ShownRun:
        return next(iter(self.members.values()))

    def close(self) -> None:
        """Let work in the background end."""
        for shown in self.members.values():
            shown.closed.set()


def _check_lineage(lineage: Lineage, runs: Iterable[Run]) -> None:
    """Raise BadInput if a lineage has no checkpoint of any of the runs."""
    listed = [entry for run in runs for entry in run.about.get("lineage", {}).get("checkpoints") or []]
    places = {(entry.get("stage"), entry.get("step")) for entry in listed}
    if places and not any((one.stage, one.step) in places for one in lineage.checkpoints):
        own = ", ".join(dict.fromkeys(str(stage) for stage, _ in sorted(places, key=str)))
        raise BadInput(
            f"`lineage` must have checkpoints of the runs (stages {own[:200]}), got {lineage.name} with others: give their lineage.toml.",
            argument="lineage",
        )

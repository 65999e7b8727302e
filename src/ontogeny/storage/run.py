"""Run directory: the results of a job, read as a table, as charts and as directions.

run.json                 lineage, concepts, settings, versions, machine, command; no token, no secret
records/*.parquet        one part per unit, written last: a unit is done once its part exists
directions/*.safetensors directions of each probe, all sites of a unit in one file
scores/*.safetensors     held-out scores of each unit, for intervals across checkpoints
ledger.jsonl             one line per checkpoint: forward passes, tokens, seconds
checksums.jsonl          checksum of every file above but run.json and the ledger
"""

import atexit
import contextlib
import glob
import importlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ontogeny import plugins
from ontogeny.errors import BadInput, unknown_name
from ontogeny.notebook import rich_html
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.storage import checksums, parts
from ontogeny.storage.failures import Failure, failures_in
from ontogeny.storage.files import (
    RecordBlock,
    connect_records,
    disk_errors,
    hide_progress_bar,
    read_tensor_header,
    set_records_view,
    write_json,
    write_records,
    write_tensors,
)
from ontogeny.storage.rebuild import about_from_parts
from ontogeny.storage.record_filter import ColumnValue, column_condition, sql_text

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.direction import Direction


RUN_FORMAT = 2
"""Version of the layout of a run directory: 1 has no checksums and one part a unit, and is read and continued as well."""
_VECTORS = 32
"""Vectors of 2,048 rows that are fetched at once."""
_READ_AHEAD = 3
"""Tensors that are read before they are asked for."""
_RUN_PARTS = (
    "run.json",
    "run.json.bak",
    "records",
    "directions",
    "scores",
    "significance",
    "index.json",
    "ledger.jsonl",
    "checksums.jsonl",
    "alerts.jsonl",
    "weights.json",
    "finished.json",
    ".lock",
)


@dataclass(frozen=True)
class Run:
    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open an existing run directory.

        Raises:
            BadInput: `folder` is not a run directory, or its run.json cannot be read.
        """
        run = cls(Path(folder))
        if not run.exists():
            raise BadInput(
                f"{folder} is not a run directory (it has no run.json): make one with `ontogeny trace`, or name another folder."
            )
        if not all(isinstance(concept, dict) and "name" in concept for concept in run.about.get("concepts", ())):
            raise BadInput(f"{run.about_path} cannot be read (its concepts have no names): restore it, or trace again.")
        return run

    @property
    def about_path(self) -> Path:
        return self.folder / "run.json"

    @property
    def copy_path(self) -> Path:
        return self.folder / "run.json.bak"

    def exists(self) -> bool:
        """Whether the folder holds a run, also one whose run.json is lost."""
        return self.about_path.is_file() or self.copy_path.is_file() or bool(parts.part_names(self.folder, "records"))

    @property
    def about(self) -> dict[str, Any]:
        """The content of run.json; if it is damaged or lost, of its copy, or what the parts tell.

        Raises:
            BadInput: none of them can be read, or a newer version wrote the run.
        """
        try:
            about = _read_about(self.about_path)
        except (OSError, ValueError, RecursionError) as error:
            about = self._about_elsewhere(error)
        if (version := about.get("format", 1)) not in range(1, RUN_FORMAT + 1):
            raise BadInput(
                f"{self.folder} has the format {version}, which a newer ontogeny wrote: update this one to read it."
            )
        return about

    def _about_elsewhere(self, error: Exception) -> dict[str, Any]:
        """Content of a damaged run.json, from its copy or from the parts; `error` is its fault."""
        try:
            return _read_about(self.copy_path)
        except (OSError, ValueError, RecursionError):
            pass
        try:
            names = self.query("select distinct lineage, concept from records")
            lineages, concepts = (sorted(map(str, names[column].dropna().unique())) for column in names)
            if lineages:
                return about_from_parts(self.headers(), lineages, concepts)
        except BadInput:
            pass
        raise BadInput(
            f"{self.about_path} cannot be read ({error}): restore it, or trace into another folder."
        ) from None

    # --- reading ---------------------------------------------------------------------------------------------------------

    @property
    def failures(self) -> list[Failure]:
        """Checkpoints or studies that could not be measured, each with its reason."""
        return failures_in(self.about)

    def records(
        self,
        where: str = "true",
        *,
        metric: ColumnValue = ...,
        concept: ColumnValue = ...,
        site: ColumnValue = ...,
        stage: ColumnValue = ...,
        step: ColumnValue = ...,
        method: ColumnValue = ...,
        control: ColumnValue = ...,
        split: ColumnValue = ...,
    ) -> "pd.DataFrame":
        """Records as a table, one measurement per row: `run.records(metric="auroc", control=None)`.

        The same rows are an Arrow stream: `polars.DataFrame(run)`, `pyarrow.table(run)`.

        Args:
            where: A further SQL condition: `"value > 0.9"`.
            metric, concept, site, stage, step, method, control, split: Value of the column, a list of values, or None for an empty cell
                (`control=None`: the measurements themselves); any value by default.

        Raises:
            BadInput: the condition is invalid.
        """
        columns = {"metric": metric, "concept": concept, "site": site, "stage": stage}
        columns |= {"step": step, "method": method, "control": control, "split": split}
        return self.query(f"select * exclude (run) from records where {column_condition(where, columns)}")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """All records as a stream of the Arrow C interface, which polars, pyarrow and others read."""
        return records_stream({self.folder.name: self.folder}, requested_schema)

    def query(self, sql: str) -> "pd.DataFrame":
        """Run SQL over the view `records`."""
        return query_records({self.folder.name: self.folder}, sql)

    def show(
        self,
        view: str,
        *,
        concepts: Sequence[str] = (),
        sites: Sequence[str] = (),
        stages: Sequence[str] = (),
        step: int | None = None,
    ) -> Any:
        """Draw the records as an Altair chart: `run.show("emergence", concepts=["truth"])`.

        Args:
            view: Name of a view.
            concepts: Concepts that are drawn; all by default.
            sites: Sites (`resid.3`) or parts (`attn`) in place of each concept's best site.
            stages: Stages that are drawn; all by default.
            step: The one checkpoint that is drawn; all, or the last, by default.

        Raises:
            BadInput: no such view, or the run has no such concept, site, stage or step.
        """
        only = _row_filter(concepts, sites, stages, step)
        only.check(self.query)
        return _draw(view, _source(self, only=only).rows)

    def monitor(
        self,
        concept: str,
        *,
        fpr: float = 0.01,
        method: str | None = None,
        site: str | None = None,
        stage: str | None = None,
        step: int | None = None,
    ) -> Any:
        """The probe of a concept as a monitor that can be saved: `run.monitor("refusal", fpr=0.05).save("monitor")`.

        Args:
            concept: A concept of two classes.
            fpr: False-positive rate for which the threshold is set, on held-out negatives.
            method: logistic or mass_mean; by default the first that was traced.
            site: Of the residual stream; by default the best one on the training examples.
            stage, step: The checkpoint; by default the last one.

        Raises:
            BadInput: the run lacks one of these, no site reads the concept, or the rate needs more negatives.
        """
        module = importlib.import_module("ontogeny.jobs.monitor.linear_monitor")
        made: Monitor = module.make_monitor(self, concept, fpr=fpr, method=method, site=site, stage=stage, step=step)
        return made

    def direction(
        self,
        concept: str,
        *,
        site: str | None = None,
        step: int | None = None,
        method: str = "mass_mean",
        stage: str | None = None,
    ) -> "Direction":
        """The direction that the probe `method` learned for a concept; by default at its best site and the last checkpoint.

        Raises:
            BadInput: the run lacks this concept, stage, step, site or method.
        """
        from ontogeny.direction import Direction

        units = [(unit, header) for unit, header in sorted(self.headers().items()) if header["concept"] == concept]
        if not units:
            raise unknown_name("traced concept", concept, {str(c["name"]) for c in self.about["concepts"]})
        stages = {u[1]["stage"] for u in units}
        if stage is not None and stage not in stages:
            raise unknown_name("stage", stage, stages)
        units = [u for u in units if stage in (None, u[1]["stage"])]
        steps = {u[1]["step"] for u in units}
        if step is not None and step not in steps:
            known = ", ".join(map(str, sorted(steps - {None}))) or "none with a step"
            raise BadInput(f"{concept} was not traced at step {step}; known: {known}.")
        unit, header = max((u for u in units if step in (None, u[1]["step"])), key=lambda u: u[1]["order"])
        wanted = Site.parse(site) if site else self._best_site(concept)
        names = header["sites"].get(wanted.part, [])
        if str(wanted) not in names:
            raise BadInput(
                f"{wanted} was not traced; known: {', '.join(n for group in header['sites'].values() for n in group)[:300]}."
            )
        if method not in header["methods"]:
            raise unknown_name("method in this run", method, header["methods"])
        key, at = f"{method}/{wanted.part}", names.index(str(wanted))
        facts = {name.rsplit("/", 1)[1]: name for name in header["tensors"] if name.startswith(f"{key}/facts/")}
        tensors = self.directions(unit, [f"{key}/direction", *facts.values()])
        vector = tensors[f"{key}/direction"][at]
        if vector.shape[-1] != 1:
            raise BadInput(
                f"{concept} must have two classes for a direction, got {vector.shape[-1]}: read the matrix with `Run.directions`."
            )
        entry: Mapping[str, Any] = next((c for c in self.about["concepts"] if c["name"] == concept), {})
        classes = entry.get("classes", ())
        # Cross-fitting keeps the fit on all groups beside those of its folds.
        is_fitted_on_all = f"{key}/folds/direction" in header["tensors"]
        return Direction(
            vector=vector[:, 0],
            site=wanted,
            origin=f"{concept}@{header['checkpoint']}/{method}",
            scale=header["methods"][method],
            position=header["position"],
            facts={name: float(tensors[key][at]) for name, key in facts.items() if tensors[key][at].numel() == 1},
            sign=str(classes[1]) if len(classes) == 2 else "",
            tokenizer=header.get("tokenizer", ""),
            fitted_on=str(entry.get("hash", "")) if is_fitted_on_all else "",
        )

    def _best_site(self, concept: str) -> Site:
        found = self.records(f"metric = 'best_site' and concept = {sql_text(concept)}")
        if found.empty:
            raise BadInput(f"{concept} has no best site yet (the trace has not finished): set `site`, such as resid.3.")
        return Site.parse(str(found.site.iloc[0]))

    def _repr_html_(self) -> str:
        return rich_html("run", self)

    # --- writing ---------------------------------------------------------------------------------------------------------

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write run.json, and its copy."""
        for path in (self.about_path, self.copy_path):
            write_json(path, about)

    def done(self, unit: str) -> bool:
        """Whether the unit is finished: its part is written last, by a rename."""
        return unit in parts.read_holders(self.folder).parts

    def headers(self) -> dict[str, Mapping[str, Any]]:
        """Header of the directions of each finished unit.

        Raises:
            BadInput: a header lacks a key, or its file is damaged.
        """
        finished = parts.read_holders(self.folder).parts
        return {unit: header for unit, header in parts.read_headers(self.folder).items() if unit in finished}

    def keep(
        self,
        unit: str,
        records: Iterable[Record | RecordBlock],
        *,
        header: Mapping[str, Any] | None = None,
        directions: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the results of a unit; its records last, since they mark it as done."""
        for old in self._older_units(unit, header) if directions and header else []:
            self.drop(old)
        own = {**(header or {}), "tensors": sorted(directions)} if directions else None
        with parts.adding_unit(self.folder, unit, own):
            for kind, tensors in (("directions", directions), ("scores", scores)):
                if tensors:
                    own_header = {**(header or {}), "tensors": sorted(tensors)}
                    path = self.folder / kind / f"{unit}.safetensors"
                    write_tensors(path, tensors, own_header, writer=checksums.atomic_part)
            path = self.folder / "records" / f"{unit}.parquet"
            write_records(path, records, writer=checksums.atomic_part)

    def adopt(self, other: "Run", unit: str) -> None:
        """Move a finished unit here from another run directory on the same disk; its records last.

        Raises:
            DamagedPart: one of its files is not what was written there.
        """
        source = other.folder / "directions" / f"{unit}.safetensors"
        header = read_tensor_header(source) if source.is_file() else None
        for old in self._older_units(unit, header) if header else []:
            self.drop(old)
        with parts.adding_unit(self.folder, unit, header):
            for kind, ending in (("directions", "safetensors"), ("scores", "safetensors"), ("records", "parquet")):
                source = other.folder / kind / f"{unit}.{ending}"
                if source.is_file():
                    (self.folder / kind).mkdir(parents=True, exist_ok=True)
                    checksums.enter_move(source, self.folder / kind / source.name)
                    os.replace(source, self.folder / kind / source.name)

    def _older_units(self, unit: str, header: Mapping[str, Any]) -> list[str]:
        """Units of the same concept and checkpoint, whose weights have changed since."""
        keys = ("concept", "stage", "checkpoint")
        place = [header[key] for key in keys]
        headers = parts.read_headers(self.folder)
        return [old for old, other in headers.items() if old != unit and [other[key] for key in keys] == place]

    def drop(self, unit: str) -> None:
        """Remove a unit; its records first, since they mark it as done."""
        parts.drop_unit(self.folder, unit)

    def compact_checkpoint(self, stage: str | None, checkpoint: str, units: Sequence[str]) -> None:
        """Merge the unit parts of one checkpoint."""
        parts.compact_checkpoint(self.folder, stage, checkpoint, units)

    def compact(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Merge the unit parts of each checkpoint into one part; what is finished stays finished if it is interrupted."""
        parts.remove_stale_parts(self.folder)
        holders = parts.read_holders(self.folder).parts
        places: dict[tuple[str | None, str], list[str]] = {}
        for unit, header in self.headers().items():
            if holders[unit] == unit:
                places.setdefault((header["stage"], header["checkpoint"]), []).append(unit)
        for done, ((stage, checkpoint), units) in enumerate(places.items()):
            on_progress(done, len(places))
            parts.compact_checkpoint(self.folder, stage, checkpoint, units)
        parts.save_index(self.folder)

    def scores(self, unit: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        return parts.read_unit_tensors(self.folder, "scores", unit, names)

    def directions(self, unit: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        return parts.read_unit_tensors(self.folder, "directions", unit, names)

    def tensor_rows(self, kind: str, unit: str, name: str, rows: slice) -> Any:
        """Rows of one tensor of a unit; `kind` is "directions" or "scores"."""
        return parts.read_unit_rows(self.folder, kind, unit, name, rows)

    def each_tensor(self, kind: str, units: Iterable[str], name: str) -> Iterator[Any]:
        """One tensor of each unit, in order; the next ones are read while the caller works with one."""
        with ThreadPoolExecutor(1) as pool:
            reading: deque[Future[Any]] = deque()
            for unit in units:
                reading.append(pool.submit(self.tensor_rows, kind, unit, name, slice(None)))
                if len(reading) > _READ_AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()

    def forget(self, prefix: str, *, but: str) -> None:
        """Remove the records of superseded summaries, such as one over fewer checkpoints."""
        for path in (self.folder / "records").glob(f"{prefix}*.parquet"):
            if path.stem != but:
                parts.drop_unit(self.folder, path.stem)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the ledger."""
        with disk_errors(self.folder):
            checksums.append_lines(self._ledger, json.dumps(entry, default=str) + "\n")

    def ledger(self) -> list[dict[str, Any]]:
        """Lines of the ledger; one that was cut off is left out."""
        lines = self._ledger.read_text(encoding="utf-8").splitlines() if self._ledger.is_file() else []
        return [entry for line in lines if (entry := _entry(line))]

    @property
    def _ledger(self) -> Path:
        return self.folder / "ledger.jsonl"


@dataclass(frozen=True)
class Runs:
    """Several run directories as one table with the column `run`."""

    members: Mapping[str, Run]

    def records(
        self,
        where: str = "true",
        *,
        metric: ColumnValue = ...,
        concept: ColumnValue = ...,
        site: ColumnValue = ...,
        stage: ColumnValue = ...,
        step: ColumnValue = ...,
        method: ColumnValue = ...,
        control: ColumnValue = ...,
        split: ColumnValue = ...,
    ) -> "pd.DataFrame":
        """Records of all runs, with the column `run`; arguments as `Run.records`."""
        columns = {"metric": metric, "concept": concept, "site": site, "stage": stage}
        columns |= {"step": step, "method": method, "control": control, "split": split}
        return self.query(f"select * from records where {column_condition(where, columns)}")

    def query(self, sql: str) -> "pd.DataFrame":
        """Run SQL over the view `records` of all runs."""
        return query_records(self._folders, sql)

    def query_ends(self, sql: str, most: int) -> "tuple[pd.DataFrame, int]":
        """The first and the last `most` rows of a query, and the number of its rows."""
        return query_ends(self._folders, sql, most)

    @property
    def _folders(self) -> dict[str, Path]:
        return {name: run.folder for name, run in self.members.items()}

    def table(self, where: str = "true", only: Any = None) -> "pd.DataFrame":
        """Records in the order of each run, then a row for each checkpoint; lineages of the same name and seed are named after their run.

        Args:
            where: A condition as in ontogeny.findings.selection.
            only: A `RowFilter` of ontogeny.findings.selection.
        """
        import pandas as pd

        timeline = importlib.import_module("ontogeny.findings.timeline")
        checkpoints = pd.concat([_source(run, only=only).rows("false").astype(object) for run in self.members.values()])
        line = timeline.make_timeline(checkpoints.infer_objects())
        tables = [_source(run, line, only).rows(where).assign(run=name) for name, run in self.members.items()]
        # A column that is empty in one run has no type there: the other runs decide.
        rows: pd.DataFrame = pd.concat([table.astype(object) for table in tables], ignore_index=True).infer_objects()
        who = rows[rows["step"].notna()][["lineage", "train_seed", "run"]].drop_duplicates()
        if who.duplicated(["lineage", "train_seed"]).any():
            rows["lineage"] = rows["run"]
        return rows

    def show(
        self,
        view: str,
        *,
        concepts: Sequence[str] = (),
        sites: Sequence[str] = (),
        stages: Sequence[str] = (),
        step: int | None = None,
    ) -> Any:
        """Draw all runs in one Altair chart: `open_runs(["runs/a", "runs/b"]).show("seeds")`; arguments as `Run.show`."""
        only = _row_filter(concepts, sites, stages, step)
        only.check(self.query)
        return _draw(view, lambda where: self.table(where, only))


# Views and findings are on higher floors: a method of `Run` that is convenient in a notebook imports them by name.
def _draw(view: str, rows: Callable[[str], "pd.DataFrame"]) -> Any:
    plugins.load_plugin("views", view)  # raises with the known views if there is no such view
    loaded = importlib.import_module("ontogeny.views").load_view(view)
    return loaded.draw(rows(loaded.where))


def _source(run: Run, line: Any = None, only: Any = None) -> Any:
    selection = importlib.import_module("ontogeny.findings.selection")
    return selection.RecordSource(run.query, run.about, line, only or selection.ALL_ROWS)


def _row_filter(concepts: Sequence[str], sites: Sequence[str], stages: Sequence[str], step: int | None) -> Any:
    selection = importlib.import_module("ontogeny.findings.selection")
    # A single name is a sequence of letters.
    names = ((given,) if isinstance(given, str) else tuple(given) for given in (concepts, sites, stages))
    return selection.RowFilter(*names, step)


def open_run(folder: str | Path) -> Run:
    """Open a run directory.

    Args:
        folder: What `trace` and the other jobs wrote.

    Raises:
        BadInput: the folder is not a run directory, or its run.json cannot be read.
    """
    return Run.open(folder)


def open_runs(folders: Iterable[str | Path]) -> Runs:
    """Open several runs as one table; each is named by its folder, or by its path if two folders have one name.

    Raises:
        BadInput: no folder, one that is not a run directory, or one that is given twice.
    """
    if isinstance(folders, str | Path):
        raise BadInput(f"`folders` must be a list of run directories, got {folders!r}: put it in brackets.")
    if not (opened := [Run.open(folder) for folder in folders]):
        raise BadInput("`folders` must name at least one run directory, got none: name one.")
    places = [run.folder.resolve() for run in opened]
    if twice := [place for place in places if places.count(place) > 1]:
        raise BadInput(f"each run must be named once, got {twice[0]} twice: remove one.")
    short = [place.name for place in places]
    names = short if len(set(short)) == len(short) else [str(run.folder) for run in opened]
    return Runs(dict(zip(names, opened, strict=True)))


def _read_about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    _check_about(about)
    return about


def _check_about(about: Any) -> None:
    """Raise unless `about` has the structure that `describe` writes."""
    if not isinstance(about, dict):
        raise ValueError(f"it is a {type(about).__name__}, not an object")
    for key, kind in (("lineage", dict), ("concepts", list), ("settings", dict)):
        if not isinstance(about.get(key, kind()), kind):
            raise ValueError(f"its {key!r} is not a {kind.__name__}")


def _entry(line: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def check_output(path: Path) -> None:
    """Raise `BadInput` if a chart or a report at this path would replace a part of a run directory."""
    place = path.resolve()
    for folder in place.parents:
        if (folder / "run.json").is_file() and place.relative_to(folder).parts[0] in _RUN_PARTS:
            raise BadInput(f"`out` must not be a part of the run {folder}, got {path}: give another name.")


def query_records(folders: Mapping[str, Path], sql: str) -> "pd.DataFrame":
    """Run SQL over the records of one or several runs, with the column `run`. It writes nothing and reads no other file.

    Raises:
        BadInput: the SQL is invalid or writes; the message is DuckDB's.
    """
    return _table(lambda: _locked_connection(folders), sql)


def hold_records(folders: Mapping[str, Path]) -> "Callable[[str], pd.DataFrame]":
    """Copy the records of runs into memory, about 400 bytes a row; the result runs SQL over the copy, as `query_records` over the files.

    Raises:
        BadInput: the records cannot be read.
    """
    import duckdb

    try:
        connection = connect_records({name: parts.record_parts(folder) for name, folder in folders.items()})
        connection.execute("create table copy as from records; drop view records; alter table copy rename to records")
        _lock_connection(connection, [])
    except duckdb.Error as error:
        raise _unreadable(error) from None
    place = tuple(folders.values())
    _copies[place] = connection
    return lambda sql: _table(lambda: _copies[place], sql)


_copies: dict[tuple[Path, ...], Any] = {}
"""The last copy of the records of each set of runs, as a locked connection."""
atexit.register(_copies.clear)


def query_ends(folders: Mapping[str, Path], sql: str, most: int) -> "tuple[pd.DataFrame, int]":
    """The first and the last `most` rows of a query, and the number of its rows; the rows between are not kept in memory.

    Raises:
        BadInput: as `query_records`.
    """
    import pandas as pd

    with _result(lambda: _locked_connection(folders), sql) as result:
        chunk = first = result.fetch_df_chunk(_VECTORS)
        last, count = first.iloc[:0], len(first)
        while len(chunk):
            last = pd.concat([last, chunk]).iloc[-most:] if len(last) else chunk.iloc[-most:]
            chunk = result.fetch_df_chunk(_VECTORS)
            count += len(chunk)
    first = first.iloc[:most]
    rest = count - len(first)
    return (pd.concat([first, last.iloc[-rest:]], ignore_index=True) if rest else first), count


def records_stream(folders: Mapping[str, Path], requested_schema: object = None) -> object:
    """The records of one or several runs as a stream of the Arrow C interface.

    Raises:
        BadInput: the records cannot be read.
    """
    import duckdb

    try:
        connection = connect_records({name: parts.record_parts(folder) for name, folder in folders.items()})
        relation = connection.sql("select * exclude (run) from records")
        return relation.__arrow_c_stream__(requested_schema)
    except duckdb.Error as error:
        raise _unreadable(error) from None


def _table(connect: Callable[[], Any], sql: str) -> "pd.DataFrame":
    with _result(connect, sql) as result:
        table: pd.DataFrame = result.df()
    return table


@contextlib.contextmanager
def _result(connect: Callable[[], Any], sql: str) -> Iterator[Any]:
    """The result of a query, before its rows are fetched; `connect` gives a locked connection."""
    import duckdb

    if re.search("[\ud800-\udfff]", sql):
        raise BadInput(f"a query must be text in UTF-8, got {sql[:60]!a}: set the locale to one such as C.UTF-8.")
    try:
        connection = connect().cursor()
    except duckdb.Error as error:
        raise _unreadable(error) from None
    with connection:
        try:
            statements = connection.extract_statements(sql)
            one = [statement.type.name for statement in statements] in (["SELECT"], ["MULTI"])  # a pivot is MULTI
            if not one or _writes(sql):
                raise BadInput(
                    f"a query must be one statement that changes nothing, got {sql[:60]!r}: begin with select, from or with."
                )
            yield _execute(connection, statements[0])
        except (duckdb.InterruptException, RuntimeError) as error:
            if "interrupted" not in str(error).lower():
                raise
            raise KeyboardInterrupt from None  # rows that are fetched: there DuckDB takes Ctrl-C in the place of Python
        except duckdb.Error as error:
            if ".parquet'" in str(error):  # creating the view opens no part
                raise _unreadable(error) from None
            raise BadInput(
                f"the query cannot be run: {str(error).splitlines()[0]}. The view is called records; its columns are in docs/records.md."
            ) from None


def _execute(connection: Any, statement: Any) -> Any:
    """Execute a statement in another thread: this one may wait in DuckDB without asking for signals, and Ctrl-C would have no effect."""
    with ThreadPoolExecutor(1) as pool:
        execution = pool.submit(connection.execute, statement)
        try:
            return execution.result()
        except KeyboardInterrupt:
            while not execution.done():  # again and again, since a query that is about to begin takes no interrupt
                connection.interrupt()
                time.sleep(0.02)
            raise


_connections: dict[int, tuple[object, object, Any]] = {}
"""The last locked connection of each process, with the folders and the parts that it reads."""
atexit.register(_connections.clear)


def _locked_connection(folders: Mapping[str, Path]) -> Any:
    """A connection that reads these runs only; the same one for further queries, so that it reads the footers of their parts once.

    New parts of the same runs do not need another database: DuckDB gives the free memory of the whole process back to the system when one
    is closed, and a training in this process would have to ask for it again.
    """
    files = {name: parts.record_parts(folder) for name, folder in folders.items()}
    places = {name: folder.absolute() for name, folder in folders.items()}
    known_places, known_files, connection = _connections.get(os.getpid(), (None, None, None))
    if known_places != places:
        connection = connect_records(files)
        connection.execute(
            "set global parquet_metadata_cache = true"
        )  # a part that is replaced has another time, and is read again
        _lock_connection(connection, [folder / "records" for folder in folders.values()])
    elif known_files != files:
        set_records_view(connection, files)
    _connections[os.getpid()] = places, files, connection
    return connection


def _lock_connection(connection: Any, folders: Iterable[Path]) -> None:
    """Let a DuckDB connection read these folders only: no other file, no extension, no network, no variable of Python."""
    places = {str(place) for folder in folders for place in (folder, folder.resolve())}
    # DuckDB compares a pattern as it is written with the allowed folders.
    allowed = ", ".join(sql_text(place) for place in sorted(places | set(map(glob.escape, places))))
    hide_progress_bar(connection)
    for setting in (
        "python_enable_replacements = false",
        f"allowed_directories = [{allowed}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"set {setting}")


def _writes(sql: str) -> bool:
    """Whether a statement has a clause that writes: in DuckDB 2, a CTE may be a COPY to a file of an allowed folder."""
    import duckdb

    text = sql.encode()
    # A quoted name, a text and a comment are tokens that begin with another character.
    words = (re.match(rb"\w*", text[start:]) for start, _ in duckdb.tokenize(sql))
    return any(word and word[0].lower() in (b"copy", b"insert", b"update", b"delete", b"merge") for word in words)


def _unreadable(error: Exception) -> BadInput:
    return BadInput(
        f"the records cannot be read ({str(error).splitlines()[0]}): remove the part that is named and trace again."
    )

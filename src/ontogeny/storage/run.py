"""A run directory: what a job leaves behind, readable as a table, as pictures and as directions.

run.json                 what was run: lineage, concepts, settings, versions, machine, command; no token, no secret
records/*.parquet        one part a work unit; the part is the commit point, so what exists is done
directions/*.safetensors what each fit learned, all sites of a unit in one file
scores/*.safetensors     held-out scores of each unit: what intervals across checkpoints are made from
ledger.jsonl             one line a visit: forwards, tokens, seconds
"""

import importlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ontogeny import plugins
from ontogeny.errors import BadInput, unknown_name
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.storage.files import (
    connect_records,
    disk_errors,
    read_tensor_header,
    read_tensors,
    write_json,
    write_records,
    write_tensors,
)

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.direction import Direction


_UNIT_HEADER_KEYS = ("concept", "stage", "checkpoint", "step", "order", "sites", "methods")
"""What the header of a unit's directions holds at least."""


@dataclass(frozen=True)
class Run:
    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """An existing run directory.

        Raises:
            BadInput: there is none at `folder`, or its run.json cannot be read.
        """
        run = cls(Path(folder))
        if not run.about_path.is_file():
            raise BadInput(
                f"{folder} is no run directory (it has no run.json). Make one with: ontogeny trace LINEAGE -c CONCEPT --out {folder}"
            )
        if not all(isinstance(concept, dict) and "name" in concept for concept in run.about.get("concepts", ())):
            raise BadInput(f"{run.about_path} cannot be read (its concepts have no names). Restore it, or trace anew.")
        return run

    @property
    def about_path(self) -> Path:
        return self.folder / "run.json"

    @property
    def about(self) -> dict[str, Any]:
        """What was run, as in run.json."""
        try:
            about: dict[str, Any] = json.loads(self.about_path.read_text(encoding="utf-8"))
            _check_about(about)
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(
                f"{self.about_path} cannot be read ({error}). Restore it, or trace into another folder."
            ) from None
        return about

    # --- reading ---------------------------------------------------------------------------------------------------------

    def records(self, where: str = "true") -> "pd.DataFrame":
        """The table of records, or the rows for which an SQL condition holds: `run.records("metric = 'auroc'")`."""
        return self.query(f"select * exclude (run) from records where {where}")

    def query(self, sql: str) -> "pd.DataFrame":
        """Any SQL over the view `records`."""
        return query_records({self.folder.name: self.folder}, sql)

    def show(self, view: str) -> Any:
        """A picture of the records, an Altair chart: `run.show("emergence")`."""
        plugins.load_plugin("views", view)  # says which views there are, where the name is none
        # Pictures stand on a higher floor and read nothing but the table: they are asked for by name.
        views, timeline = (importlib.import_module(f"ontogeny.{name}") for name in ("views", "findings.timeline"))
        return views.view(view).draw(timeline.in_run_order(self.records(), self.about))

    def direction(
        self,
        concept: str,
        *,
        site: str | None = None,
        step: int | None = None,
        method: str = "mass_mean",
        stage: str | None = None,
    ) -> "Direction":
        """What `method` learned for a concept; by default at the concept's best site and the last checkpoint.

        Raises:
            BadInput: no such concept, step, site or method in this run.
        """
        from ontogeny.direction import Direction

        units = [
            (path, header)
            for path in sorted((self.folder / "directions").glob("*.safetensors"))
            if self.done(path.stem) and (header := read_tensor_header(path, _UNIT_HEADER_KEYS))["concept"] == concept
        ]
        if not units:
            raise unknown_name("traced concept", concept, {str(c["name"]) for c in self.about["concepts"]})
        stages = {u[1]["stage"] for u in units}
        if stage is not None and stage not in stages:
            raise unknown_name("stage", stage, stages)
        units = [u for u in units if stage in (None, u[1]["stage"])]
        steps = {u[1]["step"] for u in units}
        if step is not None and step not in steps:
            known = ", ".join(map(str, sorted(steps - {None}))) or "none that carries a step"
            raise BadInput(f"{concept} was not traced at step {step}; there are {known}.")
        path, header = max((u for u in units if step in (None, u[1]["step"])), key=lambda u: u[1]["order"])
        wanted = Site.parse(site) if site else self._best_site(concept)
        names = header["sites"].get(wanted.part, [])
        if str(wanted) not in names:
            raise BadInput(
                f"{wanted} was not traced; the sites are {', '.join(n for group in header['sites'].values() for n in group)[:300]}."
            )
        if method not in header["methods"]:
            raise unknown_name("method in this run", method, header["methods"])
        key, at = f"{method}/{wanted.part}", names.index(str(wanted))
        facts = {name.rsplit("/", 1)[1]: name for name in header["tensors"] if name.startswith(f"{key}/facts/")}
        tensors = read_tensors(path, [f"{key}/direction", *facts.values()])
        vector = tensors[f"{key}/direction"][at]
        if vector.shape[-1] != 1:
            raise BadInput(
                f"{concept} has {vector.shape[-1]} classes and so no single direction; read {path.name} for the matrix."
            )
        classes = next((c.get("classes", ()) for c in self.about["concepts"] if c["name"] == concept), ())
        return Direction(
            vector=vector[:, 0],
            site=wanted,
            origin=f"{concept}@{header['checkpoint']}/{method}",
            scale=header["methods"][method],
            position=header["position"],
            facts={name: float(tensors[key][at]) for name, key in facts.items() if tensors[key][at].numel() == 1},
            sign=str(classes[1]) if len(classes) == 2 else "",
            tokenizer=header.get("tokenizer", ""),
        )

    def _best_site(self, concept: str) -> Site:
        found = self.records(f"metric = 'best_site' and concept = {sql_text(concept)}")
        if found.empty:
            raise BadInput(
                f"{concept} has no best site yet (the trace has not finished). Name one with site='resid.3'."
            )
        return Site.parse(str(found.site.iloc[0]))

    # --- writing ---------------------------------------------------------------------------------------------------------

    def describe(self, about: Mapping[str, Any]) -> None:
        write_json(self.about_path, about)

    def done(self, unit: str) -> bool:
        """Whether the unit's part exists: a part is written last, by a rename, so it is whole."""
        return self._part(unit).is_file()

    def keep(
        self,
        unit: str,
        records: Iterable[Record],
        *,
        header: Mapping[str, Any] | None = None,
        directions: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what a unit produced; its records last, for they say that all of it is there."""
        for kind, tensors in (("directions", directions), ("scores", scores)):
            if tensors:
                write_tensors(
                    self.folder / kind / f"{unit}.safetensors", tensors, {**(header or {}), "tensors": sorted(tensors)}
                )
        if directions and header:
            self._supersede(unit, header)
        write_records(self._part(unit), records)

    def adopt(self, other: "Run", unit: str) -> None:
        """Move a finished unit of another run directory on the same disk in here, its records last."""
        for kind, ending in (("directions", "safetensors"), ("scores", "safetensors"), ("records", "parquet")):
            source = other.folder / kind / f"{unit}.{ending}"
            if source.is_file():
                if kind == "directions":
                    self._supersede(unit, read_tensor_header(source))
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
                os.replace(source, self.folder / kind / source.name)

    def _supersede(self, unit: str, header: Mapping[str, Any]) -> None:
        """Weights that changed on disk make a new unit: the old numbers of the same checkpoint and concept go."""
        for path in (self.folder / "directions").glob("*.safetensors"):
            if path.stem == unit:
                continue
            old = read_tensor_header(path, _UNIT_HEADER_KEYS)
            if all(old[key] == header[key] for key in ("concept", "stage", "checkpoint")):
                self.drop(path.stem)

    def drop(self, unit: str) -> None:
        """Remove all that a unit left behind; its records first, for they say that all of it is there."""
        self._part(unit).unlink(missing_ok=True)
        for kind in ("scores", "directions"):
            (self.folder / kind / f"{unit}.safetensors").unlink(missing_ok=True)

    def scores(self, unit: str) -> dict[str, Any]:
        return read_tensors(self.folder / "scores" / f"{unit}.safetensors")

    def directions(self, unit: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        return read_tensors(self.folder / "directions" / f"{unit}.safetensors", names)

    def forget(self, prefix: str, *, but: str) -> None:
        """Remove the parts of superseded summaries, such as a series over fewer checkpoints."""
        for path in (self.folder / "records").glob(f"{prefix}*.parquet"):
            if path.stem != but:
                path.unlink(missing_ok=True)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the ledger."""
        with disk_errors(self.folder), self._ledger.open("a+b") as handle:
            handle.seek(max(0, handle.tell() - 1))
            # A line that a full disk or a kill cut off must not swallow the next one.
            start = b"\n" if handle.read(1) not in (b"", b"\n") else b""
            handle.write(start + json.dumps(entry, default=str).encode() + b"\n")

    def ledger(self) -> list[dict[str, Any]]:
        """Its lines; one that was cut off is left out."""
        lines = self._ledger.read_text(encoding="utf-8").splitlines() if self._ledger.is_file() else []
        return [entry for line in lines if (entry := _entry(line))]

    @property
    def _ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def _part(self, unit: str) -> Path:
        return self.folder / "records" / f"{unit}.parquet"


@dataclass(frozen=True)
class Runs:
    """Several run directories read as one table: its column `run` tells them apart."""

    members: Mapping[str, Run]

    def records(self, where: str = "true") -> "pd.DataFrame":
        """The rows of all runs for which an SQL condition holds, with the column `run`."""
        return self.query(f"select * from records where {where}")

    def query(self, sql: str) -> "pd.DataFrame":
        """Any SQL over the view `records` of all runs."""
        return query_records({name: run.folder for name, run in self.members.items()}, sql)

    def table(self) -> "pd.DataFrame":
        """All rows as pictures take them: in each run's order, and what cannot be told apart otherwise named by its run."""
        import pandas as pd

        timeline = importlib.import_module("ontogeny.findings.timeline")
        tables = [
            timeline.in_run_order(run.records(), run.about).assign(run=name) for name, run in self.members.items()
        ]
        # A column that is empty in one of the runs has no type there: what stands in the others decides.
        rows: pd.DataFrame = pd.concat([table.astype(object) for table in tables], ignore_index=True).infer_objects()
        who = rows[rows["step"].notna()][["lineage", "train_seed", "run"]].drop_duplicates()
        if who.duplicated(["lineage", "train_seed"]).any():
            rows["lineage"] = rows["run"]
        return rows

    def show(self, view: str) -> Any:
        """A picture of all runs together, an Altair chart: `runs(["runs/a", "runs/b"]).show("seeds")`."""
        plugins.load_plugin("views", view)
        return importlib.import_module("ontogeny.views").view(view).draw(self.table())


def open_runs(folders: Iterable[str | Path]) -> Runs:
    """Several runs as one; they go by the names of their folders, or by whole paths where names are equal.

    Raises:
        BadInput: one of them is no run directory, or is given twice.
    """
    opened = [Run.open(folder) for folder in folders]
    places = [run.folder.resolve() for run in opened]
    if twice := [place for place in places if places.count(place) > 1]:
        raise BadInput(f"{twice[0]} is given twice. Name each run once.")
    short = [place.name for place in places]
    names = short if len(set(short)) == len(short) else [str(run.folder) for run in opened]
    return Runs(dict(zip(names, opened, strict=True)))


def _check_about(about: Any) -> None:
    """Whether it can be what `describe` wrote; what is in it is looked at where it is used."""
    if not isinstance(about, dict):
        raise ValueError(f"it holds a {type(about).__name__}, not an object")
    for key, kind in (("lineage", dict), ("concepts", list), ("settings", dict)):
        if not isinstance(about.get(key, kind()), kind):
            raise ValueError(f"its {key!r} is of another kind")


def _entry(line: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def sql_text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def query_records(folders: Mapping[str, Path], sql: str) -> "pd.DataFrame":
    """SQL over the records of one or several runs; the column `run` tells them apart.

    Raises:
        BadInput: the SQL is wrong, with DuckDB's own words.
    """
    import duckdb

    try:
        connection = connect_records({name: folder / "records" for name, folder in folders.items()})
    except duckdb.Error as error:
        raise _unreadable(error) from None
    with connection:
        try:
            asked = connection.extract_statements(sql)
            if [statement.type.name for statement in asked] not in (["SELECT"], ["MULTI"]):  # a pivot is several in one
                raise BadInput(
                    f"a query is one question that changes nothing, and {sql[:60]!r} is not. Write one that begins with select, "
                    "from or with; --format and --out write its answer."
                )
            found: pd.DataFrame = connection.execute(asked[0]).df()
        except duckdb.Error as error:
            if ".parquet'" in str(error):  # the view is made without opening its parts
                raise _unreadable(error) from None
            raise BadInput(
                f"the query cannot be run: {str(error).splitlines()[0]}. The view is `records`; its columns are in docs/records.md."
            ) from None
    return found


def _unreadable(error: Exception) -> BadInput:
    return BadInput(
        f"the records cannot be read: {str(error).splitlines()[0]}. Remove the part that is named and trace again: what is left stays."
    )

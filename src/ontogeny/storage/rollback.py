"""Rollback: if a session fails before its first result, restore the run directory to its previous state."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.storage.files import atomic_path
from ontogeny.storage.run import Run


@contextlib.contextmanager
def rollback_on_failure(run: Run, missing: Collection[str]) -> Iterator[None]:
    """If the block fails before one of the `missing` units is done, remove the files it wrote and restore run.json."""
    created = [folder for folder in (run.folder, *run.folder.parents) if not folder.exists()]
    before = set(_files(run.folder))
    about = run.about_path.read_bytes() if run.about_path in before else None
    try:
        yield
    except BaseException:
        if missing and not any(run.done(unit) for unit in missing):
            for path in set(_files(run.folder)) - before:
                path.unlink(missing_ok=True)
            if about is not None:
                # On a full disk run.json stays as it is: the first error is the one to report.
                with contextlib.suppress(BadInput), atomic_path(run.about_path) as temporary:
                    temporary.write_bytes(about)
            for folder in [*_folders(run.folder), *created]:
                with contextlib.suppress(OSError):  # a folder that is not empty existed before
                    folder.rmdir()
        raise


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _folders(folder: Path) -> list[Path]:
    """Folders below `folder`, the deepest first."""
    return sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))

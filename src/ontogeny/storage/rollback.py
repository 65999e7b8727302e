"""A session that does not get as far as one unit leaves its folder as it found it: no folder at all, or the run before."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.storage.files import atomic_path
from ontogeny.storage.run import Run


@contextlib.contextmanager
def rollback_on_failure(run: Run, missing: Collection[str]) -> Iterator[None]:
    """If the block fails before one of the `missing` units is done, what it wrote goes and run.json is what it was."""
    made = [folder for folder in (run.folder, *run.folder.parents) if not folder.exists()]
    before = set(_files(run.folder))
    about = run.about_path.read_bytes() if run.about_path in before else None
    try:
        yield
    except BaseException:
        if missing and not any(run.done(unit) for unit in missing):
            for path in set(_files(run.folder)) - before:
                path.unlink(missing_ok=True)
            if about is not None:
                # A disk that is full is told once: run.json stays as it is then.
                with contextlib.suppress(BadInput), atomic_path(run.about_path) as temporary:
                    temporary.write_bytes(about)
            for folder in [*_folders(run.folder), *made]:
                with contextlib.suppress(OSError):  # what is not empty was there before
                    folder.rmdir()
        raise


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    """Below `folder`, the deepest first."""
    found = [path for path in folder.rglob("*") if path.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: -len(path.parts))

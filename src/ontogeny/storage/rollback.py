"""Rollback: if a session fails before its first result, restore the run directory to its previous state."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.storage.checksums import CHECKSUM_FILE, forget_files
from ontogeny.storage.files import atomic_path
from ontogeny.storage.run import Run


@contextlib.contextmanager
def rollback_on_failure(run: Run, missing: Collection[str]) -> Iterator[None]:
    """If the block fails before one of the `missing` units is done, remove the files it wrote and restore run.json."""
    created = [folder for folder in (run.folder, *run.folder.parents) if not folder.exists()]
    before = set(_files(run.folder))
    abouts = {path: path.read_bytes() for path in (run.about_path, run.copy_path) if path in before}
    checksums = (run.folder / CHECKSUM_FILE).read_bytes() if run.folder / CHECKSUM_FILE in before else b""
    try:
        yield
    except BaseException:
        if missing and not any(run.done(unit) for unit in missing):
            written = set(_files(run.folder)) - before
            # On a full disk these files stay as they are: the first error is the one to report.
            with contextlib.suppress(BadInput):
                forget_files(run.folder, written, checksums)
            for path in written:
                path.unlink(missing_ok=True)
            for path, content in abouts.items():
                with contextlib.suppress(BadInput), atomic_path(path) as temporary:
                    temporary.write_bytes(content)
            for folder in [*_folders(run.folder), *created]:
                with contextlib.suppress(OSError):  # a folder that is not empty existed before
                    folder.rmdir()
        raise


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _folders(folder: Path) -> list[Path]:
    """Folders below `folder`, the deepest first."""
    return sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))

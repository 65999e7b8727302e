"""Hugging Face Hub: branches, file lists, byte ranges and downloads, with one-line errors.

`huggingface_hub` is imported inside the functions: it is slow to import and reads HF_ENDPOINT and HF_HOME at that time.
"""

import contextlib
import errno
import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage.retry import retry
from ontogeny.lineage.weight_files import (
    CheckpointFiles,
    WeightFile,
    choose_weight_files,
    config_and_tokenizer_files,
    is_adapter,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,250}")
_SMALL_FILE_LIMIT = 100_000_000
_RETRY_ADVICE = "start the same command again later, finished work is kept"
_LOCAL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
"""Errors of the local disk, which affect every checkpoint."""
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def looks_like_repository(source: str) -> bool:
    """Whether a text is a valid repository name: `name` or `owner/name`."""
    return (
        len(source) <= 200 and _REPOSITORY.fullmatch(source) is not None and ".." not in source and "--" not in source
    )


@contextlib.contextmanager
def friendly_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn exceptions of the Hub client into one-line errors: `CheckpointError` for a revision, else `BadInput`."""
    from huggingface_hub import errors

    # An error for one revision leaves the others usable; an error for the repository does not.
    error_class = BadInput if revision is None else CheckpointError
    try:
        yield
    except errors.GatedRepoError:
        raise BadInput(
            f"{repository} is gated: request access on its page, then log in with `hf auth login` or set HF_TOKEN."
        ) from None
    except errors.DisabledRepoError:
        raise BadInput(f"{repository} is disabled on the Hub: use another source.") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{repository} has no revision {revision!r}: open the lineage again, or select other `steps`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"there is no folder and no public Hub repository {repository!r}: check the name, or log in with `hf auth login`."
        ) from None
    except errors.OfflineModeIsEnabled:
        raise BadInput(_unavailable(repository, revision, "the Hub is switched off (HF_HUB_OFFLINE)")) from None
    except errors.LocalEntryNotFoundError as error:
        reason = "the Hub cannot be reached" if error.__cause__ is not None else "downloads are switched off"
        raise error_class(_unavailable(repository, revision, reason)) from None
    except errors.EntryNotFoundError:
        raise CheckpointError(
            f"a file of {_at(repository, revision)} disappeared while it was read: try again."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = _RETRY_ADVICE if revision else "try again later"
        if status in (401, 403):
            advice = "log in with `hf auth login`"
        raise error_class(f"the Hub answered {status} for {_at(repository, revision)}: {advice}.") from None
    except errors.HFValidationError:
        raise BadInput(f"{repository!r} is neither a folder nor a repository name: write owner/name.") from None
    except BadInput:
        raise
    except OSError as error:
        # Disk full, or no access to the cache; without an errno, a download that ended early.
        problem = f"{_at(repository, revision)} could not be fetched ({_first_line(error)})"
        if error.errno in _LOCAL_DISK_ERRORS or isinstance(error, FileExistsError):
            raise BadInput(f"{problem}: free space or correct the permissions of the cache folder.") from error
        raise error_class(f"{problem}: {_RETRY_ADVICE if revision else 'try again later'}.") from error
    except Exception as error:
        # The HTTP library depends on the version of huggingface_hub (requests, httpx, …): recognised by its module.
        if not type(error).__module__.split(".")[0].startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise error_class(_unavailable(repository, revision, "the Hub cannot be reached")) from error


def _at(repository: str, revision: str | None) -> str:
    return f"{repository} at {revision}" if revision else repository


def _unavailable(repository: str, revision: str | None, reason: str) -> str:
    if revision is None:
        advice = "check the network, or set HF_HUB_OFFLINE=1 to use the local cache"
        return f"{reason}, so the branches of {repository} cannot be listed: {advice}."
    return f"{reason}, and {_at(repository, revision)} is not in the local cache: check the network, or give a local folder."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def list_refs(repository: str, *, offline: bool = False) -> dict[str, str]:
    """Branches and tags with their commits; `offline` (or HF_HUB_OFFLINE=1): those in the local cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if offline or HF_HUB_OFFLINE:
        refs = _cached_refs(repository)
        if not refs:
            raise BadInput(
                f"{repository} is not in the local cache and the network is switched off: switch it on, or give a folder."
            )
        return refs

    with friendly_errors(repository):
        listed = retry(lambda: HfApi().list_repo_refs(repository))
    refs = {ref.name: ref.target_commit for ref in (*listed.tags, *listed.branches)}
    for name in (*refs, *refs.values()):
        _check_ref(repository, name)
    return refs


def _check_ref(repository: str, name: str) -> None:
    """Raise `BadInput` unless git allows the name of a branch, tag or commit: it becomes a path below the cache folder."""
    if not _REF.fullmatch(name) or ".." in name or not all(part.strip(".") for part in name.split("/")):
        raise BadInput(
            f"{repository} has a branch or commit {name[:80]!r}, which is not a name in git: use another source."
        )


def _cache(repository: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _cached_refs(repository: str) -> dict[str, str]:
    top = _cache(repository) / "refs"
    refs = {str(path.relative_to(top)): path.read_text().strip() for path in sorted(top.rglob("*")) if path.is_file()}
    return {name: commit for name, commit in refs.items() if not _COMMIT.fullmatch(name)}


def cached_snapshot(repository: str, revision: str, commit: str | None, inside: str = "") -> Path | None:
    """The folder of a revision, or a folder inside it, in the local cache, complete or not."""
    known = commit or (revision if _COMMIT.fullmatch(revision) else _cached_refs(repository).get(revision))
    _check_ref(repository, known or revision)
    folder = _cache(repository) / "snapshots" / known / inside if known else None
    return folder if folder is not None and folder.is_dir() else None


def _info(repository: str, revision: str) -> "ModelInfo":
    from huggingface_hub import HfApi

    return retry(lambda: HfApi().model_info(repository, revision=revision, files_metadata=True))


_info_of_commit = functools.lru_cache(maxsize=4096)(_info)


def list_hub_files(
    repository: str, revision: str, commit: str | None, folder: str = ""
) -> tuple[dict[str, WeightFile], str | None]:
    """Files directly in a folder, with sizes and hashes, and the commit, from one request (cached for a commit)."""
    info = _file_info(repository, revision, commit)
    inside = f"{folder}/" if folder else ""
    names = {file.rfilename: file for file in info.siblings or ()}
    own = {n.removeprefix(inside): f for n, f in names.items() if n.startswith(inside) and "/" not in n[len(inside) :]}
    return {
        name: WeightFile(name, f.size or 0, f.lfs.sha256 if f.lfs else f.blob_id) for name, f in own.items()
    }, info.sha


def list_hub_folders(repository: str, revision: str, commit: str | None) -> tuple[str, ...]:
    """Folders of a revision that hold files directly, sorted."""
    info = _file_info(repository, revision, commit)
    return tuple(sorted({file.rfilename.rpartition("/")[0] for file in info.siblings or ()} - {""}))


def _file_info(repository: str, revision: str, commit: str | None) -> "ModelInfo":
    with friendly_errors(repository, revision):
        info = _info_of_commit(repository, commit) if commit else _info(repository, revision)
    _check_ref(repository, info.sha or revision)
    return info


def hub_checkpoint_files(
    repository: str, revision: str, commit: str | None, folder: str = "", *, allow_pickle: bool = False
) -> CheckpointFiles:
    """The files of a revision, or of a folder in it, from which a model is loaded, from metadata only."""
    files, sha = list_hub_files(repository, revision, commit, folder)
    where = _at(repository, f"{revision}, {folder}" if folder else revision)
    if "config.json" not in files and not is_adapter(files):
        raise CheckpointError(f"{where} has no config.json: give a transformers checkpoint.")
    weights = tuple(files[name] for name in choose_weight_files(files.keys(), where, allow_pickle=allow_pickle))
    return CheckpointFiles(
        weights, config_and_tokenizer_files([f.name for f in files.values() if f.size <= _SMALL_FILE_LIMIT]), sha
    )


def read_hub_range(repository: str, revision: str, commit: str, name: str, start: int, stop: int) -> bytes:
    """The bytes `start` to `stop - 1` of a file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    url = hf_hub_url(repository, name, revision=commit)

    def read() -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if response.status_code != 206 and start:
                raise CheckpointError(
                    f"{name} of {_at(repository, revision)} cannot be read in parts: download it instead."
                )
            parts, received = [], 0
            for part in response.iter_bytes(65536):
                parts.append(part)
                received += len(part)
                if received >= stop - start:  # a server that ignores the range sends the whole file
                    break
        return b"".join(parts)[: stop - start]

    with friendly_errors(repository, revision):
        return retry(read)


def download_snapshot(repository: str, revision: str, wanted: CheckpointFiles, inside: str = "") -> Path:
    """Download the wanted files that are not in the cache yet, and return their folder.

    Of a folder inside the revision, the tokenizer files at the top of the revision come with it.

    Raises:
        CheckpointError: a file has the wrong checksum twice.
    """
    from huggingface_hub import snapshot_download

    commit = wanted.commit or revision
    for name in (commit, revision):
        _check_ref(repository, name)
    here = _cache(repository) / "snapshots" / commit / inside
    path = f"{inside}/" if inside else ""

    def fetch(names: list[str]) -> Path:
        allowed = [f"{path}{name}" for name in names]
        return Path(retry(lambda: snapshot_download(repository, revision=commit, allow_patterns=allowed))) / inside

    with friendly_errors(repository, revision):
        # Weights last: a folder with all weights is complete and needs no network next time.
        fetch(list(wanted.small_files))
        if inside and not any(name.startswith("tokenizer") for name in wanted.small_files):
            top, _ = list_hub_files(repository, revision, wanted.commit)
            shared = [
                n for n in config_and_tokenizer_files(top) if n != "config.json" and top[n].size <= _SMALL_FILE_LIMIT
            ]
            retry(lambda: snapshot_download(repository, revision=commit, allow_patterns=shared))
        fresh = [file for file in wanted.weights if not (here / file.name).exists()]
        folder = fetch([file.name for file in wanted.weights])
        if corrupt := _delete_corrupt_files(folder, fresh):
            folder = fetch([file.name for file in corrupt])
            if again := _delete_corrupt_files(folder, corrupt):
                raise CheckpointError(
                    f"{again[0].name} of {_at(repository, revision)} arrived twice with a wrong checksum: {_RETRY_ADVICE}."
                )
        _record_ref(repository, revision, commit)
    return folder


def _delete_corrupt_files(folder: Path, weights: list[WeightFile]) -> list[WeightFile]:
    """Delete files with a checksum other than on the Hub, and return them; the client compares sizes only."""
    corrupt = []
    for file in weights:
        path = folder / file.name
        if file.sha256 is None or len(file.sha256) != 64 or not path.is_file():
            continue
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256:
                continue
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        corrupt.append(file)
    return corrupt


def _record_ref(repository: str, revision: str, commit: str) -> None:
    """Record the commit of a branch for offline use, as `huggingface_hub` does for downloads by branch."""
    if revision == commit:
        return
    path = _cache(repository) / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(commit)


def delete_snapshot(folder: Path) -> None:
    """Delete a snapshot from the cache, but not blobs shared with other revisions."""
    from huggingface_hub import scan_cache_dir

    if folder.parent.name == "snapshots" and folder.is_dir():
        scan_cache_dir(folder.parents[2]).delete_revisions(folder.name).execute()
    elif "snapshots" in folder.parts and folder.is_dir():  # a folder inside a revision: its own files only
        for file in [path for path in folder.iterdir() if path.is_symlink() or path.is_file()]:
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)

"""Bundle: a folder that holds an index, is replaced atomically and verified before it is read.

The folder has a `manifest.json` and the files that it lists. Each file name contains the beginning of the
file's hash, so a new state never overwrites files of the old one: files are written first, then the manifest
is replaced atomically, then the old files are deleted. An interrupted save leaves the old state or the new
one, at worst with unlisted files that the next save removes. An index that consists of several (shards, for
example) stores them as bundles in subfolders, which are named, verified and replaced like files.

Nothing here is ever unpickled, and no library reads a file whose hash differs from the manifest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmattn.errors import InputError
from mmattn.files import atomic_path, sha256_file, write_text
from mmattn.retrieval.storage.manifest import (
    FILE_NAME,
    FORMAT,
    MANIFEST,
    PART_NAME,
    manifest_bytes,
    manifest_text,
    read_manifest,
)  # fmt: skip

__all__ = ["OpenedBundle", "find_damage", "open_bundle", "save_bundle"]

_LOCK_FREE_ATTEMPTS = 3  # attempts to read without a lock, which would block writers
BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle whose files all match the manifest.

    Args:
        folder: the folder of the bundle.
        attributes: index entry of the manifest (dimension, metric, count, provenance, ...).
        files: role ("vectors", "items", ...) -> path.
        parts: name -> bundle inside this one.
    """

    folder: Path
    attributes: Mapping[str, Any]
    files: Mapping[str, Path]
    parts: Mapping[str, OpenedBundle]

    def check_kind(self, kind: str) -> None:
        """Check the kind of the bundle.

        Args:
            kind: expected kind, for example "index" or "shards".

        Raises:
            InputError: the kind differs; the message names both.
        """
        stored_kind = self.attributes.get("kind")
        if stored_kind != kind:
            raise InputError(
                f"{self.folder}: holds {_describe_kind(stored_kind)}, expected {_describe_kind(kind)}"
            )


def save_bundle(
    folder: str | Path,
    attributes: Mapping[str, Any],
    writers: Mapping[str, Callable[[Path], None]],
    parts: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a bundle, atomically: an interrupted save leaves the previous state or the new one.

    Args:
        folder: new, empty, or a bundle that is replaced.
        attributes: JSON values for the manifest; "kind" names the kind of index.
        writers: file name ("vectors.npy") -> function that writes the file to a path.
        parts: name -> function that saves an inner bundle to a folder; None if the kind has no parts.

    Raises:
        InputError: the folder holds something else.
        OSError: the disk is full or cannot be written to; the previous state stays.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).exists() and _has_foreign_files(folder):
        raise InputError(f"{folder}: holds something else, expected a new or empty folder or an index")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_EX):
        files = {name.split(".")[0]: _write_file(folder, name, write) for name, write in writers.items()}
        inner = {name: _write_part(folder, save) for name, save in (parts or {}).items()}
        _sync(folder)
        manifest = {"format": FORMAT, "index": dict(attributes), "files": files}
        if parts is not None:
            manifest["parts"] = inner
        write_text(folder / MANIFEST, manifest_text(manifest))
        named = {entry["name"] for entry in (*files.values(), *inner.values())}
        for path in folder.iterdir():
            if _is_bundle_file(path.name) and path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_file(folder: Path, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
    """Write a file under a name derived from its hash; return its manifest entry."""
    role, ending = name.split(".")
    with atomic_path(folder / name) as temporary:
        write(temporary)
        digest, size = sha256_file(temporary), temporary.stat().st_size
    final = f"{role}-{digest[:16]}.{ending}"
    (folder / name).replace(folder / final)
    return {"name": final, "bytes": size, "sha256": digest}


def _write_part(folder: Path, save: Callable[[Path], None]) -> dict[str, Any]:
    """Save an inner bundle; the hash of its manifest, which lists all its files, identifies it."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".part.", suffix=".partial"))
    save(temporary)
    temporary.chmod(0o755)
    digest, size = sha256_file(temporary / MANIFEST), (temporary / MANIFEST).stat().st_size
    final = f"part-{digest[:16]}"
    if (folder / final).is_dir() and _verify(folder / final)[1]:
        shutil.rmtree(folder / final)  # damaged, hence already unusable for the manifest that lists it
    if (folder / final).is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.replace(folder / final)
    return {"name": final, "bytes": size, "sha256": digest}


def open_bundle(folder: str | Path, build: Callable[[OpenedBundle], BuiltT]) -> BuiltT:
    """Check every file of a bundle against the manifest, then build an object from them.

    If another process replaces the bundle meanwhile, reading starts over with the new state. After several
    replacements, or if damage is found under an unchanged manifest, the check is repeated under a lock that
    makes writers wait.

    Args:
        folder: the bundle.
        build: builds the object from the verified bundle.

    Raises:
        InputError: there is no bundle, or it is damaged; the message names the file and the damage.
    """
    folder = Path(folder)
    for _ in range(_LOCK_FREE_ATTEMPTS):
        before = manifest_bytes(folder)
        try:
            return build(_open_checked(folder))
        except (InputError, OSError):
            after = manifest_bytes(folder)
            if after is None:
                raise
            if after == before:
                break
    with _locked(folder, fcntl.LOCK_SH):
        return build(_open_checked(folder))


def _open_checked(folder: Path) -> OpenedBundle:
    manifest, problems = _verify(folder)
    if manifest is not None and not problems:
        return _open_unchecked(folder, manifest)
    more = f" (and {len(problems) - 1} more; see `mmattn index verify`)" if len(problems) > 1 else ""
    raise InputError(f"{folder}: {problems[0]}{more}")


def _open_unchecked(folder: Path, manifest: Mapping[str, Any]) -> OpenedBundle:
    paths = {role: folder / entry["name"] for role, entry in manifest["files"].items()}
    parts = {name: folder / entry["name"] for name, entry in manifest.get("parts", {}).items()}
    inner = {name: _open_unchecked(path, read_manifest(path)) for name, path in parts.items()}
    return OpenedBundle(folder, manifest["index"], paths, inner)


def find_damage(folder: str | Path) -> list[str]:
    """List everything that is wrong with a bundle, one line each, beginning with the file name.

    Args:
        folder: the bundle.

    Example:
        >>> find_damage("nowhere")
        ['manifest.json: there is none, expected an index that `mmattn index build` made']
    """
    folder = Path(folder)
    if not folder.is_dir():
        return _verify(folder)[1]
    with _locked(folder, fcntl.LOCK_SH):
        return _verify(folder)[1]


def _verify(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest (None if it is invalid) and the list of problems."""
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        return None, [str(error)]
    problems = [problem for entry in manifest["files"].values() for problem in _file_damage(folder, entry)]
    for entry in manifest.get("parts", {}).values():
        problems += _part_damage(folder, entry)
    return manifest, problems


def _file_damage(folder: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    path = folder / entry["name"]
    if not path.is_file():
        yield f"{path.name}: it is missing"
        return
    size = path.stat().st_size
    if size != entry["bytes"]:
        yield f"{path.name}: got {size:,} bytes, the manifest says {entry['bytes']:,}"
        return
    digest = sha256_file(path)
    if digest != entry["sha256"]:
        yield f"{path.name}: damaged, its hash is {digest[:12]}, the manifest says {entry['sha256'][:12]}"


def _part_damage(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """Problems of an inner bundle; each line begins with the path relative to the outer folder."""
    path = folder / entry["name"]
    if not path.is_dir():
        return [f"{path.name}: it is missing"]
    own_damage = (
        [] if not (path / MANIFEST).is_file() else list(_file_damage(path, {**entry, "name": MANIFEST}))
    )
    return [f"{path.name}/{problem}" for problem in own_damage or _verify(path)[1]]


def _is_bundle_file(name: str) -> bool:
    finished = FILE_NAME.fullmatch(name) or PART_NAME.fullmatch(name)
    return bool(finished) or name.endswith(".partial") or name in _TEMPORARY_NAMES


_TEMPORARY_NAMES = {
    "vectors.npy",
    "items.parquet",
    "ann.faiss",
    "places.npy",
    "offsets.npy",
    "maps.npy",
    "lift.npy",
    "known.npy",
    "together.npy",
}  # complete files that were not yet renamed


def _describe_kind(kind: Any) -> str:
    """Description of a kind of bundle and of the function that opens it."""
    names = {
        "index": "one index, for Index.open",
        "shards": "a sharded index, for Index.open or ShardedIndex.open",
        "maxsim": "an index of several vectors an item, for MaxSimIndex.open",
        "fused": "one index a modality, for FusedIndex.open",
        "recommender": "a run's recommender, for mmattn.recommend",
    }
    return names.get(kind, f"something of kind {kind!r}")


def _has_foreign_files(folder: Path) -> bool:
    return any(not _is_bundle_file(path.name) for path in folder.iterdir())


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold a file lock on a folder; the operating system releases it if the process is killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

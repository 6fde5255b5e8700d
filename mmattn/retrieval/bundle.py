"""One folder that holds an index, whole at every moment and checked before anything is read.

The folder has a `manifest.json` and the files that it names. Every file's own name holds the beginning of
its hash, so a new state never touches the files of the old one: files first, then the manifest, which is
replaced at once, then the old files go. A kill in between leaves the old state or the new one, and at
worst files that nothing names; the next save removes them. What consists of several indexes, shards for
example, has them as bundles in folders of its own, which are named, checked and replaced like files.

Nothing here is ever unpickled, and no library sees a byte of a file whose hash is not the manifest's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmattn.errors import InputError
from mmattn.files import atomic_path, sha256_file, write_text

__all__ = ["Opened", "damage", "open_bundle", "save_bundle"]

FORMAT = "mmattn index 1"
MANIFEST = "manifest.json"
_NAME = re.compile(r"[a-z]+-[0-9a-f]{16}\.[a-z]+")
_PART = re.compile(r"part-[0-9a-f]{16}")


@dataclass(frozen=True)
class Opened:
    """A bundle whose files are all what the manifest says.

    Args:
        folder: where it lies.
        facts: what the manifest says of the index (dimension, metric, count, provenance, ...).
        files: role ("vectors", "items", ...) -> path.
        parts: name -> bundle inside this one.
    """

    folder: Path
    facts: Mapping[str, Any]
    files: Mapping[str, Path]
    parts: Mapping[str, Opened]

    def expect(self, kind: str) -> None:
        """Is it a bundle of this kind?

        Raises:
            InputError: it is of another kind, both are named.
        """
        found = self.facts.get("kind")
        if found != kind:
            raise InputError(f"{self.folder}: holds {_article(found)}, expected {_article(kind)}")


def save_bundle(
    folder: str | Path,
    facts: Mapping[str, Any],
    writers: Mapping[str, Callable[[Path], None]],
    parts: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a state of the index; a kill at any moment leaves the old state or the new one.

    Args:
        folder: new, empty, or a bundle that is to be replaced.
        facts: JSON values for the manifest; "kind" says what it is.
        writers: file name ("vectors.npy") -> what writes it to a path.
        parts: name -> what saves a bundle to a folder.

    Raises:
        InputError: the folder holds something else.
        OSError: the disk is full, or cannot be written to; the old state stays.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).exists() and _foreign(folder):
        raise InputError(f"{folder}: holds something else, expected a new or empty folder or an index")
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        files = {name.split(".")[0]: _write_file(folder, name, write) for name, write in writers.items()}
        inner = {name: _write_part(folder, save) for name, save in (parts or {}).items()}
        _sync(folder)
        manifest = {"format": FORMAT, "index": dict(facts), "files": files}
        if parts is not None:
            manifest["parts"] = inner
        write_text(folder / MANIFEST, _text(manifest))
        named = {entry["name"] for entry in (*files.values(), *inner.values())}
        for path in folder.iterdir():
            if _is_ours(path.name) and path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_file(folder: Path, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
    """Write a file under the name that its content gives it; what the manifest says of it."""
    role, ending = name.split(".")
    with atomic_path(folder / name) as temporary:
        write(temporary)
        digest, size = sha256_file(temporary), temporary.stat().st_size
    final = f"{role}-{digest[:16]}.{ending}"
    (folder / name).replace(folder / final)
    return {"name": final, "bytes": size, "sha256": digest}


def _write_part(folder: Path, save: Callable[[Path], None]) -> dict[str, Any]:
    """Save a bundle inside; its manifest has the hashes of all its files, so that one's hash is its own."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".part.", suffix=".partial"))
    save(temporary)
    temporary.chmod(0o755)
    digest, size = sha256_file(temporary / MANIFEST), (temporary / MANIFEST).stat().st_size
    final = f"part-{digest[:16]}"
    if (folder / final).is_dir() and _check(folder / final)[1]:
        shutil.rmtree(folder / final)  # damaged: what names it has lost it already
    if (folder / final).is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.replace(folder / final)
    return {"name": final, "bytes": size, "sha256": digest}


def open_bundle(folder: str | Path) -> Opened:
    """Check every file of a bundle against the manifest.

    Raises:
        InputError: there is no bundle, or it is damaged; what is wrong, and with which file, is said.
    """
    folder = Path(folder)
    manifest, problems = _check(folder)
    for _ in range(2):
        # Another process may have replaced the state while we looked: then the manifest is a new one.
        if not problems or manifest is None or _read_bytes(folder) == _text(_plain(manifest)).encode():
            break
        manifest, problems = _check(folder)
    if manifest is not None and not problems:
        return _opened(folder, manifest)
    more = f" (and {len(problems) - 1} more; see `mmattn index verify`)" if len(problems) > 1 else ""
    raise InputError(f"{folder}: {problems[0]}{more}")


def _opened(folder: Path, manifest: Mapping[str, Any]) -> Opened:
    paths = {role: folder / entry["name"] for role, entry in manifest["files"].items()}
    parts = {name: folder / entry["name"] for name, entry in manifest.get("parts", {}).items()}
    inner = {name: _opened(path, _read_manifest(path)) for name, path in parts.items()}
    return Opened(folder, manifest["index"], paths, inner)


def damage(folder: str | Path) -> list[str]:
    """Everything that is wrong with a bundle, one line each, beginning with the file's name.

    Example:
        >>> damage("nowhere")
        ['manifest.json: there is none, expected an index that `mmattn index build` made']
    """
    return _check(Path(folder))[1]


def _check(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest, None where it cannot be trusted, and what is wrong."""
    try:
        manifest = _read_manifest(folder)
    except InputError as error:
        return None, [str(error)]
    problems = [problem for entry in manifest["files"].values() for problem in _file(folder, entry)]
    for entry in manifest.get("parts", {}).values():
        problems += _part(folder, entry)
    return manifest, problems


def _read_bytes(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{MANIFEST}: there is none, expected an index that `mmattn index build` made"
        ) from None


def _read_manifest(folder: Path) -> dict[str, Any]:
    found = _read_bytes(folder)
    try:
        manifest = json.loads(found)
    except ValueError as error:
        raise InputError(f"{MANIFEST}: damaged, it is no JSON ({error})") from error
    if not isinstance(manifest, dict) or "sha256" not in manifest or "format" not in manifest:
        raise InputError(f"{MANIFEST}: damaged, or not the manifest of an index")
    if _text(_plain(manifest)).encode() != found:
        raise InputError(f"{MANIFEST}: damaged, its own checksum does not fit")
    if manifest["format"] != FORMAT:
        raise InputError(f"{MANIFEST}: got format {manifest['format']!r}, expected {FORMAT!r}")
    files, parts = manifest.get("files"), manifest.get("parts", {})
    if not isinstance(manifest.get("index"), dict) or not (_named(files, _NAME) and _named(parts, _PART)):
        raise InputError(f"{MANIFEST}: names its files wrongly, expected name, bytes and sha256 of each")
    return manifest


def _named(entries: Any, names: re.Pattern[str]) -> bool:
    """Does it name files or parts of this folder, and no path that leads elsewhere?"""
    return isinstance(entries, dict) and all(
        isinstance(entry, dict)
        and {key: type(value) for key, value in entry.items()} == {"name": str, "bytes": int, "sha256": str}
        and names.fullmatch(entry["name"]) is not None
        for entry in entries.values()
    )


def _file(folder: Path, entry: Mapping[str, Any]) -> Iterator[str]:
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


def _part(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with a bundle inside, each line beginning with the file's path from here."""
    path = folder / entry["name"]
    if not path.is_dir():
        return [f"{path.name}: it is missing"]
    own = [] if not (path / MANIFEST).is_file() else list(_file(path, {**entry, "name": MANIFEST}))
    return [f"{path.name}/{problem}" for problem in own or _check(path)[1]]


def _plain(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "sha256"}


def _text(manifest: Mapping[str, Any]) -> str:
    """The only bytes that this content may have: every other byte is damage."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=2, allow_nan=False) + "\n"


def _is_ours(name: str) -> bool:
    finished = _NAME.fullmatch(name) or _PART.fullmatch(name)
    return bool(finished) or name.endswith(".partial") or name in _BEING_WRITTEN


_BEING_WRITTEN = {
    "vectors.npy",
    "items.parquet",
    "ann.faiss",
    "places.npy",
    "offsets.npy",
}  # whole, but not yet under their names


def _article(kind: Any) -> str:
    """What a kind of bundle is called, and who opens it."""
    names = {
        "index": "one index, for Index.open",
        "shards": "a sharded index, for Index.open or ShardedIndex.open",
        "maxsim": "an index of several vectors an item, for MaxSimIndex.open",
        "fused": "one index a modality, for FusedIndex.open",
    }
    return names.get(kind, f"something of kind {kind!r}")


def _foreign(folder: Path) -> bool:
    return any(not _is_ours(path.name) for path in folder.iterdir())


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes here; a kill gives the lock back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Manifest of a bundle: its content and its canonical serialization."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmattn.errors import InputError

__all__ = [
    "FILE_NAME", "FORMAT", "MANIFEST", "PART_NAME", "manifest_bytes", "manifest_text", "read_manifest",
]  # fmt: skip

FORMAT = "mmattn index 1"
MANIFEST = "manifest.json"
FILE_NAME = re.compile(r"[a-z]+(?:-[a-z]+)*-[0-9a-f]{16}\.[a-z]+")
PART_NAME = re.compile(r"part-[0-9a-f]{16}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and validate the manifest of a folder.

    Args:
        folder: the bundle.

    Raises:
        InputError: there is none, it is damaged, of another format, or lists files outside the folder.
    """
    content = manifest_bytes(folder)
    if content is None:
        raise InputError(f"{MANIFEST}: there is none, expected an index that `mmattn index build` made")
    try:
        manifest = json.loads(content, parse_float=_finite_number, parse_constant=_finite_number)
    except ValueError as error:
        raise InputError(f"{MANIFEST}: damaged, it is no JSON ({error})") from error
    if not isinstance(manifest, dict) or "sha256" not in manifest or "format" not in manifest:
        raise InputError(f"{MANIFEST}: damaged, or not the manifest of an index")
    if manifest_text(_without_checksum(manifest)).encode() != content:
        raise InputError(f"{MANIFEST}: damaged, its own checksum does not fit")
    if manifest["format"] != FORMAT:
        raise InputError(f"{MANIFEST}: got format {manifest['format']!r}, expected {FORMAT!r}")
    files, parts = manifest.get("files"), manifest.get("parts", {})
    if not isinstance(manifest.get("index"), dict) or not (
        _has_valid_entries(files, FILE_NAME) and _has_valid_entries(parts, PART_NAME)
    ):
        raise InputError(f"{MANIFEST}: names its files wrongly, expected name, bytes and sha256 of each")
    return manifest


def _finite_number(text: str) -> float:
    """Parse a number; a flipped byte may turn 12.345678 into 12e345678, which JSON cannot represent."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _has_valid_entries(entries: Any, names: re.Pattern[str]) -> bool:
    """Whether the entries list files or parts of this folder only, and no path that leads elsewhere."""
    return isinstance(entries, dict) and all(
        isinstance(entry, dict)
        and {key: type(value) for key, value in entry.items()} == {"name": str, "bytes": int, "sha256": str}
        and names.fullmatch(entry["name"]) is not None
        for entry in entries.values()
    )


def manifest_bytes(folder: Path) -> bytes | None:
    """Raw bytes of the manifest, which identify a state of the bundle; None if there is no manifest.

    Args:
        folder: the bundle.
    """
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None


def _without_checksum(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "sha256"}


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Canonical text of a manifest with its checksum; any other serialization counts as damage.

    Args:
        manifest: content without the checksum "sha256".
    """
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=2, allow_nan=False) + "\n"

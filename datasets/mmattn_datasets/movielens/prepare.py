"""`mmattn prepare movielens --root RAW --out DIR`: convert the original files to a card and tables."""

from __future__ import annotations

import os
from pathlib import Path

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn_datasets.movielens import latest, ml1m
from mmattn_datasets.movielens.tables import write_folder

__all__ = ["MovieLens"]


class MovieLens:
    """MovieLens-1M with plots, people, posters and triples, or ml-latest-small with timestamps.

    The layout of `root` is detected from its files. README.md in this folder describes sources and licences.
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None,
        out: str | os.PathLike[str],
        extras: str | os.PathLike[str] | None = None,
    ) -> Card:
        """Write items, interactions, users and triples as parquet, rejected.csv and card.yaml.

        Posters are not copied: the items hold their absolute paths, or paths relative to the card for posters
        inside `out`.

        Args:
            root: the ml1m folder, or ml-latest-small as a zip or a folder, or the parent of these.
            out: the folder to write to.
            extras: for ml-latest-small only: the ml1m folder whose people, plots, posters and triples
                are joined by film id.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: neither layout is found, or mostly bad rows.
        """
        if root is None:
            raise InputError("movielens: no root given, expected the folder or zip with the original files")
        root, out = Path(root), Path(out)
        rejected = RejectionLog()
        source = latest.find_latest_small(root)
        if source is not None:
            prepared = latest.read_latest_small(source, Path(extras) if extras else None, out, rejected)
        elif any((root / name).exists() for name in ml1m.REQUIRED):
            if extras:
                raise InputError("movielens: extras are for ml-latest-small; MovieLens-1M has its own")
            prepared = ml1m.read_ml1m(root, out, rejected)
        else:
            raise InputError(
                f"{root}: no MovieLens here; expected {', '.join(ml1m.REQUIRED)} (MovieLens-1M), or "
                f"{', '.join(latest.REQUIRED)} or ml-latest-small.zip (ml-latest-small)"
            )
        return write_folder(prepared, out, rejected)

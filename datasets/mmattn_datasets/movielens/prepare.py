"""`mmattn prepare movielens --root RAW --out DIR`: the original files become a card and tables."""

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

    Which of the two lies at `root` is found out from the files. See README.md beside this file for
    what they are, under which licence, and where they come from.
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None,
        out: str | os.PathLike[str],
        extras: str | os.PathLike[str] | None = None,
    ) -> Card:
        """Write items, interactions, users and triples as parquet, rejected.csv and card.yaml.

        Posters stay where they lie: the items hold their absolute path, or a path relative to the
        card where they lie inside `out`.

        Args:
            root: the ml1m folder, or ml-latest-small as a zip or a folder, or the folder it lies in.
            out: the folder to write to.
            extras: for ml-latest-small only: the ml1m folder whose people, plots, posters and triples
                are joined by film id.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: neither layout is there (what was expected is named), or mostly bad rows.
        """
        if root is None:
            raise InputError("movielens: no root given, expected the folder or zip with the original files")
        root, out = Path(root), Path(out)
        rejected = RejectionLog()
        found = latest.find_latest_small(root)
        if found is not None:
            prepared = latest.read_latest_small(found, Path(extras) if extras else None, out, rejected)
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

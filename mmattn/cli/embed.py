"""`mmattn embed RUN --items FILE --out FILE.parquet`: vectors of items, through a run's model.

Under `accelerate launch` or `torchrun` the processes share the work. Everybody writes shards beside the
result, which a later call finds and keeps: after a kill only what was not finished is encoded again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError
from mmattn.files import sha256_file
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn.retrieval.encode import RunEncoder

__all__ = ["embed", "read_items"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of a model")
    parser.add_argument("--items", required=True, metavar="FILE", help="a card, or a table like the run's")
    parser.add_argument("--out", required=True, metavar="FILE", help="the parquet file to write")
    parser.add_argument("--seed", type=int, help="which of the run's models; the first one by default")
    parser.add_argument("--head", default="", help="whose vectors, where the model has several heads")
    parser.add_argument("--features", default="features", metavar="DIR", help="folder of the feature store")
    parser.add_argument("--shard", type=int, default=2048, help="items a shard: what a kill loses at most")
    parser.add_argument("--json", action="store_true", help="print counts as JSON, for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.retrieval.encode import RunEncoder

    encoder = RunEncoder.of_run(arguments.run, arguments.seed, arguments.head)
    items = Path(arguments["items"])  # `arguments.items` is a method
    samples = read_items(items, Path(arguments.run))
    counts = embed(
        encoder, samples, Path(arguments.out), source=sha256_file(_file(items)),
        features=arguments.features, size=arguments.shard, progress=not arguments.quiet,
    )  # fmt: skip
    if counts is not None:  # the first process speaks for all
        text = (
            f"{counts['vectors']} vectors in {arguments.out}; {counts['without']} items without any content, "
            f"{counts['unreadable']} contents that cannot be read"
        )
        print(json.dumps(counts) if arguments.json else text)
    return 0


def embed(
    encoder: RunEncoder,
    samples: Sequence[Sample],
    out: Path,
    *,
    source: str,
    features: str | Path = "features",
    size: int = 2048,
    progress: bool = True,
) -> dict[str, int] | None:
    """Encode this process's shards, wait for the others, and join all in the first process.

    Args:
        encoder: of the run.
        samples: all items, the same in every process.
        out: the parquet file.
        source: hash of where the samples come from; shards of another source are not used.
        features: folder of the feature store.
        size: items a shard.
        progress: show bars.

    Returns:
        Counts, in the first process.
    """
    import pandas as pd
    from accelerate import PartialState

    from mmattn.retrieval.arrow import Vectors, join_parquet, write_parquet

    if size < 1:
        raise InputError(f"embed: got --shard {size}, expected at least 1")
    state = PartialState()
    told = json.dumps([encoder.provenance, source, size, [sample.id for sample in samples]])
    work = out.parent / f".{out.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}.shards"
    starts = range(0, len(samples), size)
    paths = [work / f"{number:06d}.parquet" for number in range(len(starts))]
    unreadable = 0
    for number, (start, path) in enumerate(zip(starts, paths, strict=True)):
        if number % state.num_processes != state.process_index or path.exists():
            continue
        part = samples[start : start + size]
        inputs = encoder.inputs(part, features, progress=progress and state.is_main_process)
        unreadable += len(inputs.rejected)
        vectors, there = encoder.vectors(inputs)
        ids = pd.Series([sample.id for sample in part], dtype=object)[there].to_numpy()
        found = Vectors(vectors[there], ids, pd.DataFrame(index=range(len(ids))), encoder.provenance)
        write_parquet(found, path)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    rows = join_parquet(paths, out)
    shutil.rmtree(work)
    return {"vectors": rows, "without": len(samples) - rows, "unreadable": unreadable}


def read_items(items: Path, run: Path) -> Sequence[Sample]:
    """The samples of a card, or of a table with the columns of the run's own items.

    Raises:
        InputError: no such file, columns that are missing, or a table where only a card can say enough.
    """
    from mmattn.config import FitConfig
    from mmattn.data.card import Card
    from mmattn.data.reader import read
    from mmattn.schema import load

    if _file(items).suffix in (".yaml", ".yml"):
        return read(items).items
    settings = run / "config.yaml"
    if not settings.is_file():
        raise InputError(f"{items}: {run} does not say what its columns mean; give a card.yaml instead")
    card = Card.read(load(FitConfig, settings).data.card)
    if any(use.role == "entity" for _, use in card.items.uses()):
        raise InputError(f"{items}: the items name entities of a graph; give a card.yaml that has it too")
    alone = replace(
        card, items=replace(card.items, file=items.name), interactions=None, users=None, graph=None
    )
    object.__setattr__(alone, "path", items.parent / "card.yaml")  # what its files are relative to
    alone.check_files()
    return read(alone).items


def _file(items: Path) -> Path:
    file = items / "card.yaml" if items.is_dir() else items
    if not file.is_file():
        raise InputError(f"{items}: no such file, expected a card.yaml or a table of items")
    return file

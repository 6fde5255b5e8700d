"""`mmattn embed RUN --input FILE --out FILE.parquet`: vectors of items, through a run's model.

Under `accelerate launch` or `torchrun` the processes share the work, and with `--ray` actors of Ray do.
Everybody writes shards beside the result, which a later call finds and keeps: after a kill only what was
not finished is encoded again.
"""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError
from mmattn.files import sha256_file

_WORKERS = 2


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of a model")
    parser.add_argument("--input", required=True, metavar="FILE", help="a card, or a table like the run's")
    parser.add_argument("--out", required=True, metavar="FILE", help="the parquet file to write")
    parser.add_argument("--seed", type=int, help="which of the run's models; the first one by default")
    parser.add_argument("--head", default="", help="whose vectors, where the model has several heads")
    parser.add_argument("--features", default="features", metavar="DIR", help="folder of the feature store")
    parser.add_argument(
        "--shard-size", type=int, default=2048, help="items a shard: what a kill loses at most"
    )
    parser.add_argument("--ray", action="store_true", help="encode with actors of Ray (mmattn[ray])")
    parser.add_argument("--workers", type=int, help=f"actors of Ray; {_WORKERS} by default")
    parser.add_argument("--json", action="store_true", help="print counts as JSON, for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.serving.embed import embed, read_items, resolve_item_file
    from mmattn.serving.embedding_shards import EmbeddingShards
    from mmattn.serving.run_encoder import RunEncoder

    workers = _ray_workers(arguments)
    encoder = RunEncoder.from_run(arguments.run, arguments.seed, arguments.head)
    items = Path(arguments.input)
    samples, source = read_items(items, Path(arguments.run)), sha256_file(resolve_item_file(items))
    shards = EmbeddingShards.create(
        samples, Path(arguments.out), arguments.shard_size, source, encoder.provenance
    )
    counts = embed(encoder, shards, arguments.features, ray_workers=workers, progress=not arguments.quiet)
    if counts is not None:  # the first process speaks for all
        text = (
            f"{counts['vectors']} vectors in {arguments.out}; {counts['without']} items without any content, "
            f"{counts['unreadable']} contents that cannot be read"
        )
        print(json.dumps(counts) if arguments.json else text)
    return 0


def _ray_workers(arguments: Namespace) -> int:
    """How many actors of Ray; 0 without it."""
    if not arguments.ray and arguments.workers is not None:
        raise InputError("embed: --workers is for --ray, which was not given")
    workers = _WORKERS if arguments.workers is None else arguments.workers
    if workers < 1:
        raise InputError(f"embed: got --workers {workers}, expected at least 1")
    return workers if arguments.ray else 0

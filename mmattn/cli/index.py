"""`mmattn index build|add|remove|split|export|search|verify|plan`: bundles of vectors, made and searched.

Vectors come as parquet files with columns `id`, `vector` and any others, as `mmattn embed` writes them;
the other columns, and those of `--metadata FILE`, can be filtered on:
`--where "genre == 'Comedy' and year > 1990"`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.retrieval.index import Hits, Index
    from mmattn.retrieval.sharded import ShardedIndex
    from mmattn.retrieval.storage.arrow import VectorTable

_ACTIONS = {
    "build": "make an index from vectors",
    "add": "add vectors to an index, or replace what is there",
    "remove": "remove items by id",
    "search": "the nearest items of vectors, of an item, or of a text, picture or clip",
    "split": "the same items in several shards, in a folder of their own",
    "export": "vectors, ids and metadata as a parquet file, for vector databases",
    "verify": "find and name any damage",
    "plan": "how it searches, and why",
}


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subcommands(dest="action", required=True)
    for name, line in _ACTIONS.items():
        action = type(parser)(prog=f"mmattn index {name}", description=line)
        action.add_argument("bundle", metavar="BUNDLE", help="folder of the index")
        action.add_argument("--json", action="store_true", help="print JSON, for machines")
        _OPTIONS.get(name, lambda action: None)(action)
        actions.add_subcommand(name, action, help=line)


def _vector_options(parser: ArgumentParser) -> None:
    parser.add_argument("--vectors", required=True, metavar="FILE", help="parquet with id and vector")
    parser.add_argument("--metadata", metavar="FILE", help="parquet or CSV with more columns to filter on")
    parser.add_argument("--metadata-id", default="id", metavar="NAME", help="its column with the ids")


def _build_options(parser: ArgumentParser) -> None:
    _vector_options(parser)
    parser.add_argument("--metric", default="ip", help="ip, l2 or cosine")
    parser.add_argument(
        "--target-recall", type=float, default=0.95, help="share of the true 10 nearest to find"
    )
    parser.add_argument("--budget-mb", type=float, help="memory it may take beside the vectors")
    parser.add_argument("--kind", default="auto", help="auto, exact or ann")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--shards", type=int, default=1, help="parts that are searched side by side")


def _add_options(parser: ArgumentParser) -> None:
    _vector_options(parser)
    parser.add_argument("--update", action="store_true", help="replace items that are there")


def _remove_options(parser: ArgumentParser) -> None:
    parser.add_argument("--ids", nargs="+", required=True, help="ids of the items")


def _split_options(parser: ArgumentParser) -> None:
    parser.add_argument("--shards", type=int, required=True, help="how many parts")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the sharded index, new")


def _export_options(parser: ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FILE", help="the parquet file to write")


def _search_options(parser: ArgumentParser) -> None:
    parser.add_argument("--vectors", metavar="FILE", help="parquet with the queries' id and vector")
    parser.add_argument("--id", help="an item that the index holds: what is like it?")
    parser.add_argument("--run", metavar="RUN", help="run whose encoders read --text, --image, --audio")
    parser.add_argument("--seed", type=int, help="which of the run's models; the first one by default")
    parser.add_argument("--text", help="a text to search with")
    parser.add_argument("--image", metavar="FILE", help="a picture to search with")
    parser.add_argument("--audio", metavar="FILE", help="a clip to search with")
    parser.add_argument("-k", type=int, default=10, help="how many items")
    parser.add_argument("--where", help="a condition over the metadata")
    parser.add_argument("--exact", action="store_true", help="look at every vector")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


_OPTIONS: dict[str, Any] = {
    "build": _build_options,
    "add": _add_options,
    "remove": _remove_options,
    "split": _split_options,
    "export": _export_options,
    "search": _search_options,
}


def run(arguments: Namespace) -> int:
    options = arguments[arguments.action]
    if arguments.action == "verify":
        return _verify(options)
    if arguments.action == "search":
        return _search(options)
    index, folder = _apply_action(arguments.action, options), options.bundle
    if arguments.action in ("split", "export"):
        folder = options.out
    if arguments.action == "export":
        from mmattn.retrieval.storage.arrow import export_parquet

        export_parquet(index, folder)
    elif arguments.action != "plan":
        index.save(folder)
    if options.json:
        print(json.dumps({"count": len(index), "dim": index.dim, "plan": index.plan().to_dict()}))
    else:
        print(f"{index} in {folder}\n{index.plan()}")
    return 0


def _apply_action(action: str, options: Namespace) -> Index | ShardedIndex:
    """The index as it is after the action."""
    from mmattn.retrieval.index import Index
    from mmattn.retrieval.sharded import ShardedIndex

    if action == "build":
        _check_new(options.bundle)
        new = _read_new_vectors(options)
        built = Index.build(
            new.vectors, new.ids, options.metric, metadata=new.metadata, provenance=new.provenance,
            target_recall=options.target_recall, budget_mb=options.budget_mb, kind=options.kind,
            device=options.device,
        )  # fmt: skip
        return built if options.shards == 1 else ShardedIndex.from_index(built, options.shards)
    index = _open_vectors(options.bundle)
    if action == "add":
        new = _read_new_vectors(options)
        change = index.update if options["update"] else index.add
        change(new.vectors, new.ids, metadata=new.metadata, provenance=new.provenance)
    elif action == "split":
        if isinstance(index, ShardedIndex):
            raise InputError(
                f"{options.bundle}: is in {len(index.shards)} shards already, expected one index"
            )
        _check_new(options.out)
        return ShardedIndex.from_index(index, options.shards)
    elif action == "remove":
        index.remove([_as_id(index, name) for name in options.ids])
    return index


def _open_vectors(folder: str, device: str = "auto") -> Index | ShardedIndex:
    """An index of one vector per item, whole or in shards."""
    from mmattn.retrieval.index import Index
    from mmattn.retrieval.open_index import open_index
    from mmattn.retrieval.sharded import ShardedIndex

    index = open_index(folder, device=device)
    if not isinstance(index, (Index, ShardedIndex)):
        raise InputError(f"{folder}: holds a {type(index).__name__}, expected an index of one vector an item")
    return index


def _read_new_vectors(options: Namespace) -> VectorTable:
    """The vectors, with the columns of both files."""
    from mmattn.retrieval.storage.arrow import read_vectors
    from mmattn.retrieval.storage.metadata import read_metadata

    new = read_vectors(options.vectors)
    if options.metadata is None:
        return new
    more = read_metadata(options.metadata, new.ids, options.metadata_id)
    both = sorted(set(new.metadata.columns) & set(more.columns))
    if both:
        raise InputError(f"{options.metadata}: column {both[0]!r} is in {options.vectors} too, rename one")
    return replace(new, metadata=new.metadata.join(more))


def _check_new(folder: str) -> None:
    if (Path(folder) / "manifest.json").exists():
        raise InputError(f"{folder}: there is an index already, expected a new folder (or `add`)")


def _verify(options: Namespace) -> int:
    from mmattn.retrieval.open_index import open_index
    from mmattn.retrieval.storage.bundle import find_damage

    problems = find_damage(options.bundle)
    if not problems:
        open_index(options.bundle)  # files that are what they were may still not fit each other
    if options.json:
        print(json.dumps({"damage": problems}))
    else:
        print("\n".join(problems) or f"{options.bundle}: whole")
    return 1 if problems else 0


def _search(options: Namespace) -> int:
    raw = {name: options[name] for name in ("text", "image", "audio") if options[name] is not None}
    given = [bool(options.vectors), options.id is not None, bool(raw)]
    if sum(given) != 1:
        raise InputError("search: expected one of --vectors, --id, or --run with --text, --image or --audio")
    if raw and not options.run:
        raise InputError("search: --text, --image and --audio need --run, the run whose encoders read them")
    index = _open_vectors(options.bundle, options.device)
    names, hits = _run_query(index, options, raw)
    if options.json:
        print(
            json.dumps(
                [{"query": name, "hits": hit} for name, hit in zip(names, hits.to_lists(), strict=True)]
            )
        )
        return 0
    for name, result in zip(names, hits.to_lists(), strict=True):
        print(f"{name}:")
        for item, score in result:
            print(f"  {score:>10.4f}  {item}")
    return 0


def _run_query(
    index: Index | ShardedIndex, options: Namespace, raw: dict[str, str]
) -> tuple[list[Any], Hits]:
    """Names of the queries, and what was found for them."""
    if options.id is not None:
        name = _as_id(index, options.id)
        return [name], index.search_ids([name], options.k, where=options.where)
    if raw:
        from mmattn.serving.run_encoder import RunEncoder
        from mmattn.types import Sample

        encoder = RunEncoder.from_run(options.run, options.seed, (index.provenance or {}).get("head", ""))
        content = {name: value if name == "text" else Path(value) for name, value in raw.items()}
        hits = index.search(
            encoder([Sample("query", content)]), options.k,
            where=options.where, provenance=encoder.provenance, exact=options.exact,
        )  # fmt: skip
        return [" + ".join(raw.values())], hits
    from mmattn.retrieval.storage.arrow import read_vectors

    given = read_vectors(options.vectors)
    hits = index.search(
        given.vectors, options.k, where=options.where, provenance=given.provenance, exact=options.exact
    )
    return given.ids.tolist(), hits


def _as_id(index: Index | ShardedIndex, text: str) -> Any:
    """An id as the index has it: the command line knows only text."""
    if index.ids.dtype == object:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"id {text!r}: expected a whole number, as the ids of this index are") from error

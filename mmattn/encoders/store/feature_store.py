"""The feature store: frozen encoders run once, and their tokens are stored on disk.

A folder belongs to one card (encoder, weights, preprocessing, dtype) and is named by its fingerprint. It
holds `card.json`, `shards/` (encoded contents by their hashes, never rewritten) and `views/` (the same tokens
in the order of a request, one memory-mapped file each). Views may be deleted at any time; they are rebuilt
from the shards.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmattn.encoders.base import Encoder, Unreadable
from mmattn.encoders.store.rejected_content import RejectedContent, write_rejected
from mmattn.encoders.store.shards import BrokenShard, Shard, concatenate_layouts, write_shard, write_view
from mmattn.errors import InputError
from mmattn.files import write_json
from mmattn.types import Tokens

__all__ = ["FeatureStore"]

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_MAX_VIEWS = 4


class FeatureStore:
    """Tokens of a frozen encoder, stored on disk.

    A content is identified by its hash and encoded once: not again in a second run, when it occurs twice, or
    after a kill. Any number of processes may use one folder at the same time.

    Args:
        root: folder of the store; one store serves any number of encoders.
        encoder: a frozen encoder.
        dtype: "float32", or "float16" for half the space.
        batch_size: contents per batch of the encoder.
        shard_size: contents per shard, the most that a kill loses.
        verify: read stored files completely and compare their checksums before use; False trusts them,
            which starts faster on many gigabytes.
        progress: show a progress bar while encoding.

    Raises:
        InputError: the encoder is not frozen, or an option is out of range.

    Example:
        >>> import tempfile
        >>> from mmattn.registry import encoders
        >>> folder = tempfile.mkdtemp()
        >>> store = FeatureStore(folder, encoders.create("minilm", pool="all"), progress=False)
        >>> tokens = store.tokens(["Toy Story", None, "Heat"], ids=["1", "2", "3"])
        >>> tokens.lengths.tolist(), store.rejected
        ([1, 0, 1], [])
    """

    def __init__(
        self,
        root: str | Path,
        encoder: Encoder,
        *,
        dtype: str = "float32",
        batch_size: int = 64,
        shard_size: int = 256,
        verify: bool = True,
        progress: bool = True,
    ):
        card = encoder.describe()
        if not encoder.frozen:
            raise InputError(
                f"feature store: encoder {card.name!r} is trainable, expected a frozen one: "
                "its tokens change with every step"
            )
        if dtype not in _DTYPES:
            raise InputError(f"feature store: got dtype={dtype!r}, expected one of {', '.join(_DTYPES)}")
        for what, size in (("batch_size", batch_size), ("shard_size", shard_size)):
            if size < 1:
                raise InputError(f"feature store: got {what}={size}, expected at least 1")
        self.encoder = encoder
        self.card = replace(card, dtype=dtype)
        self.folder = Path(root) / f"{card.name}-{self.card.fingerprint()[:16]}"
        self.batch_size = batch_size
        self.shard_size = shard_size
        self.verify = verify
        self.progress = progress
        self._rejected: dict[str, RejectedContent] = {}

    @property
    def rejected(self) -> list[RejectedContent]:
        """Contents that could not be read, of all requests to this store, sorted by id."""
        return sorted(self._rejected.values())

    def write_rejected(self, path: str | Path) -> None:
        """Write the rejected contents as CSV with columns id, modality, reason.

        Args:
            path: the file.
        """
        write_rejected(path, self.rejected)

    def tokens(self, contents: Sequence[Any], ids: Sequence[str] | None = None) -> Tokens:
        """Return the tokens of contents, encoding those that are missing.

        Args:
            contents: one raw content per sample; None where the modality is absent.
            ids: ids of the samples, for `rejected`; by default their indices.

        Returns:
            Tokens on the CPU with memory-mapped values: rows are read from disk on use. A content that cannot
            be read has no tokens and is added to `rejected`.

        Raises:
            InputError: ids and contents differ in number, or the disk cannot be written to.
        """
        names = [str(index) for index in range(len(contents))] if ids is None else list(ids)
        if len(names) != len(contents):
            raise InputError(f"feature store: got {len(names)} ids for {len(contents)} contents")
        for name in names:
            self._rejected.pop(name, None)
        hashes = self._hashes(contents, names)
        view = self._view(contents, hashes)
        for name, content_hash in zip(names, hashes, strict=True):
            if content_hash in view.rejected:
                self._reject(name, view.rejected[content_hash])
        return self._as_tokens(view)

    def _reject(self, name: str, reason: str) -> None:
        self._rejected[name] = RejectedContent(name, self.card.modality, reason)

    def _hashes(self, contents: Sequence[Any], names: Sequence[str]) -> list[str]:
        """Hash each content; "" where it is absent or cannot be opened."""
        hashes = []
        for content, name in zip(contents, names, strict=True):
            try:
                hashes.append("" if content is None else self.encoder.content_hash(content))
            except Unreadable as error:
                self._reject(name, str(error))
                hashes.append("")
        return hashes

    def _as_tokens(self, view: Shard) -> Tokens:
        return Tokens(
            values=view.values,
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), view.lengths.cumsum(0)]),
            modality=torch.zeros(len(view.values), dtype=torch.int64),
            position=view.position,
            modalities=(self.card.modality,),
            time=view.time,
            entity=view.entity,
        )

    # --- views: tokens in the order of a request -------------------------------------------------

    def _view(self, contents: Sequence[Any], hashes: list[str]) -> Shard:
        name = hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:32]
        path = self.folder / "views" / f"{name}.safetensors"
        view = self._open(path)
        if view is not None and list(view.items) == hashes:
            path.touch()  # the least recently used views are deleted first
            return view
        shards = self._encode_missing(contents, hashes)
        with self._explain_write_errors():
            write_view(path, hashes, shards, self.encoder.dim, _DTYPES[self.card.dtype])
        self._drop_old_views()
        return Shard.open(path, verify=False)

    def _drop_old_views(self) -> None:
        ages = {path: time.time() - _last_used(path) for path in (self.folder / "views").iterdir()}
        views = sorted((path for path in ages if path.suffix == ".safetensors"), key=ages.__getitem__)
        # A minute's grace: another process may have written its view and not mapped it yet.
        old = [path for path in views[_MAX_VIEWS:] if ages[path] > 60]
        abandoned = [path for path in ages if path.suffix == ".partial" and ages[path] > 86_400]
        for path in (*old, *abandoned):
            path.unlink(missing_ok=True)  # a process that has mapped a view can still read it

    @contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"feature store: cannot write to {self.folder} ({error.strerror or error}); "
                "what was encoded before is kept"
            ) from error

    # --- shards: encoded contents ----------------------------------------------------------------

    def _open(self, path: Path) -> Shard | None:
        """Open a shard; None where it does not exist. A broken one is deleted, to be encoded again."""
        try:
            return Shard.open(path, verify=self.verify)
        except FileNotFoundError:
            return None
        except BrokenShard as error:
            logger.warning("feature store: %s; it is encoded again", error)
            path.unlink(missing_ok=True)
            return None

    def _encode_missing(self, contents: Sequence[Any], hashes: list[str]) -> list[Shard]:
        """Encode the contents that no shard holds, and return all shards."""
        paths = sorted((self.folder / "shards").glob("*.safetensors"))
        shards = [shard for path in paths if (shard := self._open(path)) is not None]
        known = {name for shard in shards for name in (*shard.items, *shard.rejected)}
        wanted = {name: content for name, content in zip(hashes, contents, strict=True) if name}
        # Sorting by length makes batches fast; the longest come first, so that the estimated time is
        # never too short and running out of memory shows at once.
        costs = {name: self._size_hint(content) for name, content in wanted.items() if name not in known}
        missing = sorted(costs, key=costs.__getitem__, reverse=True)
        with tqdm(
            total=len(missing),
            desc=f"encode {self.card.name}",
            unit="item",
            disable=not (self.progress and missing),
        ) as bar:
            for names in batched(missing, self.shard_size):
                shards.append(self._encode_shard([(name, wanted[name]) for name in names], bar))
        return shards

    def _size_hint(self, content: Any) -> int:
        try:
            return self.encoder.size_hint(content)
        except Unreadable:
            return 0  # `read` gives the reason

    def _encode_shard(self, pairs: list[tuple[str, Any]], bar: tqdm[Any]) -> Shard:
        """Encode (hash, content) pairs into a new shard."""
        rejected: dict[str, str] = {}
        names: list[str] = []
        batches: list[Tokens] = []
        for batch in batched(pairs, self.batch_size):
            for encoded_names, tokens in self._encode_batch(batch, rejected):
                names += encoded_names
                batches.append(tokens)
            bar.update(len(batch))
        path = self.folder / "shards" / f"{uuid.uuid4().hex}.safetensors"
        values = [tokens.values for tokens in batches]
        with self._explain_write_errors():
            if not (self.folder / "card.json").exists():
                write_json(self.folder / "card.json", asdict(self.card))
            write_shard(
                path,
                items=names,
                rejected=rejected,
                values=values,
                shape=(sum(map(len, values)), self.encoder.dim),
                dtype=_DTYPES[self.card.dtype],
                layout=concatenate_layouts(batches),
            )
        return Shard.open(path, verify=False)

    def _encode_batch(
        self, batch: Sequence[tuple[str, Any]], rejected: dict[str, str]
    ) -> list[tuple[list[str], Tokens]]:
        """Encode a batch: names and tokens of the readable contents; the others go to `rejected`."""
        decoded: dict[str, Any] = {}
        for name, content in batch:
            try:
                decoded[name] = self.encoder.read(content)
            except Unreadable as error:
                rejected[name] = str(error)
        try:
            with torch.no_grad():
                tokens = self.encoder(list(decoded.values())).to("cpu", _DTYPES[self.card.dtype])
        except Unreadable as error:
            if len(decoded) > 1:  # find out which one
                return [result for pair in decoded.items() for result in self._encode_batch([pair], rejected)]
            rejected.update(dict.fromkeys(decoded, str(error)))
            return []
        finite_B = torch.ones(len(tokens), dtype=torch.bool)
        finite_B[tokens.sample[~tokens.values.isfinite().all(1)]] = False
        for name, finite in zip(decoded, finite_B.tolist(), strict=True):
            if not finite:
                rejected[name] = f"the encoder gave values that are not finite in {self.card.dtype}"
        return [([name for name in decoded if name not in rejected], tokens.select(finite_B))]


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield slices of at most `size` items (`itertools.batched` needs Python 3.12).

    Args:
        items: the items.
        size: maximum length of a slice.

    Yields:
        Slices in order.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process deleted it
        return time.time()

"""Checks for plugins, for their authors as much as for mmattn: run them in your own tests.

    from mmattn.testing.plugin_checks import check_encoder
    def test_my_encoder():
        check_encoder("my-encoder")

Each check takes the name of a registered plugin, or the thing itself, and raises `PluginError` that
names the plugin, the hook, what came and what was expected. No test framework is needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder
from mmattn.errors import PluginError
from mmattn.registry import adapters, datasets, encoders, heads
from mmattn.testing.encoder_contract import EncoderContract, sample_contents
from mmattn.types import Fused

__all__ = ["check_adapter", "check_dataset", "check_encoder", "check_head", "sample_contents"]


def check_encoder(encoder: str | Encoder, contents: Sequence[Any] | None = None, **options: Any) -> None:
    """Hold an encoder against the contract in `mmattn.encoders.base`.

    Args:
        encoder: registered name, or an encoder.
        contents: at least three different readable contents; left out, `sample_contents` makes some.
        **options: for the constructor, where a name is given.

    Raises:
        PluginError: naming the encoder, the hook, what came and what was expected.

    Example:
        >>> check_encoder("tiny-text")
    """
    made = encoders.create(encoder, **options) if isinstance(encoder, str) else encoder
    if not isinstance(made, Encoder):
        raise PluginError(f"encoder {encoder!r}: got {type(made).__name__}, expected a subclass of Encoder")
    EncoderContract(made, contents).run()


def check_head(head: str | Any, dim: int = 13) -> None:
    """Hold a head against its contract: `forward(fused)`, a `loss` to train with, an `example`.

    Args:
        head: registered name, or the class. Its classmethod `example(dim)` gives a head, a `Fused` and
            the other arguments of `loss`, as a dictionary.
        dim: width D of the fused tokens.

    Raises:
        PluginError: naming the head, the hook, what came and what was expected.

    Example:
        >>> check_head("alignment")
    """
    head_type = heads.load(head) if isinstance(head, str) else head
    where = f"head {head!r}" if isinstance(head, str) else f"head {head_type.__name__}"
    if not callable(getattr(head_type, "example", None)):
        raise PluginError(f"{where}: no classmethod example(dim), expected one for the checks")
    example = _call_hook(where, f"example({dim})", lambda: head_type.example(dim))
    if not (isinstance(example, tuple) and len(example) == 3 and isinstance(example[1], Fused)):
        raise PluginError(
            f"{where}: example({dim}) gave {type(example).__name__}, expected (head, Fused, dict)"
        )
    if not isinstance(example[0], nn.Module):
        raise PluginError(
            f"{where}: example({dim}) made {type(example[0]).__name__}, expected a torch.nn.Module"
        )
    module: Any = example[0]
    fused, inputs = example[1:]
    leaves = [tensor.requires_grad_() for tensor in (fused.tokens.values, fused.pooled, fused.by_modality)]
    _call_hook(where, "forward(fused)", lambda: module(fused))
    loss = _call_hook(where, "loss(fused, ...)", lambda: module.loss(fused, **inputs))
    if not isinstance(loss, Tensor) or loss.dim() or not bool(loss.isfinite()):
        raise PluginError(f"{where}: loss gave {loss!r}, expected one finite number")
    if not loss.requires_grad:
        raise PluginError(f"{where}: got a loss without a gradient, expected one to train with")
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(loss, [*leaves, *parameters], allow_unused=True)
    if not all(bool(grad.isfinite().all()) for grad in grads if grad is not None):
        raise PluginError(f"{where}: got a gradient that is not finite")
    if all(grad is None for grad in grads[: len(leaves)]):
        raise PluginError(f"{where}: no gradient reaches what was fused, expected one")


def check_dataset(dataset: str | Any, root: str | Path | None = None) -> None:
    """Prepare a data set into a temporary folder and check what lies there.

    Args:
        dataset: registered name, or the class.
        root: folder of its raw files; None for a data set that brings its own.

    Raises:
        PluginError: naming the data set, the hook, what came and what was expected.
    """
    from mmattn.data.card import Card

    dataset_type = datasets.load(dataset) if isinstance(dataset, str) else dataset
    where = f"dataset {dataset!r}" if isinstance(dataset, str) else f"dataset {dataset_type.__name__}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        _call_hook(where, "prepare(root, out)", lambda: dataset_type().prepare(root, out))
        if not (out / "card.yaml").is_file():
            written = sorted(path.name for path in out.glob("*")) if out.is_dir() else "no folder"
            raise PluginError(f"{where}: prepare left {written}, expected card.yaml in `out`")
        _call_hook(where, "prepare(root, out)'s card", lambda: Card.load(out))


def check_adapter(adapter: str | Any) -> None:
    """Load an adapter and run its example.

    Args:
        adapter: registered name, or the class or function. It says in its docstring what it adapts to
            what; a class has a classmethod `example()` that runs it on something small.

    Raises:
        PluginError: naming the adapter, the hook, what came and what was expected.
    """
    plugin: Any = adapters.load(adapter) if isinstance(adapter, str) else adapter
    where = (
        f"adapter {adapter!r}"
        if isinstance(adapter, str)
        else f"adapter {getattr(plugin, '__name__', plugin)!s}"
    )
    if not callable(plugin):
        raise PluginError(f"{where}: got {type(plugin).__name__}, expected a class or a function")
    if not (plugin.__doc__ or "").strip():
        raise PluginError(f"{where}: no docstring, expected one that says what it adapts to what")
    if isinstance(plugin, type):
        example = getattr(plugin, "example", None)
        if not callable(example):
            raise PluginError(f"{where}: no classmethod example(), expected one for the checks")
        _call_hook(where, "example()", example)


def _call_hook(where: str, hook: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except PluginError:
        raise
    except Exception as error:  # whatever a plugin raises is the finding
        raise PluginError(f"{where}: {hook} raised {type(error).__name__}: {error}") from error

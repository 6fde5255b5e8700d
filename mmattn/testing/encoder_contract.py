"""The checks of the contract of an encoder; `mmattn.testing.plugin_checks.check_encoder` runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.errors import PluginError
from mmattn.registry import encoders
from mmattn.types import Tokens

__all__ = ["EncoderContract", "sample_contents"]

_TOLERANCE = 1e-3  # relative to the largest value: effect of padding and batch size in float32


def sample_contents(encoder: Encoder) -> list[Any]:
    """Return small contents of different lengths for an encoder's modality.

    Args:
        encoder: the encoder.

    Raises:
        PluginError: the modality is unknown here; give contents instead.
    """
    generator = np.random.default_rng(7)
    if encoder.modality == "text":
        return ["seven", "A film about two brothers, their boat and the sea.", ["Heat (1995)", None, "Crime"]]
    if encoder.modality == "image":
        return [generator.integers(0, 256, shape, np.uint8) for shape in ((37, 23, 3), (64, 64), (19, 53, 4))]
    if encoder.modality == "audio":
        return [
            ((generator.normal(size=size) * 0.1).astype(np.float32), rate)
            for size, rate in ((16000, 16000), (7919, 8000), (40009, 22050))
        ]
    columns = encoder.options().get("columns")
    if columns:
        return [{name: _cell(spec, which) for name, spec in columns.items()} for which in range(3)]
    raise PluginError(
        f"encoder {encoder.name!r}: modality {encoder.modality!r} is not known here; give contents"
    )


def _cell(spec: Mapping[str, Any], which: int) -> Any:
    values = spec.get("values", [])
    if spec["kind"] == "number":
        return spec["mean"] + which * spec["std"]
    cell = [values[which % len(values)]] if values else []
    return cell if spec["kind"] != "category" else next(iter(cell), None)


class EncoderContract:
    """The checks of one encoder, ordered so that the first failure is the easiest to understand.

    Args:
        encoder: the encoder to check.
        contents: at least three contents of its modality; None for `sample_contents`.

    Raises:
        PluginError: an attribute is missing, or there are too few contents.
    """

    def __init__(self, encoder: Encoder, contents: Sequence[Any] | None):
        for attribute, kind in (("name", str), ("modality", str), ("dim", int), ("frozen", bool)):
            value = getattr(encoder, attribute, None)
            if not isinstance(value, kind) or value == "":
                raise PluginError(
                    f"encoder {type(encoder).__name__}: attribute {attribute} is {value!r}, "
                    f"expected {'a ' if kind is not int else 'an '}{kind.__name__}"
                )
        self.encoder = encoder
        self.contents = list(sample_contents(encoder) if contents is None else contents)
        if len(self.contents) < 3 or any(content is None for content in self.contents):
            raise PluginError(f"encoder {encoder.name!r}: give at least three contents, none of them None")

    def run(self) -> None:
        """Run all checks.

        Raises:
            PluginError: the first violation of the contract.
        """
        training = self.encoder.training
        self.encoder.eval()
        try:
            self.tokens()
            self.absence()
            self.determinism()
            self.batches()
            self.reading()
            self.refusal()
            self.card()
            self.options()
            self.gradients()
        finally:
            self.encoder.train(training)

    # --- calls of the hooks, whose exceptions become PluginErrors --------------------------------

    def expect(self, condition: bool, hook: str, got: Any, expected: str) -> None:
        if not condition:
            raise PluginError(
                f"encoder {self.encoder.name!r} ({type(self.encoder).__name__}): {hook} gave {got}, "
                f"expected {expected}"
            )

    def call(self, hook: str, *arguments: Any, what: str = "") -> Any:
        try:
            return getattr(self.encoder, hook)(*arguments)
        except PluginError:
            raise
        except Exception as error:  # a plugin may raise anything
            raise PluginError(
                f"encoder {self.encoder.name!r} ({type(self.encoder).__name__}): {hook}({what}) raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def encode(self, contents: Sequence[Any], what: str, *, gradients: bool = False) -> Tokens:
        with torch.set_grad_enabled(gradients):
            return self.call("__call__", contents, what=what)

    # --- the checks ------------------------------------------------------------------------------

    def tokens(self) -> None:
        tokens = self.encode(self.contents, "the contents")
        self.expect(
            bool(tokens.values.isfinite().all()), "encode", "values that are not finite", "finite ones"
        )
        self.expect(
            all(tokens.length_list),
            "encode",
            f"{tokens.length_list} tokens",
            "at least one for each present content",
        )

    def absence(self) -> None:
        tokens = self.encode([None, self.contents[0], None], "absent and present contents")
        self.expect(
            tokens.length_list[0] == tokens.length_list[2] == 0,
            "encode",
            f"{tokens.length_list} tokens",
            "none where content is None",
        )
        tokens = self.encode([None, None], "absent contents only")
        self.expect(
            tokens.length_list == [0, 0],
            "encode",
            f"{tokens.length_list} tokens",
            "[0, 0] for two absent contents",
        )
        self.encode([], "no contents")

    def determinism(self) -> None:
        first, second = (self.encode(self.contents, "the contents") for _ in range(2))
        self.same(first, second, "two runs in evaluation")
        if self.encoder.frozen:
            self.encoder.train()
            self.same(first, self.encode(self.contents, "the contents"), "train(), though it is frozen,")
            self.encoder.eval()

    def batches(self) -> None:
        together = self.encode(self.contents, "the contents")
        reverse = self.encode(self.contents[::-1], "the contents in reverse")
        self.same(together, reverse.select(range(len(reverse))[::-1]), "another order of the contents")
        for index, content in enumerate(self.contents):
            alone = self.encode([content], "one content")
            self.same(together.select([index]), alone, "encoding a content by itself and with others")

    def reading(self) -> None:
        decoded = [self.call("read", content, what="a content") for content in self.contents]
        again = [self.call("read", content, what="a decoded content") for content in decoded]
        raw = self.encode(self.contents, "the contents")
        self.same(raw, self.encode(again, "decoded contents"), "raw contents and decoded ones")
        hashes = [self.call("content_hash", content, what="a content") for content in self.contents]
        twice = [self.call("content_hash", content, what="a content") for content in self.contents]
        self.expect(
            hashes == twice and all(isinstance(text, str) and text for text in hashes),
            "content_hash",
            hashes,
            "the same text each time",
        )
        self.expect(len(set(hashes)) == len(hashes), "content_hash", hashes, "other texts for other contents")

    def refusal(self) -> None:
        try:
            self.encoder([self.encoder.read(object())])
        except Unreadable:
            return
        except Exception as error:  # any other exception would end a whole run
            self.expect(
                False, "read or encode", f"{type(error).__name__}: {error}", "Unreadable for an object()"
            )
        self.expect(False, "read and encode", "tokens for an object()", "Unreadable with the reason")

    def card(self) -> None:
        card = self.call("describe")
        self.expect(isinstance(card, EncoderCard), "describe", type(card).__name__, "an EncoderCard")
        for what in ("name", "modality", "dim"):
            got, expected = getattr(card, what), getattr(self.encoder, what)
            self.expect(got == expected, "describe", f"{what} {got!r}", repr(expected))
        self.expect(
            bool(card.weights_hash) == self.encoder.frozen,
            "describe",
            f"weights_hash {card.weights_hash!r}",
            "a hash for a frozen encoder and '' for a trainable one",
        )
        try:
            same = card.fingerprint() == self.call("describe").fingerprint()
        except TypeError as error:
            raise PluginError(
                f"encoder {card.name!r}: describe gave preprocessing that is no JSON: {error}"
            ) from error
        self.expect(same, "describe", "two fingerprints in a row", "one")

    def options(self) -> None:
        options = self.call("options")
        try:
            copied = json.loads(json.dumps(options, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise PluginError(f"encoder {self.encoder.name!r}: options gave no JSON: {error}") from error
        self.expect(
            copied == options, "options", options, f"JSON values that come back as they were, not {copied}"
        )
        factory = encoders.load(self.encoder.name) if self.encoder.name in encoders else type(self.encoder)
        try:
            twin = factory(**copied)
        except Exception as error:  # a plugin may raise anything
            raise PluginError(
                f"encoder {self.encoder.name!r}: the constructor refuses what options gave, {copied}: {error}"
            ) from error
        card, other = self.encoder.describe(), twin.describe()
        self.expect(card == other, "options", f"an encoder with the card {other}", str(card))
        if self.encoder.frozen:
            twin.to(self.encoder.device).eval()
            rebuilt = EncoderContract(twin, self.contents)
            self.same(
                self.encode(self.contents, "the contents"),
                rebuilt.encode(self.contents, "the contents"),
                "building the encoder again from its options",
            )

    def gradients(self) -> None:
        parameters = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        tokens = self.encode(self.contents, "the contents", gradients=True)
        if self.encoder.frozen:
            self.expect(
                not parameters, "parameters", f"{len(parameters)} that train", "none: it says it is frozen"
            )
            self.expect(
                not tokens.values.requires_grad, "encode", "values with a gradient", "none: it is frozen"
            )
            return
        self.expect(bool(parameters), "parameters", "none that train", "some: it says it is not frozen")
        self.expect(
            tokens.values.requires_grad, "encode", "values without a gradient", "a gradient to train with"
        )
        # Squares: the sum of normalised values is constant and would hide a gradient.
        grads = torch.autograd.grad(
            (tokens.values * torch.randn_like(tokens.values)).sum(), parameters, allow_unused=True
        )
        reached = [grad for grad in grads if grad is not None]
        self.expect(
            any(bool(grad.any()) for grad in reached),
            "encode",
            "a gradient of zero",
            "one that reaches the parameters",
        )
        self.expect(
            all(bool(grad.isfinite().all()) for grad in reached),
            "encode",
            "a gradient that is not finite",
            "finite ones",
        )

    def same(self, first: Tokens, second: Tokens, what: str) -> None:
        self.expect(
            first.length_list == second.length_list,
            "encode",
            f"{second.length_list} tokens after {what}",
            str(first.length_list),
        )
        for field in ("position", "time", "entity"):
            expected, got = getattr(first, field), getattr(second, field)
            if expected is None or got is None:
                continue  # a batch without any times may leave them out
            self.expect(
                torch.allclose(expected.double(), got.double(), equal_nan=True),
                "encode",
                f"another {field} after {what}",
                "the same",
            )
        if len(first.values):
            largest = first.values.abs().max().clamp_min(1e-9)
            difference = float((first.values - second.values).abs().max() / largest)
            self.expect(
                difference <= _TOLERANCE,
                "encode",
                f"values {difference:.2g} of the largest apart after {what}",
                f"at most {_TOLERANCE}",
            )

"""The public checks: what breaks a contract is named; what keeps it passes (tests/encoders has those)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.text.huggingface_text import split_fields
from mmattn.errors import PluginError
from mmattn.registry import datasets, heads
from mmattn.testing.plugin_checks import check_adapter, check_dataset, check_encoder, check_head
from mmattn.types import Fused, Tokens


class Letters(Encoder):
    """Keeps the contract: one token a letter."""

    name = "letters"
    modality = "text"
    dim = 3

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift
        self.table = nn.Embedding(11, 3)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        return self.pack([None if content is None else self.row(content) for content in contents])

    def row(self, content: Any) -> Tensor:
        letters = "".join(field for field in split_fields(content) if field)
        return self.table(torch.tensor([(ord(letter) + self.shift) % 11 for letter in letters]).long())

    def describe(self) -> EncoderCard:
        return EncoderCard(self.name, self.modality, self.dim, "1", preprocessing={"shift": self.shift})

    def options(self) -> dict[str, Any]:
        return {"shift": self.shift}


def card(**changes: Any) -> Callable[[Any], EncoderCard]:
    original = {
        "name": "letters",
        "modality": "text",
        "dim": 3,
        "revision": "1",
        "preprocessing": {"shift": 0},
    }
    return lambda self: EncoderCard(**{**original, **changes})


class Noisy(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(content) + torch.rand(1)


class Forgetful(Letters):
    def encode(self, contents: Sequence[Any]) -> Tokens:
        return super().encode([content or "" for content in contents if content is not None])


class Filling(Letters):
    """The fault that the whole project is about: absent means zero."""

    def encode(self, contents: Sequence[Any]) -> Tokens:
        return self.pack(
            [torch.zeros(1, 3) if content is None else self.row(content) for content in contents]
        )


class Together(Letters):
    """Its tokens depend on the other contents of the batch, as batch normalisation's do."""

    def encode(self, contents: Sequence[Any]) -> Tokens:
        tokens = super().encode(contents)
        return tokens if not len(tokens.values) else tokens.with_values(tokens.values - tokens.values.mean(0))


class Detached(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(content).detach()


class Silent(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(content)[:0]


class Infinite(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(content) / 0


class Crashing(Letters):
    def encode(self, contents: Sequence[Any]) -> Tokens:
        return super().encode([contents[0], *contents[1:]])


class Rough(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(list(content))


class Swallowing(Letters):
    def row(self, content: Any) -> Tensor:
        return super().row(content if isinstance(content, (str, list, tuple)) else "?")


class SameHash(Letters):
    def content_hash(self, content: Any) -> str:
        return "constant"


class Random(Letters):
    """Says it is frozen, and has other weights each time it is built."""

    frozen = True
    describe = card(weights_hash="f")


class HalfFrozen(Random):
    def __init__(self, shift: int = 0) -> None:
        super().__init__(shift)
        nn.init.ones_(self.table.weight)


def changed(**members: Any) -> type[Letters]:
    return type("Changed", (Letters,), members)


class TestEncoder:
    def test_a_good_one_passes(self) -> None:
        check_encoder(Letters(shift=5))

    @pytest.mark.parametrize(
        ("kind", "complaint"),
        [
            (Noisy, "values .* apart after two runs in evaluation, expected at most"),
            (Forgetful, "tokens with samples 1, expected 3"),
            (Filling, r"gave \[1, 5, 1\] tokens, expected none where content is None"),
            (Together, "apart after encoding a content by itself and with others"),
            (Detached, "encode gave values without a gradient"),
            (Silent, r"gave \[0, 0, 0\] tokens, expected at least one for each"),
            (Infinite, "values that are not finite"),
            (Crashing, r"__call__\(no contents\) raised IndexError"),
            (Rough, r"raised TypeError: 'object' object is not iterable|Unreadable for an object"),
            (Swallowing, r"gave tokens for an object\(\), expected Unreadable"),
            (SameHash, "expected other texts for other contents"),
            (Random, "apart after building the encoder again from its options"),
            (HalfFrozen, "parameters gave 1 that train, expected none: it says it is frozen"),
            (changed(dim="3"), "attribute dim is '3', expected an int"),
            (changed(name=""), "attribute name is '', expected a str"),
            (
                changed(describe=lambda self: {"name": "letters"}),
                "describe gave dict, expected an EncoderCard",
            ),
            (changed(describe=card(dim=5)), "describe gave dim 5, expected 3"),
            (changed(describe=card(weights_hash="f")), "weights_hash 'f', expected a hash for a frozen"),
            (
                changed(describe=card(preprocessing={"x": torch.ones})),
                "describe gave preprocessing that is no JSON",
            ),
            (changed(options=lambda self: {"shift": torch.ones}), "options gave no JSON"),
            (
                changed(options=lambda self: {"shift": (1, 2)}),
                "expected JSON values that come back as they were",
            ),
            (
                changed(options=lambda self: {"size": 1}),
                "the constructor refuses what options gave, {'size': 1}",
            ),
            (changed(options=lambda self: {"shift": 4}), "options gave an encoder with the card"),
        ],
    )
    def test_a_broken_one_is_named(self, kind: type[Letters], complaint: str) -> None:
        with pytest.raises(PluginError, match=complaint) as caught:
            check_encoder(kind())
        assert kind.__name__ in str(caught.value) or "letters" in str(caught.value)

    def test_it_is_left_as_it_was(self) -> None:
        encoder = Letters().train()
        check_encoder(encoder)
        assert encoder.training

    def test_something_else_is_no_encoder(self) -> None:
        with pytest.raises(PluginError, match="got Linear, expected a subclass of Encoder"):
            check_encoder(nn.Linear(2, 2))  # type: ignore[arg-type]

    def test_unknown_modalities_need_contents(self) -> None:
        encoder = Letters()
        encoder.modality = "smell"
        encoder.describe = lambda: card(modality="smell")(encoder)  # type: ignore[method-assign]
        with pytest.raises(PluginError, match="modality 'smell' is not known here; give contents"):
            check_encoder(encoder)
        with pytest.raises(PluginError, match="give at least three contents"):
            check_encoder(encoder, contents=["a", None, "b"])


class Mean(nn.Module):
    """Keeps the contract: predicts a number from the pooled vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)

    def forward(self, fused: Fused) -> Tensor:
        return self.linear(fused.pooled)[:, 0]

    def loss(self, fused: Fused, wanted: Tensor) -> Tensor:
        return (self(fused) - wanted).square().mean()

    @classmethod
    def example(cls, dim: int) -> tuple[nn.Module, Fused, dict[str, Any]]:
        tokens = Tokens.from_lengths(torch.randn(5, dim), torch.tensor([2, 0, 3]), "text")
        fused = Fused(tokens, torch.randn(3, dim), torch.randn(3, 1, dim), tokens.presence)
        return cls(dim), fused, {"wanted": torch.zeros(3)}


class TestHead:
    @pytest.mark.parametrize("name", list(heads))
    def test_every_registered_head_keeps_the_contract(self, name: str) -> None:
        check_head(name)

    @pytest.mark.parametrize(
        ("members", "complaint"),
        [
            ({"example": None}, r"no classmethod example\(dim\)"),
            ({"example": classmethod(lambda cls, dim: cls(dim))}, "gave Broken, expected .head, Fused, dict"),
            ({"example": classmethod(lambda cls, dim: 1 / 0)}, "raised ZeroDivisionError"),
            ({"forward": lambda self, fused: fused.missing}, r"forward\(fused\) raised AttributeError"),
            ({"loss": lambda self, fused, wanted: wanted}, r"loss gave tensor.*expected one finite number"),
            ({"loss": lambda self, fused, wanted: wanted.sum() / 0}, "expected one finite number"),
            ({"loss": lambda self, fused, wanted: wanted.sum()}, "a loss without a gradient"),
            (
                {"loss": lambda self, fused, wanted: self.linear.weight.sum()},
                "no gradient reaches what was fused",
            ),
            (
                {"loss": lambda self, fused, wanted: (fused.pooled * 0).sum().sqrt()},
                "a gradient that is not finite",
            ),
        ],
    )
    def test_a_broken_one_is_named(self, members: dict[str, Any], complaint: str) -> None:
        check_head(Mean)
        with pytest.raises(PluginError, match=f"head Broken: .*{complaint}"):
            check_head(type("Broken", (Mean,), members))


class TestDataset:
    def test_digits_brings_its_own_data(self) -> None:
        assert "digits" in datasets
        check_dataset("digits")

    def test_a_broken_one_is_named(self) -> None:
        class Empty:
            def prepare(self, root: Path | None, out: Path) -> None:
                out.mkdir()

        class Bad:
            def prepare(self, root: Path | None, out: Path) -> None:
                out.mkdir()
                (out / "card.yaml").write_text("name: 5\nunknown: 1\n")

        with pytest.raises(PluginError, match=r"dataset Empty: prepare left \[\], expected card.yaml"):
            check_dataset(Empty)
        with pytest.raises(PluginError, match=r"dataset Bad: prepare\(root, out\)'s card raised InputError"):
            check_dataset(Bad)


class TestAdapter:
    def test_a_good_one_passes(self) -> None:
        class Adapter:
            """From here to there."""

            ran = False

            @classmethod
            def example(cls) -> None:
                cls.ran = True

        check_adapter(Adapter)
        assert Adapter.ran

    @pytest.mark.parametrize(
        ("members", "complaint"),
        [
            ({"example": classmethod(lambda cls: None)}, "no docstring"),
            ({"__doc__": "From here to there."}, r"no classmethod example\(\)"),
            (
                {"__doc__": "x", "example": classmethod(lambda cls: 1 / 0)},
                "example.* raised ZeroDivisionError",
            ),
        ],
    )
    def test_a_broken_one_is_named(self, members: dict[str, Any], complaint: str) -> None:
        with pytest.raises(PluginError, match=f"adapter Broken: {complaint}"):
            check_adapter(type("Broken", (), members))
        with pytest.raises(PluginError, match="got int, expected a class or a function"):
            check_adapter(5)

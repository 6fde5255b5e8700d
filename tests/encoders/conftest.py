"""Tiny Hugging Face models with random weights, saved the way real ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ["seven", "eight", "a", "film", "about", "two", "brothers", ",", ".", "the", "sea", "heat", "crime"]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small run fastest on one thread, and far faster where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a transformers model and its processor into a folder of their own."""

    def save(name: str, model: Any, processor: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def word_tokenizer() -> Any:
    """One piece a known word, [UNK] for the others, [CLS] before and [SEP] behind."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="session")
def tiny_bert(save_model: Callable[..., Path], word_tokenizer: Any) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=22, num_hidden_layers=2, num_attention_heads=2, intermediate_size=29
    )
    return save_model("bert", BertModel(config), word_tokenizer)


@pytest.fixture(scope="session")
def tiny_wav2vec(save_model: Callable[..., Path]) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=26,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=31,
        conv_dim=(11, 13),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=5,
        num_conv_pos_embedding_groups=2,
    )
    return save_model("wav2vec", Wav2Vec2Model(config), Wav2Vec2FeatureExtractor(sampling_rate=8000))


@pytest.fixture(scope="session")
def tiny_whisper(save_model: Callable[..., Path]) -> Path:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=17,
        d_model=14,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=19,
        decoder_ffn_dim=19,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return save_model("whisper", WhisperModel(config), WhisperFeatureExtractor())

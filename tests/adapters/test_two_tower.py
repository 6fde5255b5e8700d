"""The two towers that adapters share, and the example that needs no adapter at all."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mmattn.config import FusionConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.model.build import build_item_tower
from mmattn.types import Tokens
from mmattn_adapters.two_tower import TwoTower

ROOT = Path(__file__).parents[2]


@pytest.fixture
def items() -> ModelInputs:
    return ModelInputs({"image": Tokens.from_sequences(list(torch.randn(7, 1, 5)), "image")})


def test_the_score_is_the_formula_of_the_docstring() -> None:
    model = TwoTower(build_item_tower({"image": 5}, dim=4)).eval()
    with torch.no_grad():
        model.log_scale.fill_(math.log(3.0))
        model.length_exponent.fill_(1.0)
        model.user_bias.copy_(torch.tensor([0.0, 1.0]))
    vectors = torch.tensor([[1.0, 0, 1, 1], [0, 2, 0, 1], [5, 5, 2, 0]])
    history = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    # The first user: 3 * ([1, 0] + [0, 2]) / 2 + [0, 1] = [1.5, 4]; the second is everybody, [0, 1].
    assert model.user_vectors(vectors, history).tolist() == [[1.5, 4.0], [0.0, 1.0]]
    assert model.score(vectors, history).tolist() == [[5.5, 4.0, 3.0], [1.0, 1.0, 0.0]]


def test_the_loss_is_the_surprise_at_what_was_hidden(items: ModelInputs) -> None:
    """Three candidates alike: the surprise is log 3, however users are weighed."""
    model = TwoTower(build_item_tower({"image": 5}, dim=4)).eval()
    with torch.no_grad():
        model.user_bias.zero_()
    history, positives = torch.zeros(2, 7), torch.zeros(2, 7)
    positives[0, 2], positives[1, :2] = 1.0, 1.0
    candidates = torch.arange(7) < 3
    assert model.loss(items, history, positives, candidates).item() == pytest.approx(math.log(3))
    history[1, 2] = 1.0  # one candidate fewer for the second user, who has everything else to find
    with torch.no_grad():
        model.log_scale.fill_(-100.0)
    expected = (1 * math.log(3) + 2 * 2**-0.5 * math.log(2)) / (1 + 2 * 2**-0.5)
    assert model.loss(items, history, positives, candidates).item() == pytest.approx(expected, rel=1e-5)


def test_what_is_hidden_is_found_again(items: ModelInputs) -> None:
    torch.manual_seed(1)
    model = TwoTower(
        build_item_tower({"image": 5}, FusionConfig(dim=8), dim=16, num_ids=7, id_dropout=0.0), dropout=0.0
    )
    met = torch.eye(7) + torch.eye(7).roll(1, dims=1)  # who met item i met i + 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = model.loss(items, torch.eye(7), met - torch.eye(7), torch.ones(7, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    scores = model.score(model.tower.vectors(items, known_ids=torch.arange(7)), torch.eye(7))
    actual = scores.masked_fill(torch.eye(7) > 0, -torch.inf).argmax(1)
    assert actual.tolist() == [1, 2, 3, 4, 5, 6, 0]


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match="got item vectors of width 5, expected an even number"):
        TwoTower(build_item_tower({"image": 5}, dim=5))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import two_tower

    return two_tower


def test_the_example_finds_new_films(example: ModuleType) -> None:
    share, _ = example.main()
    assert share > 0.9


def test_its_weights_load_where_our_trainer_is_not(example: ModuleType, tmp_path: Path) -> None:
    _, state = example.main(steps=2)
    torch.save(state, tmp_path / "tower.pt")
    code = f"""
import sys
sys.modules["mmattn.training"] = None  # whoever imports it fails
sys.path.insert(0, {str(ROOT / "examples")!r})
import torch, two_tower
tower = two_tower.item_tower().eval()
tower.load_state_dict(torch.load({str(tmp_path / "tower.pt")!r}, weights_only=True))
text = tower.encoders["title"]([two_tower.TITLES[7]])
print(*tower({{"title": text}})[0].tolist())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tower = example.item_tower().eval()
    tower.load_state_dict(state)
    here = tower({"title": tower.encoders["title"]([example.TITLES[7]])})[0]
    assert torch.allclose(torch.tensor([*map(float, ran.stdout.split())]), here)


def test_the_example_is_short() -> None:
    lines = (ROOT / "examples/two_tower.py").read_text(encoding="utf-8").split('"""')[2].splitlines()
    assert sum(bool(line.strip()) and "import" not in line for line in lines) <= 40

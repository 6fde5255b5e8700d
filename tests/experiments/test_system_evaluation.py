"""What the evidence takes for absent."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmattn.experiments.recommendation import system_evaluation


def test_an_item_whose_content_gives_no_token_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that training never met leave a vector of zeros, which has no direction to compare."""
    vectors = {"text": torch.eye(3), "table": torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])}
    monkeypatch.setattr(
        system_evaluation, "ablate", lambda inputs, gone: next(n for n in vectors if n not in gone)
    )
    monkeypatch.setattr(system_evaluation, "item_vectors", lambda model, left, head: vectors[left])
    monkeypatch.setattr(system_evaluation, "samples_with", lambda inputs, group: np.arange(3))

    class Inputs(SimpleNamespace):
        def __len__(self) -> int:
            return 3

    task = SimpleNamespace(model=None, head_name="recommendation")
    inputs = Inputs(modalities=("text", "table"))
    actual = system_evaluation.modality_gaps(task, inputs, {"text": ["text"], "table": ["table"]})[
        ("text", "table")
    ]  # type: ignore[arg-type]
    assert (actual.samples, actual.matched, actual.distance) == (2, 1.0, 0.0)

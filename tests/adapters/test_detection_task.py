"""A detector under the training loop: whole pictures in a batch, resumed to the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.training.loop import LoopConfig, train
from mmattn.types import Sample
from mmattn_adapters.torchvision import DetectionTask, Detector, SyntheticDetectionTask

SIZE = (32, 48)


def scene(left: int) -> Tensor:
    """A bright square to the left and a dark one to the right, on grey."""
    picture = torch.full((3, *SIZE), 0.5)
    picture[:, 8:20, left : left + 12] = 1.0
    picture[:, 8:20, left + 20 : left + 32] = 0.0
    return picture


def questions() -> tuple[list[Sample], list[Boxes]]:
    """Each scene is asked for the bright square, and for the dark one."""
    samples, targets = [], []
    for left in (0, 5, 11):
        picture = scene(left)
        for word, start in (("bright", left), ("dark", left + 20)):
            samples.append(Sample(f"{word}-{left}", {"image": picture, "text": word}))
            corners = torch.tensor([[start, 8.0, start + 12, 20.0]])
            targets.append(Boxes(corners, ["asked for"], SIZE))
    return samples, targets


def detector() -> Detector:
    torch.manual_seed(0)
    return Detector.build(
        "fcos", ["asked for"], backbone="resnet10t", levels=(2,), extra_levels="none", fpn_channels=32,
        num_convs=1,
        conditioning={"text": TinyText(dim=16, layers=0)},
    )  # fmt: skip


def test_it_learns_to_find_what_it_is_asked_for() -> None:
    samples, targets = questions()
    task = DetectionTask(detector(), samples, targets, batch_size=3)
    rows = train(task, LoopConfig(epochs=40, learning_rate=4e-3, ema_decay=0.5), progress=False).rows
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    right = 0
    for actual, truth in zip(task.detector.predict(samples), targets, strict=True):
        assert len(actual)
        right += bool((actual.boxes[0] - truth.boxes[0]).abs().max() < 4)
    assert right == len(samples)


def test_a_batch_holds_all_questions_about_its_pictures() -> None:
    samples, targets = questions()
    task = DetectionTask(detector(), samples, targets, batch_size=2)
    batches = list(task.batches(1, torch.Generator().manual_seed(0)))
    assert [len(batch[0]) for batch in batches] == [4, 2]
    assert task.num_batches(1) == 2
    assert sorted(sample.id for batch in batches for sample in batch[0]) == sorted(s.id for s in samples)
    for chosen, boxes in batches:
        assert len({id(sample.content["image"]) for sample in chosen}) == len(chosen) / 2
        wanted = dict(zip((sample.id for sample in samples), targets, strict=True))
        assert all(wanted[sample.id] is box for sample, box in zip(chosen, boxes, strict=True))


def test_killed_and_resumed_it_passes_through_the_same_numbers(tmp_path: Path) -> None:
    samples, targets = questions()
    config = LoopConfig(epochs=3, learning_rate=1e-3, ema_decay=0.9)

    def task(dies: bool = False) -> DetectionTask:
        judged: list[int] = []

        def judge(found: Detector) -> dict[str, float]:
            judged.append(1)
            if dies and len(judged) == 2:
                raise KeyboardInterrupt
            return {"sure": sum(float(boxes.scores.sum()) for boxes in found.predict(samples))}  # type: ignore[union-attr]

        return DetectionTask(detector(), samples, targets, judge, batch_size=2)

    whole = task()
    history = train(whole, config, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(task(dies=True), config, progress=False, folder=tmp_path)
    again = task()
    resumed = train(again, config, progress=False, folder=tmp_path)
    assert resumed.rows == history.rows
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_what_is_drawn_follows_from_the_seed_of_the_run_alone() -> None:
    samples, targets = questions()
    drawn: list[int] = []

    def draw(seed: int) -> tuple[list[Sample], list[Boxes]]:
        drawn.append(seed)
        picked = torch.randperm(6)[:3].tolist()
        return [samples[index] for index in picked], [targets[index] for index in picked]

    losses = []
    for _ in range(2):
        task = SyntheticDetectionTask(detector(), draw, steps_per_epoch=3)
        losses.append(train(task, LoopConfig(epochs=2, learning_rate=1e-3), progress=False).rows)
    assert losses[0] == losses[1]
    assert drawn[:6] == drawn[6:]
    assert len(set(drawn)) == 6


def test_pictures_are_changed_with_their_boxes() -> None:
    samples, targets = questions()
    seen: list[str] = []

    def mirrored(picture: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
        seen.append("mirrored")
        left, top, right, bottom = boxes.boxes.unbind(1)
        corners = torch.stack([SIZE[1] - right, top, SIZE[1] - left, bottom], dim=1)
        return picture.flip(2), Boxes(corners, boxes.labels, boxes.size)

    changed = DetectionTask(detector(), samples, targets, batch_size=3, augment=mirrored)
    by_hand = DetectionTask(
        detector(),
        [Sample(s.id, {**s.content, "image": s.content["image"].flip(2)}) for s in samples],
        [mirrored(s.content["image"], boxes)[1] for s, boxes in zip(samples, targets, strict=True)],
        batch_size=6,
    )
    (batch,) = changed.batches(1, torch.Generator().manual_seed(0))
    order = {sample.id: index for index, sample in enumerate(samples)}
    pairs = [by_hand.image_groups[order[sample.id]][0] for sample in batch[0]]
    torch.manual_seed(0)
    ours = changed(batch)
    torch.manual_seed(0)
    theirs = by_hand(([sample for sample, _ in pairs], [boxes for _, boxes in pairs]))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert len(seen) == 12


def test_what_a_task_refuses() -> None:
    samples, targets = questions()
    with pytest.raises(InputError, match="got 5 targets, expected 6, one a sample"):
        DetectionTask(detector(), samples, targets[1:])
    with pytest.raises(InputError, match="got no sample with boxes to learn from"):
        DetectionTask(detector(), samples, [None] * 6)
    assert len(DetectionTask(detector(), samples, [None, *targets[1:]]).image_groups[0]) == 1

"""The detection head: what it refuses, what it says of pictures without objects, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn import Fused, InputError, Tokens
from mmattn.boxes import Boxes
from mmattn.heads.detection.decoder import GROUP_SIZE, patch_boxes
from mmattn.heads.detection.denoising import Denoising
from mmattn.heads.detection.detection import DetectionHead
from mmattn.heads.detection.loss import BoxPredictions
from mmattn.heads.detection.proposals import top_proposals
from mmattn.heads.detection.targets import BoxTargets
from mmattn.testing.plugin_checks import check_head


def fused_of(tokens: Tokens) -> Fused:
    samples, kinds = len(tokens), len(tokens.modalities)
    zeros = torch.zeros(samples, kinds, tokens.dim)
    return Fused(tokens, zeros[:, 0], zeros, tokens.presence)


def pictures(*sides: int, dim: int = 12) -> Tokens:
    """Pictures of so many patches a side."""
    return Tokens.from_sequences([torch.randn(side * side, dim) for side in sides], "image")


def box(*corners: float, label: str = "cat", size: tuple[int, int] = (10, 10)) -> Boxes:
    return Boxes(torch.tensor([corners]).float(), [label], size)


def head_of(**options: Any) -> DetectionHead:
    return DetectionHead(12, ["cat", "dog"], **{"num_queries": 5, "layers": 2, "heads": 3, **options})


def test_it_keeps_the_contract_of_heads() -> None:
    check_head("detection")


def test_patches_lie_row_by_row_and_other_tokens_nowhere() -> None:
    words = Tokens.from_sequences([torch.randn(1, 12), torch.randn(0, 12)], "text")
    boxes_N4 = patch_boxes(Tokens.cat([words, pictures(2, 3)]), "image")
    assert boxes_N4[0].isnan().all()
    assert boxes_N4[1:5].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    torch.testing.assert_close(boxes_N4[5 + 5], torch.tensor([2 / 3, 1 / 3, 1, 2 / 3]))


def test_patches_that_are_no_square_and_pictures_under_another_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"got \[3\] tokens of 'image', expected a square"):
        patch_boxes(Tokens.from_sequences([torch.randn(3, 12)], "image"), "image")
    with pytest.raises(InputError, match="no tokens of 'imagge'.*Did you mean 'image'"):
        head_of(image_modality="imagge")(fused_of(pictures(2)))


def test_where_no_picture_is_known_tokens_have_no_place() -> None:
    sound = Tokens.from_sequences([torch.randn(7, 12)], "audio")
    logits, boxes = head_of(image_modality="")(fused_of(sound))
    assert logits.shape == (1, 5, 2)
    assert bool(boxes.isfinite().all())


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    head, tokens = head_of().eval(), pictures(2, 3, 1)
    together, alone = head(fused_of(tokens)), head(fused_of(tokens.select([1])))
    for both, entry in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1:2], entry)


def test_a_sample_without_any_token_is_no_problem() -> None:
    tokens = Tokens.from_sequences([torch.zeros(0, 12), torch.randn(4, 12)], "image")
    head = head_of()
    head.loss(fused_of(tokens), [Boxes.empty((5, 5)), box(0, 0, 5, 5)]).backward()
    assert len(head.predict(fused_of(tokens))) == 2


def test_pictures_without_objects_and_unknown_targets() -> None:
    head, fused = head_of().eval(), fused_of(pictures(2, 2, 2))
    empty, entry = Boxes.empty((10, 10)), box(1, 1, 5, 5)
    assert head.loss(fused, [None, None, None]) == 0
    assert head.loss(fused, [empty, empty, empty]) > 0  # being sure of nothing is learned as well
    alone = head.loss(fused_of(fused.tokens.select([1])), [entry])
    torch.testing.assert_close(head.loss(fused, [None, entry, None]), alone)


@pytest.mark.parametrize("denoise", [0, 2])
def test_what_cannot_be_learned_from_is_refused(denoise: int) -> None:
    head, fused = head_of(num_denoising_groups=denoise), fused_of(pictures(2))
    many = Boxes(torch.tensor([[1.0, 1.0, 5.0, 5.0]] * 6), ["cat"] * 6, (10, 10))
    with pytest.raises(InputError, match="got 6 boxes in a picture, expected at most 5, one a query"):
        head.loss(fused, [many])
    with pytest.raises(InputError, match="no label 'dig'. Did you mean 'dog'"):
        head.loss(fused, [box(1, 1, 5, 5, label="dig")])
    with pytest.raises(InputError, match="got a target str, expected mmattn.boxes.Boxes"):
        head.loss(fused, ["cat"])
    with pytest.raises(InputError, match="got 2 targets, expected 1"):
        head.loss(fused, [None, None])


@pytest.mark.parametrize("corners", [(5, 5, 5, 9), (5, 5, 3, 9), (12, 1, 14, 5), (float("nan"), 1, 2, 3)])
def test_boxes_without_area_in_their_picture_are_refused(corners: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"got the box \[.*\] on a picture of \(10, 10\)"):
        head_of().loss(fused_of(pictures(2)), [box(*corners)])


def test_boxes_that_reach_over_the_edge_are_cut() -> None:
    actual = BoxTargets.from_targets([box(-4, 2, 6, 14)], head_of().vocabulary, torch.device("cpu"))
    torch.testing.assert_close(actual.boxes, torch.tensor([[0.3, 0.6, 0.6, 0.8]]))


def test_learned_places_are_learned_where_nothing_is_proposed() -> None:
    head = head_of(use_proposals=False)
    head.loss(fused_of(pictures(2)), [box(1, 1, 5, 5)]).backward()
    assert head.reference_boxes.grad.abs().sum() > 0
    unused = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert unused == []


def test_predictions_are_sorted_and_relative_and_scale_to_their_picture() -> None:
    head = head_of(score_threshold=0.0)
    torch.nn.init.normal_(head.classifier.weight)
    (actual,) = head.predict(fused_of(pictures(3)))
    assert len(actual) == 5
    assert actual.scores.tolist() == sorted(actual.scores.tolist(), reverse=True)
    assert bool((actual.boxes >= 0).all() & (actual.boxes <= 1).all())
    scaled = actual.scaled((20, 40))
    torch.testing.assert_close(scaled.boxes, actual.boxes * torch.tensor([40.0, 20.0, 40.0, 20.0]))
    torch.testing.assert_close(scaled.scaled((1, 1)).boxes, actual.boxes)


def test_noised_objects_are_groups_apart_and_say_nothing_to_the_queries() -> None:
    """What the queries find must not depend on the truth that is shown to other queries beside them."""
    torch.manual_seed(0)
    head, tokens = head_of(num_denoising_groups=2).train(), pictures(3, 3)
    for layer in head.decoder.layers:
        torch.nn.init.normal_(layer.self_attention.terms["boxes"])
    targets = [box(1, 1, 5, 5), Boxes(torch.tensor([[2.0, 2.0, 9.0, 9.0]] * 2), ["dog", "cat"], (10, 10))]
    truth = BoxTargets.from_targets(targets, head.vocabulary, torch.device("cpu"))
    noised = head.denoising(truth)
    assert noised.queries.length_list == [2, 4]
    assert noised.pairs.object_index.tolist() == [0, 0, 1, 2, 1, 2]
    assert (noised.queries.position // GROUP_SIZE).tolist() == [1, 2, 1, 1, 2, 2]
    with_them, copies = head._predict_layers(tokens, noised)
    without, nothing = head._predict_layers(tokens)
    assert not nothing
    assert [len(copy.boxes) for copy in copies] == [6, 6]
    for actual, expected in zip(with_them, without, strict=True):
        torch.testing.assert_close(actual.logits, expected.logits)
        torch.testing.assert_close(actual.boxes, expected.boxes)


def test_queries_begin_at_the_surest_patches() -> None:
    """The best first; what is left begins at the learned places, where a picture has fewer patches."""
    actual = BoxPredictions(
        torch.tensor([[0.0, 1.0], [3.0, 0.0], [2.0, 2.0], [0.0, 0.0]]),
        torch.arange(4.0)[:, None].expand(4, 4) / 10,
        counts=(3, 1),
    )
    boxes = top_proposals(actual, torch.full((2, 4), 0.9))
    torch.testing.assert_close(boxes[..., 0], torch.tensor([[0.1, 0.2], [0.3, 0.9]]))


def test_noised_boxes_stay_near_and_labels_mostly_right() -> None:
    torch.manual_seed(0)
    truth = BoxTargets(torch.zeros(1).long(), torch.tensor([[0.5, 0.5, 0.2, 0.4]]), counts=(1,))
    denoising = Denoising(4, num_labels=2, num_groups=1000)
    noised = denoising(truth)
    assert bool(((noised.boxes - truth.boxes).abs() <= torch.tensor([0.08, 0.16, 0.08, 0.16]) + 1e-6).all())
    exchanged = (noised.queries.values == denoising.label_embedding.weight[1]).all(1).float().mean()
    assert 0.08 < float(exchanged) < 0.17  # a quarter is drawn anew, and half of those is as before


def test_options_follow_from_the_targets() -> None:
    three = Boxes(torch.rand(4, 4), ["cat", "dog", "cat", "ape"], (9, 9))
    assert DetectionHead.options_for([None, three, Boxes.empty((9, 9))]) == {
        "labels": ["ape", "cat", "dog"],
        "num_queries": 12,
    }
    with pytest.raises(InputError, match="expected mmattn.boxes.Boxes"):
        DetectionHead.options_for(["cat"])


@pytest.mark.parametrize(
    "options",
    [
        {"num_queries": 0},
        {"num_queries": 2000},
        {"layers": 0},
        {"score_threshold": 1.0},
        {"num_denoising_groups": -1},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="detection head: got"):
        head_of(**options)


def test_it_learns_where_things_are() -> None:
    """Pictures of 4 x 4 patches with one marked patch: the head has to say which one, and its kind."""
    torch.manual_seed(0)
    marks = torch.randn(2, 12)
    head = DetectionHead(12, ["cat", "dog"], num_queries=4, layers=1, heads=2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)

    def batch(count: int) -> tuple[Fused, list[Boxes]]:
        index, kind = torch.randint(16, (count,)), torch.randint(2, (count,))
        values = 0.1 * torch.randn(count, 16, 12)
        values[torch.arange(count), index] += 3 * marks[kind]
        targets = [
            box(p % 4, p // 4, p % 4 + 1, p // 4 + 1, label=head.labels[k], size=(4, 4))
            for p, k in zip(index.tolist(), kind.tolist(), strict=True)
        ]
        return fused_of(Tokens.from_sequences(list(values), "image")), targets

    for _ in range(100):
        fused, targets = batch(32)
        loss = head.loss(fused, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fused, targets = batch(97)
    right = 0
    for actual, truth in zip(head.eval().predict(fused), targets, strict=True):
        if len(actual) and actual.labels[0] == truth.labels[0]:
            right += bool(((actual.scaled((4, 4)).boxes[0] - truth.boxes[0]).abs() < 0.35).all())
    assert right >= 80

"""Objects and their boxes, as a set, straight from fused tokens: what the other modalities say is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mmattn.boxes import Boxes, cxcywh_to_xyxy
from mmattn.errors import InputError
from mmattn.evaluation.tasks.detection_counts import DetectionMetrics
from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples, make_example, sample_items
from mmattn.heads.base import SupervisedHead
from mmattn.heads.detection.decoder import (
    CROSS_ATTENTION,
    GROUP_SIZE,
    SELF_ATTENTION,
    BoxDecoder,
    patch_boxes,
)
from mmattn.heads.detection.denoising import Denoising, NoisedQueries
from mmattn.heads.detection.loss import BoxPredictions, match_predictions, set_loss
from mmattn.heads.detection.matching import CostWeights
from mmattn.heads.detection.padded import detect_padded
from mmattn.heads.detection.proposals import PRIOR_LOGIT, Proposals, top_proposals
from mmattn.heads.detection.targets import BoxTargets
from mmattn.heads.vocabulary import Vocabulary, count_names
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.attention.execution.padded import PaddedTokens
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["DetectionHead"]

_WHERE = "detection head"


class DetectionHead(SupervisedHead):
    """A set of boxes for each sample: learned queries look for objects among all fused tokens.

    A phrase or a sound decides what is looked for by being fused with the picture: nothing here knows of it.
    Predictions are relative to the picture, of size (1, 1), for `Boxes.scaled`. They need no suppression of
    doubles, since each object was learned by one query.

    Papers: Carion et al., "End-to-End Object Detection with Transformers", 2020; Zhu et al., "Deformable
    DETR", 2021; Liu et al., "DAB-DETR", 2022; Li et al., "DN-DETR", 2022.

    Args:
        dim: width D of the fused tokens.
        labels: names of the L labels.
        num_queries: how many objects can be found in a picture.
        layers: of the decoder.
        heads: of its attentions; `dim` is a multiple of it.
        image_modality: modality of the picture, whose tokens are a square of patches row by row; "" where the
            place of tokens is not known.
        self_attention: program of the attention among queries, which keeps blocks of 1024 positions apart.
        cross_attention: program of the attention from the queries to the tokens.
        use_proposals: let the queries begin where patches of the picture say that something is; otherwise at
            learned places.
        num_denoising_groups: noised copies of each object that are queries while training; 0 for none.
        expansion: width of the hidden layer of the token-wise networks, as a multiple of D.
        dropout: in the decoder.
        cost_weights: weights of the three costs, by the names of `CostWeights`; left out, its own.
        score_threshold: score from which on a box is predicted.

    Raises:
        InputError: no label, one named twice, or an option out of range.

    Example:
        >>> head, fused, inputs = DetectionHead.example(dim=8)
        >>> logits, boxes = head(fused)
        >>> logits.shape, boxes.shape, head.loss(fused, **inputs).dim(), head.predict(fused)[0].size
        (torch.Size([3, 5, 2]), torch.Size([3, 5, 4]), 0, (1, 1))
    """

    target_roles: ClassVar[tuple[str, ...]] = ("boxes",)

    def __init__(
        self,
        dim: int,
        labels: Sequence[str],
        *,
        num_queries: int = 20,
        layers: int = 3,
        heads: int = 4,
        image_modality: str = "image",
        self_attention: str = SELF_ATTENTION,
        cross_attention: str = CROSS_ATTENTION,
        use_proposals: bool = True,
        num_denoising_groups: int = 3,
        expansion: float = 2.0,
        dropout: float = 0.0,
        cost_weights: Mapping[str, float] | None = None,
        score_threshold: float = 0.05,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(labels, _WHERE, "label")
        if not 1 <= num_queries <= GROUP_SIZE or layers < 1:
            raise InputError(
                f"{_WHERE}: got {num_queries} queries and {layers} layers, expected 1 to {GROUP_SIZE} and "
                f"at least 1"
            )
        if not 0 <= score_threshold < 1 or num_denoising_groups < 0:
            raise InputError(
                f"{_WHERE}: got threshold {score_threshold} and denoise {num_denoising_groups}, expected 0 "
                f"to below 1 and from 0"
            )
        self.num_queries, self.image_modality, self.score_threshold = (
            num_queries,
            image_modality,
            score_threshold,
        )
        self.cost_weights = CostWeights(**(cost_weights or {}))
        self.query_content = nn.Parameter(torch.randn(num_queries, dim))
        self.reference_boxes = nn.Parameter(_initial_boxes(num_queries).logit())
        self.decoder = BoxDecoder(dim, layers, heads, self_attention, cross_attention, expansion, dropout)
        self.denoising = (
            Denoising(dim, len(self.vocabulary), num_denoising_groups) if num_denoising_groups else None
        )
        self.classifier = nn.Linear(dim, len(self.vocabulary))
        nn.init.constant_(self.classifier.bias, PRIOR_LOGIT)
        self.proposals = Proposals(dim, len(self.vocabulary)) if image_modality and use_proposals else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return the labels, and three times as many queries as the fullest image has objects.

        Args:
            targets: training boxes; None if unknown.

        Raises:
            InputError: a target that is no `Boxes`.

        Example:
            >>> two = Boxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 2), ["six", "two"], size=(9, 9))
            >>> DetectionHead.options_for([two, None, Boxes.empty((9, 9))])
            {'labels': ['six', 'two'], 'num_queries': 10}
        """
        known = [target for target in targets if target is not None]
        for target in known:
            if not isinstance(target, Boxes):
                raise InputError(f"{_WHERE}: got a target {target!r}, expected mmattn.boxes.Boxes")
        names = count_names([name for target in known for name in target.labels], _WHERE, "label")
        most = max(len(target) for target in known)
        return {"labels": list(names), "num_queries": min(max(3 * most, 10), GROUP_SIZE)}

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        cls.check_metric(name)
        return DetectionMetrics.from_targets(targets)

    @classmethod
    def align(cls, predictions: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Scale predicted boxes to the pixels of the target's image.

        Args:
            predictions: N predictions.
            targets: N targets.
        """
        return [boxes.scaled(target.size) for boxes, target in zip(predictions, targets, strict=True)]

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        cases = tuple(
            make_example(item, target_boxes=item.target, predicted_boxes=item.prediction)
            for item in sample_items(items)
        )
        note = "Test items of the first seed, sampled at random. Dashed: target; solid: prediction."
        return TaskExamples("Boxes on images", note, cases)

    @classmethod
    def prediction_to_json(cls, prediction: Any) -> Any:
        return prediction.to_dict()

    @classmethod
    def prediction_from_json(cls, value: Any) -> Any:
        return Boxes.from_dict(value)

    def forward(self, fused: Fused) -> tuple[Tensor, Tensor]:
        """[B, Q, L] logits, and [B, Q, 4] left, top, right, bottom, relative to the picture.

        Args:
            fused: B samples.
        """
        last = self._predict_layers(fused.tokens)[0][-1]
        shape = (len(fused), self.num_queries)
        return last.logits.unflatten(0, shape), cxcywh_to_xyxy(last.boxes).unflatten(0, shape)

    def forward_padded(self, tokens: PaddedTokens) -> dict[str, Tensor]:
        """As `forward`, "logits" and "boxes", of padded fused tokens: what `mmattn.export` asks.

        Args:
            tokens: B samples of padded fused tokens.
        """
        return detect_padded(
            tokens,
            decoder=self.decoder,
            classifier=self.classifier,
            proposals=self.proposals,
            query_content=self.query_content,
            reference_boxes=self.reference_boxes,
            image_modality=self.image_modality,
        )

    def loss(self, fused: Fused, targets: Sequence[Boxes | None]) -> Tensor:
        """Return the focal, L1 and GIoU losses of the matched sets, summed over layers, averaged over
        objects.

        Args:
            fused: B samples.
            targets: [B] boxes; None if unknown.

        Raises:
            InputError: more objects than queries in a picture, a label that the head does not know, a box
                without area within its picture, or another number of targets.
        """
        if len(targets) != len(fused):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(fused)}, one a sample")
        known = [row for row, target in enumerate(targets) if target is not None]
        if not known:
            return fused.tokens.values.sum() * 0.0
        truth = BoxTargets.from_targets(
            [targets[row] for row in known], self.vocabulary, self.query_content.device
        )
        if (most := max(truth.counts)) > self.num_queries:
            raise InputError(
                f"{_WHERE}: got {most} boxes in a picture, expected at most {self.num_queries}, one a query; "
                "give the head more `queries`"
            )
        tokens = fused.tokens if len(known) == len(targets) else fused.tokens.select(known)
        noised = self.denoising(truth) if self.denoising is not None and self.training else None
        plain, copies = self._predict_layers(tokens, noised)
        total = tokens.values.new_zeros(())
        for layer in plain:
            total = total + set_loss(
                self.cost_weights, layer, truth, match_predictions(self.cost_weights, layer, truth)
            )
        for layer in copies:
            assert noised is not None
            total = total + set_loss(self.cost_weights, layer, truth, noised.pairs)
        return total

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[Boxes]:
        """Return the boxes whose score reaches the threshold, by decreasing score, relative to the image.

        A query whose two best labels both reach it gives two boxes.

        Args:
            fused: B samples.
        """
        logits_BQL, boxes_BQ4 = self(fused)
        scores_BP = logits_BQL.float().sigmoid().flatten(1).cpu()
        boxes_BQ4 = boxes_BQ4.float().clamp(0.0, 1.0).cpu()
        detections = []
        for scores_P, boxes_Q4 in zip(scores_BP, boxes_BQ4, strict=True):
            best = scores_P.topk(self.num_queries)
            surest = best.indices[best.values >= self.score_threshold]
            labels = [self.labels[number] for number in (surest % len(self.labels)).tolist()]
            detections.append(
                Boxes(boxes_Q4[surest // len(self.labels)], labels, (1, 1), best.values[: len(surest)])
            )
        return detections

    def _predict_layers(
        self, tokens: Tokens, noised: NoisedQueries | None = None
    ) -> tuple[list[BoxPredictions], list[BoxPredictions]]:
        """The proposals' and each layer's, and each layer's of the noised copies."""
        patches_N4 = patch_boxes(tokens, self.image_modality)
        boxes_BQ4 = self.reference_boxes.sigmoid().expand(len(tokens), -1, -1)
        plain, copies = [], []
        if self.proposals is not None:
            plain.append(self.proposals(tokens, patches_N4))
            boxes_BQ4 = top_proposals(plain[0], self.reference_boxes.sigmoid())
        # Boxes travel beside the contents while the copies are put behind each sample's queries.
        start_ND = torch.cat([self.query_content.repeat(len(tokens), 1), boxes_BQ4.flatten(0, 1)], dim=1)
        counts = (self.num_queries,) * len(tokens)
        queries = Tokens.from_lengths(start_ND, torch.tensor(counts, device=tokens.device), "query")
        if noised is not None:
            start_ND = torch.cat([noised.queries.values, noised.boxes], dim=1)
            queries = Tokens.cat([queries, noised.queries.with_values(start_ND)])
        content_ND, boxes_N4 = queries.values.split([tokens.dim, 4], dim=1)
        own_N = queries.position < GROUP_SIZE
        for x_ND, moved_N4 in self.decoder(queries.with_values(content_ND), boxes_N4, tokens, patches_N4):
            logits_NL = self.classifier(x_ND).float()
            plain.append(BoxPredictions(logits_NL[own_N], moved_N4[own_N], counts))
            if noised is not None:
                copies.append(
                    BoxPredictions(logits_NL[~own_N], moved_N4[~own_N], tuple(noised.queries.length_list))
                )
        return plain, copies

    @classmethod
    def example(cls, dim: int) -> tuple[DetectionHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        head = cls(dim, ["cat", "dog"], num_queries=5, layers=2, heads=1)
        tokens = Tokens.cat(
            [
                Tokens.from_lengths(torch.randn(9, dim), torch.tensor([4, 1, 4]), "image"),
                Tokens.from_lengths(torch.randn(2, dim), torch.tensor([0, 2, 0]), "text"),
            ]
        )
        fused = Fused(tokens, torch.randn(3, dim), torch.randn(3, 2, dim), tokens.presence)
        sides = torch.tensor([[1.0, 1.0, 4.0, 5.0], [3.0, 2.0, 8.0, 6.0]])
        targets = [Boxes(sides, ["cat", "dog"], size=(7, 11)), None, Boxes.empty((7, 11))]
        return head, fused, {"targets": targets}


def _initial_boxes(queries: int) -> Tensor:
    """[Q, 4] boxes of a quarter of the picture's sides, their centres spread evenly over it."""
    centres_Q2 = torch.quasirandom.SobolEngine(2).draw(queries + 1)[1:].clamp(0.02, 0.98)
    return torch.cat([centres_Q2, torch.full((queries, 2), 0.25)], dim=1)

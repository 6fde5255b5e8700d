"""Objects and their boxes, as a set, straight from fused tokens: what the other modalities say is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmattn.attention.execution.padded import Padded
from mmattn.boxes import Boxes, corners
from mmattn.errors import InputError
from mmattn.heads.base import SupervisedHead
from mmattn.heads.detection.decoder import AMONG, GROUP, TOWARDS, BoxDecoder, patch_boxes
from mmattn.heads.detection.denoising import Denoising, Noised
from mmattn.heads.detection.loss import Predictions, matched, set_loss
from mmattn.heads.detection.matching import Costs
from mmattn.heads.detection.padded import detect_padded
from mmattn.heads.detection.proposals import RARE, Proposals, chosen
from mmattn.heads.detection.targets import BoxTargets
from mmattn.heads.vocabulary import Vocabulary, counted
from mmattn.types import Fused, Tokens

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
        queries: how many objects can be found in a picture.
        layers: of the decoder.
        heads: of its attentions; `dim` is a multiple of it.
        picture: modality of the picture, whose tokens are a square of patches row by row; "" where the
            place of tokens is not known.
        among: program of the attention among queries, which keeps blocks of 1024 positions apart.
        towards: program of the attention from the queries to the tokens.
        propose: let the queries begin where patches of the picture say that something is; otherwise at
            learned places.
        denoise: noised copies of each object that are queries while training; 0 for none.
        expansion: width of the hidden layer of the token-wise networks, as a multiple of D.
        dropout: in the decoder.
        costs: weights of the three costs, by the names of `Costs`; left out, its own.
        threshold: score from which on a box is predicted.

    Raises:
        InputError: no label, one named twice, or an option out of range.

    Example:
        >>> head, fused, inputs = DetectionHead.example(dim=8)
        >>> logits, boxes = head(fused)
        >>> logits.shape, boxes.shape, head.loss(fused, **inputs).dim(), head.predict(fused)[0].size
        (torch.Size([3, 5, 2]), torch.Size([3, 5, 4]), 0, (1, 1))
    """

    kind: ClassVar[str] = "boxes"

    def __init__(
        self,
        dim: int,
        labels: Sequence[str],
        *,
        queries: int = 20,
        layers: int = 3,
        heads: int = 4,
        picture: str = "image",
        among: str = AMONG,
        towards: str = TOWARDS,
        propose: bool = True,
        denoise: int = 3,
        expansion: float = 2.0,
        dropout: float = 0.0,
        costs: Mapping[str, float] | None = None,
        threshold: float = 0.05,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(labels, _WHERE, "label")
        if not 1 <= queries <= GROUP or layers < 1:
            raise InputError(
                f"{_WHERE}: got {queries} queries and {layers} layers, expected 1 to {GROUP} and at least 1"
            )
        if not 0 <= threshold < 1 or denoise < 0:
            raise InputError(
                f"{_WHERE}: got threshold {threshold} and denoise {denoise}, expected 0 to below 1 and from 0"
            )
        self.queries, self.picture, self.threshold = queries, picture, threshold
        self.costs = Costs(**(costs or {}))
        self.content = nn.Parameter(torch.randn(queries, dim))
        self.reference = nn.Parameter(_spread(queries).logit())
        self.decoder = BoxDecoder(dim, layers, heads, among, towards, expansion, dropout)
        self.denoising = Denoising(dim, len(self.vocabulary), denoise) if denoise else None
        self.name = nn.Linear(dim, len(self.vocabulary))
        nn.init.constant_(self.name.bias, RARE)
        self.proposals = Proposals(dim, len(self.vocabulary)) if picture and propose else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """The labels, and three times as many queries as there are objects in the fullest picture.

        Example:
            >>> two = Boxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 2), ["six", "two"], size=(9, 9))
            >>> DetectionHead.options_for([two, None, Boxes.none((9, 9))])
            {'labels': ['six', 'two'], 'queries': 10}
        """
        known = [target for target in targets if target is not None]
        for target in known:
            if not isinstance(target, Boxes):
                raise InputError(f"{_WHERE}: got a target {target!r}, expected mmattn.boxes.Boxes")
        names = counted([name for target in known for name in target.labels], _WHERE, "label")
        most = max(len(target) for target in known)
        return {"labels": list(names), "queries": min(max(3 * most, 10), GROUP)}

    def forward(self, fused: Fused) -> tuple[Tensor, Tensor]:
        """[B, Q, L] logits, and [B, Q, 4] left, top, right, bottom, relative to the picture."""
        last = self._predictions(fused.tokens)[0][-1]
        shape = (len(fused), self.queries)
        return last.logits.unflatten(0, shape), corners(last.boxes).unflatten(0, shape)

    def forward_padded(self, tokens: Padded) -> dict[str, Tensor]:
        """As `forward`, "logits" and "boxes", of padded fused tokens: what `mmattn.export` asks."""
        return detect_padded(self, tokens)

    def loss(self, fused: Fused, targets: Sequence[Boxes | None]) -> Tensor:
        """Focal, L1 and GIoU losses of the matched sets, summed over all layers, the mean over the objects.

        Raises:
            InputError: more objects than queries in a picture, a label that the head does not know, a box
                without area within its picture, or another number of targets.
        """
        if len(targets) != len(fused):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(fused)}, one a sample")
        known = [place for place, target in enumerate(targets) if target is not None]
        if not known:
            return fused.tokens.values.sum() * 0.0
        truth = BoxTargets.of([targets[place] for place in known], self.vocabulary, self.content.device)
        if (most := max(truth.counts)) > self.queries:
            raise InputError(
                f"{_WHERE}: got {most} boxes in a picture, expected at most {self.queries}, one a query; "
                "give the head more `queries`"
            )
        tokens = fused.tokens if len(known) == len(targets) else fused.tokens.select(known)
        noised = self.denoising(truth) if self.denoising is not None and self.training else None
        own, copies = self._predictions(tokens, noised)
        total = tokens.values.new_zeros(())
        for found in own:
            total = total + set_loss(self.costs, found, truth, matched(self.costs, found, truth))
        for found in copies:
            assert noised is not None
            total = total + set_loss(self.costs, found, truth, noised.pairs)
        return total

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[Boxes]:
        """The boxes whose score reaches the threshold, the surest first, relative to the picture.

        A query whose two best labels both reach it gives two boxes.
        """
        logits_BQL, boxes_BQ4 = self(fused)
        scores_BP = logits_BQL.float().sigmoid().flatten(1).cpu()
        boxes_BQ4 = boxes_BQ4.float().clamp(0.0, 1.0).cpu()
        found = []
        for scores_P, boxes_Q4 in zip(scores_BP, boxes_BQ4, strict=True):
            best = scores_P.topk(self.queries)
            surest = best.indices[best.values >= self.threshold]
            labels = [self.labels[number] for number in (surest % len(self.labels)).tolist()]
            found.append(
                Boxes(boxes_Q4[surest // len(self.labels)], labels, (1, 1), best.values[: len(surest)])
            )
        return found

    def _predictions(
        self, tokens: Tokens, noised: Noised | None = None
    ) -> tuple[list[Predictions], list[Predictions]]:
        """The proposals' and each layer's, and each layer's of the noised copies."""
        patches_N4 = patch_boxes(tokens, self.picture)
        boxes_BQ4 = self.reference.sigmoid().expand(len(tokens), -1, -1)
        own, copies = [], []
        if self.proposals is not None:
            own.append(self.proposals(tokens, patches_N4))
            boxes_BQ4 = chosen(own[0], self.reference.sigmoid())
        # Boxes travel beside the contents while the copies are put behind each sample's queries.
        start_ND = torch.cat([self.content.repeat(len(tokens), 1), boxes_BQ4.flatten(0, 1)], dim=1)
        counts = (self.queries,) * len(tokens)
        queries = Tokens.from_lengths(start_ND, torch.tensor(counts, device=tokens.device), "query")
        if noised is not None:
            start_ND = torch.cat([noised.queries.values, noised.boxes], dim=1)
            queries = Tokens.cat([queries, noised.queries.with_values(start_ND)])
        content_ND, boxes_N4 = queries.values.split([tokens.dim, 4], dim=1)
        own_N = queries.position < GROUP
        for x_ND, moved_N4 in self.decoder(queries.with_values(content_ND), boxes_N4, tokens, patches_N4):
            logits_NL = self.name(x_ND).float()
            own.append(Predictions(logits_NL[own_N], moved_N4[own_N], counts))
            if noised is not None:
                copies.append(Predictions(logits_NL[~own_N], moved_N4[~own_N], tuple(noised.queries.sizes)))
        return own, copies

    @classmethod
    def example(cls, dim: int) -> tuple[DetectionHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`."""
        head = cls(dim, ["cat", "dog"], queries=5, layers=2, heads=1)
        tokens = Tokens.cat(
            [
                Tokens.from_lengths(torch.randn(9, dim), torch.tensor([4, 1, 4]), "image"),
                Tokens.from_lengths(torch.randn(2, dim), torch.tensor([0, 2, 0]), "text"),
            ]
        )
        fused = Fused(tokens, torch.randn(3, dim), torch.randn(3, 2, dim), tokens.presence)
        sides = torch.tensor([[1.0, 1.0, 4.0, 5.0], [3.0, 2.0, 8.0, 6.0]])
        targets = [Boxes(sides, ["cat", "dog"], size=(7, 11)), None, Boxes.none((7, 11))]
        return head, fused, {"targets": targets}


def _spread(queries: int) -> Tensor:
    """[Q, 4] boxes of a quarter of the picture's sides, their centres spread evenly over it."""
    centres_Q2 = torch.quasirandom.SobolEngine(2).draw(queries + 1)[1:].clamp(0.02, 0.98)
    return torch.cat([centres_Q2, torch.full((queries, 2), 0.25)], dim=1)

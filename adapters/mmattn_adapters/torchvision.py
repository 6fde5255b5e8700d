"""torchvision's detectors, with any timm backbone and with tokens of other modalities: say it, find it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from mmattn import schema
from mmattn.attention.language.program import Heads, Program
from mmattn.boxes import Boxes
from mmattn.data.modality_dropout import drop_modalities
from mmattn.encoders.base import Encoder
from mmattn.errors import InputError
from mmattn.files import write_json
from mmattn.model.model import Model
from mmattn.model.weights import check_weights, write_weights
from mmattn.types import Sample, Tokens
from mmattn_adapters.detection.build import DetectorParts, build_parts, with_defaults
from mmattn_adapters.detection.config import DetectorConfig, Kind
from mmattn_adapters.detection.networks import FIRST_CLASS_ID
from mmattn_adapters.detection.stages import Losses, run_one_stage, run_two_stage
from mmattn_adapters.detection.targets import (
    check_targets,
    from_torchvision,
    to_image_tensor,
    to_torchvision_target,
)
from mmattn_adapters.detection.task import DetectionTask, SyntheticDetectionTask

__all__ = ["DetectionTask", "Detector", "SyntheticDetectionTask"]

FORMAT = 1
_CONDITIONING_PREFIX = (
    "conditioning_model."  # names of the weights of the model that makes the tokens begin so
)


class Detector(nn.Module):
    """A Faster R-CNN, RetinaNet or FCOS of torchvision that may be told what to look for.

    Tokens of other modalities (a phrase, a spoken word, an example picture) are attended to by the cells of
    the feature maps before the heads, and by regions after their pooling. Without tokens it is torchvision's
    detector, to the bit. `Detector.build` makes one; this constructor takes the parts.

    Args:
        config: what it is.
        parts: what it consists of.

    Example:
        >>> import numpy as np
        >>> from mmattn.encoders.text.tiny_text import TinyText
        >>> _ = torch.manual_seed(0)
        >>> detector = Detector.build(
        ...     "fcos", ["asked for"], backbone="resnet10t", levels=(2,), extra_levels="none",
        ...     fpn_channels=32,
        ...     conditioning={"text": TinyText(dim=8)}, options={"score_thresh": 0.0},
        ... )
        >>> scene = np.zeros((48, 64), np.uint8)
        >>> found = detector.predict([Sample("1", {"image": scene, "text": "the sevens"})])
        >>> found[0].size, set(found[0].labels)
        ((48, 64), {'asked for'})
    """

    def __init__(self, config: DetectorConfig, parts: DetectorParts):
        super().__init__()
        self.config = config
        self.network = parts.network
        self.map_conditioning, self.region_conditioning, self.conditioning_model = (
            parts.map_conditioning,
            parts.region_conditioning,
            parts.conditioning_model,
        )
        self.token_dim = parts.token_dim
        self._class_names = dict(enumerate(config.classes, start=FIRST_CLASS_ID[config.kind]))
        self._class_ids = {name: number for number, name in self._class_names.items()}

    @classmethod
    def build(
        cls,
        kind: Kind,
        classes: Sequence[str],
        *,
        conditioning: Model | Mapping[str, Encoder] | int | None = None,
        pretrained: bool | str | Path | None = None,
        program: str | Program | Heads = "Program()",
        **options: Any,
    ) -> Detector:
        """Put a detector together.

        Args:
            kind: "faster-rcnn", "retinanet" or "fcos".
            classes: names; the single class "asked for" where the tokens say what is looked for.
            conditioning: where tokens come from: encoders by modality; a whole model, whose fused tokens
                are taken; or only the width of the tokens that `forward` is given. None: none are taken.
            pretrained: weights of the backbone, see `Pyramid`.
            program: of the attention from cells and regions to tokens.
            **options: the other keys of `DetectorConfig` (backbone, levels, fpn_channels, min_size, ...).

        Raises:
            InputError: an unknown kind, key, network, level or option of torchvision; no class.
        """
        settings = {"kind": kind, "classes": list(classes), "program": str(program), **options}
        config = with_defaults(schema.from_mapping(DetectorConfig, settings, "detector"), pretrained)
        return cls(config, build_parts(config, conditioning, pretrained))

    # --- tensors in, losses or boxes out ---------------------------------------------------------

    def forward(
        self,
        pictures: Sequence[Tensor],
        targets: Sequence[Boxes] | None = None,
        tokens: Tokens | None = None,
        image_index: Sequence[int] | None = None,
    ) -> Losses | list[Boxes]:
        """Losses by name in training, what is found in evaluation.

        Args:
            pictures: [B] float32 [3, H, W] from 0 to 1, of any sizes.
            targets: the truth, one a question; in training.
            tokens: [Q] questions, one sample of tokens each (none: an ordinary detector).
            image_index: [Q] the picture that each question is about, so that several questions share one pass
                of the backbone; left out, question q is about picture q.

        Raises:
            InputError: pictures, questions, tokens and targets that do not fit each other; a box without
                area or outside of its picture; an unknown label.
        """
        image_index = list(range(len(pictures))) if image_index is None else list(image_index)
        self._check_queries(pictures, tokens, image_index)
        sizes = [(int(picture.shape[1]), int(picture.shape[2])) for picture in pictures]
        sizes = [sizes[index] for index in image_index]
        if self.training:
            if targets is None:
                raise InputError("detector: got no targets, expected one a picture or question in training")
            check_targets(targets, sizes)
        images, _ = self.network.transform([picture.to(self.device) for picture in pictures])
        maps = self.network.backbone(images.tensors)
        if image_index != list(range(len(pictures))):
            chosen = torch.tensor(image_index, device=self.device)
            maps = OrderedDict((name, features[chosen]) for name, features in maps.items())
            images = ImageList(images.tensors, [images.image_sizes[index] for index in image_index])
        if tokens is not None and self.map_conditioning is not None:
            maps = self.map_conditioning(maps, tokens)
        truth = None
        if self.training and targets is not None:
            truth = [
                to_torchvision_target(boxes, self._class_ids, size, self.device)
                for boxes, size in zip(targets, images.image_sizes, strict=True)
            ]
        if hasattr(self.network, "roi_heads"):
            losses, result = run_two_stage(self.network, images, maps, truth, self._region_fn(tokens))
        else:
            losses, result = run_one_stage(self.network, images, maps, truth)
        if self.training:
            return losses
        result = self.network.transform.postprocess(result, images.image_sizes, sizes)
        return [
            from_torchvision(entry, self._class_names, size)
            for entry, size in zip(result, sizes, strict=True)
        ]

    def _region_fn(self, tokens: Tokens | None) -> Any:
        regions = self.region_conditioning
        if tokens is None or regions is None:
            return None
        return lambda vectors, counts: regions(vectors, counts, tokens)

    def _check_queries(
        self, images: Sequence[Tensor], tokens: Tokens | None, image_index: Sequence[int]
    ) -> None:
        if not len(images) or not len(image_index):
            raise InputError("detector: got no picture, expected at least one")
        if not all(0 <= index < len(images) for index in image_index):
            raise InputError(
                f"detector: questions ask about {image_index}, expected pictures 0 to {len(images) - 1}"
            )
        if tokens is None:
            return
        if self.map_conditioning is None:
            raise InputError("detector: got tokens, expected none: it was built without conditioning")
        if len(tokens) != len(image_index):
            raise InputError(
                f"detector: got tokens of {len(tokens)} samples, expected {len(image_index)}, one a question"
            )
        if tokens.dim != self.token_dim:
            raise InputError(f"detector: got tokens of width {tokens.dim}, expected {self.token_dim}")

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # --- samples in ------------------------------------------------------------------------------

    def prepare_queries(
        self, samples: Sequence[Sample], modality_dropout: float = 0.0
    ) -> tuple[list[Tensor], Tokens | None, list[int]]:
        """Return images, tokens and the image of each sample: the arguments of `forward`.

        Samples that hold the same picture object share it, and so one pass of the backbone.

        Args:
            samples: with an image.
            modality_dropout: probability of dropping a modality of a sample.

        Raises:
            InputError: a sample without a picture.
            Unreadable: a content that cannot be read.
        """
        index_of: dict[int, int] = {}
        pictures: list[Tensor] = []
        image_index: list[int] = []
        for sample in samples:
            content = sample.content.get(self.config.image_key)
            if content is None:
                raise InputError(
                    f"detector: sample {sample.id!r} has no {self.config.image_key!r}, expected a picture"
                )
            if id(content) not in index_of:
                index_of[id(content)] = len(pictures)
                pictures.append(to_image_tensor(content))
            image_index.append(index_of[id(content)])
        return pictures, self.tokens(samples, modality_dropout), image_index

    def tokens(self, samples: Sequence[Sample], modality_dropout: float = 0.0) -> Tokens | None:
        """Return the tokens of everything but the images; None without a source of tokens.

        Args:
            samples: with an image.
            modality_dropout: probability of dropping a modality of a sample.
        """
        if self.conditioning_model is None:
            return None
        return self.conditioning_model.fuse(
            drop_modalities(self.conditioning_model.encode(samples), modality_dropout)
        ).tokens

    def losses(
        self, samples: Sequence[Sample], targets: Sequence[Boxes], modality_dropout: float = 0.0
    ) -> Losses:
        """Losses by name, in training.

        Args:
            samples: pictures, with what is said of them.
            targets: one a sample.
            modality_dropout: probability that a modality of what is said is left out.

        Raises:
            InputError: the detector is in evaluation mode.
        """
        if not self.training:
            raise InputError("detector: losses are for training, expected train() before")
        pictures, tokens, image_index = self.prepare_queries(samples, modality_dropout)
        losses: Losses = self(pictures, targets, tokens, image_index)
        return losses

    @torch.no_grad()
    def predict(self, samples: Sequence[Sample], batch_size: int = 16) -> list[Boxes]:
        """Return the detections in each sample's image, in evaluation mode.

        Args:
            samples: with an image.
            batch_size: samples at a time.
        """
        training = self.training
        self.eval()
        try:
            detections: list[Boxes] = []
            for start in range(0, len(samples), batch_size):
                pictures, tokens, image_index = self.prepare_queries(samples[start : start + batch_size])
                detections += self(pictures, None, tokens, image_index)
            return detections
        finally:
            self.train(training)

    # --- kept on disk ----------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, then `detector.safetensors`, each atomically.

        Args:
            folder: where to write; created if needed.

        Raises:
            InputError: the model that makes its tokens was put together by hand.
        """
        description = {"format": FORMAT, "detector": schema.to_mapping(self.config)}
        if self.conditioning_model is not None:
            description["source"] = self.conditioning_model.description()
        elif self.token_dim is not None:
            description["token_dim"] = self.token_dim
        write_json(Path(folder) / "config.json", description)
        write_weights(Path(folder) / "detector.safetensors", self._trained_state())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Detector:
        """Build the detector that `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: of the detector.

        Raises:
            InputError: the folder holds no detector, a newer format, or weights that do not fit.
        """
        path = Path(folder) / "config.json"
        description = schema.read_yaml(path)  # JSON is YAML
        if description.get("format") != FORMAT or "detector" not in description:
            raise InputError(
                f"{path}: got format {description.get('format')!r}, expected {FORMAT} of a detector"
            )
        config = schema.from_mapping(DetectorConfig, description["detector"], str(path))
        conditioning = description.get("token_dim")
        if "source" in description:
            conditioning = Model.from_description(description["source"], where=str(path))
        detector = cls(config, build_parts(config, conditioning, pretrained=False))
        try:
            state = load_file(str(Path(folder) / "detector.safetensors"))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder}: detector.safetensors cannot be read ({error})") from error
        detector._load_trained(state, str(folder))
        return detector.eval()

    def _trained_state(self) -> dict[str, Tensor]:
        """All weights but those of frozen encoders, which are known by their hash."""
        source = {} if self.conditioning_model is None else self.conditioning_model.trained_state()
        return self._own_state() | {f"{_CONDITIONING_PREFIX}{name}": value for name, value in source.items()}

    def _own_state(self) -> dict[str, Tensor]:
        """The weights that are not of the model that makes the tokens."""
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(_CONDITIONING_PREFIX)
        }

    def _load_trained(self, state: Mapping[str, Tensor], where: str) -> None:
        theirs = (
            {}
            if self.conditioning_model is None
            else {name: state[name] for name in state if name.startswith(_CONDITIONING_PREFIX)}
        )
        own_state = {name: value for name, value in state.items() if name not in theirs}
        check_weights(self._own_state(), own_state, where, "detector")
        if (
            self.conditioning_model is not None
        ):  # which may have been pruned or quantised, and sees to that by itself
            self.conditioning_model.load_trained(
                {name.removeprefix(_CONDITIONING_PREFIX): value for name, value in theirs.items()}
            )
        self.load_state_dict(own_state, strict=False)

    @classmethod
    def example(cls) -> Detector:
        """Train one step on two tiny scenes, for `mmattn.testing.plugin_checks.check_adapter`."""
        from mmattn.encoders.text.tiny_text import TinyText

        detector = cls.build(
            "fcos", ["asked for"], backbone="resnet10t", levels=(2,), extra_levels="none", fpn_channels=32,
            num_convs=1,
            conditioning={"text": TinyText(dim=8)},
        )  # fmt: skip
        scene = torch.zeros(3, 32, 48)
        scene[:, 8:24, 8:24] = 1.0
        truth = Boxes(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), ["asked for"], (32, 48))
        samples = [
            Sample("yes", {"image": scene, "text": "a square"}),
            Sample("no", {"image": scene, "text": "a disc"}),
        ]
        losses = detector.losses(samples, [truth, Boxes.empty((32, 48))])
        torch.stack(list(losses.values())).sum().backward()
        detector.predict(samples)
        return detector

"""Say it, find it: digits in scenes, asked for in words, by sound patterns, and by recorded speech.

    python examples/recipes/scenes.py --out runs/scenes --seeds 0 1 2
    python examples/recipes/scenes.py --out runs/scenes --seeds 0 1 2 --root ../shared/data/fsdd

Test scenes show handwriting that no training scene shows. `asked` learns from fresh scenes, some with a
phrase, some with a sound pattern, some with nothing said (then every digit is meant). With the folder of
FSDD, `heard` and `unheard` teach that detector, whose eyes stay as they are, to listen to recordings: to
speakers who are heard in training (the official test recordings ask), or to two whom it has never heard.
A prediction counts as right where it is on a box that was asked for; its label is not looked at.
A stage that was done is read from --out, and one that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from mmattn.boxes import Boxes
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.audio.conv_mel import ConvMel
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.evaluation.tasks.detection import detection_metrics
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection
from mmattn.files import atomic_path, write_json
from mmattn.model.build import build_model, choose_device
from mmattn.testing.measuring import Report
from mmattn.training.augmentation.speech_augment import (
    default_spectrogram_transforms,
    default_waveform_transforms,
)
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.mixup import MixupTask
from mmattn.types import Sample
from mmattn_adapters.torchvision import Detector, SyntheticDetectionTask
from mmattn_datasets.scenes.draw import DIGITS, PARTS, Part, make_scenes
from mmattn_datasets.scenes.queries import AudioSource, FsddAudio, Query, make_queries

SCENES, EACH = 300, 3  # of the test
ASKED = "asked for"
# Two speakers a seed, so that each of the six is left out once.
UNHEARD = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))


# As chosen for unheard speakers in fsdd.py; 24 frames make six tokens, each a field of its own.
EAR: dict[str, Any] = {
    "dim": 64, "channels": (16, 32, 48), "fixed_length": 24, "power_compression": 0.1, "trim_db": 55.0,
    "cache_as": "samples",
}  # fmt: skip
FUSION = FusionConfig(dim=64, layers=0, heads=1, dropout=0.2)


def speech(ear: ConvMel) -> EncoderConfig:
    return EncoderConfig(ear.name, ear.options(), fields=6, standardise=True)


def build(seed: int) -> Detector:
    """A small detector; each label is a digit, so that without a question it is an ordinary detector."""
    torch.manual_seed(seed)
    ear = ConvMel(modality="speech", **EAR)
    pattern = ConvMel(dim=64, channels=(16, 32, 48), fixed_length=24, modality="pattern")
    text = TinyText(dim=64)
    configs = {
        "text": EncoderConfig(text.name, text.options(), standardise=True),
        "pattern": EncoderConfig(pattern.name, pattern.options(), fields=6, standardise=True),
        "speech": speech(ear),
    }
    encoders = {"text": text, "pattern": pattern, "speech": ear}
    detector = Detector.build(
        "fcos", DIGITS, backbone="resnet10t", levels=(2,), extra_levels="none", fpn_channels=64, num_convs=1,
        conditioning=build_model(encoders, ModelConfig(configs, FUSION)),
        options={"score_thresh": 0.02, "detections_per_img": 30},
    )  # fmt: skip
    return detector.to(choose_device())


def samples_of(queries: Sequence[Query], *modalities: str) -> tuple[list[Sample], list[Boxes]]:
    """Questions in these modalities, and their answers; those about one scene share its picture."""
    pictures: dict[str, Tensor] = {}
    samples = []
    for number, query in enumerate(queries):
        picture = pictures.setdefault(query.scene.id, query.scene.pixels)
        answer = {"text": query.phrase, "pattern": query.clip, "speech": query.recording.path}
        samples.append(Sample(str(number), {"image": picture, **{name: answer[name] for name in modalities}}))
    return samples, [query.boxes for query in queries]


def asking(
    sounds: AudioSource | None,
    *modalities: str,
    scenes: int,
    each: int,
    plain: bool = False,
    changed: Callable[[Sample], Sample] = lambda sample: sample,
) -> Callable[[int], tuple[list[Sample], list[Boxes]]]:
    """Fresh scenes from a seed, each asked `each` questions; and, where `plain`, nothing once."""

    def draw(seed: int) -> tuple[list[Sample], list[Boxes]]:
        queries = make_queries(
            make_scenes(scenes, "train", seed=seed),
            sounds,
            seed=seed,
            queries_per_scene=each,
            absent_rate=0.3,
        )
        samples, targets = samples_of(queries, *modalities)
        samples = [changed(sample) for sample in samples]
        if plain:
            for first in range(0, len(queries), each):
                samples.append(Sample("plain", {"image": samples[first].content["image"]}))
                targets.append(queries[first].scene.boxes)
        return samples, targets

    return draw


class Listening(SyntheticDetectionTask):
    """Only the ear is trained, and how cells attend to what it hears; the eyes stay as they are."""

    def __init__(self, detector: Detector, *arguments: Any, **options: Any):
        super().__init__(detector, *arguments, **options)
        assert detector.conditioning_model is not None
        assert detector.map_conditioning is not None
        detector.requires_grad_(False)
        ear = (
            detector.conditioning_model.encoders["speech"],
            detector.conditioning_model.core.input_projection.projections["speech"],
        )
        for part in (*ear, detector.map_conditioning):
            part.requires_grad_(True)

    def train(self, mode: bool = True) -> Listening:
        super().train(mode)
        self.detector.network.backbone.eval()  # its norms have learned
        return self


class Voices:
    """Every recording as it is, and as other voices in other rooms would have said it; made once, kept.

    Args:
        root: folder of FSDD.
        kept: file of the frames.
        ear: makes the frames, of one length.
        versions: of every recording, itself among them.
    """

    def __init__(self, root: Path, kept: Path, ear: ConvMel, versions: int = 6):
        files = sorted({file.name: file for part in PARTS for file in FsddAudio(root, part).files}.items())
        self.row = {name: row for row, (name, _) in enumerate(files)}
        if not kept.exists():
            torch.manual_seed(0)
            other = default_waveform_transforms(ear.sample_rate)
            frames = []
            for _, file in tqdm(files, desc="voices", unit="recording"):
                wave = ear.read(file)
                frames += [ear.frames(wave), *(ear.frames(other(wave)) for _ in range(versions - 1))]
            frames_NVTF = torch.stack(frames).unflatten(0, (len(files), versions))
            with atomic_path(kept) as temporary:
                save_file({"frames": frames_NVTF}, str(temporary))
        self.frames_NVTF = load_file(str(kept))["frames"]
        self.masks = default_spectrogram_transforms(ear.sample_rate)

    def drawn(self, file: Path) -> Tensor:
        """Frames of one version of a recording, bent and masked."""
        versions_VTF = self.frames_NVTF[self.row[file.name]]
        return self.masks(versions_VTF[int(torch.randint(len(versions_VTF), ()))])


def learn_words(
    detector: Detector, files: Sequence[Path], voices: Voices, given: Any, seed: int, folder: Path
) -> None:
    """Train the ear to tell the ten words apart, and put it into the detector."""
    torch.manual_seed(seed)
    ear = ConvMel(modality="speech", **EAR)
    head = HeadConfig("classification", {"classes": list(DIGITS), "label_smoothing": 0.1, "dropout": 0.3})
    model = build_model({"speech": ear}, ModelConfig({"speech": speech(ear)}, FUSION, {"word": head}))
    words = [DIGITS[int(file.name[0])] for file in files]

    def augment(said: dict[str, Any], word: Any) -> tuple[dict[str, Any], Any]:
        return {"speech": voices.drawn(said["speech"])}, word

    inputs = ModelInputs(contents={"speech": files})
    task = MixupTask(model, inputs, words, range(len(files)), head="word", augment=augment)
    train(
        task,
        LoopConfig(
            epochs=given.word_epochs,
            learning_rate=3e-3,
            weight_decay=0.02,
            warmup_ratio=0.1,
            ema_decay=0.99,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"words {seed}",
    )
    source = detector.conditioning_model
    assert source is not None
    source.encoders["speech"].load_state_dict(ear.state_dict())
    source.core.input_projection.projections["speech"].load_state_dict(
        model.core.input_projection.projections["speech"].state_dict()
    )


def ap50(found: Sequence[Boxes], truth: Sequence[Boxes]) -> float:
    return detection_metrics(anything(found), anything(truth))["ap50"]


def anything(boxes: Sequence[Boxes]) -> list[Boxes]:
    """The same boxes as one class: what was asked for."""
    return [Boxes(box.boxes, [ASKED] * len(box), box.size, box.scores) for box in boxes]


def held(part: Part, sounds: AudioSource | None = None, scenes: int = SCENES) -> list[Query]:
    """Questions of validation or test: the same ones in every seed, whoever asks them."""
    queries = make_queries(make_scenes(scenes, part, seed=2026), seed=2026, queries_per_scene=EACH)
    if sounds is None:
        return queries
    generator = np.random.default_rng(2026)
    return [replace(query, recording=sounds.sample(query.digit, generator)) for query in queries]


def judge_of(sounds: AudioSource | None, *modalities: str) -> Callable[[Detector], dict[str, float]]:
    """AP50 on validation, the mean over the modalities in which it is asked."""
    queries = held("validation", sounds, scenes=100)

    def judge(detector: Detector) -> dict[str, float]:
        figures = {}
        for name in modalities:
            samples, targets = samples_of(queries, name)
            figures[name] = ap50(detector.predict(samples, batch_size=60), targets)
        return {"ap50": sum(figures.values()) / len(figures), **figures}

    return judge


def eyes(seed: int, given: argparse.Namespace, folder: Path) -> Detector:
    """An ordinary detector of ten digits, which nobody has asked anything yet."""
    detector = build(seed)

    def draw(number: int) -> tuple[list[Sample], list[Boxes]]:
        scenes = make_scenes(8, "train", seed=number)
        return [Sample(scene.id, {"image": scene.pixels}) for scene in scenes], [
            scene.boxes for scene in scenes
        ]

    task = SyntheticDetectionTask(detector, draw, steps_per_epoch=given.eye_steps)
    train(
        task,
        LoopConfig(
            epochs=1,
            learning_rate=5e-3,
            weight_decay=0.02,
            warmup_ratio=0.05,
            ema_decay=0.98,
            save_every=100,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"eyes {seed}",
    )
    return detector


def asked(seed: int, given: argparse.Namespace, folder: Path) -> Detector:
    """The same, trained with phrases and sound patterns, and with nothing said."""
    detector = eyes(seed, given, folder / "eyes")
    task = SyntheticDetectionTask(
        detector, asking(None, "text", "pattern", scenes=6, each=5, plain=True),
        judge_of(None, "text", "pattern"), steps_per_epoch=given.steps, modality_dropout=1.0,
    )  # fmt: skip
    train(
        task,
        LoopConfig(
            epochs=2,
            learning_rate=6e-3,
            weight_decay=0.02,
            warmup_ratio=0.05,
            ema_decay=0.98,
            lr_multipliers={"detector.network": 0.2},
            save_every=50,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"asked {seed}",
    )
    return detector


def listening(seed: int, given: argparse.Namespace, folder: Path, heldout: Sequence[str]) -> Detector:
    """The detector that `asked` trained, taught to listen to recordings."""
    detector = Detector.from_pretrained(given.out / f"asked-{seed}").to(choose_device())
    sounds = FsddAudio(given.root, "train", heldout)
    voices = Voices(given.root, given.out / "voices.safetensors", ConvMel(modality="speech", **EAR))
    learn_words(detector, sounds.files, voices, given, seed, folder / "words")

    def changed(sample: Sample) -> Sample:
        return Sample(sample.id, {**sample.content, "speech": voices.drawn(sample.content["speech"])})

    task = Listening(
        detector, asking(sounds, "speech", scenes=8, each=6, changed=changed),
        judge_of(FsddAudio(given.root, "validation", heldout), "speech"),
        steps_per_epoch=given.listening_steps,
    )  # fmt: skip
    train(
        task,
        LoopConfig(
            epochs=3,
            learning_rate=3e-3,
            weight_decay=0.02,
            warmup_ratio=0.1,
            ema_decay=0.95,
            save_every=25,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"{folder.name}",
    )
    return detector


def run(system: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """What one seed of a system found for each way of asking, measured or read."""
    folder = given.out / f"{system}-{seed}"
    if not (folder / "found.json").exists():
        torch.set_num_threads(1)
        begun = time.process_time()
        heldout = UNHEARD[seed % len(UNHEARD)] if system == "unheard" else ()
        if system == "asked":
            detector = asked(seed, given, folder)
        else:
            detector = listening(seed, given, folder, heldout)
        detector.save_pretrained(folder)
        seconds = time.process_time() - begun
        sounds = FsddAudio(given.root, "test", heldout) if system != "asked" else None
        results = {}
        for modality in ("text", "pattern") if system == "asked" else ("speech",):
            samples, _ = samples_of(held("test", sounds), modality)
            boxes = detector.predict(samples, batch_size=60)
            results[modality] = [[box.boxes.tolist(), box.scores.tolist()] for box in boxes]  # type: ignore[union-attr]
        write_json(folder / "found.json", {"found": results, "seconds": seconds, "heldout": list(heldout)})
    return dict(json.loads((folder / "found.json").read_text(encoding="utf-8")))


def loaded(pairs: Sequence[Any], targets: Sequence[Boxes]) -> list[Boxes]:
    """Boxes as they were before they were written, as one class."""
    return [
        Boxes(torch.tensor(boxes).reshape(-1, 4), [ASKED] * len(boxes), target.size, torch.tensor(scores))
        for (boxes, scores), target in zip(pairs, targets, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="detectors and what they found, one folder a run"
    )
    parser.add_argument("--root", type=Path, help="folder of FSDD; without it, nobody speaks")
    parser.add_argument("--systems", nargs="*", default=["asked", "heard", "unheard"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--eye-steps", type=int, default=700, help="8 scenes each")
    parser.add_argument("--steps", type=int, default=150, help="of an epoch, 6 scenes each")
    parser.add_argument("--word-epochs", type=int, default=16)
    parser.add_argument("--listening-steps", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    given = parser.parse_args()
    report = Report(given, "mmattn", "torchvision", "timm", "faster-coco-eval")
    answers = [query.boxes for query in held("test")]
    report.table(
        f"{SCENES} test scenes, {len(answers)} questions, {sum(map(len, answers))} boxes meant",
        ("system", "asked by", "seeds", "AP50 (95% over questions)", "each seed", "s of training"),
    )
    for system in given.systems:
        if system != "asked" and given.root is None:
            report.note(f"{system}: left out, it needs --root")
            continue
        runs = [run(system, seed, given) for seed in given.seeds]
        for modality in runs[0]["found"]:
            figures = bootstrap_detection(
                [loaded(run["found"][modality], answers) for run in runs], anything(answers)
            )["ap50"]
            report.row(
                system, modality, " ".join(map(str, given.seeds)),
                f"{figures.mean:.4f} ({figures.low:.4f} to {figures.high:.4f})",
                " ".join(f"{value:.4f}" for value in figures.seed_means),
                sum(run["seconds"] for run in runs) / len(runs),
            )  # fmt: skip
    report.close()


if __name__ == "__main__":
    main()

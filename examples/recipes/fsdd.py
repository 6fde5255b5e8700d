"""Spoken digits: which word, of voices that were heard and that never were; and whose voice.

    python examples/recipes/fsdd.py --root ../shared/data/fsdd --out runs/fsdd

Ours is an encoder of small convolutions ("conv-mel"), the fusion core and the classification head, trained by
`SupervisedTask` on clips as other voices and rooms would have made them. The baseline is a plain CNN of three
layers on log-mel pictures with shifts and masks, and as many passes over as many clips. Official part: index
0 to 4 is tested, the rest learned from. Speakers: each in turn is left out whole. Settings were chosen with
`--parts develop` for these (four speakers to learn from, george and jackson to listen to), and for the
official part with `--parts "develop official"` (index 10 and on to learn from, 5 to 9 to listen to).
Verification: vectors of the speaker head against those of Resemblyzer's network, all pairs of recordings.

Every run leaves a file in --out, so that a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.audio.conv_mel import ConvMel
from mmattn.encoders.audio.resemblyzer import Resemblyzer
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.statistics.bootstrap import bootstrap
from mmattn.evaluation.tasks.verification import verification_metrics
from mmattn.files import atomic_path, write_json
from mmattn.model.build import build_model
from mmattn.testing.measuring import Report
from mmattn.training.augmentation.spectrogram_transforms import FrequencyMask, TimeMask
from mmattn.training.augmentation.speech_augment import (
    AddNoise,
    AudioTransform,
    Compose,
    PitchShift,
    RandomApply,
    RoomReverb,
    SpectralTilt,
    SpeedPerturbation,
    default_spectrogram_transforms,
)
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.mixup import MixupTask
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.fsdd.prepare import Fsdd

DIM, BATCH, RATE = 64, 64, 8000
EPOCHS, LONGER = 14, 24  # the more where voices are known; of new ones there is little to learn by going on
WHOLE = 64  # frames that a clip is filled up to or cut to
WORDS: dict[str, Any] = {
    "channels": (16, 32, 48), "fixed_length": 24, "power_compression": 0.1, "trim_db": 40.0,
    "cache_as": "samples",
}  # fmt: skip
VOICES: dict[str, Any] = {"channels": (16, 32, 48), "cache_as": "samples"}
OTHER_VOICES = Compose(
    (
        SpeedPerturbation(0.85, 1.15),
        RandomApply(PitchShift(RATE)),
        RandomApply(RoomReverb(RATE)),
        RandomApply(SpectralTilt()),
        RandomApply(AddNoise(10, 45)),
    )
)
OTHER_PLACES = Compose(
    (RandomApply(RoomReverb(RATE)), RandomApply(SpectralTilt()), RandomApply(AddNoise(10, 45)))
)
DEVELOP = ("george", "jackson")
PAIRS = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))
PARTS = ("develop", "develop official", "official", "speakers", "voices", "new voices")


class Clips:
    """All recordings with their targets, and versions of them that are made once for all runs."""

    def __init__(self, root: str, versions: int, out: Path):
        with tempfile.TemporaryDirectory() as folder:
            dataset = read_dataset(Fsdd().prepare(root, folder))
        self.paths = [item.content["audio"] for item in dataset.items]
        self.digits, self.speakers = (dataset.labels[name].tolist() for name in ("digit", "speaker"))
        self.index = dataset.labels["index"].astype(int)
        self.versions, self.out = versions, out

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def words(self) -> list[Tensor]:
        """Frames for words: of every clip, then of every clip's second version, ..."""
        return self._frames(ConvMel(dim=DIM, **WORDS), OTHER_VOICES)

    @cached_property
    def pictures(self) -> list[Tensor]:
        """[`WHOLE`, 40] log-mel frames of every clip, filled up with its silence or cut."""
        encoder = ConvMel(dim=DIM)
        frames = (encoder.read(path)[:WHOLE] for path in self.paths)
        return [F.pad(frame, (0, 0, 0, WHOLE - len(frame)), value=float(frame.min())) for frame in frames]

    @cached_property
    def voices(self) -> list[Tensor]:
        """Frames for voices: versions are the same voices in other places."""
        return self._frames(ConvMel(dim=DIM, **VOICES), OTHER_PLACES)

    def _frames(self, encoder: ConvMel, change: AudioTransform) -> list[Tensor]:
        made_by = f"{encoder.describe().fingerprint()} {change} {self.versions}"
        file = self.out / f"frames-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}.pt"
        if not file.exists():
            torch.manual_seed(0)
            waves = [encoder.read(path) for path in self.paths]
            changed = (change(wave) for _ in range(self.versions - 1) for wave in waves)
            with atomic_path(file) as temporary:
                torch.save([encoder.frames(wave) for wave in (*waves, *changed)], temporary)
        return torch.load(file, weights_only=True)

    def of(self, speakers: Iterable[str]) -> np.ndarray:
        """Rows of these speakers."""
        return np.flatnonzero(np.isin(self.speakers, list(speakers)))


class OneVersion(SupervisedTask):
    """An epoch meets every clip once, in one of its versions."""

    clips: int  # that there are, before their further versions

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        rows = self.rows[torch.randperm(len(self.rows), generator=generator)]
        drawn = torch.randint(len(self.targets) // self.clips, (len(rows),), generator=generator)
        yield from (rows + self.clips * drawn).split(self.batch_size)


class OneVersionMixed(OneVersion, MixupTask):
    """And clips are mixed two by two."""


def ours(
    frames: list[Tensor],
    targets: Sequence[str | None],
    learn: np.ndarray,
    seed: int,
    head: HeadConfig,
    *,
    options: dict[str, Any],
    fields: int,
    augment: AudioTransform,
    layers: int = 0,
    kind: type[OneVersion] = OneVersion,
    epochs: int = EPOCHS,
) -> OneVersion:
    """The trained task.

    Args:
        frames: of the clips, then of their further versions.
        targets: one a clip.
        learn: rows of the clips to learn from.
        seed: of everything random.
        head: what is learned.
        options: of the encoder.
        fields: places of tokens.
        augment: of frames.
        layers: of the core.
        kind: are clips mixed?
        epochs: each meets every clip once.
    """
    torch.manual_seed(seed)
    options = {"dim": DIM, **options}
    entering = EncoderConfig("conv-mel", options, fields=fields, standardise=True)
    config = ModelConfig(
        {"audio": entering}, FusionConfig(dim=DIM, layers=layers, dropout=0.2), {"said": head}
    )
    task = kind(
        build_model({"audio": ConvMel(**options)}, config),
        ModelInputs({}, {"audio": frames}),
        list(targets) * (len(frames) // len(targets)),
        learn,
        head="said",
        batch_size=BATCH,
        augment=lambda contents, target: ({"audio": augment(contents["audio"])}, target),
    )
    task.clips = len(targets)
    train(
        task,
        LoopConfig(
            epochs=epochs, learning_rate=3e-3, weight_decay=0.02, warmup_ratio=0.1, ema_decay=0.99, patience=0
        ),
        seed=seed,
        progress=False,
    )
    return task


def words_of_new_voices(clips: Clips, learn: np.ndarray, test: np.ndarray, seed: int) -> list[str]:
    """What our model takes the test clips for: stretched to one length, learned in other voices and mixed."""
    return ours(
        clips.words, clips.digits, learn, seed, _digit_head(clips),
        options=WORDS, fields=6, augment=default_spectrogram_transforms(RATE), kind=OneVersionMixed,
    ).predict(test)  # fmt: skip


def words_of_known_voices(clips: Clips, learn: np.ndarray, test: np.ndarray, seed: int) -> list[str]:
    """The same where the voices are known: the clips as they are, shifted and masked as the baseline's."""
    return ours(
        clips.pictures, clips.digits, learn, seed, _digit_head(clips),
        options=VOICES, fields=WHOLE // 4, augment=shifted_and_masked, epochs=LONGER,
    ).predict(test)  # fmt: skip


def _digit_head(clips: Clips) -> HeadConfig:
    return HeadConfig(
        "classification", {"classes": sorted(set(clips.digits)), "label_smoothing": 0.1, "dropout": 0.3}
    )


def heard_voices(clips: Clips, learn: np.ndarray, test: np.ndarray, seed: int) -> list[Any]:
    """Our vectors of the test clips."""
    speakers = sorted({clips.speakers[row] for row in learn})
    known = [speaker if speaker in speakers else None for speaker in clips.speakers]
    return ours(
        clips.voices, known, learn, seed, HeadConfig("speaker", {"speakers": speakers, "dropout": 0.2}),
        options=VOICES, fields=1, layers=1, augment=Compose((TimeMask(), FrequencyMask())),
    ).predict(test)  # fmt: skip


def shifted_and_masked(picture_TF: Tensor) -> Tensor:
    moved_TF = torch.roll(picture_TF, int(torch.randint(-6, 7, ())), 0)
    return Compose((TimeMask(12), FrequencyMask(8, 1)))(moved_TF)


# --- baselines ---------------------------------------------------------------------------------------


def plain_words(
    clips: Clips, learn: np.ndarray, test: np.ndarray, seed: int, epochs: int = EPOCHS
) -> list[str]:
    """What a plain CNN takes them for: three layers on pictures of 64 frames, shifted and masked."""
    torch.manual_seed(seed)
    pictures_NTF, digits_N = torch.stack(clips.pictures), torch.tensor([int(digit) for digit in clips.digits])
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 8 * 5, 10))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    steps = epochs * -(-len(learn) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.from_numpy(learn)[torch.randperm(len(learn))].split(BATCH):
            x_BTF = torch.stack([shifted_and_masked(pictures_NTF[row]) for row in rows])
            optimizer.zero_grad()
            F.cross_entropy(network(x_BTF[:, None]), digits_N[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        return [str(digit) for digit in network(pictures_NTF[test][:, None]).argmax(1).tolist()]


def frozen_voices(clips: Clips, learn: np.ndarray, test: np.ndarray, seed: int) -> list[Any]:
    """Vectors of Resemblyzer's network, which learns nothing here."""
    encoder = Resemblyzer(pool="all")
    parts = torch.from_numpy(test).split(BATCH)
    return [vector for part in parts for vector in encoder([clips.paths[row] for row in part]).values]


# --- parts ----------------------------------------------------------------------------------------

Hear = Callable[[Clips, np.ndarray, np.ndarray, int], list[Any]]
NEW_VOICES: dict[str, Hear] = {"mmattn": words_of_new_voices, "plain CNN": plain_words}
KNOWN_VOICES: dict[str, Hear] = {
    "mmattn": words_of_known_voices, "plain CNN": partial(plain_words, epochs=LONGER),
}  # fmt: skip
VOICES_THEMSELVES: dict[str, Hear] = {"mmattn": heard_voices, "Resemblyzer": frozen_voices}


def systems_of(part: str) -> dict[str, Hear]:
    if "voices" in part:
        return VOICES_THEMSELVES
    return KNOWN_VOICES if "official" in part else NEW_VOICES


def folds(clips: Clips, part: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> rows to learn from and rows to test on."""
    everyone = sorted(set(clips.speakers))

    def without(left_out: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return clips.of(set(everyone) - set(left_out)), clips.of(left_out)

    if part == "develop":
        return {"+".join(DEVELOP): without(DEVELOP)}
    if part == "speakers":
        return {speaker: without([speaker]) for speaker in everyone}
    if part == "new voices":
        return {"+".join(pair): without(pair) for pair in PAIRS}
    if part == "develop official":
        return {"index 5-9": (np.flatnonzero(clips.index >= 10), np.flatnonzero(clips.index // 5 == 1))}
    return {"index 0-4": (np.flatnonzero(clips.index >= 5), np.flatnonzero(clips.index < 5))}


def run(clips: Clips, part: str, fold: str, system: str, seed: int) -> dict[str, Any]:
    """Figures of one run; for words also which clips were right."""
    learn, test = folds(clips, part)[fold]
    _ = (
        clips.voices if "voices" in part else (clips.words, clips.pictures)
    )  # made once: no part of a run's time
    begun = time.process_time()
    transcripts = systems_of(part)[system](clips, learn, test, seed)
    if "voices" in part:
        result: dict[str, Any] = verification_metrics(transcripts, [clips.speakers[row] for row in test])
    else:
        right = [digit == clips.digits[row] for digit, row in zip(transcripts, test, strict=True)]
        result = {"accuracy": float(np.mean(right)), "right": np.array(right, int).tolist()}
    return {**result, "seconds": time.process_time() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="the folder of the recordings")
    parser.add_argument("--out", required=True, type=Path, help="where every run leaves its figures")
    parser.add_argument("--parts", nargs="*", default=list(PARTS[2:]), choices=PARTS)
    parser.add_argument("--systems", nargs="*", help="only these")
    parser.add_argument("--folds", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--versions", type=int, default=6, help="of every clip, itself among them")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "mmattn", "torchaudio")
    clips = Clips(arguments.root, arguments.versions, arguments.out)
    for part in arguments.parts:
        systems = systems_of(part)
        for fold in folds(clips, part):
            for system in systems:
                for seed in arguments.seeds if system != "Resemblyzer" else arguments.seeds[:1]:
                    wanted = (not arguments.systems or system in arguments.systems) and (
                        not arguments.folds or fold in arguments.folds
                    )
                    file = arguments.out / f"{part}, {fold}, {system}, {seed}.json"
                    if wanted and not file.exists():
                        write_json(file, run(clips, part, fold, system, seed))
        told(report, clips, part, systems, arguments)
    report.close()


def told(
    report: Report, clips: Clips, part: str, systems: Iterable[str], arguments: argparse.Namespace
) -> None:
    """The table of a part, from the files that are there."""
    figure = "eer" if "voices" in part else "accuracy"
    report.table(part, ("system", "tested on", figure, "seeds", "more", "CPU seconds a run"))
    for system in systems:
        right: list[np.ndarray] = []
        means = []
        for fold in folds(clips, part):
            files = [arguments.out / f"{part}, {fold}, {system}, {seed}.json" for seed in arguments.seeds]
            runs = [json.loads(file.read_text()) for file in files if file.exists()]
            if not runs:
                continue
            values = [run[figure] for run in runs]
            means.append(float(np.mean(values)))
            more = "-"
            if figure == "eer":
                more = f"minDCF {np.mean([run['min_dcf'] for run in runs]):.3f}"
            elif len(runs) == len(arguments.seeds):
                right.append(np.array([run["right"] for run in runs], float))
                more = interval(right[-1])
            seconds = float(np.mean([run["seconds"] for run in runs]))
            report.row(system, fold, means[-1], " ".join(f"{value:.4f}" for value in values), more, seconds)
        if len(means) > 1:
            whole = interval(np.concatenate(right, 1)) if len(right) == len(means) else "-"
            report.row(system, "mean", float(np.mean(means)), "", whole, float("nan"))


def interval(right_SN: np.ndarray) -> str:
    """95% over recordings, the seeds pooled."""
    result = bootstrap(right_SN)
    return f"{result.mean:.4f} ({result.low:.4f} to {result.high:.4f})"


if __name__ == "__main__":
    main()

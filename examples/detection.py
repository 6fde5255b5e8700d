"""Say it, find it: a detector that is asked in words or aloud, and finds every digit when nobody asks.

    python examples/detection.py                                  # sound patterns ask
    python examples/detection.py --root ../shared/data/fsdd       # recorded speech asks

Small scenes of handwritten digits, fresh in every step; the handwriting of the tested scenes is never trained
on. A torchvision FCOS on a timm backbone, whose feature maps attend to what is said before the heads. At the
end pictures show what was found for a phrase, for a sound, and without a question. Two minutes on a CPU.
"""

import argparse
from pathlib import Path

import torch

from mmattn import Sample
from mmattn.boxes import Boxes
from mmattn.encoders.audio.conv_mel import ConvMel
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.evaluation.tasks.detection import detection_metrics
from mmattn.files import write_bytes
from mmattn.model.build import choose_device
from mmattn.reports.box_overlay import draw_boxes
from mmattn.training.loop import LoopConfig, train
from mmattn_adapters.torchvision import Detector, SyntheticDetectionTask
from mmattn_datasets.scenes.draw import DIGITS, Part, make_scenes
from mmattn_datasets.scenes.queries import AudioSource, FsddAudio, SyntheticAudio, make_queries

Questions = tuple[list[Sample], list[Boxes]]


def ask(count: int, part: Part, sounds: AudioSource, seed: int) -> dict[str, Questions]:
    """Scenes asked in words, aloud, and not at all (then all of their digits are meant)."""
    scenes = make_scenes(count, part, seed=seed, size=64, digits=(2, 3), clutter=2)
    pictures = {scene.id: scene.pixels for scene in scenes}  # one object a scene: its questions share a pass
    queries: dict[str, Questions] = {"text": ([], []), "audio": ([], []), "nothing": ([], [])}
    for query in make_queries(scenes, sounds, seed=seed):
        answer = {"text": {"text": query.phrase}, "audio": {"audio": query.clip}, "nothing": {}}
        for name, (samples, targets) in queries.items():
            content = {"image": pictures[query.scene.id], **answer[name]}
            samples.append(Sample(f"{query.scene.id} {name}", content))
            targets.append(query.scene.boxes if name == "nothing" else query.boxes)
    return queries


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of recorded digits; left out, sound patterns")
    parser.add_argument("--steps", type=int, default=450, help="of listening; twice as many of seeing")
    parser.add_argument("--out", type=Path, default=Path("runs/detection"), help="where pictures are drawn")
    given = parser.parse_args()
    train_sounds, test_sounds = SyntheticAudio(), SyntheticAudio()
    if given.root:
        train_sounds, test_sounds = FsddAudio(given.root, "train"), FsddAudio(given.root, "test")
    torch.manual_seed(0)
    detector = Detector.build(
        "fcos", DIGITS, backbone="resnet10t", levels=(2,), extra_levels="none", fpn_channels=64, num_convs=1,
        conditioning={"text": TinyText(dim=64), "audio": ConvMel(dim=64)}, options={"score_thresh": 0.05},
    ).to(choose_device())  # fmt: skip

    for names in (["nothing"], ["nothing", "text", "audio"]):  # first it learns to see, then to listen

        def draw(seed: int, names: list[str] = names) -> Questions:
            queries = ask(8, "train", train_sounds, seed)
            samples, targets = zip(*(queries[name] for name in names), strict=True)
            return [entry for part in samples for entry in part], [
                entry for part in targets for entry in part
            ]

        steps, slower = given.steps * (2 if names == ["nothing"] else 1), {"detector.network": 1 / len(names)}
        task = SyntheticDetectionTask(detector, draw, steps_per_epoch=steps)
        train(task, LoopConfig(epochs=1, learning_rate=5e-3, ema_decay=0.98, lr_multipliers=slower))
    for name, (samples, targets) in ask(200, "test", test_sounds, seed=1).items():
        found = detector.predict(samples)
        print(f"asked by {name}: AP50 {detection_metrics(found, targets)['ap50']:.3f} on 200 new scenes")
        picture = draw_boxes(samples[0].content["image"], targets[0], found[0])
        write_bytes(given.out / f"{name}.png", picture)
    print(f"drawn: text.png, audio.png and nothing.png in {given.out}")

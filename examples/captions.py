"""Captions: what a picture shows, written by a decoder that attends to its fused tokens.

    python examples/captions.py                                          # scenes of handwritten digits
    python examples/captions.py --root ../shared/data/flickr-trimodal    # photographs

One to three handwritten digits become "a seven and two threes"; the tested handwriting is unseen. From 280
photographs nobody learns to describe: see the caption of the nearest picture beside. About a minute on a CPU.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from mmattn import Sample
from mmattn.build import build_encoders, build_model, choose_device
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read
from mmattn.encoders.inputs import gather
from mmattn.evaluation.translation import translation_figures
from mmattn.heads.generation import GenerationHead
from mmattn.training.loop import train
from mmattn.training.supervised_task import SupervisedTask
from mmattn_datasets.flickr_trimodal.prepare import FlickrTrimodal
from mmattn_datasets.scenes.draw import make_scenes


def scenes(count: int) -> list[tuple[str, Sample, list[str]]]:
    ways, rows = {1: "a {}", 2: "two {}s", 3: "three {}s"}, []
    for part, share in (("train", count), ("test", count // 8)):
        for scene in make_scenes(share, part, size=64, digits=(1, 3), clutter=1):
            counted = sorted(Counter(scene.boxes.labels).items())
            text = " and ".join(ways[many].format(digit) for digit, many in counted)
            rows.append((part, Sample(scene.id, {"image": scene.picture}), [text]))
    return rows


def photographs(root: Path, out: Path) -> list[tuple[str, Sample, list[str]]]:
    data = read(FlickrTrimodal().prepare(root, out))
    rows = zip(data.item_split, data.items, data.targets["caption_0"], strict=True)
    return [(part, item, [first, *item.content["text"]]) for part, item, first in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of the photographs; left out, scenes of digits")
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=12)
    given, folder = parser.parse_args(), Path(tempfile.mkdtemp())
    rows = photographs(given.root, folder) if given.root else scenes(given.scenes)
    part, samples, captions = zip(*rows, strict=True)
    learned, tested = (np.flatnonzero(np.array(part) == name) for name in ("train", "test"))

    torch.manual_seed(0)
    image = EncoderConfig("efficientnet-lite0" if given.root else "tiny-image", standardise=not given.root)
    texts = GenerationHead.options_for([text for row in learned for text in captions[row]], least=3)
    head = HeadConfig("generation", {**texts, "max_length": 40, "dropout": 0.2 if given.root else 0.0})
    config = ModelConfig({"image": image}, FusionConfig(dim=64, layers=1), {"captions": head})
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config).to(choose_device())
    inputs = gather(samples, encoders, folder / "features", progress=False)
    one_of = lambda contents, own: (contents, own[int(torch.randint(len(own), ()))])  # noqa: E731
    task = SupervisedTask(model, inputs, captions, learned, head="captions", augment=one_of)
    train(task, epochs=given.epochs, learning_rate=2e-3, progress=False)

    written, truth = task.predict(tested), [captions[row] for row in tested]
    with torch.no_grad():
        pooled = normalize(model.eval().fuse(model.tokens(inputs, torch.arange(len(samples)))).pooled).cpu()
    nearest = [captions[learned[row]][0] for row in (pooled[tested] @ pooled[learned].T).argmax(1)]
    print(f"{len(learned)} pictures to learn from, {len(tested)} tested   BLEU   chrF  exact")
    for name, said in (("the decoder", written), ("the caption of the nearest picture", nearest)):
        found = translation_figures(said, truth)
        print(f"{name:<45} {found['bleu']:5.1f}  {found['chrf']:5.1f}  {found['exact']:5.1%}")
    print(*(f"{written[row]!r} for {truth[row][0]!r}" for row in range(3)), sep="\n")

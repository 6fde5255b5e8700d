"""Captions: what a picture shows, written by a decoder that attends to its fused tokens.

    python examples/captions.py                                          # scenes of handwritten digits
    python examples/captions.py --root ../shared/data/flickr-trimodal    # photographs

One to three handwritten digits become "a seven and a two"; the tested handwriting was never seen. From 280
photographs nobody learns to describe: see the caption of the nearest picture. About two minutes on a CPU.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import normalize

from mmattn import Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.tasks.translation import translation_metrics
from mmattn.heads.text.generation import GenerationHead
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.words import DIGIT_WORDS
from mmattn_datasets.flickr_trimodal.prepare import FlickrTrimodal


def scenes(count: int) -> list[tuple[str, Sample, list[str]]]:
    drawings, digits = load_digits(return_X_y=True)
    rng, rows = np.random.default_rng(0), []
    for part, share, first, last in (("train", count, 0, 1400), ("test", count // 8, 1400, 1797)):
        for number in range(share):
            scene, transcripts = np.zeros((2, 2, 16, 16), np.uint8), []  # four places, read line by line
            for index in sorted(rng.permutation(4)[: rng.integers(1, 4)]):
                row = rng.integers(first, last)
                scene[divmod(index, 2)] = np.kron(drawings[row].reshape(8, 8), np.full((2, 2), 15.9))
                transcripts.append(f"a {DIGIT_WORDS['English'][digits[row]]}")
            content = {"image": scene.transpose(0, 2, 1, 3).reshape(32, 32)}
            rows.append((part, Sample(f"{part}-{number}", content), [" and ".join(transcripts)]))
    return rows


def photographs(root: Path, out: Path) -> list[tuple[str, Sample, list[str]]]:
    data = read_dataset(FlickrTrimodal().prepare(root, out))
    rows = zip(data.item_split, data.items, data.targets["caption_0"], strict=True)
    return [(part, item, [first, *item.content["text"]]) for part, item, first in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of the photographs; left out, scenes of digits")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=17)
    given, folder = parser.parse_args(), Path(tempfile.mkdtemp())
    rows = photographs(given.root, folder) if given.root else scenes(given.scenes)
    part, samples, captions = zip(*rows, strict=True)
    learned, tested = (np.flatnonzero(np.array(part) == name) for name in ("train", "test"))
    torch.manual_seed(0)
    image = EncoderConfig("efficientnet-lite0", {"grid": 4}, standardise=True)
    texts = GenerationHead.options_for([text for row in learned for text in captions[row]], min_frequency=3)
    head = HeadConfig("generation", {**texts, "max_length": 40, "dropout": 0.2})
    config = ModelConfig({"image": image}, FusionConfig(dim=64, layers=1), {"captions": head})
    model = build_model(build_encoders(config.encoders), config).to(choose_device())
    inputs = prepare_inputs(samples, model.encoders, folder / "features", progress=False)
    one_of = lambda contents, own: (contents, own[int(torch.randint(len(own), ()))])  # noqa: E731
    task = SupervisedTask(model, inputs, captions, learned, head="captions", augment=one_of)
    train(task, LoopConfig(epochs=given.epochs, learning_rate=2e-3), progress=False)
    written, truth = task.predict(tested), [captions[row] for row in tested]
    pooled = normalize(model.eval().fuse(model.tokens(inputs, torch.arange(len(samples)))).pooled).detach()
    nearest = [captions[learned[row]][0] for row in (pooled[tested] @ pooled[learned].T).argmax(1)]
    print(f"{len(learned)} pictures to learn from, {len(tested)} tested   BLEU   chrF  exact")
    for name, said in (("the decoder", written), ("the caption of the nearest picture", nearest)):
        found = translation_metrics(said, truth)
        print(f"{name:<45} {found['bleu']:5.1f}  {found['chrf']:5.1f}  {found['exact']:5.1%}")
    print(*(f"{written[row]!r} for {truth[row][0]!r}" for row in range(3)), sep="\n")

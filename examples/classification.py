"""Classification: which digit it is, from handwriting, words and sounds, of which any may be absent.

    python examples/classification.py                              # the embedded digits
    python examples/classification.py --root ../shared/data/fsdd   # recorded speech

One model is trained on whatever each item has; modalities are dropped at random, so that it also answers
from each alone. Figures of each and of all, of the order and the honesty of the probabilities, and a picture
of what is taken for what. A minute on a CPU.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.statistics.bootstrap import bootstrap
from mmattn.evaluation.tasks.classification import (
    confusion_matrix,
    is_correct,
    multiclass_probability_metrics,
)
from mmattn.heads.classification.classification import ClassificationHead
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.reports.confusion import plot_confusion_matrix
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.prepare import Digits
from mmattn_datasets.fsdd.prepare import Fsdd

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of FSDD; left out, the embedded digits")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("confusion.svg"), help="a picture: .svg, .png, .pdf")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    data = read_dataset(Fsdd().prepare(given.root, folder) if given.root else Digits().prepare(None, folder))
    digits = data.targets["digit"]
    learned, tested = (np.flatnonzero(data.item_split == part) for part in ("train", "test"))

    torch.manual_seed(0)
    encoders = {"audio": EncoderConfig("log-mel", {"sample_rate": 8000, "n_mels": 40}, standardise=True)}
    if not given.root:
        encoders["image"] = EncoderConfig("tiny-image", standardise=True)
        encoders["text"] = EncoderConfig("tiny-text", standardise=True)
    options = ClassificationHead.options_for([digits[row] for row in learned])
    head = HeadConfig("classification", {**options, "label_smoothing": 0.1})
    config = ModelConfig(encoders, FusionConfig(dim=64), {"digit": head})
    built = build_encoders(config.encoders)
    model = build_model(built, config).to(choose_device())
    inputs = prepare_inputs(data.items, built, folder / "features", progress=False)
    task = SupervisedTask(model, inputs, digits, learned, head="digit", drop_modality=0.3)
    train(task, LoopConfig(epochs=given.epochs, learning_rate=2e-3), run_name="classification")

    print(f"{len(learned)} items to learn from; right of {len(tested)} new ones:")
    rows, head, truth = torch.from_numpy(tested), model.head("digit"), [digits[row] for row in tested]
    with torch.no_grad():
        parts = model.tokens(inputs, rows)
        for names in (*((name,) for name in parts), tuple(parts)) if len(parts) > 1 else (tuple(parts),):
            fused = model.fuse({name: parts[name] for name in names})
            there = fused.presence.any(1).cpu().numpy()  # others say nothing, and nothing is said of them
            share = bootstrap(np.where(there, is_correct(head.predict(fused), truth), np.nan))
            name = " + ".join(names)
            print(f"{name:<22} {share.mean:.3f} ({share.low:.3f} to {share.high:.3f}) of {there.sum()}")
    for name, value in multiclass_probability_metrics(
        head.probabilities(fused).cpu(), truth, head.classes
    ).items():
        print(f"{name:<22} {value:.3f}")
    counts, names = confusion_matrix(head.predict(fused), truth, head.classes)
    print(f"what is taken for what: {plot_confusion_matrix(counts, names, given.out)}")

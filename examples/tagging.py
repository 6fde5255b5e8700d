"""Tagging: which words of a sentence name something, and what.

    python examples/tagging.py                                 # number words in six languages, composed
    python examples/tagging.py --root ../shared/data/wnut17    # named entities in noisy text, with MiniLM

Composed sentences hold numbers up to 99 in six languages; those of the test are in no sentence of training,
so that they have to be known by their parts. Half a minute on a CPU; WNUT-17 takes a quarter of an hour.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from mmattn import Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.tasks.entities import entity_metrics
from mmattn.heads.text.tagging import TaggingHead
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.numbers import NUMBERS, spell_number
from mmattn_datasets.wnut17.prepare import Wnut17


def composed(count: int) -> tuple[list[Sample], list[list[str]], np.ndarray]:
    """Sentences, their tags, and their part."""
    around = "we saw boxes and then birds at the old harbour un two-tone van on cent stamps la mer die Uhr"
    generator = np.random.default_rng(0)
    known = dict(zip(("train", "test"), np.split(generator.permutation(100), [75]), strict=True))
    part = np.array(["test" if row % 5 == 0 else "train" for row in range(count)])
    samples, tags = [], []
    for row, group in enumerate(part.tolist()):
        words, answer = [], []
        for _ in range(generator.integers(1, 4)):
            before = generator.choice(around.split(), generator.integers(0, 4)).tolist()
            language = str(generator.choice(list(NUMBERS)))
            number = spell_number(int(generator.choice(known[group])), language).split()
            words += before + number
            answer += ["O"] * len(before) + [f"B-{language}"] + [f"I-{language}"] * (len(number) - 1)
        samples.append(Sample(str(row), {"text": words}))
        tags.append(answer)
    return samples, tags, part


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of WNUT-17; left out, composed sentences")
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    if given.root:
        data = read_dataset(Wnut17().prepare(given.root, folder))
        samples, tags, part = list(data.items), data.targets["tags"], data.item_split
        text = EncoderConfig("minilm", {"is_split_into_words": True}, finetune="full", dim_fraction=1.0)
    else:
        samples, tags, part = composed(1500)
        text = EncoderConfig("tiny-text", {"is_split_into_words": True, "word_shapes": True})
    rates = {"encoders": 0.1} if given.root else {}
    learned, tested = (np.flatnonzero(part == name) for name in ("train", "test"))

    torch.manual_seed(0)
    head = HeadConfig("tagging", {**TaggingHead.options_for([tags[row] for row in learned])})
    config = ModelConfig({"text": text}, FusionConfig(dim=384 if given.root else 64), {"tags": head})
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config).to(choose_device())
    inputs = prepare_inputs(samples, encoders, folder / "features", progress=False)
    task = SupervisedTask(model, inputs, tags, learned, head="tags", batch_size=16)
    train(task, LoopConfig(epochs=given.epochs, learning_rate=2e-3, lr_multipliers=rates), run_name="tagging")
    said = task.predict(tested)
    for name, value in entity_metrics(said, [tags[row] for row in tested], strict=True).items():
        print(f"{name:<20} {value:.3f}")
    for row in range(3):
        words = zip(samples[tested[row]].content["text"], said[row], strict=True)
        print(" ".join(word if tag == "O" else f"{word}[{tag}]" for word, tag in words))

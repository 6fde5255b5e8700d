"""Translation: English number words into several languages, by one encoder, one core and one decoder.

    python examples/translation.py                             # numbers to 999, a fifth of them held out
    python examples/translation.py --pairs sentences.tsv       # your own: source, tab, translation

The wanted language is the first word of the source. Languages join, glue and turn numbers around in their own
ways, and the held-out numbers were never seen in any of them. About a minute on a CPU.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mmattn import Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.tasks.translation import TranslationMetrics
from mmattn.heads.text.generation import GenerationHead
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.numbers import spell_number


def numbers(languages: list[str]) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """(language, source, target) of every number in every language, and which of them are held out."""
    out = np.random.default_rng(0).permutation(1000) < 200
    rows = [
        (language, f"{language}: {spell_number(number, 'English')}", spell_number(number, language))
        for language in languages
        for number in range(1000)
    ]
    return rows, np.tile(out, len(languages))


def pairs(path: Path) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Lines of a file; every fifth is held out."""
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [("all", source, target) for source, target in lines], np.arange(len(lines)) % 5 == 4


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, help="a file of your own; left out, number words")
    parser.add_argument("--languages", nargs="+", default=["German", "French", "Finnish"])
    parser.add_argument("--epochs", type=int, default=16)
    given = parser.parse_args()
    rows, held_out = pairs(given.pairs) if given.pairs else numbers(given.languages)
    languages, sources, targets = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    learned, tested = np.flatnonzero(~held_out), np.flatnonzero(held_out)

    torch.manual_seed(0)
    texts = GenerationHead.options_for(targets[learned], unit="character")
    config = ModelConfig(
        {"text": EncoderConfig("tiny-text", standardise=True)},
        FusionConfig(dim=64, layers=1, program="Program(score=dot() >> relative('order', 8))", dropout=0.0),
        {"translation": HeadConfig("generation", {**texts, "layers": 2, "dropout": 0.0, "num_beams": 3})},
    )
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config).to(choose_device())
    samples = [Sample(str(row), {"text": source}) for row, source in enumerate(sources)]
    inputs = prepare_inputs(samples, encoders, "features", progress=False)
    task = SupervisedTask(model, inputs, targets.tolist(), learned, head="translation", batch_size=48)
    train(task, LoopConfig(epochs=given.epochs, learning_rate=2e-3), progress=False)

    written = np.array(task.predict(tested, batch_size=256), dtype=object)
    measure = TranslationMetrics(effective_order=True)
    print(f"{len(learned)} texts to learn from, {len(tested)} tested   BLEU   chrF  exact")
    for language in dict.fromkeys(languages):
        own = languages[tested] == language
        figures = measure.evaluate(written[own].tolist(), targets[tested][own].tolist())
        print(f"{language:<43} {figures['bleu']:5.1f}  {figures['chrf']:5.1f}  {figures['exact']:5.1%}")
    print(measure.signatures["bleu"])
    for row in range(0, len(tested), max(1, len(tested) // 5)):
        print(f"  {sources[tested[row]]} -> {written[row]}")

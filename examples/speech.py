"""Speech to text: a CTC model that looks back only, so that it writes while somebody is speaking.

    python examples/speech.py                                          # sound patterns, one for each digit
    python examples/speech.py --root ../shared/data/fsdd               # six people who say digits

Strings of digits are joined from single recordings; then from others, heard as a whole and in pieces.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.audio.audio_io import read_clip
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.tasks.error_rates import transcription_metrics
from mmattn.heads.speech.decoding.alignment import align_transcript
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.serving.streaming_asr import StreamingRecognizer
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.sounds import synthesize, voices

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PIECES = {"vocabulary": WORDS, "unit": "word-piece"}


def recordings(root: Path | None, test: bool) -> list:
    """Of every person and digit some takes: those to learn from, or the others."""
    if root is None:
        rng, ids = np.random.default_rng(test), range(3 if test else 12)
        return [[[torch.from_numpy(synthesize(d, v, rng)) for _ in ids] for d in range(10)] for v in voices()]
    people, ids = "george jackson lucas nicolas theo yweweler", range(5) if test else range(5, 50)
    names = [[[f"recordings/{d}_{w}_{t}.flac" for t in ids] for d in range(10)] for w in people.split()]
    return [[[read_clip(root / name, 8000) for name in takes] for takes in digits] for digits in names]


def string(people: list) -> tuple[dict, str]:
    """Somebody says three to five digits, a pause of up to 0.15 seconds before each."""
    person, sound = people[torch.randint(len(people), ())], []
    digits = torch.randint(10, (int(torch.randint(3, 6, ())),)).tolist()
    for takes in (person[digit] for digit in digits):
        sound += [torch.zeros(int(torch.randint(1200, ()))), takes[torch.randint(len(takes), ())]]
    return {"audio": torch.cat(sound)}, " ".join(WORDS[digit] for digit in digits)


def main(root: Path | None = None, steps: int | None = None, tests: int = 100) -> tuple[float, bool]:
    """The word error rate on other recordings, and whether the streams say what the wholes do."""
    torch.manual_seed(0)
    mel = {"dim": 64, "sample_rate": 8000, "cache_as": "samples"}
    ear = EncoderConfig("causal-log-mel", mel, positional_encoding=False)
    fusion = FusionConfig(dim=64, program="Program(score=dot(), mask=causal & window(24))")
    config = ModelConfig({"audio": ear}, fusion, {"ctc": HeadConfig("ctc", PIECES)})
    model = build_model(build_encoders(config.encoders), config).to(choose_device())
    known = recordings(root, test=False)
    blank = ModelInputs(contents={"audio": [torch.zeros(1)] * 16 * (steps or (900 if root else 300))})
    how = {"head": "ctc", "batch_size": 16, "augment": lambda *_: string(known)}  # each time a new string
    task = SupervisedTask(model, blank, [""] * len(blank), range(len(blank)), **how)
    train(task, LoopConfig(epochs=1, learning_rate=3e-3, warmup_ratio=0.1))
    samples, spoken = zip(*map(string, [recordings(root, test=True)] * tests), strict=True)
    fused = model.fuse({"audio": model.encoders["audio"]([x["audio"] for x in samples])})
    heard, first = model.head("ctc").predict(fused), model.head("ctc")(fused).select([0])
    error = transcription_metrics(heard, spoken)["wer"]
    print(f"word error rate {error:.3f} on {tests} strings of recordings that nothing was trained on")
    texts = [[*StreamingRecognizer(model).transcribe((x["audio"].numpy(), 8000), 0.4)] for x in samples]
    same = [text[-1] for text in texts] == heard
    print(f"in pieces of 0.4 s: the same text {same}; {spoken[0]!r} as it came:", *texts[0], sep="\n  ")
    for word in align_transcript(first.values, first.time, spoken[0], model.head("ctc").tokenizer):
        print(f"{word.start:5.2f} to {word.end:.2f} s  {word.text}  ({word.score:.2f})")
    return error, same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of recorded digits; left out, sound patterns")
    parser.add_argument("--steps", type=int, help="left out, 300; of recordings 900")
    main(**vars(parser.parse_args()))

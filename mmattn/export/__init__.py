"""A trained model as one file for `torch.export` or ONNX Runtime, and running it.

    from mmattn.export import Exported, export

    export(model, "model.onnx")
    Exported.load("model.onnx").run(samples)

The graph works on padded rectangles, [B, T, D] and a mask for each modality, in which B and every T are free.
Jagged tokens as they are cannot be traced on torch 2.11: how many steps attention takes, and over which
tokens, follows from their lengths. Every word of the attention language is exported by its own definition
(`mmattn.attention.execution.padded`), but for `graph_bias`, which joins tokens by the entities in a batch.

What is exported: the encoders tiny-text, tiny-image, log-mel and those of pictures through timm networks;
heads that read the joint vector or the modalities', and the detection head. What is not is refused by name:
other encoders, heads of single tokens without a `forward_padded`, quantised weights.
"""

from mmattn.export.exporter import export
from mmattn.export.runtime import ExportedModel

__all__ = ["ExportedModel", "export"]

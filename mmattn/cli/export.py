"""`mmattn export RUN --out FILE.onnx`: a run's model as one file, for PyTorch or ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of a model")
    parser.add_argument("--out", required=True, metavar="FILE", help="what to write: ends in .pt2 or .onnx")
    parser.add_argument("--seed", type=int, help="which of the run's models; the first one by default")
    parser.add_argument("--heads", nargs="+", metavar="NAME", help="which heads; all by default")
    parser.add_argument("--task", help="the task of attention programs that ask for one")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON, for machines")


def run(arguments: Namespace) -> int:
    from mmattn.export import ExportedModel, export
    from mmattn.model.model import Model
    from mmattn.serving.run_encoder import model_folder

    out = Path(arguments.out)
    model = Model.from_pretrained(model_folder(arguments.run, arguments.seed))
    export(model, out, heads=arguments.heads, task=arguments.task)
    written = ExportedModel.load(out)
    size = out.stat().st_size
    counts = {
        "file": str(out),
        "bytes": size,
        "modalities": written.modalities,
        "outputs": written.output_names,
    }
    text = (
        f"{out}: {size / 1e6:.1f} MB, reads {', '.join(written.modalities)}, "
        f"gives {', '.join(written.output_names)}"
    )
    print(json.dumps(counts) if arguments.json else text)
    return 0

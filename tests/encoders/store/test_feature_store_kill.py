"""The store under a kill at any moment, and under two writers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from counting import Counting

from mmattn.encoders.store.feature_store import FeatureStore

TEXTS = [f"text {'x' * (number % 13)} {number}" for number in range(211)]
RUN = """
import sys
from counting import Counting
from mmattn.encoders.store.feature_store import FeatureStore
from test_feature_store_kill import TEXTS
print("ready", flush=True)
encoder = Counting(pause=float(sys.argv[2]))
FeatureStore(sys.argv[1], encoder, batch_size=2, shard_size=6, progress=False).tokens(TEXTS)
"""


def start(root: Path, pause: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), str(pause)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def whole_shards(root: Path) -> int:
    return len(list(root.glob("*/shards/*.safetensors")))


def test_killed_again_and_again_it_ends_with_the_same(tmp_path: Path) -> None:
    moments = random.Random(7)
    for _ in range(3):
        before = whole_shards(tmp_path)
        process = start(tmp_path, pause=0.004)
        while whole_shards(tmp_path) == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))  # in the midst of encoding, or of writing
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    encoder = Counting()
    tokens = FeatureStore(tmp_path, encoder, progress=False).tokens(TEXTS)
    uninterrupted = Counting()(TEXTS)
    assert torch.equal(tokens.values, uninterrupted.values)
    assert tokens.lengths.tolist() == uninterrupted.lengths.tolist()
    # What was whole when the kill came was not encoded again, and there was something left to do.
    assert 0 < len(encoder.encoded) < len(TEXTS)


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    both = [start(tmp_path, pause=0.001) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    encoder = Counting()
    tokens = FeatureStore(tmp_path, encoder, progress=False).tokens(TEXTS)
    assert torch.equal(tokens.values, Counting()(TEXTS).values)
    assert encoder.encoded == []

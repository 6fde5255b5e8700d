"""`mmattn embed` and `mmattn index` with a small model, from raw items to a search by text."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import soundfile
import torch
from PIL import Image

from mmattn import schema
from mmattn.cli import _Parser
from mmattn.cli import embed as embed_command
from mmattn.cli import index as index_command
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError, MissingDependency
from mmattn.experiments.config import DataConfig, FitConfig
from mmattn.model.build import build_encoders, build_model
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.storage.arrow import read_vectors
from mmattn.serving.embed import read_items
from mmattn.serving.embedding_shards import EmbeddingShards
from mmattn.serving.ray_workers import _Worker, _worker_resources
from mmattn.serving.run_encoder import RunEncoder
from mmattn.types import Sample
from mmattn_datasets.digits.prepare import Digits

TITLES = ["Space opera", "A quiet farm", "", "Robots in space", "Cows and a farm"]


def call(module: Any, *arguments: str | Path) -> int:
    parser = _Parser(prog="mmattn test")
    module.add_arguments(parser)
    return module.run(parser.parse_args(list(map(str, arguments))))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as `mmattn fit` leaves it: config.yaml, one model, and the data beside it."""
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for number, title in enumerate(TITLES):
        picture = "" if number == 3 else f"{number}.png"
        if picture and number != 2:
            Image.new("RGB", (16, 16), (40 * number, 90, 200)).save(data / picture)
        rows.append(f"film-{number},{title},{picture if number != 2 else ''}")
    (data / "items.csv").write_text("id,title,poster\n" + "\n".join(rows) + "\n")
    (data / "card.yaml").write_text(
        "name: films\nitems: {file: items.csv, id: id, columns: {title: text, poster: image}}\n"
    )
    folder = tmp_path / "runs" / "films"
    encoders = {"text": EncoderConfig("tiny-text"), "image": EncoderConfig("tiny-image")}
    config = FitConfig(
        name="films", data=DataConfig(data / "card.yaml"), encoders=encoders,
        fusion=FusionConfig(dim=16, heads=2),
        head=HeadConfig("recommendation"), out=tmp_path / "runs",
    )  # fmt: skip
    schema.dump_config(config, folder / "config.yaml")
    build_model(build_encoders(config.encoders), config.model_config()).save_pretrained(
        folder / "seed-0" / "model"
    )
    return folder


@pytest.fixture
def vectors(run: Path, tmp_path: Path) -> Path:
    out = tmp_path / "vectors.parquet"
    items = tmp_path / "data" / "items.csv"
    features = tmp_path / "features"
    assert (
        call(embed_command, run, "--input", items, "--out", out, "--features", features, "--shard-size", "2")
        == 0
    )
    return out


def test_items_become_vectors(run: Path, vectors: Path, tmp_path: Path) -> None:
    actual = read_vectors(vectors)
    # film-2 has neither title nor poster: no tokens, so no vector.
    assert actual.ids.tolist() == ["film-0", "film-1", "film-3", "film-4"]
    encoder = RunEncoder.from_run(run)
    assert actual.provenance == encoder.provenance
    assert set(encoder.provenance) == {"encoder text", "encoder image", "program", "weights", "head"}
    samples = [sample for sample in read_items(tmp_path / "data", run) if sample.id != "film-2"]
    assert np.allclose(actual.vectors, encoder(samples), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".shards")] == []


def test_a_killed_call_goes_on_where_it_stopped(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, items = tmp_path / "v.parquet", tmp_path / "data" / "items.csv"
    arguments = (run, "--input", items, "--out", out, "--features", tmp_path / "f", "--shard-size", "2")
    encoded = []
    usual = RunEncoder.read_inputs

    def killed_in_the_second_shard(self: RunEncoder, samples: Any, *rest: Any, **options: Any) -> Any:
        if len(encoded) == 1:
            raise KeyboardInterrupt
        encoded.append([sample.id for sample in samples])
        return usual(self, samples, *rest, **options)

    monkeypatch.setattr(RunEncoder, "read_inputs", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        call(embed_command, *arguments)
    assert not out.exists()

    def again(self: RunEncoder, samples: Any, *rest: Any, **options: Any) -> Any:
        encoded.append([sample.id for sample in samples])
        return usual(self, samples, *rest, **options)

    monkeypatch.setattr(RunEncoder, "read_inputs", again)
    assert call(embed_command, *arguments) == 0
    assert encoded == [["film-0", "film-1"], ["film-2", "film-3"], ["film-4"]]
    assert len(read_vectors(out).ids) == 4


# "--multi_gpu" is how accelerate starts several processes itself, without GPUs too; for "--cpu" it wants MPI.
LAUNCHERS = {
    "accelerate": ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "mmattn"),
    "torchrun": ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "mmattn"),
}


def one_item_shards(run: Path, items: Path, out: Path, features: Path) -> list[str | Path]:
    """The words of `mmattn embed` with a shard for every item."""
    return ["embed", run, "--input", items, "--out", out, "--features", features, "--shard-size", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_share_the_work(launcher: str, run: Path, vectors: Path, tmp_path: Path) -> None:
    out, items = tmp_path / "shared.parquet", tmp_path / "data" / "items.csv"
    options = one_item_shards(run, items, out, tmp_path / "f2")
    subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], *options], check=True, capture_output=True, timeout=300
    )
    assert read_vectors(out).ids.tolist() == read_vectors(vectors).ids.tolist()
    assert np.allclose(read_vectors(out).vectors, read_vectors(vectors).vectors, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rank"), [("accelerate", 1), ("torchrun", 0)])
def test_one_of_two_processes_is_killed(launcher: str, rank: int, run: Path, tmp_path: Path) -> None:
    """The launcher fails, what was written stays, and the next call ends as if nothing had happened."""
    out, items = tmp_path / "shared.parquet", tmp_path / "data" / "many.csv"
    lines = [f"film-{number},{TITLES[number % 5]} {number}," for number in range(307)]
    items.write_text("id,title,poster\n" + "\n".join(lines) + "\n")
    options = one_item_shards(run, items, out, tmp_path / "f4")
    command = [sys.executable, *LAUNCHERS[launcher], *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as started:
        while len(list(tmp_path.glob(".*.shards/*.parquet"))) < 11:  # both are at work
            assert started.poll() is None
            time.sleep(0.01)
        children = psutil.Process(started.pid).children(recursive=True)
        (victim,) = [child for child in children if child.environ().get("RANK") == str(rank)]
        victim.kill()
        assert started.wait(timeout=120) != 0
    assert not out.exists()
    assert 11 <= len(list(tmp_path.glob(".*.shards/*.parquet"))) < 307
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    alone = tmp_path / "alone.parquet"
    call(embed_command, run, "--input", items, "--out", alone, "--features", tmp_path / "f5", "--quiet")
    assert read_vectors(out).ids.tolist() == [f"film-{number}" for number in range(307)]
    assert read_vectors(out).ids.tolist() == read_vectors(alone).ids.tolist()
    assert np.allclose(read_vectors(out).vectors, read_vectors(alone).vectors, atol=1e-5)
    assert list(tmp_path.glob(".*.shards")) == []


@pytest.mark.slow
def test_actors_of_ray_write_the_same_vectors(
    run: Path,
    vectors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ray = pytest.importorskip("ray")
    out, items = tmp_path / "by-ray.parquet", tmp_path / "data" / "items.csv"
    (tmp_path / "data" / "4.png").write_bytes(b"no picture")
    arguments = (
        "--input",
        items,
        "--out",
        out,
        "--features",
        tmp_path / "f3",
        "--shard-size",
        "1",
        "--quiet",
    )
    capsys.readouterr()
    assert call(embed_command, run, *arguments, "--ray", "--workers", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"vectors": 4, "without": 1, "unreadable": 1}
    expected, actual = read_vectors(vectors), read_vectors(out)
    assert actual.ids.tolist() == expected.ids.tolist()
    assert actual.provenance == expected.provenance
    assert np.allclose(actual.vectors[:3], expected.vectors[:3], atol=1e-5)
    assert not np.allclose(actual.vectors[3], expected.vectors[3], atol=1e-3)  # it has lost its picture
    assert list(tmp_path.glob(".*.shards")) == []
    assert not ray.is_initialized()


def test_ray_that_cannot_be_had(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (run, "--input", tmp_path / "data" / "items.csv", "--out", tmp_path / "v.parquet")
    for options, message in (
        (("--workers", "2"), "--workers is for --ray"),
        (("--ray", "--workers", "0"), "got --workers 0, expected at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            call(embed_command, *arguments, *options)
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(MissingDependency, match=r"pip install 'mmattn\[ray\]'"):
        call(embed_command, *arguments, "--ray")


def test_each_actor_gets_an_even_share() -> None:
    assert _worker_resources({"CPU": 8.0, "GPU": 1.0}, 2) == {"num_cpus": 4, "num_gpus": 0.5}
    assert _worker_resources({"CPU": 7.0, "GPU": 8.0}, 3) == {"num_cpus": 2, "num_gpus": 1.0}
    assert _worker_resources({"CPU": 2.0}, 2) == {"num_cpus": 1, "num_gpus": 0.0}
    with pytest.raises(InputError, match="got --workers 3, expected 1 to 2, the CPUs that Ray has"):
        _worker_resources({"CPU": 2.0}, 3)


def test_an_actor_says_why_it_refuses_a_shard(run: Path, tmp_path: Path) -> None:
    worker = object.__new__(_Worker)  # the constructor wants an object store
    worker.encoder = RunEncoder.from_run(run)
    worker.shards = EmbeddingShards.create([Sample("a", {"text": ["x"]})], tmp_path / "v.parquet", 1, "", {})
    worker.features = tmp_path / "features"

    def answer() -> tuple[int, str]:
        columns = worker({"shard": np.array([0])})
        return columns["unreadable"].item(), columns["refused"].item()

    assert answer() == (0, "")
    assert worker.shards.pending() == []
    worker.encoder = BrokenEncoder()  # type: ignore[assignment]
    assert answer() == (0, "no such thing")


class BrokenEncoder:
    def read_inputs(self, *arguments: Any, **options: Any) -> Any:
        raise InputError("no such thing")


def test_from_vectors_to_answers(
    run: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pyarrow.parquet.read_table(vectors)
    with_years = tmp_path / "years.parquet"
    pyarrow.parquet.write_table(table.append_column("year", [[1977, 1995, 2001, 2004]]), with_years)
    bundle = tmp_path / "index"
    capsys.readouterr()

    def answer(*arguments: str | Path) -> Any:
        assert call(index_command, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    assert answer("build", bundle, "--vectors", with_years, "--metric", "cosine")["count"] == 4
    with pytest.raises(InputError, match="there is an index already"):
        answer("build", bundle, "--vectors", with_years)
    text = answer("search", bundle, "--run", run, "--text", "Robots in space", "-k", "1")
    assert text[0]["query"] == "Robots in space"
    assert text[0]["hits"][0] == ["film-3", pytest.approx(1.0, abs=1e-5)]  # it has this title and no poster
    both = ("--text", TITLES[4], "--image", tmp_path / "data" / "4.png")
    assert answer("search", bundle, "--run", run, *both, "-k", "1")[0]["hits"][0][0] == "film-4"
    early = answer("search", bundle, "--id", "film-3", "-k", "2", "--where", "year < 2000")
    assert {hit[0] for hit in early[0]["hits"]} == {"film-0", "film-1"}
    assert len(answer("search", bundle, "--vectors", with_years, "-k", "4", "--exact")) == 4
    assert answer("remove", bundle, "--ids", "film-0", "film-1")["count"] == 2
    with pytest.raises(InputError, match="id 'film-3' is there already"):
        answer("add", bundle, "--vectors", with_years)
    assert answer("plan", bundle)["plan"]["reason"] == "exact search: only 4 vectors"
    assert answer("verify", bundle) == {"damage": []}
    damaged = next(bundle.glob("vectors-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert call(index_command, "verify", bundle) == 1
    assert capsys.readouterr().out.startswith(f"{damaged.name}: damaged")


def test_an_index_is_split_searched_changed_and_exported(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, shards, built = tmp_path / "index", tmp_path / "shards", tmp_path / "built"

    def answer(*arguments: str | Path) -> Any:
        capsys.readouterr()
        assert call(index_command, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    answer("build", bundle, "--vectors", vectors)
    assert answer("split", bundle, "--shards", "2", "--out", shards)["count"] == 4
    assert (
        "2 shards side by side"
        in answer("build", built, "--vectors", vectors, "--shards", "2")["plan"]["reason"]
    )
    expected = answer("search", bundle, "--vectors", vectors, "-k", "3")
    for folder in (shards, built):
        actual = answer("search", folder, "--vectors", vectors, "-k", "3", "--device", "cpu")
        assert [[hit[0] for hit in line["hits"]] for line in actual] == [
            [hit[0] for hit in line["hits"]] for line in expected
        ]
    for options, message in (
        (("split", shards, "--shards", "2", "--out", tmp_path / "x"), "is in 2 shards already"),
        (("split", bundle, "--shards", "2", "--out", shards), "there is an index already"),
        (("split", bundle, "--shards", "9", "--out", tmp_path / "x"), "got 9 shards, expected 1 to 4"),
        (("search", bundle, "--id", "film-0", "--device", "tpu"), "no device 'tpu'"),
    ):
        with pytest.raises(InputError, match=message):
            call(index_command, *options)
    assert answer("remove", shards, "--ids", "film-0")["count"] == 3
    answer("export", shards, "--out", tmp_path / "exported.parquet")
    given, exported = read_vectors(vectors), read_vectors(tmp_path / "exported.parquet")
    assert exported.ids.tolist() == given.ids.tolist()[1:]
    assert (exported.vectors == given.vectors[1:]).all()
    assert exported.provenance == given.provenance
    assert answer("verify", shards) == {"damage": []}
    next(shards.glob("part-*/vectors-*")).unlink()
    assert call(index_command, "verify", shards) == 1
    assert "it is missing" in capsys.readouterr().out


def test_metadata_from_a_file_of_its_own(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, bundle = tmp_path / "films.csv", tmp_path / "index"
    rows = ["film-4,2004,", "film-2,2001,dull", "film-0,1977,space", "film-1,1995,cows", "film-3,,space"]
    table.write_text("item,year,about\n" + "\n".join(rows) + "\n")
    given = ("--vectors", vectors, "--metadata", table, "--metadata-id", "item")
    call(index_command, "build", bundle, *given)
    for where, expected in (
        ("year < 2000", {"film-0", "film-1"}),
        ("about == 'space'", {"film-0", "film-3"}),
        ("year is None or about is None", {"film-3", "film-4"}),
    ):
        capsys.readouterr()
        call(index_command, "search", bundle, "--vectors", vectors, "-k", "4", "--where", where, "--json")
        assert {hit[0] for hit in json.loads(capsys.readouterr().out)[0]["hits"]} == expected
    table.write_text("item,year,about\n" + "\n".join([*rows[:2], "film-0,2020,sea", *rows[3:]]) + "\n")
    call(index_command, "add", bundle, *given, "--update")
    assert open_index(bundle).metadata["year"].tolist()[0] == 2020
    for text, message in (
        ("id,year\nfilm-0,1977\n", "no column 'item' for the ids"),
        ("item,year\nfilm-0,1977\n", "no row for 3 ids, the first is 'film-1'"),
        ("item,year\nfilm-0,1977\nfilm-0,1978\n", "id 'film-0' comes twice"),
        ("item,year\nfilm-0,1977,1\n", "row 1: got 3 columns, expected 2"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            call(index_command, "build", tmp_path / "other", *given)


def test_a_clip_finds_its_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clips of the digits, through a real audio encoder: a clip finds its item, at half the loudness too."""
    card = Digits().prepare(out=tmp_path / "digits", items=100, users=1, missing_rate=0.0)
    encoder = {"audio": EncoderConfig("log-mel")}
    config = FitConfig(
        name="sounds", data=DataConfig(tmp_path / "digits" / "card.yaml"), encoders=encoder,
        fusion=FusionConfig(dim=16, heads=2), head=HeadConfig("alignment"), out=tmp_path / "runs",
    )  # fmt: skip
    run = tmp_path / "runs" / "sounds"
    schema.dump_config(config, run / "config.yaml")
    torch.manual_seed(0)
    build_model(build_encoders(config.encoders), config.model_config()).save_pretrained(
        run / "seed-0" / "model"
    )
    out, bundle = tmp_path / "sounds.parquet", tmp_path / "index"
    call(embed_command, run, "--input", card.path, "--out", out, "--features", tmp_path / "f", "--quiet")
    call(index_command, "build", bundle, "--vectors", out, "--metric", "cosine")
    items = read_dataset(card).items

    def found(clip: Path) -> list[Any]:
        capsys.readouterr()
        call(index_command, "search", bundle, "--run", run, "--audio", clip, "-k", "1", "--json")
        return json.loads(capsys.readouterr().out)[0]["hits"][0]

    for item in items[:3]:
        assert found(item.content["audio"]) == [item.id, pytest.approx(1.0, abs=1e-4)]
    samples, rate = soundfile.read(items[5].content["audio"])
    soundfile.write(tmp_path / "quiet.wav", samples / 2, rate)
    assert found(tmp_path / "quiet.wav")[0] == items[5].id
    (tmp_path / "noise.wav").write_bytes(b"no clip")
    with pytest.raises(InputError):
        found(tmp_path / "noise.wav")


def test_another_model_is_refused(run: Path, vectors: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "index"
    call(index_command, "build", bundle, "--vectors", vectors)
    config = schema.load_config(FitConfig, run / "config.yaml")
    build_model(build_encoders(config.encoders), config.model_config()).save_pretrained(
        run / "seed-1" / "model"
    )
    ours, theirs = (RunEncoder.from_run(run, seed).provenance["weights"] for seed in (0, 1))
    with pytest.raises(InputError, match=f"another weights: they come from {theirs}, expected {ours}"):
        call(index_command, "search", bundle, "--run", run, "--seed", "1", "--text", "Space", "-k", "1")


def test_what_cannot_be_asked(run: Path, vectors: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "index"
    call(index_command, "build", bundle, "--vectors", vectors)
    for arguments, message in (
        ([], "expected one of --vectors"),
        (["--id", "film-0", "--text", "x"], "expected one of --vectors"),
        (["--text", "x"], "need --run"),
        (["--run", run, "--audio", "x.wav"], "no encoder reads 'audio'"),
        (["--run", run, "--text", ""], "has nothing to encode"),
        (["--run", tmp_path, "--text", "x"], "holds no finished run"),
        (["--run", run, "--seed", "7", "--text", "x"], "no seed 7, expected one of 0"),
        (["--id", "film-9"], "unknown ids"),
    ):
        with pytest.raises(InputError) as caught:
            call(index_command, "search", bundle, *arguments, "-k", "1")
        assert message in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_items(tmp_path / "nothing.csv", run)
    with pytest.raises(InputError, match="no encoder reads 'txt'. Did you mean 'text'?"):
        RunEncoder.from_run(run)([Sample("q", {"txt": "x"})])

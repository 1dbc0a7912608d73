"""Commands on a real Ray cluster of two nodes on this machine: lost workers and nodes, bad records, refusals."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rembert
from rembert.cli.main import main
from rembert.scale.parts import Parts
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import needs, on_both
from tests.scale.cases import TEXTS, read_lines, write_checkpoint, write_lines

pytestmark = [needs("ray", "pandas", "torch"), pytest.mark.slow]
TASK = "sequence-classification"
MEMORY = 80 * 2**20  # of a node's object store, the least that Ray takes
Call = Callable[..., int]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, and one without that keeps the books."""
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": MEMORY, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node})
    for _ in range(2):
        found.add_node(num_cpus=1, **node)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def call(cluster: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `predict` over two files, in blocks of three records."""
    monkeypatch.chdir(tmp_path)
    write_lines(Path("in/a.jsonl"), [{"id": f"a{number}", "text": text} for number, text in enumerate(TEXTS)])
    write_lines(Path("in/b.jsonl"), [{"id": f"b{number}", "text": text} for number, text in enumerate(TEXTS[:8])])
    start = ["predict", TASK, "--model", str(checkpoint), "--data", "in"]
    engine = ["--engine", "ray", "--address", cluster.address, "--block-rows", "3", "--output", "out"]
    return lambda *more, alone=False: main([*start, *([] if alone else engine), *map(str, more)])


def check_parts(call: Call) -> None:
    """The parts hold what one process writes, in order, and nothing else is in the directory."""
    assert call("--output", "alone", alone=True) == 0
    expected, found = read_lines([Path("alone")]), read_lines(sorted(Path("out").glob("part-*")))
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], rtol=0, atol=1e-6)
    assert len(list(Path("out").iterdir())) == 8 + 3 + 1
    assert json.loads(Path("out/run.json").read_text())["complete"] is True


def after_parts(monkeypatch: pytest.MonkeyPatch, events: dict[int, Callable[[], object]]) -> None:
    """Have something happen when a number of parts is written."""
    put, count = Parts.put, 0

    def counted(self: Parts, *arguments: Any) -> None:
        nonlocal count
        put(self, *arguments)
        count += 1
        events.get(count, lambda: None)()

    monkeypatch.setattr(Parts, "put", counted)


def workers_of(node: Any, name: str = "_compute") -> list[int]:
    """The processes of a node that compute blocks, or whose command line has another name in it."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return [int(child) for child in children if name in Path(f"/proc/{child}/cmdline").read_text()]


def test_a_worker_and_a_node_that_are_killed_lose_nothing(
    call: Call, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill_workers() -> None:
        for node in cluster.worker_nodes if not killed else ():
            for pid in workers_of(node):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    lost = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    # All may be between two blocks when a part is written: then those after the next one are killed.
    events: dict[int, Callable[[], object]] = dict.fromkeys((2, 3, 4), kill_workers)
    after_parts(monkeypatch, {**events, 6: lambda: cluster.remove_node(lost, allow_graceful=False)})
    assert call("--workers", 3) == 0
    assert killed
    check_parts(call)


def memory(process: int) -> int:
    """The bytes that a process holds itself, without the object store that it shares."""
    return int(Path(f"/proc/{process}/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_holds_blocks_and_not_the_file(call: Call, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the records, in blocks of 4 MiB, take no more memory, neither here nor in a worker."""
    peaks: list[dict[str, int]] = []
    Path("in/b.jsonl").unlink()

    def measure() -> None:
        peaks[-1]["here"] = max(peaks[-1].get("here", 0), memory(os.getpid()))
        with suppress(OSError):  # a worker that ends meanwhile
            for node in cluster.worker_nodes:
                for pid in workers_of(node, "ray::"):  # between two blocks, it is named IDLE
                    peaks[-1]["worker"] = max(peaks[-1].get("worker", 0), memory(pid))

    for blocks in (8, 32):
        lines = ({"id": str(number), "text": "wort", "more": "x" * 2**20} for number in range(4 * blocks))
        with Path("in/a.jsonl").open("w") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
        peaks.append({})
        with monkeypatch.context() as patched:
            after_parts(patched, dict.fromkeys(range(blocks + 1), measure))
            assert call("--block-rows", 4, "--workers", 1, "--output", f"out-{blocks}") == 0
    for name in ("here", "worker"):
        assert peaks[1][name] - peaks[0][name] < 48 * 2**20, name  # the file is 96 MiB larger


def test_a_bad_record_stops_or_is_skipped(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "b0", "text": "eins"}, {"id": "b1", "text": None}, "not JSON", {"id": "b3", "text": "vier"}]
    write_lines(Path("in/b.jsonl"), rows)
    assert call() == 1
    said = capsys.readouterr().err
    assert "in/b.jsonl:2: " in said
    done = sorted(Path("out").glob("part-*"))
    assert done
    assert call("--skip-bad-lines") == 0  # the parts that are done stay
    said = capsys.readouterr().err
    assert f"resumed after {len(done)} parts" in said
    assert "skipped: 2" in said
    found = read_lines(sorted(Path("out").glob("part-00001*")))
    assert [row.get("id") for row in found] == ["b0", None, None, "b3"]
    assert found[1]["error"].startswith("in/b.jsonl:2: ")
    assert found[2]["error"].startswith("in/b.jsonl:3: ")


def test_an_interrupted_run_computes_what_is_missing(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        after_parts(patched, {4: full})
        assert call() == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "The same command continues" in said
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    assert len(before) == 4
    assert call("--batch-size", 32, "--max-length", 8) == 2
    assert "digest was" in capsys.readouterr().err
    assert call() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_parts(call)
    capsys.readouterr()
    assert call() == 2
    assert "whose run is complete" in capsys.readouterr().err


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as CSV or Parquet, by the name of the file."""
    from pyarrow import Table
    from pyarrow.csv import write_csv
    from pyarrow.parquet import write_table

    path.parent.mkdir(exist_ok=True)
    (write_csv if path.suffix == ".csv" else write_table)(Table.from_pylist(rows), path)


def part_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of all parts, in the order of their names; those of CSV are strings."""
    from pyarrow.parquet import read_table

    found: list[dict[str, Any]] = []
    for path in sorted(directory.glob("part-*")):
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                found += csv.DictReader(stream)
        else:
            found += read_table(path).to_pylist()
    return found


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_directories_of_csv_and_parquet_keep_ids_and_order(call: Call, format: str) -> None:
    shutil.rmtree("in")
    for name, texts in (("a.csv", TEXTS), ("b.parquet", TEXTS[:8])):
        rows = [{"id": f"{name[0]}{number}", "text": text} for number, text in enumerate(texts)]
        table(Path("in", name), rows)
    assert call("--output-format", format) == 0
    assert call("--output", "alone", alone=True) == 0
    expected, found = read_lines([Path("alone")]), part_rows(Path("out"))
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [row["id"] for row in found[-9:]] == ["a22", *(f"b{number}" for number in range(8))]
    scores = [float(row["score"]) for row in found]
    np.testing.assert_allclose(scores, [row["score"] for row in expected], rtol=0, atol=1e-6)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_scores_of_directories(
    format: str, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    metric = write_saved_model(tmp_path / "metric", make_variables())
    pairs = [{"id": f"s{n}", "candidate": text, "reference": text[::-1]} for n, text in enumerate(TEXTS)]
    table(Path("in/a.csv"), pairs[:9])
    write_lines(Path("in/b.jsonl"), pairs[9:14])
    table(Path("in/c.parquet"), pairs[14:])
    write_lines(Path("all.jsonl"), pairs)
    engine = ["--engine", "ray", "--address", cluster.address, "--block-rows", "4", "--output-format", format]
    command = ["score", "--model", str(metric), "--json", "--candidates"]
    assert main([*command, "all.jsonl", "--output", "alone.jsonl"]) == 0
    expected, alone = read_lines([Path("alone.jsonl")]), json.loads(capsys.readouterr().out)["systems"][0]
    assert main([*command, "in", "--output", "out", *engine]) == 0
    report = json.loads(capsys.readouterr().out)["systems"][0]
    found = read_lines(sorted(Path("out").glob("part-*"))) if format == "jsonl" else part_rows(Path("out"))
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [row["candidate"] for row in found] == TEXTS
    scores = [float(row["score"]) for row in found]
    np.testing.assert_allclose(scores, [row["score"] for row in expected], rtol=0, atol=1e-5)
    assert report["mean"] == pytest.approx(alone["mean"], abs=1e-5)
    for name in ("segments", "pairs", "empty", "cut"):
        assert report[name] == alone[name]


def test_a_killed_command_goes_on_with_the_missing_parts(call: Call, cluster: Any, checkpoint: Path) -> None:
    program = "import sys; from rembert.cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = ["--model", checkpoint, "--data", "in", "--output", "out", "--block-rows", 3]
    command = ["predict", TASK, *options, "--engine", "ray", "--address", cluster.address, "--workers", 1]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, command)])
    deadline = time.monotonic() + 120
    while len(list(Path("out").glob("part-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    assert len(before) < 11
    assert call() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_parts(call)


@on_both
def test_vectors_in_parquet(
    framework: Any, cluster: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow.parquet import read_table

    monkeypatch.chdir(tmp_path)
    rows = [f"{number},{text}" for number, text in enumerate(TEXTS)]
    write_lines(Path("in.csv"), ["id,text", *rows])
    command = ["embed", str(checkpoint), "--data", "in.csv", "--framework", framework.name]
    assert main([*command, "--output", "alone.npy"]) == 0
    engine = ["--engine", "ray", "--address", cluster.address, "--block-rows", "10", "--output-format", "parquet"]
    assert main([*command, "--output", "out", *engine]) == 0
    found = [row for path in sorted(Path("out").glob("part-*")) for row in read_table(path).to_pylist()]
    assert [row["id"] for row in found] == [str(number) for number in range(len(TEXTS))]
    np.testing.assert_allclose([row["embedding"] for row in found], np.load("alone.npy"), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "received"), [("another version", "0.0.9"), ("none", "No module named 'rembert'")])
def test_a_node_that_cannot_run_the_library_is_refused(
    kind: str, received: str, call: Call, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = tmp_path / "other" / "rembert" / "__init__.py"
    if kind == "none":
        init.parent.mkdir(parents=True)
        init.write_text("""raise ModuleNotFoundError("No module named 'rembert'", name="rembert")""")
    else:
        shutil.copytree(Path(rembert.__file__).parent, init.parent)
        init.write_text(init.read_text().replace(rembert.__version__, "0.0.9"))
    before = os.environ.get("PYTHONPATH", "")
    node = cluster.add_node(
        num_cpus=1, object_store_memory=MEMORY, env_vars={"PYTHONPATH": f"{tmp_path / 'other'}:{before}"}
    )
    try:
        assert call() == 2
    finally:
        cluster.remove_node(node)
    said = capsys.readouterr().err
    assert f"Every node must have rembert {rembert.__version__}" in said
    assert "Received: " in said
    assert received in said
    assert not Path("out").exists()


def test_a_node_that_is_lost_while_nodes_are_checked_is_left_out(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    found, calls = ray.nodes, iter(range(100))
    lost = {"NodeID": "ab" * 28, "Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerAddress": "127.0.0.1"}
    monkeypatch.setattr(ray, "nodes", lambda: [lost, *found()] if next(calls) == 0 else found())
    assert call() == 0
    check_parts(call)


def test_a_cluster_that_is_not_there_is_refused(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--address", "127.0.0.1:9") == 2
    assert "must be that of a running Ray cluster. Received: 127.0.0.1:9" in capsys.readouterr().err
    assert not Path("out").exists()


def test_map_batches_of_ray_data_takes_the_classes(cluster: Any, checkpoint: Path) -> None:
    import ray
    import ray.data

    from rembert.scale import Embed, Predict

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        rows = [{"page": number, "text": text} for number, text in enumerate(TEXTS)]
        actors = ray.data.ActorPoolStrategy(size=1)
        found = (
            ray.data.from_items(rows, override_num_blocks=2)
            .map_batches(
                Predict,
                fn_constructor_args=(TASK, checkpoint),
                fn_constructor_kwargs={"keep": ["page"]},
                compute=actors,
            )
            .take_all()
        )
        vectors = (
            ray.data.from_items(rows, override_num_blocks=2)
            .map_batches(Embed(checkpoint, keep=["page"]), batch_size=8)
            .take_all()
        )
    finally:
        ray.shutdown()
    batch = {name: np.array([row[name] for row in rows]) for name in ("page", "text")}
    expected, whole = Predict(TASK, checkpoint)(batch), Embed(checkpoint)(batch)
    found.sort(key=lambda row: row["page"])
    assert [row["page"] for row in found] == list(range(len(TEXTS)))
    np.testing.assert_allclose([row["score"] for row in found], expected["score"], rtol=0, atol=1e-6)
    vectors.sort(key=lambda row: row["page"])
    np.testing.assert_allclose([row["embedding"] for row in vectors], whole["embedding"], rtol=0, atol=1e-6)

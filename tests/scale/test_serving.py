"""Ray Serve on the loopback: many requests at once get the predictions of one batch, whatever their lengths."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from rembert.scale import Predict, serving
from rembert.scale.serving import application, count_tokens
from tests.frameworks import needs, needs_pt
from tests.scale.cases import TEXTS, write_checkpoint

TASK = "sequence-classification"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": TASK}, "must have checkpoint"),
        ({"task": TASK, "checkpoint": "x", "batch": 3}, "must be among .* Received: batch"),
        ({"task": TASK, "checkpoint": "x", "batch_tokens": "many"}, "`batch_tokens` must be a number"),
        ({"task": TASK, "checkpoint": "x", "batch_tokens": "0"}, "`batch_tokens` must be an integer of 1 or more"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        application(settings)


@needs_pt
def test_a_row_counts_with_the_tokens_that_the_model_gets(checkpoint: Path) -> None:
    predict = Predict(TASK, checkpoint)
    task, *_ = predict.loaded()
    ids = task.tokenizer(TEXTS[3])["input_ids"]
    assert (
        count_tokens(predict, {"id": 5, "text": TEXTS[3]}) == len(ids) + 1
    )  # a pair would have a third special token
    assert count_tokens(predict, {"text": "wort " * 1000}) == task.max_length


@needs_pt
def test_batches_are_measured_in_tokens() -> None:
    assert serving._tokens_of([({}, 40), ({}, 2)]) == 42


@needs_pt
def test_the_python_backend_of_the_page(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        def __init__(self, name: str, array: np.ndarray) -> None:
            self.name, self.array = name, array

        def as_numpy(self) -> np.ndarray:
            return self.array

    stub: Any = ModuleType("triton_python_backend_utils")
    stub.Tensor, stub.InferenceResponse = Tensor, lambda tensors: {each.name: each.array for each in tensors}
    stub.get_input_tensor_by_name = lambda request, name: request[name]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1], names)  # type: ignore[index]
    model = names["TritonPythonModel"]()
    parameters = {"checkpoint": {"string_value": str(checkpoint)}}
    model.initialize({"model_config": json.dumps({"parameters": parameters}), "model_instance_kind": "CPU"})
    parts = TEXTS[:5], TEXTS[5:6], TEXTS[6:]
    requests = [{"TEXT": Tensor("TEXT", np.array([[text.encode()] for text in part], object))} for part in parts]
    answers = model.execute(requests)
    expected = Predict(TASK, checkpoint)({"text": np.array(TEXTS, object)})
    for name in ("LABEL", "SCORE"):  # `dims: [ 1 ]` after the batch
        assert [answer[name].shape for answer in answers] == [(5, 1), (1, 1), (len(TEXTS) - 6, 1)]
    assert [label for answer in answers for [label] in answer["LABEL"]] == expected["label"].tolist()
    scores = np.concatenate([each["SCORE"] for each in answers])[:, 0]
    np.testing.assert_allclose(scores, expected["score"], rtol=0, atol=1e-6)
    assert "max_batch_size: 64\ndynamic_batching" in page  # without both, Triton passes single requests


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:
    """Of a server with small batches."""
    import ray
    from ray import serve

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for name in (
        "READY_CHECK_TIMEOUT",
        "HEALTH_CHECK_TIMEOUT",
    ):  # the defaults are seconds, for machines that are not busy
        os.environ[f"RAY_SERVE_PROXY_{name}_S"] = "120"
    ray.init(address="local", num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application({"task": TASK, "checkpoint": str(checkpoint), "batch_tokens": "64"}))
    yield f"http://127.0.0.1:{port}/"
    serve.shutdown()
    ray.shutdown()


def ask(address: str, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, content), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        return problem.code, json.load(problem)


@pytest.mark.slow
@needs("ray", "starlette", "torch")
def test_long_and_short_requests_at_once(address: str, checkpoint: Path) -> None:
    texts = [*TEXTS, "wort " * 500]  # the last has more tokens than a batch
    expected = Predict(TASK, checkpoint)({"text": np.array(texts, object)})
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda text: ask(address, {"text": text}), texts))
    assert {status for status, _ in answers} == {200}
    np.testing.assert_allclose([row["score"] for _, row in answers], expected["score"], rtol=0, atol=1e-6)
    status, rows = ask(address, [{"text": text, "id": number} for number, text in enumerate(texts)])
    assert status == 200
    assert [row["id"] for row in rows] == [str(number) for number in range(len(texts))]
    np.testing.assert_allclose([row["score"] for row in rows], expected["score"], rtol=0, atol=1e-6)
    status, row = ask(address, {"text": None})
    assert status == 422
    assert "text" in row["error"]
    for wrong in (b"not JSON", ["text"], "text"):
        assert ask(address, wrong)[0] == 400

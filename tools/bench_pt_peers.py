"""Other libraries for inference, on transformers' model: the batch of mixed lengths in four length-sorted buckets.

ONNX Runtime and OpenVINO read one ONNX file, in which batch and length are open. Errors are relative to the norm of
the real tokens' last hidden states, as the same library computes them in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_pt_common import buckets, mixed, model_of, real_states, timed

PEERS = {
    "compiled": "transformers, `torch.compile`, four length-sorted buckets",
    "onnxruntime": "ONNX Runtime, four length-sorted buckets",
    "onnxruntime-int8": "ONNX Runtime, `quantize_dynamic`, four length-sorted buckets",
    "openvino": "OpenVINO, float32, four length-sorted buckets",
    "openvino-bfloat16": "OpenVINO, bfloat16, four length-sorted buckets",
    "openvino-int8": "OpenVINO, int8 by NNCF, four length-sorted buckets",
    "exported": "ONNX Runtime, what `export_onnx` writes, one batch",
}


def peer(name: str, directory: Path, threads: int) -> dict[str, Any]:
    """Seconds of a call, and the error where it is not float32."""
    if name == "exported":
        return exported(directory, threads)
    if name == "compiled":
        return compiled()
    path = directory / "transformers.onnx"
    library = name.partition("-")[0]
    if library == "openvino":
        import openvino  # noqa: F401  # where it is missing, that ends this measurement before the export
    if not path.exists():
        export_onnx(path)
    make = {"onnxruntime": _onnx_runtime, "openvino": _openvino}[library]
    run, note = make(name, path, threads)
    batches = [{key: tensor.numpy() for key, tensor in batch.items()} for batch in buckets()]
    result: dict[str, Any] = {"note": note} if note else {}
    if name != library:
        exact = real_states([make(library, path, threads)[0](batch) for batch in batches])
        result["error"] = float((real_states([run(batch) for batch in batches]) - exact).norm() / exact.norm())
    return {**result, "seconds": timed(lambda: [run(batch) for batch in batches])}


def compiled() -> dict[str, Any]:
    """transformers' model, compiled once for all lengths."""
    import torch

    model = torch.compile(model_of("transformers", "Model").eval(), dynamic=True)
    batches = list(buckets())
    with torch.inference_mode():
        return {"seconds": timed(lambda: [model(**batch) for batch in batches])}


Run = Callable[[dict[str, Any]], Any]


def _onnx_runtime(name: str, path: Path, threads: int) -> tuple[Run, str]:
    if name.endswith("int8"):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source, path = path, path.with_name("int8.onnx")
        if not path.exists():
            # `reduce_range`: weights of 7 bits, so that sums of 16 bits do not overflow.
            quantize_dynamic(source, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    session = onnx_session(path, threads)
    return lambda batch: session.run(None, batch)[0], ""


def _openvino(name: str, path: Path, threads: int) -> tuple[Run, str]:
    """A compiled model of OpenVINO; what precision it chose, if not the one that was asked for."""
    import openvino

    core, model = openvino.Core(), openvino.Core().read_model(path)
    if name.endswith("int8"):
        import nncf

        batches = [{key: tensor.numpy() for key, tensor in batch.items()} for batch in buckets()]
        model = nncf.quantize(model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER)
    asked = "bf16" if name.endswith("bfloat16") else "f32"
    settings = {"INFERENCE_PRECISION_HINT": asked, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    network = core.compile_model(model, "CPU", settings)
    taken = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda batch: network(batch)[0], "" if taken == asked else f"it computes in {taken}"


def exported(directory: Path, threads: int) -> dict[str, Any]:
    """This library's own export, which removes padding in its graph."""
    from rembert.pt import exporting

    path, batch = directory / "exported", mixed()
    if not path.exists():
        exporting.export_onnx(model_of("plain", "Model"), path)
    session = onnx_session(path / "model.onnx", threads)
    inputs = {key: tensor.numpy() for key, tensor in batch.items()}
    inputs["token_type_ids"] = 0 * inputs["input_ids"]
    return {"seconds": timed(lambda: session.run(["last_hidden_state"], inputs))}


def onnx_session(path: Path, threads: int) -> Any:
    """A session on the CPU."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_onnx(path: Path) -> None:
    """transformers' model with open batch and length."""
    import torch

    class LastState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of("transformers", "Model").eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
    torch.onnx.export(
        LastState(),
        tuple(mixed().values()),
        path,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes=({0: batch, 1: sequence}, {0: batch, 1: sequence}),
        dynamo=True,
        verbose=False,
    )

"""The measurements of `bench_pt.py` on a GPU, in bfloat16.

`--device cpu --tiny` runs the same code on a CPU, with models of no use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_pt_common import SIZES, model_of, timed, tokens

GROUPS = {
    "gpu": {
        "matmul": "matrix products",
        "transformers": "transformers, eager",
        "plain": "rembert.pt",
    },
    "gpu-training": {"transformers": "transformers, eager", "plain": "rembert.pt"},
    "gpu-dropout": {"transformers": "transformers, eager", "plain": "rembert.pt"},
    "gpu-mlm": {"plain": "rembert.pt"},
    "gpu-fsdp": {"plain": "rembert.pt"},
}
TITLES = {
    "gpu": "GPU, 32 layers, inference, mixed lengths",
    "gpu-training": "GPU, 32 layers, training step, mixed lengths",
    "gpu-dropout": "GPU, 32 layers, training step, mixed lengths, attention dropout 0.1",
    "gpu-mlm": "GPU, masked language model step, released size, mixed lengths",
    "gpu-fsdp": "GPU, training step under FSDP2 on one device, mixed lengths",
}
ROWS, WIDTH, LAYERS = 64, 512, 32


def gpu(group: str, name: str, device: str) -> dict[str, Any]:
    """One measurement on a device: seconds, and rates of arithmetic."""
    import torch

    with torch.device(device):
        measures = {"gpu": inference, "gpu-training": training, "gpu-mlm": masked_lm, "gpu-fsdp": sharded}
        result = training(name, 0.1) if group == "gpu-dropout" else measures[group](name)
    if device == "cuda":
        result["peak"] = torch.cuda.max_memory_allocated()
    return result


def seconds(call: Callable[[], Any]) -> float:
    """Seconds of a call until the device has finished it."""
    import torch

    def synchronized() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return timed(synchronized, 10)


def batch_of(rows: int = ROWS) -> dict[str, Any]:
    """Rows of 16 to 512 tokens, 512 wide; drawn before the model, whose initialisation draws as it likes."""
    import torch

    rows, width = (4, 32) if SIZES else (rows, WIDTH)
    lengths = torch.randint(width // 2 if SIZES else 16, width + 1, (rows, 1))
    return {"input_ids": tokens(rows, width), "attention_mask": (torch.arange(width) < lengths).long()}


def per_token(model: Any, width: int) -> int:
    """FLOP of a forward pass for each token: 2 for each weight of the layers; 4 × length × hidden for attention."""
    config = model.config
    weights = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (2 * weights + 4 * width * config.hidden_size)


def inference(name: str) -> dict[str, Any]:
    """Mixed lengths; of this library also the rate without padding, and that of the device's own products."""
    import torch

    if name == "matmul":
        rows = 512 if SIZES else ROWS * WIDTH
        states = torch.randn(rows, 1152, dtype=torch.bfloat16)
        weight = torch.randn(4608, 1152, dtype=torch.bfloat16)
        return {"flops": 2 * rows * weight.numel() / seconds(lambda: states @ weight.T)}
    batch = batch_of()
    model = model_of(name, "ForSequenceClassification", num_hidden_layers=LAYERS).bfloat16()
    ids, width = batch["input_ids"], batch["input_ids"].shape[1]
    with torch.inference_mode():
        model.eval()
        result = {"seconds": seconds(lambda: model(**batch))}
        if name == "plain":
            result["flops"] = ids.numel() * per_token(model, width) / seconds(lambda: model(ids))
    if name == "plain":
        labels = torch.zeros(len(ids), dtype=torch.long)
        step = seconds(lambda: model.train()(ids, labels=labels).loss.backward())
        result["training_flops"] = 3 * ids.numel() * per_token(model, width) / step
    return result


def training(name: str, dropout: float = 0.0) -> dict[str, Any]:
    """A step of a classifier in bfloat16."""
    import torch

    batch = batch_of()
    settings = {"num_hidden_layers": LAYERS, "attention_probs_dropout_prob": dropout}
    model = model_of(name, "ForSequenceClassification", **settings).bfloat16().train()
    labels = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    return {"seconds": seconds(lambda: update(model, optimizer, {**batch, "labels": labels}))}


def update(model: Any, optimizer: Any, batch: dict[str, Any]) -> None:
    """A training step, the weights in the dtype that they have."""
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def masked_lm(name: str) -> dict[str, Any]:
    """A step of the released size: weights in float32, products in bfloat16 by autocast."""
    import torch

    batch = batch_of(8)
    chosen = (torch.rand(batch["input_ids"].shape) < 0.15) & batch["attention_mask"].bool()
    batch["labels"] = torch.where(chosen, batch["input_ids"], -100)
    model = model_of(name, "ForMaskedLM", num_hidden_layers=LAYERS, vocab_size=250300).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"seconds": seconds(step)}


def sharded(name: str) -> dict[str, Any]:
    """A step of a model whose layers FSDP2 shards over one device: whether it runs."""
    import torch
    import torch.distributed as distributed
    from torch.distributed.fsdp import fully_shard

    batch = batch_of()
    device = batch["input_ids"].device.type
    with tempfile.TemporaryDirectory() as directory:
        backend = "nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, f"file://{Path(directory) / 'store'}", rank=0, world_size=1)
        mesh = distributed.init_device_mesh(device, (1,))
        model = model_of(name, "ForSequenceClassification", num_hidden_layers=LAYERS).bfloat16().train()
        for layer in model.rembert.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        labels = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
        result = {"seconds": seconds(lambda: update(model, optimizer, {**batch, "labels": labels}))}
        distributed.destroy_process_group()
    return result

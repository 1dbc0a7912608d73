"""What each process of the distributed tests runs: `python distributed_worker.py OUT HEAD WAY...`.

Every way trains the same model on the same rows, half of them in each of two processes. Rank 0 writes the losses, the
mean over all rows of each step, to `OUT/WAY.json` and the trained model to `OUT/WAY`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from tests.frameworks import PT
from tests.parity.cases import CASES, build

STEPS, ROWS = 3, 4
NAMES = {"sequence-classification": "one_label_each", "masked-lm": "masked_lm"}


def model_and_rows(head: str) -> tuple[Any, list[dict[str, Any]]]:
    """A model and `STEPS` × `ROWS` rows with padding, the same in every process, every row with as many labels."""
    case = next(case for case in CASES if case.name == NAMES[head])
    config = case.config(classifier_dropout_prob=0.0)  # two processes would draw other numbers than one
    inputs = case.inputs(config, batch=STEPS * ROWS)
    if head == "masked-lm":
        inputs["attention_mask"][:, :2] = 1
        inputs["labels"] = np.where(np.arange(7) < 2, inputs["input_ids"], -100)
    rows = [{name: torch.from_numpy(array)[row] for name, array in inputs.items()} for row in range(STEPS * ROWS)]
    return build(PT, case, config, dtype="float32").train(), rows


def train(
    model: Any, loader: DataLoader, mean: Callable[[Any], float], backward: Callable[[Any], None]
) -> list[float]:
    """A step for each batch; the losses."""
    # Made after the parameters have taken their final form.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for batch in loader:
        loss = model(**batch).loss
        losses.append(mean(loss))
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
    return losses


def alone(head: str) -> tuple[list[float], Any]:
    """One process with all rows."""
    model, rows = model_and_rows(head)
    return train(
        model, DataLoader(rows, batch_size=ROWS), lambda loss: loss.item(), lambda loss: loss.backward()
    ), model


def _own(rows: list[dict[str, Any]]) -> DataLoader:
    half = ROWS // 2
    mine = [row for number, row in enumerate(rows) if number % ROWS // half == dist.get_rank()]
    return DataLoader(mine, batch_size=half)


def _mean(loss: Any) -> float:
    value = loss.detach().clone()
    dist.all_reduce(value)
    return value.item() / dist.get_world_size()


def ddp(head: str, out: Path) -> list[float]:
    """DistributedDataParallel."""
    model, rows = model_and_rows(head)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    losses = train(wrapped, _own(rows), _mean, lambda loss: loss.backward())
    if dist.get_rank() == 0:
        model.save_pretrained(out)
    return losses


def fsdp(head: str, out: Path) -> list[float]:
    """FSDP2: every layer by itself, and the rest."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model, rows = model_and_rows(head)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.base_model.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    losses = train(model, _own(rows), _mean, lambda loss: loss.backward())
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        model.save_pretrained(out, state_dict=state)
    return losses


def accelerate(head: str, out: Path) -> list[float]:
    """DDP as accelerate sets it up."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    model, rows = model_and_rows(head)
    model, loader = accelerator.prepare(model, DataLoader(rows, batch_size=ROWS // 2))
    losses = train(model, loader, lambda loss: accelerator.reduce(loss.detach(), "mean").item(), accelerator.backward)
    state = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(out, state_dict=state)
    return losses


def main() -> None:
    out, head, *ways = sys.argv[1:]
    if "accelerate" not in ways:
        dist.init_process_group("gloo")
    for way in ways:
        losses = {"ddp": ddp, "fsdp": fsdp, "accelerate": accelerate}[way](head, Path(out, way))
        if not dist.is_initialized() or dist.get_rank() == 0:
            Path(out, f"{way}.json").write_text(json.dumps(losses))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

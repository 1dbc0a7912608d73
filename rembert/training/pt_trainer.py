"""Training steps in PyTorch, on one device or on several under `torchrun` or `accelerate launch`.

`tf_trainer` is its twin; both implement `trainer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rembert.bridge import TensorSource
from rembert.bridge.tensors import DTYPES
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.parameters import file_name
from rembert.tasks.backends import load_model
from rembert.tasks.backends.pt import initialize, model_class
from rembert.tasks.predicting import Run, task_runner
from rembert.tasks.task import Task
from rembert.training.initial_model import fresh_names, step_seed, training_overrides
from rembert.training.micro_batches import Batch, MicroBatch
from rembert.training.parameter_groups import parameter_groups
from rembert.training.recipe import Recipe

_FUSED = True  # one pass over memory for each update of AdamW
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}  # our names, and those of AdamW
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}  # of the weights


class Trainer:
    """A model, its optimizer, and the steps of training.

    Args:
        head: a key of `HEADS`.
        source: the checkpoint directory to start from; from scratch, one with a `config.json`.
        recipe: how to train.
        overrides: keys of the configuration that the task sets.
        from_scratch: use only the configuration, with newly initialised weights.
        devices: not for PyTorch, where `torchrun` places the processes.
        sharded: under `torchrun`, keep a shard of the parameters on each device (FSDP2) instead of all (DDP).
        timeout: under `torchrun`, the seconds that a process waits for the others; by default PyTorch's own.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or its encoder is incomplete.
        InputError: `devices`, or `sharded` without several processes.
    """

    framework = "pt"
    parallel = 1  # micro-batches that one process computes at once

    def __init__(
        self,
        head: str,
        source: str | os.PathLike[str],
        recipe: Recipe,
        overrides: Mapping[str, Any],
        *,
        from_scratch: bool = False,
        devices: Sequence[str] | None = None,
        sharded: bool = False,
        timeout: float | None = None,
    ) -> None:
        if devices is not None:
            raise InputError(
                f"`devices` is for TensorFlow; in PyTorch start a process for each with torchrun. Received: {devices}."
            )
        self.head, self.recipe = head, recipe
        self._joined = _join_processes(timeout)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.device = _device()
        if sharded:
            _check_can_shard(self.world, self.device)
        self.model, self.fresh = _load(head, os.fspath(source), recipe, overrides, from_scratch)
        self.config: RemBertConfig = self.model.config
        self.model.label_smoothing = recipe.label_smoothing
        if recipe.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.model.to(self.device)
        self._sharded = sharded
        self._groups = parameter_groups(recipe, self.model.parameter_table())
        trained = {file_name(name, self.head) for group in self._groups for name in group.names}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
        self._wrapped = _distribute(self.model, self.device, sharded=sharded) if self.world > 1 else self.model
        self.optimizer = self._make_optimizer()

    # ------------------------------------------------------------------ steps

    def train_step(self, micro_batches: Sequence[MicroBatch], learning_rate: float, step: int) -> tuple[Any, Any]:
        """Update the weights once.

        Args:
            micro_batches: this process's share of the batch, each with the weight of its loss.
            learning_rate: the learning rate of this update.
            step: the number of this update, from 0.

        Returns:
            The loss of the whole batch and the gradients' norm before clipping, each convertible by `float`.
        """
        self._wrapped.train()
        torch.manual_seed(step_seed(self.recipe, step, self.rank))
        for group, settings in zip(self._groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = learning_rate * group.rate_factor
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, (batch, weight) in enumerate(micro_batches):
            with self._gradient_sync(last=number == len(micro_batches) - 1):
                with self._autocast():
                    loss = self._wrapped(**self._tensors(batch)).loss * weight
                # Gradients are averaged over the processes; the micro-batches' losses must add up.
                (loss * self.world).backward()
            total += loss.detach()
        if self.world > 1:
            dist.all_reduce(total)
        norm = torch.nn.utils.clip_grad_norm_(self._trained_parameters(), self.recipe.max_grad_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """The model's outputs for a batch in evaluation mode; with labels in it, the loss too."""
        self._wrapped.eval()
        with torch.no_grad(), self._autocast():
            outputs = self.model(**self._tensors(batch))
        return {
            name: value.to(torch.promote_types(value.dtype, torch.float32)).cpu().numpy()
            for name, value in outputs.items()
            if isinstance(value, Tensor)
        }

    @contextmanager
    def runner(self, task: Task) -> Iterator[Run]:
        """A function from a batch to the task's outputs, for tasks that need other outputs than the model's."""
        with self._autocast(), task_runner(task, self.model) as run:
            yield run

    # ------------------------------------------------------------------ state

    def save(self, directory: Path) -> None:
        """Write the model's weights and configuration. Every process calls it; the first one writes."""
        state = {name: _full(tensor) for name, tensor in self.model.state_dict().items()} if self._sharded else None
        if self.rank == 0:
            self.model.save_pretrained(directory, state_dict=state)

    def state(self) -> dict[str, TensorSource]:
        """The optimizer's moments as `first.NAME` and `second.NAME`, in the orientation of the parameter table."""
        tensors = {}
        for name, parameter in self._named_parameters():
            moments = self.optimizer.state.get(parameter)
            if moments:
                for ours, theirs in _MOMENTS.items():
                    tensors[f"{ours}.{name}"] = _tensor_source(_full(moments[theirs]))
        return tensors

    def load(self, directory: Path, state: Mapping[str, np.ndarray], step: int) -> None:
        """Load weights that `save` wrote and moments that `state` gave, after `step` updates."""
        model = type(self.model).from_pretrained(directory, dtype=_DTYPES[self.recipe.precision])
        loaded = model.state_dict()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(_shard_like(loaded[name], parameter))
            for name, parameter in self._named_parameters():
                if f"first.{name}" in state:
                    moments = {
                        theirs: torch.empty_like(parameter).copy_(
                            _shard_like(torch.from_numpy(state[f"{ours}.{name}"]), parameter)
                        )
                        for ours, theirs in _MOMENTS.items()
                    }
                    updates = torch.tensor(float(step), device=self.device if _FUSED else None)
                    self.optimizer.state[parameter] = {"step": updates, **moments}

    def gather(self, values: Any) -> list[Any]:
        """What each process passed, in the order of their ranks."""
        if self.world == 1:
            return [values]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, values)
        return gathered

    def peak_memory(self) -> int | None:
        """The largest amount of memory used on the GPU so far, in bytes; None without one."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def close(self) -> None:
        """Leave the process group, if this trainer joined it."""
        if self._joined:
            dist.destroy_process_group()

    # ------------------------------------------------------------------ parts

    def _make_optimizer(self) -> torch.optim.AdamW:
        own = dict(self.model.named_parameters())
        groups = [
            {"params": [own[file_name(name, self.head)] for name in group.names], "weight_decay": group.weight_decay}
            for group in self._groups
        ]
        recipe = self.recipe
        return torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, fused=_FUSED)

    def _gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients after the last micro-batch only."""
        if self._sharded:
            self.model.set_requires_gradient_sync(last)
        elif self.world > 1 and not last:
            context: AbstractContextManager[Any] = self._wrapped.no_sync()
            return context
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}

    def _trained_parameters(self) -> list[Any]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _named_parameters(self) -> Iterable[tuple[str, Any]]:
        """The trained parameters by canonical name."""
        names = [name for group in self._groups for name in group.names]
        return zip(names, self._trained_parameters(), strict=True)


def _join_processes(timeout: float | None) -> bool:
    """Join the process group of torchrun or accelerate, unless there is none or this process has joined it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return False
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        timeout=None if timeout is None else timedelta(seconds=timeout),
    )
    return True


def _load(
    head: str, source: str, recipe: Recipe, overrides: Mapping[str, Any], from_scratch: bool
) -> tuple[Any, list[str]]:
    """The model to train, and the names of its newly initialised parameters."""
    dtype, changes = _DTYPES[recipe.precision], training_overrides(recipe, overrides)
    if from_scratch:
        model = model_class(head)(RemBertConfig.from_pretrained(source, **changes)).to(dtype)
        fresh = list(model.parameter_table())
    else:
        model, report = load_model("pt", head, source, dtype=dtype, ignore_mismatched_sizes=True, **changes)
        fresh = fresh_names(report, source, head, overrides)
    initialize(model, fresh, recipe.seed)
    return model, fresh


def _distribute(model: Any, device: torch.device, *, sharded: bool) -> Any:
    """The model as several processes train it: a wrapper (DDP), or itself with its layers sharded (FSDP2)."""
    if not sharded:
        ids = [device.index] if device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in model.base_model.encoder.layer:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _check_can_shard(world: int, device: torch.device) -> None:
    if world == 1:
        raise InputError("`sharded` needs several processes: start the command with torchrun. Received: one.")
    if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):  # what FSDP2 waits for
        raise InputError(
            f"`sharded` needs PyTorch 2.7 or newer on CPUs. Received: PyTorch {torch.__version__}. Leave it out, "
            "install a newer PyTorch, or train on GPUs."
        )


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _full(tensor: Any) -> Tensor:
    """The full tensor of a shard."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _shard_like(tensor: Tensor, parameter: Any) -> Any:
    """A full tensor, sharded as `parameter` is."""
    if not hasattr(parameter, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def _tensor_source(tensor: Tensor) -> TensorSource:
    dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
    return TensorSource(tuple(tensor.shape), dtype, lambda: tensor.detach().cpu().contiguous().numpy())

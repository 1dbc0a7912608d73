"""Training steps in TensorFlow, on one device or on several of one machine through `tf.distribute`.

`pt_trainer` is its twin; both implement `trainer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.bridge import TensorSource, open_checkpoint
from rembert.bridge.tensors import DTYPES
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.parameters import Kind, Parameter
from rembert.tasks.backends import load_model
from rembert.tasks.backends.tf import initialize, model_class
from rembert.tasks.predicting import Run, task_runner
from rembert.tasks.task import Task
from rembert.tf.optimizer import AdamW
from rembert.training.initial_model import fresh_names, step_seed, training_overrides
from rembert.training.micro_batches import Batch, MicroBatch
from rembert.training.parameter_groups import parameter_groups
from rembert.training.recipe import Recipe

Tensor = Any
_MOMENTS = ("first", "second")  # our names, in the order of AdamW's
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float64": "float64"}


class Trainer:
    """A model, its optimizer, and the steps of training.

    Args:
        head: a key of `HEADS`.
        source: the checkpoint directory to start from; from scratch, one with a `config.json`.
        recipe: how to train.
        overrides: keys of the configuration that the task sets.
        from_scratch: use only the configuration, with newly initialised weights.
        devices: names of TensorFlow's devices to train on; by default all GPUs, or the CPU.
        sharded: not for TensorFlow.
        timeout: not for TensorFlow.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or its encoder is incomplete.
        InputError: `sharded` or `timeout`.
    """

    framework = "tf"
    rank, world = 0, 1  # one process serves all devices

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
        if sharded:
            raise InputError("`sharded` is for PyTorch (FSDP2). Received: `sharded=True` for TensorFlow.")
        if timeout is not None:
            raise InputError(f"`timeout` is for PyTorch's processes. Received: `timeout={timeout}` for TensorFlow.")
        self.head, self.recipe = head, recipe
        self._strategy = _strategy(devices)
        self.parallel: int = self._strategy.num_replicas_in_sync  # micro-batches computed at once
        with self._strategy.scope():
            self.model, self.fresh = _load(head, os.fspath(source), recipe, overrides, from_scratch)
            self.config: RemBertConfig = self.model.config
            self.model.label_smoothing = recipe.label_smoothing
            if recipe.gradient_checkpointing:
                self.model.gradient_checkpointing_enable()
            self._table = self.model.parameter_table()
            self._groups = parameter_groups(recipe, self._table)
            self._variables = [variable for _, variable in self._named_variables()]
            self._learning_rate = tf.Variable(0.0, dtype="float64", trainable=False)
            self.optimizer = self._make_optimizer()
        self._dropout_seeds = [
            variable for variable in self.model.non_trainable_variables if "seed_generator" in variable.path
        ]
        self._runner: Run | None = None
        self._contexts = ExitStack()
        self._used: list[int] = []  # indices of the variables that the loss depends on
        self._gradients: Any = None  # a graph, traced with the first batch
        self._update = tf.function(self._apply_gradients)
        self._outputs: dict[tuple[str, ...], Any] = {}  # a graph for each set of keys in a batch

    # ------------------------------------------------------------------ steps

    def train_step(self, micro_batches: Sequence[MicroBatch], learning_rate: float, step: int) -> tuple[Any, Any]:
        """Update the weights once.

        Args:
            micro_batches: the batch, each with the weight of its loss; `parallel` of them run at once.
            learning_rate: the learning rate of this update.
            step: the number of this update, from 0.

        Returns:
            The loss of the whole batch and the gradients' norm before clipping, each convertible by `float`.
        """
        seed = step_seed(self.recipe, step)
        for number, variable in enumerate(self._dropout_seeds):
            variable.assign(np.array([seed, number], np.uint32))
        self._learning_rate.assign(learning_rate)
        if self._gradients is None:
            signature = [
                [_specification(micro_batches[0][0]) for _ in range(self.parallel)],
                tf.TensorSpec([self.parallel], "float64"),
            ]
            self._gradients = tf.function(self._compute_gradients, input_signature=signature)
        total: Any = 0.0
        gradients: list[Tensor] = []
        for start in range(0, len(micro_batches), self.parallel):
            together = micro_batches[start : start + self.parallel]
            batches = [{name: tf.constant(array) for name, array in batch.items()} for batch, _ in together]
            loss, found = self._gradients(batches, tf.constant([weight for _, weight in together], "float64"))
            total += loss
            gradients = [one + other for one, other in zip(gradients, found, strict=True)] if gradients else found
        return total, self._update(gradients)

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """The model's outputs for a batch in evaluation mode; with labels in it, the loss too."""
        names = tuple(sorted(batch))
        if names not in self._outputs:
            self._outputs[names] = tf.function(self._compute_outputs, input_signature=[_specification(batch)])
        outputs = self._outputs[names]({name: tf.constant(array) for name, array in batch.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    @contextmanager
    def runner(self, task: Task) -> Iterator[Run]:
        """A function from a batch to the task's outputs, for tasks that need other outputs than the model's."""
        if self._runner is None:  # one graph serves all evaluations
            self._runner = self._contexts.enter_context(task_runner(task, self.model))
        yield self._runner

    # ------------------------------------------------------------------ state

    def save(self, directory: Path) -> None:
        """Write the model's weights and configuration."""
        self.model.save_pretrained(directory)

    def state(self) -> dict[str, TensorSource]:
        """The optimizer's moments as `first.NAME` and `second.NAME`, in the orientation of the parameter table."""
        tensors = {}
        for name, variable in self._named_variables():
            for ours, moment in zip(_MOMENTS, self.optimizer.moments(variable), strict=True):
                tensors[f"{ours}.{name}"] = _tensor_source(moment, self._table[name])
        return tensors

    def load(self, directory: Path, state: Mapping[str, np.ndarray], step: int) -> None:
        """Load weights that `save` wrote and moments that `state` gave, after `step` updates."""
        with open_checkpoint(directory) as checkpoint:
            for name, parameter in self._table.items():
                array = checkpoint.read(name if name in checkpoint.tensors else name.removeprefix("rembert."))
                self.model.variable(parameter).assign(_transposed(array, parameter))
        for name, variable in self._named_variables():
            for ours, moment in zip(_MOMENTS, self.optimizer.moments(variable), strict=True):
                if f"{ours}.{name}" in state:
                    moment.assign(_transposed(state[f"{ours}.{name}"], self._table[name]))
        self.optimizer.iterations.assign(step)

    def gather(self, values: Any) -> list[Any]:
        """What each process passed; there is one process."""
        return [values]

    def peak_memory(self) -> int | None:
        """The largest amount of memory used on a GPU so far, in bytes; None without one."""
        gpus = tf.config.list_logical_devices("GPU")
        return max((tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus), default=None)

    def close(self) -> None:
        """Release what `runner` holds."""
        self._contexts.close()

    # ------------------------------------------------------------------ parts

    def _make_optimizer(self) -> AdamW:
        recipe = self.recipe
        optimizer = AdamW(
            lambda: self._learning_rate,
            beta_1=recipe.beta1,
            beta_2=recipe.beta2,
            epsilon=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        by_name = dict(self._named_variables())
        undecayed = [by_name[name] for group in self._groups if not group.weight_decay for name in group.names]
        optimizer.exclude_from_weight_decay(var_list=undecayed)
        for group in self._groups:
            optimizer.scale_learning_rate([by_name[name] for name in group.names], group.rate_factor)
        optimizer.build(self._variables)
        return optimizer

    def _compute_gradients(self, batches: list[dict[str, Tensor]], weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The sum of the micro-batches' weighted losses and its gradients, each micro-batch on its own device."""

        def on_one_device() -> tuple[Tensor, list[Tensor]]:
            number = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
            with tf.GradientTape() as tape:
                loss = self.model(batches[number], training=True).loss
                loss = loss * tf.cast(weights[number], loss.dtype)
            found = tape.gradient(loss, [variable.value for variable in self._variables])
            self._used = [index for index, gradient in enumerate(found) if gradient is not None]
            # A table's gradient comes as sparse rows; as in PyTorch, all of it is needed.
            return tf.cast(loss, "float64"), [tf.convert_to_tensor(found[index]) for index in self._used]

        loss, gradients = self._strategy.run(on_one_device)
        if self.parallel == 1:
            return loss, gradients
        total = tf.distribute.ReduceOp.SUM
        return (
            self._strategy.reduce(total, loss, axis=None),
            [self._strategy.reduce(total, gradient, axis=None) for gradient in gradients],
        )

    def _apply_gradients(self, gradients: list[Tensor]) -> Tensor:
        """Clip and update; the norm before clipping. As in PyTorch, clipping adds 1e-6 to the norm."""
        norm = tf.linalg.global_norm(gradients)
        if self.recipe.max_grad_norm is not None:
            factor = tf.minimum(tf.cast(self.recipe.max_grad_norm, norm.dtype) / (norm + 1e-6), 1.0)
            gradients = [gradient * tf.cast(factor, gradient.dtype) for gradient in gradients]
        self.optimizer.apply(gradients, [self._variables[index] for index in self._used])
        return norm

    def _compute_outputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.model(batch, training=False)
        tensors = {name: value for name, value in outputs.items() if tf.is_tensor(value)}
        return {
            name: tf.cast(value, "float32") if value.dtype == tf.bfloat16 else value for name, value in tensors.items()
        }

    def _named_variables(self) -> Iterable[tuple[str, Any]]:
        """The trained variables by canonical name."""
        names = [name for group in self._groups for name in group.names]
        return [(name, self.model.variable(self._table[name])) for name in names]


def _strategy(devices: Sequence[str] | None) -> Any:
    """The strategy that trains on all of `devices` together; for one device, the default strategy."""
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else tf.distribute.get_strategy()


def _load(
    head: str, source: str, recipe: Recipe, overrides: Mapping[str, Any], from_scratch: bool
) -> tuple[Any, list[str]]:
    """The model to train, and the names of its newly initialised parameters."""
    dtype, changes = _POLICIES[recipe.precision], training_overrides(recipe, overrides)
    if from_scratch:
        model = model_class(head)(RemBertConfig.from_pretrained(source, **changes), dtype=dtype)
        fresh = list(model.parameter_table())
    else:
        model, report = load_model("tf", head, source, dtype=dtype, ignore_mismatched_sizes=True, **changes)
        fresh = fresh_names(report, source, head, overrides)
    initialize(model, fresh, recipe.seed)
    return model, fresh


def _specification(batch: Batch) -> dict[str, tf.TensorSpec]:
    """The batch's names and dtypes in any shape: one graph serves all batches, and a resumed run traces the same."""
    return {name: tf.TensorSpec([None] * array.ndim, array.dtype) for name, array in batch.items()}


def _transposed(array: np.ndarray, parameter: Parameter) -> np.ndarray:
    return array.T if parameter.kind is Kind.KERNEL else array


def _tensor_source(variable: Any, parameter: Parameter) -> TensorSource:
    def read() -> np.ndarray:
        return np.ascontiguousarray(_transposed(variable.numpy(), parameter))

    return TensorSource(parameter.shape, DTYPES[variable.dtype], read)

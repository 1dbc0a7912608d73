"""Every name of Keras and TensorFlow that is not public: its purpose, and what happens in a version without it.

No other file of `rembert` uses such a name. Each is looked up when it is used. If it is missing, a slower or
plainer way is used, with one warning from `warn_missing`.

| name | purpose | without it |
| --- | --- | --- |
| `control_flow_util.GraphOrParentsInXlaContext` | whether XLA compiles a graph | every graph computes its padding |
| `Model._maybe_symbolic_build` | metrics on several devices | Keras builds them from a mean of the batches |
| `Optimizer._apply_weight_decay` | PyTorch's weight decay | the attribute `weight_decay` is None |
| `Optimizer._var_key` | a variable, or its copy on a device | training on one device only |
| `Layer._default_save_signature` | the signature that `tf.saved_model.save(model, …)` writes | none is written |
| `Layer._lock_state` | layers and metrics that are added to a model | Keras refuses them |
| `Layer._tracker` | a table of another size | `resize_token_embeddings` raises an InputError |
| `_keras_call_info_injected` | unchanged error messages | Keras appends all arguments of the call |
| `ag_pass_through` | the same errors out of `tf.function` | its own StagingError, which ends with the message |
| optree's namespace "keras" | outputs that Keras can unpack | `predict` returns plain dicts |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.errors import InputError
from rembert.common.internals import warn_missing

Tensor = Any


def _warn(name: str, effect: str) -> None:
    warn_missing(f"Keras {keras.__version__}", name, effect)


# ---------------------------------------------------------------------- graphs


def in_xla() -> bool:
    """Whether this is traced for XLA (`jit_compile=True`, TPUs), whose shapes cannot follow the values of a mask."""
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        effect = "graphs compute their padding, as XLA must"
        warn_missing(f"TensorFlow {tf.__version__}", "control_flow_util.GraphOrParentsInXlaContext", effect)
        return True
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


# ---------------------------------------------------------------------- training


class DistributedModel(keras.Model):
    """A model that builds its compiled loss and metrics from the first device's batch.

    Keras 3.15 builds them from the mean over the devices' batches (keras issue 20585): the mean of ids is not an
    integer, and batches of several lengths have no mean.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda values: strategy.experimental_local_results(values)[0], next(batches)
                )
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def served(self) -> Any:
        """The function that `tf.saved_model.save` writes as the signature `serving_default`; None for none."""
        return None

    @property
    def _default_save_signature(self) -> Any:
        return self.served()

    def _lock_state(self) -> None:
        """Nothing: layers and metrics can be added to a built model, as to Keras' functional models."""

    def __setattr__(self, name: str, value: Any) -> None:
        old = vars(self).get(name)
        if isinstance(old, keras.layers.Layer) and old is not value:
            _forget(self, old)
        super().__setattr__(name, value)


def warn_unbuilt(model: keras.Model) -> None:
    """Warn if a model trains on several devices and `DistributedModel` has no effect."""
    if model.distribute_strategy.num_replicas_in_sync > 1 and not hasattr(keras.Model, "_maybe_symbolic_build"):
        _warn("Model._maybe_symbolic_build", "a compiled loss or metrics may fail on batches of several lengths")


def keep_errors(kind: type[Exception]) -> None:
    """Let the errors of a class leave Keras' layers and `tf.function` as they were raised.

    Keras would append all arguments of the call; `tf.function` would raise an error of another class.
    """
    for mark in ("_keras_call_info_injected", "ag_pass_through"):
        setattr(kind, mark, True)  # no effect in a version that does not read it


# ---------------------------------------------------------------------- optimizers


class OwnDecayOptimizer(keras.optimizers.Optimizer):
    """An optimizer with a weight decay in its own `update_step`, in place of Keras'."""

    def __init__(self, *, weight_decay: float | None, **kwargs: Any) -> None:
        can_replace = hasattr(keras.optimizers.Optimizer, "_apply_weight_decay")
        super().__init__(weight_decay=weight_decay if can_replace else None, **kwargs)
        self._hidden_decay = None if can_replace else weight_decay
        if not can_replace:
            _warn("Optimizer._apply_weight_decay", "`weight_decay` is applied, but the optimizer's attribute is None")

    @property
    def own_weight_decay(self) -> float | None:
        """The decay that `update_step` applies."""
        return self.weight_decay or self._hidden_decay

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` does it."""


def variable_key(optimizer: keras.optimizers.Optimizer, variable: Any) -> str:
    """A key of a Keras variable, the same for the TensorFlow variable in it and for its copies on several devices."""
    if hasattr(optimizer, "_var_key"):
        return str(optimizer._var_key(variable))
    _warn("Optimizer._var_key", "`rembert.tf.AdamW` trains on one device only")
    return str(id(variable.value if isinstance(variable, keras.Variable) else variable))


# ---------------------------------------------------------------------- variables


def replace_variables(layer: keras.layers.Layer, values: dict[str, np.ndarray]) -> None:
    """Give a built layer variables of other shapes, as Keras' own layers do it for adapters.

    Args:
        layer: a layer with one attribute for each variable.
        values: the new values by the variables' names, in the order in which the layer created them.

    Raises:
        InputError: this version of Keras does not support it; the layer is unchanged.
    """
    tracker: Any = getattr(layer, "_tracker", None)
    if not (hasattr(tracker, "unlock") and hasattr(tracker, "lock")):
        raise InputError(
            f"Keras {keras.__version__} has no `Layer._tracker`, without which a table cannot be replaced. Create "
            f"a model with the new `vocab_size` and set its weights. Received: the layer {layer.name}."
        )
    old = {variable.name: variable for variable in layer.variables}
    tracker.unlock()
    try:
        for name, value in values.items():
            variable = old[name]
            attribute = next(key for key, held in vars(layer).items() if held is variable)
            delattr(layer, attribute)  # and out of the layer's list of variables
            new = layer.add_weight(
                shape=value.shape,
                initializer=keras.initializers.Zeros(),
                name=name,
                dtype=variable.dtype,
                trainable=variable.trainable,
            )
            new.assign(value)
            setattr(layer, attribute, new)
    finally:
        tracker.lock()


def replace_layer(whole: keras.layers.Layer, name: str, value: keras.layers.Layer) -> None:
    """Replace the layer in an attribute of a built layer."""
    tracker: Any = getattr(whole, "_tracker", None)
    _forget(whole, getattr(whole, name))
    if tracker is not None:
        tracker.unlock()
    try:
        setattr(whole, name, value)
    finally:
        if tracker is not None:
            tracker.lock()


def _forget(whole: keras.layers.Layer, part: keras.layers.Layer) -> None:
    """Remove a layer from those that another layer holds; Keras would train and save it beside its replacement."""
    tracker: Any = getattr(whole, "_tracker", None)
    if tracker is not None and list(map(id, vars(whole).values())).count(id(part)) == 1:
        tracker.untrack(part)


# ---------------------------------------------------------------------- structures


def register_mapping(kind: type, flatten: Callable[[Any], tuple[Any, ...]], unflatten: Callable[..., Any]) -> None:
    """Tell Keras' tree functions how to unpack and rebuild a mapping class.

    Args:
        kind: the class.
        flatten: an instance to its values, what `unflatten` needs, and its keys.
        unflatten: what `flatten` gave second, and values, to an instance.
    """
    try:
        import optree

        optree.register_pytree_node(kind, flatten, unflatten, namespace="keras")
    except (ImportError, AttributeError, TypeError):
        pass  # `is_structure` notices
    if not is_structure(kind()):
        _warn("optree namespace 'keras'", "`predict` returns plain dicts")


def is_structure(value: Any) -> bool:
    """Whether Keras' tree functions unpack a value."""
    return keras.tree.is_nested(value)

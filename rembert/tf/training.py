"""Training with Keras' `fit`: with the head's loss, or with a loss given to `compile`.

PyTorch has no `fit`, so this file has no twin.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight

from rembert.common.errors import InputError
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import find_head
from rembert.tf.collation import Padding, collated_batches
from rembert.tf.inputs import by_name
from rembert.tf.keras_internals import DistributedModel, is_structure, warn_unbuilt
from rembert.tf.structures import as_labels, as_ragged, as_structure, check_symbolic_ids, pad_ragged, refuse_legacy

Tensor = Any

_TAKES_NO_WEIGHTS = (
    "The head's loss of {model} takes no `sample_weight` and no `class_weight`. Give `compile` a Keras `loss`, and "
    "the labels as `y`. Received: {received}, and `loss=None`."
)


# The model that runs a step, and the flags of the step's call: Keras does not allow flags among the inputs.
# `tf.distribute` runs a step in a thread for each device, and each thread has its own value.
_FLAGS: ContextVar[tuple[Any, Mapping[str, bool]]] = ContextVar("_FLAGS", default=(None, {}))


class TrainableModel(DistributedModel):
    """A model whose `call` computes its loss if labels are among its arguments.

    Compiled without a loss, it trains with this loss; the labels are among the inputs, or passed as `y`. A loss given
    to `compile` compares the logits with `y`, or with the labels among the inputs. Metrics do so in both cases.
    """

    head: ClassVar[str]  # a key of `HEADS`
    predict_function: Any  # of Keras

    @property
    def label_names(self) -> list[str]:
        """The arguments that the head's loss requires; empty if it has no loss."""
        return list(find_head(self.head).labels)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.jit_compile = False  # of `predict` without `compile`
        self._by_name = False  # whether losses or metrics are given by the names of the outputs
        self._has_metrics = False  # whether the variables of the compiled metrics exist
        self._ranks: dict[str, Any] = {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `compile`, with `jit_compile=False` by default: XLA compiles every length and computes all padding.

        With `supports_jit = False`, Keras would ignore `jit_compile=True` as well.
        """
        given = inspect.signature(super().compile).bind(*args, **kwargs)
        if given.arguments.get("jit_compile", "auto") == "auto":
            given.arguments["jit_compile"] = False
        for name in ("optimizer", "loss", "metrics", "weighted_metrics"):
            for each in keras.tree.flatten(given.arguments.get(name)):
                refuse_legacy(name, each)
        self._by_name = any(isinstance(given.arguments.get(name), Mapping) for name in ("loss", "metrics"))
        super().compile(*given.args, **given.kwargs)
        self._has_metrics = False
        warn_unbuilt(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model as it was when it was saved; Keras skips models that override `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def _build_optimizer(self) -> None:
        """Create the optimizer's variables. TensorFlow traces a step twice if the step itself creates variables."""
        optimizer = self.optimizer
        if optimizer is None or optimizer.built or not all(layer.built for layer in self.layers):
            return
        with self.distribute_strategy.scope():
            optimizer.build(self.trainable_variables)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model, flags = _FLAGS.get()
        if args and not args[1:] and isinstance(args[0], tf.RaggedTensor):
            args, kwargs = args[1:], {"input_ids": args[0], **kwargs}  # which others may be ragged beside
        args, kwargs = tuple(map(as_structure, args)), as_structure(kwargs)
        if args and isinstance(args[0], Mapping):
            tensors, settings = self._settings_apart(args[0], kwargs)
            args, kwargs = (tensors, *args[1:]), {**kwargs, **settings}
        check_symbolic_ids(self.call, args, kwargs)
        return super().__call__(*args, **{**(flags if model is self else {}), **kwargs})

    def _settings_apart(self, inputs: Mapping[str, Any], named: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The tensors of a dict of inputs, and the flags and numbers, which Keras takes as keywords only."""
        settings = {name: value for name, value in inputs.items() if isinstance(value, bool | int | float | str)}
        if not settings:
            return inputs, {}
        by_name(type(self).__name__, inputs, _arguments(type(self)))  # refuses unknown keys
        for name in settings:
            if named.get(name) is not None:
                raise InputError(f"`{name}` was given twice: among the inputs and as an argument of its own.")
        return {name: value for name, value in inputs.items() if name not in settings}, settings

    def train_step(self, data: Any) -> Any:
        with self._in_step():
            return super().train_step(self._arranged(data))

    def test_step(self, data: Any) -> Any:
        with self._in_step():
            return super().test_step(self._arranged(data))

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Calls inside return only what a step needs: outputs by name, no cache, and logits only if they are used.

        A language model's own loss needs no logits, which saves most of the time and memory.
        """
        flags = {"return_dict": True, "use_cache": False}
        if self.loss is None:
            flags["return_logits"] = any(metric.name != "loss" for metric in self.metrics)
        names = _arguments(type(self))
        before = _FLAGS.set((self, {name: flag for name, flag in flags.items() if name in names}))
        try:
            yield
        except Exception:
            # Partly traced: called again after the error is corrected, they would fail at their variables.
            self.train_function = self.test_function = None
            raise
        finally:
            _FLAGS.reset(before)

    def fit(self, x: Any = None, y: Any = None, *args: Any, class_weight: Any = None, **kwargs: Any) -> Any:
        self._prepare(class_weight, x, y)
        if "validation_data" in kwargs:
            kwargs["validation_data"] = as_structure(kwargs["validation_data"])
        return super().fit(as_structure(x), as_labels(y), *args, class_weight=class_weight, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._forget_ranks("test_function", x, y)
        return super().evaluate(as_structure(x), as_labels(y), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras' `predict`. Outputs of batches of several lengths are padded to the longest: logits with -100, which
        no argmax chooses, other outputs with 0.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertForTokenClassification
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
            >>> model = TFRemBertForTokenClassification(config)
            >>> batches = [tf.constant([[312, 5, 313]]), tf.constant([[312, 5, 6, 7, 313]])]
            >>> logits = model.predict(((batch,) for batch in batches), verbose=0)["logits"]
            >>> logits.shape, logits[0, -1].tolist()
            ((2, 5, 3), [-100.0, -100.0, -100.0])
        """
        x = as_structure(x)
        if all(hasattr(each, "shape") for each in keras.tree.flatten(x)):  # all rows have one length
            return super().predict(x, *args, **kwargs)
        self.make_predict_function()
        step = self.predict_function
        # Keras concatenates ragged tensors of any lengths; plain ones of several lengths take it much longer.
        self.predict_function = lambda iterator: as_ragged(step(iterator))
        try:
            return pad_ragged(super().predict(x, *args, **kwargs))
        finally:
            self.predict_function = step

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        self._prepare(class_weight, x, y)
        return super().train_on_batch(as_structure(x), as_labels(y), sample_weight, class_weight, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._forget_ranks("test_function", x, y)
        return super().test_on_batch(as_structure(x), as_labels(y), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(as_structure(x))

    def predict_step(self, data: Any) -> Any:
        """The outputs without a loss: the scalars of several batches cannot be concatenated."""
        inputs, labels = self._taken_apart(unpack_x_y_sample_weight(data)[0])
        outputs = super().predict_step((inputs,) if labels else data)
        return outputs if is_structure(outputs) or not isinstance(outputs, ModelOutput) else dict(outputs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss given to `compile`, or the head's loss, plus the losses that layers add (`add_loss`)."""
        if self.loss is None and isinstance(y_pred, ModelOutput) and "loss" in y_pred:
            own = y_pred["loss"]
            total = own + sum(tf.cast(tf.reduce_sum(each), own.dtype) for each in self.losses)
            # Keras sums the losses of the devices: each returns its part of their mean.
            return total / tf.distribute.get_strategy().num_replicas_in_sync
        y = self._targets(x, y)
        return super().compute_loss(x, y, _predictions(self.head, y_pred, y), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics given to `compile`, of the logits."""
        y = self._targets(x, y)
        given = (y, _predictions(self.head, y_pred, y), sample_weight)
        self._create_metrics(*given)
        return super().compute_metrics(x, *given)

    def _create_metrics(self, *given: Any) -> None:
        """Create the metrics' variables outside the step that is traced, for the reason of `_build_optimizer`."""
        if self._has_metrics or tf.executing_eagerly() or tf.distribute.has_strategy():
            return
        specs = [None if each is None else tf.type_spec_from_value(each) for each in keras.tree.flatten(given)]
        update = partial(super().compute_metrics, None)
        with tf.init_scope():
            tf.function(update).get_concrete_function(*keras.tree.pack_sequence_as(given, specs))
        self._has_metrics = True

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Mapping[str, Any]] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> tf.data.Dataset:
        """Batches of tokenized examples for `fit`, `evaluate` and `predict`, each padded to its longest row.

        Columns that are neither inputs nor labels of this model are left out; `label` and `label_ids` are taken as
        `labels`. An `attention_mask` is added if there is none.

        Args:
            dataset: a dataset of the package `datasets`, a mapping from names to columns, or a list of examples, each
                a mapping from names to values.
            batch_size: examples in a batch.
            shuffle: whether each epoch has another order, from TensorFlow's seed.
            tokenizer: whose `pad_token_id` and `padding_side` are used; by default the configuration's `pad_token_id`,
                on the right.
            collate_fn: from a list of examples to arrays by name, in place of the padding described here.
            collate_fn_args: further arguments of `collate_fn`.
            drop_remainder: whether a smaller last batch is left out; by default if `shuffle`, as in transformers.
            prefetch: whether batches are prepared ahead.

        Returns:
            Pairs (inputs by name, labels), or inputs alone if there are no labels. Integers are int32, other numbers
            float32. Tokens' labels are padded with -100.

        Raises:
            InputError: there are no examples, columns of several lengths, or none that is an input of the model.

        Example:
            >>> from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
            >>> model = TFRemBertForSequenceClassification(config)
            >>> rows = {"text": ["a", "b b"], "input_ids": [[312, 5, 313], [312, 6, 6, 313]], "label": [1, 0]}
            >>> for inputs, labels in model.prepare_tf_dataset(rows, batch_size=2, shuffle=False):
            ...     print(sorted(inputs), inputs["input_ids"].shape, labels.numpy())
            ['attention_mask', 'input_ids'] (2, 4) [1 0]
        """
        collate: Any = collate_fn and partial(collate_fn, **(collate_fn_args or {}))
        return collated_batches(
            dataset,
            inputs=[name for name in _arguments(type(self)) if name not in self.label_names],
            labels=self.label_names,
            collate=collate or Padding.of(tokenizer, self.config),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_remainder=shuffle if drop_remainder is None else drop_remainder,
            prefetch=prefetch,
        )

    def _arranged(self, data: Any) -> tuple[Any, Any, Any]:
        """A batch as the loss requires it: labels among the inputs for the head's loss, separate for another."""
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        names = self.label_names
        inputs, labels = self._taken_apart(x)
        if self.loss is not None:
            if y is None and not labels:
                wanted = " or ".join(["`y`", *(f"`{name}` among the inputs" for name in names)])
                raise InputError(f"The loss given to `compile` needs {wanted}. Received: neither.")
            return (inputs if labels else x), self._targets(x, y), sample_weight
        model = type(self).__name__
        if not names:
            raise InputError(f"{model} has no loss of its own: give `compile` a `loss`. Received: `loss=None`.")
        if sample_weight is not None:
            raise InputError(_TAKES_NO_WEIGHTS.format(model=model, received="weights"))
        if y is not None:
            values = y if isinstance(y, Mapping) else by_name(model, y if isinstance(y, tuple | list) else [y], names)
            labels = {**labels, **values}
        missing = [name for name in names if labels.get(name) is None]
        if missing:
            raise InputError(
                f"`{missing[0]}` must be among the inputs, as {model} was compiled without a loss and trains with its "
                f"own. Received: {', '.join([*inputs, *labels]) or 'no inputs by name'}."
            )
        return {**inputs, **labels}, None, None

    def _prepare(self, class_weight: Any, x: Any, y: Any) -> None:
        """What is checked and created before a step of training."""
        self._check_class_weight(class_weight, x, y)
        self._forget_ranks("train_function", x, y)
        if type(self).train_step is TrainableModel.train_step:  # a subclass's own step may train some weights only
            self._build_optimizer()

    def _forget_ranks(self, function: str, *data: Any) -> None:
        """Drop a traced step before data of other ranks, such as labels [b, 1] after [b].

        TensorFlow would trace it again for tensors of unknown rank, which no loss can take.

        Raises:
            InputError: a pipeline does not say how many dimensions a tensor has.
        """
        specs = [each.element_spec if isinstance(each, tf.data.Dataset) else each for each in data]
        shapes = [(path[-1], getattr(each, "shape", ())) for path, each in keras.tree.flatten_with_path(specs)]
        for name, shape in shapes:
            if isinstance(shape, tf.TensorShape) and shape.rank is None:
                raise InputError(
                    f"Tensors of a pipeline must have a known rank. Received: one of unknown shape, `{name}`. State "
                    "the shapes: `output_signature` of `from_generator`, or `tf.ensure_shape`."
                )
        ranks = [len(shape) for _, shape in shapes]
        if self._ranks.setdefault(function, ranks) != ranks:
            self._ranks[function] = ranks
            setattr(self, function, None)

    def _check_class_weight(self, class_weight: Any, x: Any, y: Any) -> None:
        """Refuse class weights without `y`, from which Keras takes the classes: its own error does not say so."""
        if class_weight is None:
            return
        if self.loss is None:
            raise InputError(_TAKES_NO_WEIGHTS.format(model=type(self).__name__, received="`class_weight`"))
        if y is None and isinstance(x.element_spec if isinstance(x, tf.data.Dataset) else x, Mapping):
            raise InputError("`class_weight` needs the labels as `y`. Received: inputs alone.")

    def _taken_apart(self, x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inputs by name, and the labels among them."""
        if isinstance(x, Mapping):
            given = dict(x)  # `call` refuses unknown keys
        else:
            values = x if isinstance(x, tuple | list) else [x]
            given = by_name(type(self).__name__, values, _arguments(type(self)))
        labels = {name: value for name, value in given.items() if name in self.label_names}
        return {name: value for name, value in given.items() if name not in labels}, labels

    def _targets(self, x: Any, y: Any) -> Any:
        """`y`, or else the labels among the inputs: a tensor, one for each logits, or by the names in `compile`."""
        if y is None and x is not None:
            labels = [value for value in self._taken_apart(x)[1].values() if value is not None]
            y = labels[0] if len(labels) == 1 else tuple(labels) or None
        if not self._by_name or y is None or isinstance(y, Mapping):
            return y
        values = y if isinstance(y, tuple | list) else [y]
        names = self.loss if isinstance(self.loss, Mapping) and len(self.loss) == 1 else find_head(self.head).logits
        return dict(zip(names, values, strict=False))


def _arguments(model: type) -> list[str]:
    """The names of the arguments of a model class's `call`, those that it passes on to its base class included."""
    names: list[str] = []
    for cls in model.__mro__:
        if "call" not in vars(cls):
            continue
        parameters = [each for each in inspect.signature(vars(cls)["call"]).parameters.values() if each.name != "self"]
        rest = [each for each in parameters if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        names += [each.name for each in parameters if each not in rest and each.name not in names]
        if not rest:
            break
    return names


def _predictions(head: str, outputs: Any, targets: Any) -> Any:
    """The logits, in the targets' structure, for a loss or metric given to `compile`."""
    if not isinstance(outputs, ModelOutput):
        return outputs
    logits = {name: outputs[name] for name in find_head(head).logits if name in outputs}
    if not logits or isinstance(targets, Mapping):
        return logits or dict(outputs)
    return next(iter(logits.values())) if len(logits) == 1 else tuple(logits.values())

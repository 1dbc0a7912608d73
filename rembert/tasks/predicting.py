"""A model of either framework over examples: batches of like length, outputs as arrays, in the examples' order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.tasks.batching import in_sorted_batches
from rembert.tasks.data import DataOptions
from rembert.tasks.examples import Example
from rembert.tasks.frameworks import check_framework, framework_of_model, load_trained, move_to_device
from rembert.tasks.registry import task_class
from rembert.tasks.scoring import Output
from rembert.tasks.task import Batch, Feature, Task

Run = Callable[[Mapping[str, np.ndarray]], Batch]

# Numbers that the logits of a whole vocabulary may take at once: 256 MB in float32. A row has at least its own.
_LOGITS_AT_ONCE = 1 << 26


def load_task(
    name: str,
    path: str | os.PathLike[str],
    framework: str = "pt",
    *,
    max_length: int | None = None,
    data: DataOptions | None = None,
    device: str | None = None,
    **options: Any,
) -> tuple[Task, Any]:
    """A fine-tuned checkpoint as a prepared task and a model, for `evaluate` and `predict`.

    Args:
        name: a key of `TASKS`.
        path: the checkpoint, with its tokenizer.
        framework: 'pt' or 'tf'.
        max_length: the longest row, in pieces; by default the model's `max_position_embeddings`.
        data: how files are read.
        device: of PyTorch's; by default a GPU where there is one.
        **options: the task's own.

    Raises:
        CheckpointError: it does not fit, or was not trained for the task.
        InputError: an argument is refused.
        MissingDependencyError: the framework is not installed.
    """
    check_framework(framework)
    tokenizer = RemBertTokenizerFast.from_pretrained(path)
    kind = task_class(name)  # before the weights are read
    model = load_trained(framework, kind.head, path)
    task = kind(tokenizer, max_length=row_length(model.config, max_length), data=data, **options)
    task.prepare(config=model.config)
    return task, move_to_device(model, device)


def row_length(config: RemBertConfig, max_length: int | None) -> int:
    """The longest row: `max_length`, or as many pieces as the model has positions.

    Raises:
        InputError: it has fewer.
    """
    limit = config.max_position_embeddings
    if max_length is not None and max_length > limit:
        raise InputError(
            f"`max_length` must not exceed the model's {limit} positions. Received: `max_length={max_length}`."
        )
    return limit if max_length is None else max_length


def predict_outputs(
    task: Task,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
) -> Iterator[tuple[Example, list[Output]]]:
    """Each example with the outputs of its features, in order; `Task.score` and `Task.decode` take them.

    Examples stream: those of some fifty batches are in memory at once.

    Args:
        task: a prepared task.
        model: of `rembert.pt` or `rembert.tf`, with the task's head; it is used as for evaluation, and left as it was.
        examples: from `task.read`.
        batch_size: rows of a batch at most.
        max_tokens: rows times the longest row's length at most.
        run: what `runner` gave for this model, to be used again: TensorFlow builds its graph only once then.

    Raises:
        InputError: the model is of neither framework, or a size is less than 1.
        DataError: an example cannot be used; names its place.
    """
    with task_runner(task, model) if run is None else nullcontext(run) as running:

        def outputs(rows: list[tuple[int, Feature]]) -> list[Output]:
            features = [feature for _, feature in rows]
            return task.outputs(features, running(task.collate(features)))

        yield from _by_example(task, examples, outputs, batch_size, max_tokens)


def task_runner(task: Task, model: Any) -> AbstractContextManager[Run]:
    """A `runner` that gives what the task's `outputs` take."""
    return runner(model, "label_scores" if task.takes_label_scores else "outputs")


def evaluate(
    task: Task,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
) -> dict[str, float]:
    """The task's scores of a model; arguments and errors as for `predict_outputs`."""
    pairs = predict_outputs(task, model, examples, batch_size=batch_size, max_tokens=max_tokens, run=run)
    return task.score_pairs(pairs)


def predict(
    task: Task,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
) -> Iterator[dict[str, Any]]:
    """A prediction for each example, in order; arguments and errors as for `predict_outputs`."""
    pairs = predict_outputs(task, model, examples, batch_size=batch_size, max_tokens=max_tokens, run=run)
    for example, outputs in pairs:
        yield task.decode(example, outputs)


def _by_example(
    task: Task,
    examples: Iterable[Example],
    run: Callable[[list[tuple[int, Feature]]], Sequence[Output]],
    batch_size: int,
    max_tokens: int | None,
) -> Iterator[tuple[Example, list[Output]]]:
    """Features of examples through batches, gathered again by example."""
    waiting: dict[int, tuple[Example, int]] = {}  # those read ahead, with the number of their features

    def rows() -> Iterator[tuple[int, Feature]]:
        for number, (example, features) in enumerate(task.stream_features(examples)):
            waiting[number] = (example, len(features))
            for feature in features:
                yield number, feature

    done = 0
    found: list[Output] = []

    def complete() -> Iterator[tuple[Example, list[Output]]]:
        nonlocal done, found
        while done in waiting and len(found) == waiting[done][1]:
            yield waiting.pop(done)[0], found
            done, found = done + 1, []

    for output in in_sorted_batches(
        rows(), run, length=lambda row: task.length(row[1]), batch_size=batch_size, max_tokens=max_tokens
    ):
        yield from complete()  # examples without features stand between
        found.append(output)
        yield from complete()
    yield from complete()


# ---------------------------------------------------------------------- running a batch


@contextmanager
def runner(model: Any, gives: str = "outputs", *, layer: int = -1) -> Iterator[Run]:
    """A function from a batch of arrays to what a model makes of it as arrays of float32, without dropout.

    Args:
        model: of `rembert.pt` or `rembert.tf`; it is left as it was.
        gives: "outputs", the model's own; "label_scores", what the labelled tokens got from a language model (see
            `Task.takes_label_scores`); "logits", those of a language model at `places` [b, k] of the batch, [b, k, v];
            "states", the hidden states [b, s, e] of `layer`.
        layer: for "states": 0 for the encoder's input, -1 for the last.

    Raises:
        InputError: the model is of neither framework.
    """
    if framework_of_model(model) == "tf":
        yield _tensorflow(model, gives, layer)
        return
    was_training = model.training
    model.eval()
    try:
        yield _pytorch(model, gives, layer)
    finally:
        model.train(was_training)


def _inputs(batch: Mapping[str, np.ndarray]) -> Batch:
    """The model's inputs of a batch, without labels: nobody asks for a loss here."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def _pytorch(model: Any, gives: str, layer: int) -> Run:
    import torch

    device = next(model.parameters()).device

    def call(inputs: Mapping[str, np.ndarray], **options: Any) -> Any:
        return model(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()}, **options)

    def array(value: Any) -> np.ndarray:
        found: np.ndarray = value.float().cpu().numpy()
        return found

    def outputs(batch: Mapping[str, np.ndarray]) -> Batch:
        found = call(_inputs(batch))
        return {name: array(value) for name, value in found.items() if isinstance(value, torch.Tensor)}

    def states(batch: Mapping[str, np.ndarray]) -> Batch:
        if layer == -1:
            return {"states": array(call(_inputs(batch)).last_hidden_state)}
        return {"states": array(call(_inputs(batch), output_hidden_states=True).hidden_states[layer])}

    def logits(batch: Mapping[str, np.ndarray]) -> Batch:
        return {"logits": array(call({**_inputs(batch), "logits_at": batch["places"]}).logits)}

    def scored(inputs: Batch, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = call(inputs).logits.float()
        right = scores.gather(-1, torch.from_numpy(ids).to(device)[..., None])[..., 0]
        return array(right - scores.logsumexp(-1)), scores.argmax(-1).cpu().numpy()

    def label_scores(batch: Mapping[str, np.ndarray]) -> Batch:
        return _label_scores(model.config, batch, scored)

    chosen: Run = {"outputs": outputs, "states": states, "logits": logits, "label_scores": label_scores}[gives]
    without_gradient: Run = torch.inference_mode()(chosen)
    return without_gradient


def _tensorflow(model: Any, gives: str, layer: int) -> Run:
    import tensorflow as tf

    graph: Any = None

    def call(inputs: Mapping[str, np.ndarray], **options: Any) -> Any:
        nonlocal graph
        if graph is None:  # one for batches of any size and length
            signature = {name: tf.TensorSpec([None] * array.ndim, array.dtype) for name, array in inputs.items()}
            graph = tf.function(
                lambda given: dict(model(**given, **options, training=False)), input_signature=[signature]
            )
        return graph({name: tf.convert_to_tensor(array) for name, array in inputs.items()})

    def array(value: Any) -> np.ndarray:
        found: np.ndarray = tf.cast(value, tf.float32).numpy()
        return found

    def outputs(batch: Mapping[str, np.ndarray]) -> Batch:
        return {name: array(value) for name, value in call(_inputs(batch)).items() if tf.is_tensor(value)}

    def states(batch: Mapping[str, np.ndarray]) -> Batch:
        if layer == -1:
            return {"states": array(call(_inputs(batch))["last_hidden_state"])}
        return {"states": array(call(_inputs(batch), output_hidden_states=True)["hidden_states"][layer])}

    def logits(batch: Mapping[str, np.ndarray]) -> Batch:
        return {"logits": array(call({**_inputs(batch), "logits_at": batch["places"]})["logits"])}

    def scored(inputs: Batch, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = tf.cast(call(inputs)["logits"], tf.float32)
        right = tf.gather(scores, ids, batch_dims=2)
        return array(right - tf.reduce_logsumexp(scores, -1)), tf.argmax(scores, -1).numpy()

    def label_scores(batch: Mapping[str, np.ndarray]) -> Batch:
        return _label_scores(model.config, batch, scored)

    chosen: Run = {"outputs": outputs, "states": states, "logits": logits, "label_scores": label_scores}[gives]
    return chosen


def _label_scores(
    config: RemBertConfig,
    batch: Mapping[str, np.ndarray],
    scored: Callable[[Batch, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Batch:
    """What the labelled pieces got, at their places in [b, s]; in a decoder at the places that predict them, [b, s-1].

    Args:
        config: the model's.
        batch: with labels.
        scored: from inputs with `logits_at` [r, k], and the right ids [r, k], log-probabilities of those ids and the
            likeliest ids.
    """
    labels = batch["labels"][:, 1:] if config.is_decoder else batch["labels"]
    log_probs = np.zeros(labels.shape, np.float32)
    predicted = np.full(labels.shape, IGNORE_INDEX, np.int64)
    counted = labels != IGNORE_INDEX
    width = max(1, int(counted.sum(1).max(initial=0)))
    # The labelled places of each row first, in their order; rows with fewer of them look at others besides.
    places = np.argsort(~counted, axis=1, kind="stable")[:, :width]
    rows = max(1, _LOGITS_AT_ONCE // (width * config.vocab_size))
    for start in range(0, len(labels), rows):
        some, at = slice(start, start + rows), places[start : start + rows]
        inputs = {name: array[some] for name, array in _inputs(batch).items()}
        ids = np.take_along_axis(labels[some], at, 1)
        logs, best = scored({**inputs, "logits_at": at}, np.maximum(ids, 0))
        np.put_along_axis(log_probs[some], at, logs, 1)
        np.put_along_axis(predicted[some], at, best, 1)
    return {"log_probs": log_probs, "predicted": predicted, "expected": labels}

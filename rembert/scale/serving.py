"""A fine-tuned checkpoint as an application of Ray Serve: JSON over HTTP, in batches formed by tokens.

    serve run rembert.scale.serving:application task=sequence-classification checkpoint=path/to/topics

Requests that arrive together are computed together as long as their tokens fit into a batch, however many rows that
is. The batch is sorted by length, and the model removes its padding, so long and short rows cost what their tokens
cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from rembert.common.arguments import check_arguments, integer, number
from rembert.common.dependencies import is_installed
from rembert.common.errors import InputError, MissingDependencyError
from rembert.scale.base import ERROR, Row
from rembert.scale.functions import Predict
from rembert.tasks import DataOptions
from rembert.tasks.encoding import token_ids
from rembert.tasks.reading import Location, Record

_DEFAULTS: dict[str, Any] = {
    "framework": "pt", "max_length": None, "device": None, "batch_tokens": 4096, "wait": 0.005, "replicas": 1,
}  # fmt: skip
_CONSTRAINTS = {"batch_tokens": integer(at_least=1), "wait": number(at_least=0), "replicas": integer(at_least=1)}
_BAD_REQUEST, _BAD_ROW = 400, 422


def application(settings: Mapping[str, Any]) -> Any:
    """An application for `ray.serve.run`, or for the command `serve run`.

    A request is a row as a JSON object, such as `{"text": "It is late."}`, or a list of them; the answer is the
    prediction of each. A malformed row is answered with its `error`, a single one with status 422.

    Args:
        settings: `task` and `checkpoint`, and, if wanted, `framework` ('pt'), `max_length`, `device`, `batch_tokens`
            (the tokens of a batch, 4096), `wait` (the seconds that a batch is waited for, 0.005) and `replicas` (1).
            Values may be strings, as the command line has them.

    Raises:
        InputError: a setting is unknown, missing or not allowed.
        MissingDependencyError: Ray Serve is not installed.

    Example:
        >>> application({"task": "masked-lm"})
        Traceback (most recent call last):
        rembert.common.errors.InputError: Settings must have checkpoint. Received: task.
    """
    known = _checked(settings)
    if not (is_installed("ray") and is_installed("starlette")):
        raise MissingDependencyError("ray[serve]", needed_for="Serving with Ray Serve")
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    predict = Predict(
        known["task"], known["checkpoint"], known["framework"], max_length=known["max_length"],
        device=known["device"], data=DataOptions(skip_bad_lines=True),
    )  # fmt: skip

    class Model:
        def __init__(self) -> None:
            predict.loaded()  # before the first request

        @serve.batch(
            max_batch_size=known["batch_tokens"], batch_wait_timeout_s=known["wait"], batch_size_fn=_tokens_of
        )
        async def batch(self, rows: list[tuple[Row, int]]) -> list[Row]:
            return await asyncio.to_thread(_predictions, predict, [row for row, _ in rows])

        async def __call__(self, request: Request) -> JSONResponse:
            try:
                body = await request.json()
            except ValueError:
                body = None
            rows = body if isinstance(body, list) else [body]
            if not all(isinstance(row, dict) for row in rows):
                message = "A JSON object, or a list of objects, was expected."
                return JSONResponse({ERROR: message}, status_code=_BAD_REQUEST)
            counts = [min(count_tokens(predict, row), known["batch_tokens"]) for row in rows]
            found = await asyncio.gather(*map(self.batch, zip(rows, counts, strict=True)))
            if isinstance(body, list):
                return JSONResponse(found)
            return JSONResponse(found[0], status_code=_BAD_ROW if ERROR in found[0] else 200)

    return serve.deployment(num_replicas=known["replicas"], max_ongoing_requests=1000)(Model).bind()


def count_tokens(predict: Predict, row: Row) -> int:
    """The tokens of a row's texts, at most those of a row of the model, and three special ones."""
    task = predict.loaded().task
    texts = [value for value in row.values() if isinstance(value, str)]
    count = sum(map(len, token_ids(task, texts))) if texts else 0
    return min(count + 3, int(task.max_length))


def _tokens_of(rows: list[tuple[Row, int]]) -> int:
    return sum(count for _, count in rows)


def _predictions(predict: Predict, rows: list[Row]) -> list[Row]:
    return predict.rows([Record(Location("request"), row) for row in rows])


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their defaults; strings become numbers where numbers are meant.

    Raises:
        InputError: one is unknown, missing or not allowed.
    """
    names = {"task", "checkpoint", *_DEFAULTS}
    if unknown := sorted(set(settings) - names):
        raise InputError(f"Settings must be among {', '.join(sorted(names))}. Received: {', '.join(unknown)}.")
    if missing := {"task", "checkpoint"} - set(settings):
        raise InputError(f"Settings must have {' and '.join(sorted(missing))}. Received: {', '.join(settings)}.")
    known = {**_DEFAULTS, **settings}
    for name, kind in (("max_length", int), ("batch_tokens", int), ("replicas", int), ("wait", float)):
        if isinstance(known[name], str):
            try:
                known[name] = kind(known[name])
            except ValueError:
                raise InputError(f"`{name}` must be a number. Received: `{name}={known[name]!r}`.") from None
    check_arguments(_CONSTRAINTS, known)
    return known

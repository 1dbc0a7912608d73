"""Runs of a model over files on a Ray cluster.

This process reads the files, cuts them into blocks, and writes a part for each block; the nodes of the cluster
compute. So the nodes need no access to the files, only to the checkpoint. A block is a task of Ray, which runs it
again if its worker or its node is lost; a part is written once, by this process, under its final name.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import rembert
from rembert.common import errors
from rembert.common.arguments import check_arguments, integer, optional
from rembert.common.dependencies import require_packages
from rembert.common.errors import DataError, InputError, MissingDependencyError, RemBertError
from rembert.scale.base import ERROR, BatchFunction, Input
from rembert.scale.parts import Block, Parts, part_content
from rembert.tasks.backends import check_framework
from rembert.tasks.data import Report

_RETRIES = 10  # of a block whose worker or node is lost: more than machines fail, less than a block that kills them
_PROBE_SECONDS = 300  # a busy node may take minutes to start its first worker
_CONNECT_SECONDS = 10
_REASONS = 10  # that are shown
_CONSTRAINTS = {
    "workers": optional(integer(at_least=1)),
    "worker_cpus": integer(at_least=1),
    "block_rows": integer(at_least=1),
}


@dataclass(frozen=True)
class Cluster:
    """Where a run computes.

    Args:
        address: of a Ray cluster; by default that of the environment variable RAY_ADDRESS, or else the cluster that
            runs on this machine, or a new one that ends with the run.
        workers: the number of blocks that are computed at once; by default one for each GPU, or, without one, for each
            `worker_cpus` CPUs.
        worker_cpus: the number of CPUs, and of threads, of a worker.
        block_rows: the number of records in a block.

    Raises:
        InputError: a number is less than 1.
    """

    address: str | None = None
    workers: int | None = None
    worker_cpus: int = 1
    block_rows: int = 1600

    def __post_init__(self) -> None:
        check_arguments(_CONSTRAINTS, vars(self))


def run_on_cluster(
    function: BatchFunction, inputs: Sequence[Input], parts: Parts, cluster: Cluster,
    progress: Callable[[int], object] = lambda done: None,
) -> Report:  # fmt: skip
    """Compute the parts that are missing.

    Args:
        function: computes rows from records.
        inputs: the files.
        parts: what is done, and where the results go.
        cluster: where to compute.
        progress: called with the number of records that are done.

    Returns:
        What was found in the blocks that were computed.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: there is no such cluster, or a node cannot run the library's version.
        DataError: a record is malformed, and not to be skipped; or a file has no records.
    """
    require_packages("ray", needed_for="`--engine ray`")
    import ray
    from ray.exceptions import RayError

    report = Report()
    with _connected(cluster.address), _failures_named():
        _check_nodes(function.framework)
        worker, count = _worker(function, cluster)
        running: dict[Any, Block] = {}

        def collect() -> None:
            ready, _ = ray.wait(list(running))
            for reference in ready:
                block = running.pop(reference)
                try:
                    found = ray.get(reference)
                except RayError as problem:
                    name = f"{', '.join(inputs[block.source].paths)}, block {block.number}"
                    raise RemBertError(f"{name} could not be computed: {_first_line(problem)}") from problem
                if found.problem is not None:
                    raise _error(*found.problem)
                parts.put(block, found.content)
                _add(report, found.report)
                progress(report.examples + report.skipped)

        try:
            for block, items in _missing_blocks(function, inputs, parts, cluster.block_rows):
                while len(running) >= count:
                    collect()
                language = inputs[block.source].language
                running[worker.remote(function, items, language, parts.format, rembert.__version__)] = block
            while running:
                collect()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
    return report


@dataclass(frozen=True)
class _Computed:
    """What a worker returns for a block.

    Attributes:
        content: of the part.
        report: of the block.
        problem: the class's name and the text of an error of the data or the call; errors of Python, such as a bug,
            are raised.
    """

    content: bytes
    report: Report
    problem: tuple[str, str] | None = None


def _compute(function: BatchFunction, items: list[Any], language: str | None, format: str, version: str) -> _Computed:
    """The part of a block; runs in a worker."""
    try:
        if rembert.__version__ != version:  # on a node that has joined since the nodes were checked
            raise InputError(f"Every node must have rembert {version}. Received: {rembert.__version__}.")
        function.report()  # drops what a block that failed has left
        rows = function.file_rows(items)
    except RemBertError as problem:
        return _Computed(b"", Report(), (type(problem).__name__, str(problem)))
    if language is not None:
        rows = [{"language": language, **row} for row in rows]
    report = function.report()
    report.reasons = [row[ERROR] for row in rows if ERROR in row][:_REASONS]
    report.skipped = sum(ERROR in row for row in rows)
    report.examples = len(rows) - report.skipped
    return _Computed(part_content(rows, format), report)


def _missing_blocks(
    function: BatchFunction, inputs: Iterable[Input], parts: Parts, size: int
) -> Iterator[tuple[Block, list[Any]]]:
    """The blocks whose parts are missing, with their items."""
    for source, each in enumerate(inputs):
        items = function.read(each)
        number = 0
        while block := list(islice(items, size)):
            if not parts.has(Block(source, number)):
                yield Block(source, number), block
            number += 1
        if not number:
            raise DataError(f"{each.paths[0]}: at least one example was expected. Received: none.")


def _worker(function: BatchFunction, cluster: Cluster) -> tuple[Any, int]:
    """The remote function that computes a block, and how many run at once."""
    import ray

    resources = ray.cluster_resources()
    gpus = 0 if function.device == "cpu" else int(resources.get("GPU", 0))
    possible = gpus or int(resources.get("CPU", 0)) // cluster.worker_cpus
    count = cluster.workers or possible
    if not possible or count > possible:
        raise InputError(
            f"`workers` must be at most what the cluster has CPUs or GPUs for, here {possible}. Received: "
            f"`workers={cluster.workers}` with `worker_cpus={cluster.worker_cpus}`."
        )
    # A process of Ray is used again by the next block, which finds the model loaded (`max_calls`).
    options: dict[str, Any] = {"max_retries": _RETRIES, "max_calls": 0, "num_cpus": cluster.worker_cpus}
    if gpus:
        options["num_gpus"] = 1
    return ray.remote(**options)(_compute), count


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster; one that the program has already stays as it is."""
    import ray

    if ray.is_initialized():
        yield
        return
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as problem:
        raise InputError(
            "`--address` must be that of a Ray cluster with the same versions of Python and Ray. Received: "
            f"{address}: {_first_line(problem)}"
        ) from problem
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address where nothing listens; Ray itself tries for minutes.

    Raises:
        InputError: there is no connection.
    """
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():  # a word such as `auto`, or `ray://…`
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as problem:
        raise InputError(
            f"`--address` must be that of a running Ray cluster. Received: {address} ({problem})."
        ) from None


@contextmanager
def _failures_named() -> Iterator[None]:
    """Errors of Ray itself, such as the loss of the cluster, as errors of the library."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as problem:
        raise RemBertError(f"The cluster cannot be used: {_first_line(problem)}") from problem


def _about(framework: str) -> str:
    """The version of the library on a node; raises if the framework is missing there."""
    try:
        check_framework(framework)
    except MissingDependencyError as problem:
        return str(problem)
    return rembert.__version__


def _check_nodes(framework: str) -> None:
    """Refuse a cluster of which a node cannot run this version of the library.

    Raises:
        InputError: names the node.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for node in ray.nodes():
        if not node["Alive"] or not node["Resources"].get("CPU"):
            continue
        strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        about = ray.remote(num_cpus=0)(_about).options(scheduling_strategy=strategy)
        try:
            found = ray.get(about.remote(framework), timeout=_PROBE_SECONDS)
        except RayError as problem:
            if not any(each["Alive"] for each in ray.nodes() if each["NodeID"] == node["NodeID"]):
                continue  # lost since the list was made
            found = f"none ({_first_line(problem)})"
        if found != rembert.__version__:
            raise InputError(
                f"Every node must have rembert {rembert.__version__} and the framework {framework} for Python "
                f"{platform.python_version()}. Received: {found} on the node {node['NodeManagerAddress']}."
            )


def _add(total: Report, found: Report) -> None:
    total.examples += found.examples
    total.skipped += found.skipped
    total.truncated += found.truncated
    total.counts += found.counts
    total.reasons = [*total.reasons, *found.reasons][:_REASONS]


def _error(name: str, text: str) -> RemBertError:
    """The error of a worker, of its class where a text is enough to make one."""
    kind = getattr(errors, name)
    return RemBertError(text) if kind is MissingDependencyError else kind(text)


def _first_line(problem: BaseException) -> str:
    """The last line of a traceback, which Ray may begin with its task, or the first of another message."""
    lines = [line for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    is_traceback = "Traceback" in str(problem) or "ray::" in lines[0]
    return f"{(lines[-1] if is_traceback else lines[0]).strip():.300}"

"""Settings of the whole suite: quiet frameworks on two CPU threads, and how long hypothesis searches."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Read when a framework is first imported, so they are set before any test module is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its kernels round differently from one processor to another
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tolerances are those of a CPU: a GPU may round to TF32
_threads = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"  # two workers, or two threads
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, _threads)

with suppress(ImportError):  # Triton 3.8 crashes when it is loaded after TensorFlow
    import_module("triton")

pytest.register_assert_rewrite("tests.frameworks", "tests.heads")  # they compare for the tests

# The first call of a framework takes seconds, so an example has no deadline. Choose a profile with
# `--hypothesis-profile`; the default one is repeatable and short, `slow` searches at random.
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "default", max_examples=20, deadline=None, derandomize=True, suppress_health_check=_QUIET, print_blob=True
)
settings.register_profile("slow", deadline=None, suppress_health_check=_QUIET, print_blob=True)
settings.load_profile("default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Give each process neighbouring tests: they share models and traces, which would be made in every process."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)

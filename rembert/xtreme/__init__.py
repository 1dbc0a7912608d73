"""The benchmark XTREME (Hu et al., ICML 2020) from its files to the table of RemBERT's paper. Loads no framework."""

from __future__ import annotations

from rembert.xtreme.benchmark import BENCHMARK, TRAINING_SETS, chosen_languages, chosen_tasks
from rembert.xtreme.report import summary
from rembert.xtreme.running import run_xtreme
from rembert.xtreme.scoring import score, score_file

__all__ = [
    "BENCHMARK",
    "TRAINING_SETS",
    "chosen_languages",
    "chosen_tasks",
    "run_xtreme",
    "score",
    "score_file",
    "summary",
]

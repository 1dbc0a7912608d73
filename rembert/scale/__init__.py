"""Models over data on many machines: functions for Ray Data, `datasets` and Spark, and the runs of commands on Ray."""

from rembert.scale.functions import Embed, Predict, Score

__all__ = ["Embed", "Predict", "Score"]

"""How far the slow searches at random go: samples that end in minutes, or as far as the environment says."""

from __future__ import annotations

import os

KILLS = int(os.environ.get("REMBERT_KILLS", "3"))  # of each command
DAMAGED = int(os.environ.get("REMBERT_DAMAGED", "60"))  # inputs of each family
EXAMPLES = int(os.environ.get("REMBERT_EXAMPLES", "60"))  # pairs of a configuration and an input

"""Record the sentences that XTREME's baseline finds among random vectors, for `tests/xtreme/test_retrieval.py`.

Run it on a clone of google-research/xtreme in a virtual environment of its own:

    environment/bin/python -m pip install numpy faiss-cpu
    environment/bin/python tools/record_xtreme_retrieval.py CLONE tests/fixtures/xtreme/retrieval.json
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SEED, WIDTH, SOURCES, TARGETS, SHARED = 31, 6, 24, 20, 12


def main(clone: Path, target: Path) -> None:
    warnings.simplefilter("ignore")  # Python's own, of the clone's code
    sys.path.insert(0, str(clone / "third_party"))
    import utils_retrieve as official  # type: ignore[import-not-found]

    rng = np.random.default_rng(SEED)
    one = rng.normal(size=(SOURCES, WIDTH)).round(3)
    other = rng.normal(size=(TARGETS, WIDTH)).round(3)
    other[:SHARED] = (one[:SHARED] + rng.normal(scale=0.4, size=(SHARED, WIDTH))).round(3)
    x, y = (values.astype(np.float32) for values in (one, other))
    found = official.similarity_search(x.copy(), y.copy(), WIDTH, normalize=True)[:, 0]
    with tempfile.TemporaryDirectory() as root:
        paths = {
            name: str(Path(root, name)) for name in ("one", "other", "one.id", "other.id", "mined", "gold", "out")
        }
        for name, count in (("one", SOURCES), ("other", TARGETS)):
            Path(paths[name]).write_text("".join(f"{name} {number}\n" for number in range(count)))
            Path(paths[f"{name}.id"]).write_text("".join(f"{name}-{number}\n" for number in range(count)))
        Path(paths["gold"]).write_text("".join(f"one-{number}\tother-{number}\n" for number in range(SHARED)))
        official.mine_bitext(x.copy(), y.copy(), paths["one"], paths["other"], paths["mined"], dist="cosine")
        rows = [line.split("\t") for line in Path(paths["mined"]).read_text().splitlines()]
        texts = (paths["one"], paths["other"], paths["one.id"], paths["other.id"])
        best = official.bucc_eval(paths["mined"], paths["gold"], *texts, None)
    content: dict[str, Any] = {
        "made_by": f"tools/record_xtreme_retrieval.py, seed {SEED}",
        "one": one.tolist(),
        "other": other.tolist(),
        "nearest": found.tolist(),
        "mined": [[int(left.split()[1]), int(right.split()[1]), float(score)] for score, left, right in rows],
        "shared": SHARED,
        "threshold": best["best-threshold"],
        "f1": best["F1"],
    }
    target.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Two checkpoints on the same inputs: the library function behind `rembert verify` and `rembert convert --verify`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.bridge import open_checkpoint, save_checkpoint
from rembert.common.errors import CheckpointError, InputError
from rembert.tasks.verification import verify
from tests.frameworks import needs_a_framework, needs_pt, needs_tf

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"


def _changed(directory: Path, name: str, **changes: float) -> Path:
    """A golden checkpoint with a number added to parameters."""
    with open_checkpoint(GOLDEN / name) as checkpoint:
        weights = {each: np.array(checkpoint.read(each)) for each in checkpoint.tensors}
        for parameter, number in changes.items():
            weights[parameter] += np.float32(number)
        assert checkpoint.config is not None
        save_checkpoint(directory, weights, checkpoint.config)
    return directory


@needs_pt
@needs_tf
def test_frameworks_and_outputs_are_reported() -> None:
    found = verify(GOLDEN / "question_answering", GOLDEN / "question_answering" / "tf_model.h5", tolerance=1e-5)
    assert [side.framework for side in found.sides] == ["pt", "tf"]
    assert {side.head for side in found.sides} == {"question-answering"}
    assert list(found.differences) == ["loss", "start_logits", "end_logits"]
    assert not found.failed
    assert not found.compares_encoders


@needs_pt
def test_a_changed_weight_changes_what_depends_on_it(tmp_path: Path) -> None:
    changed = _changed(tmp_path, "token_classification", **{"classifier.bias": 0.01})
    found = verify(GOLDEN / "token_classification", changed, frameworks=("pt", "pt"))
    assert found.failed == ["logits"]  # a softmax does not see what is added to all classes alike
    assert found.differences["logits"].largest == pytest.approx(0.01, rel=1e-3)


@needs_pt
def test_the_seed_decides_the_inputs() -> None:
    scales = [
        verify(GOLDEN / "model", GOLDEN / "model", frameworks=("pt", "pt"), seed=seed)
        .differences["pooler_output"]
        .scale
        for seed in (0, 0, 1)
    ]
    assert scales[0] == scales[1] != scales[2]


@needs_a_framework
def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`tolerance` must be .*Received: `tolerance=-1`"):
        verify(GOLDEN / "model", GOLDEN / "model", tolerance=-1)
    with pytest.raises(InputError, match="`framework` must be one of pt, tf"):
        verify(GOLDEN / "model", GOLDEN / "model", frameworks=("jax", "jax"))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        verify(GOLDEN / "model", tmp_path)

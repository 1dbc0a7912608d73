"""The checks of a checkpoint before a model takes it; `tests/parity/test_checkpoints.py` runs them with models."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from rembert import RemBertConfig
from rembert.bridge.loading import open_stored
from rembert.common.errors import CheckpointError, ConfigError
from rembert.common.keywords import HubOptions
from rembert.common.loading import check_exact_match, check_match, loading_config
from rembert.common.name_matching import Match, match
from rembert.common.parameters import parameters
from tests.bridge.support import GOLDEN
from tests.frameworks import small_config

TABLE = parameters(small_config(), "token-classification")
SHAPES = {name: parameter.shape for name, parameter in TABLE.items()}
NAMES: dict[str, Any] = {"source": "here", "model": "RemBertForTokenClassification"}


def _matched(**changes: tuple[int, ...] | None) -> Match:
    """The match of a checkpoint with tensors of other shapes, or without those that are None."""
    return match(TABLE, {name: shape for name, shape in {**SHAPES, **changes}.items() if shape is not None})


def _check(found: Match, **settings: bool) -> dict[str, list[Any]]:
    settings = {"ignore_mismatched_sizes": False, "report_only": False, **settings}
    return check_match(found, head="token-classification", **NAMES, **settings)


@pytest.mark.parametrize("report_only", [True, False])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 1000, r"has \d layers\. Received: `num_hidden_layers=1000`"),
        ("vocab_size", 2**31 - 1, "at most 4294967296 numbers. Received: `vocab_size=2147483647` and `input_emb"),
        ("hidden_size", 2**30, "at most 4294967296 numbers. Received: `hidden_size=1073741824` and `hidden_size"),
        ("intermediate_size", 2**31 - 1, "`intermediate_size=2147483647`"),
        ("max_position_embeddings", 2**31 - 1, "Received: `max_position_embeddings=2147483647`"),
    ],
)
def test_sizes_that_no_model_has_are_refused_before_one_is_built(
    key: str, value: int, message: str, report_only: bool
) -> None:
    """Here begins `from_pretrained` of both frameworks, also with `output_loading_info=True`."""
    overrides: dict[str, Any] = {key: value}
    options: dict[str, Any] = {"config": None, "tensors": None, "key_mapping": None, "report_only": report_only}
    with (
        pytest.raises(CheckpointError, match=message),
        open_stored(GOLDEN / "model", HubOptions(), overrides=overrides, **options),
    ):
        pass


def test_complete_checkpoints_give_an_empty_report() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _check(_matched()) == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    check_exact_match(_matched(), **NAMES)


def test_missing_heads_are_named_in_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"newly initialised: classifier\.weight\. Train .* not used .*qa_outputs\.bias"
    ):
        report = _check(_matched(**{"classifier.weight": None, "qa_outputs.bias": (2,)}))
    assert report["missing_keys"] == ["classifier.weight"]
    assert report["unexpected_keys"] == ["qa_outputs.bias"]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("rembert.embeddings.LayerNorm.bias", None, r"Missing \(1\): rembert\.embeddings\.LayerNorm\.bias\."),
        ("lm_head.weight", (3,), r"Unexpected \(1\): lm_head\.weight\."),
        ("classifier.bias", (9,), r"With another shape \(1\): classifier\.bias \[9\] \(the model has \[5\]\)\. Pass"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^here does not fit RemBertForTokenClassification. {message}"):
        _check(_matched(**{name: shape}))
    report = _check(_matched(**{name: shape}), ignore_mismatched_sizes=True, report_only=True)
    assert [len(names) for names in report.values()] == [shape is None, shape == (3,), shape == (9,)]


def test_exact_matches_allow_no_other_tensor() -> None:
    with pytest.raises(CheckpointError, match=r"Not in the model \(1\): rembert\.pooler\.dense\.bias"):
        check_exact_match(_matched(**{"rembert.pooler.dense.bias": (12,)}), **NAMES)


def test_long_lists_are_shortened() -> None:
    many = {f"odd.{number}": (1,) for number in range(15)}
    with pytest.raises(CheckpointError, match=r"odd\.11 and 3 more\.$"):
        _check(_matched(**many))


def test_configuration_is_the_given_one_with_overrides() -> None:
    stored, given = small_config(), small_config(num_labels=3)
    assert loading_config(stored, None, {}, "here") == stored
    assert loading_config(stored, given, {"hidden_act": "relu"}, "here").hidden_act == "relu"
    assert loading_config(stored, given, {}, "here").num_labels == 3
    assert given == small_config(num_labels=3)
    with pytest.raises(ConfigError, match="here has no configuration"):
        loading_config(None, None, {}, "here")
    with pytest.raises(TypeError, match="'hidden_sizes'"):
        loading_config(RemBertConfig(), None, {"hidden_sizes": 3}, "here")

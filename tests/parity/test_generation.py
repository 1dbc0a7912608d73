"""Generation in both frameworks: the goldens, decoding without a cache, each other, and what must be refused."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from tests.frameworks import GOLDEN, PT, TF, Framework, on_both, on_both_tf_slow
from tests.parity.cases import CASES, build

CROSS = next(case for case in CASES if case.name == "causal_lm_cross")


@cache
def _golden(framework: Framework) -> Any:
    return framework.load(GOLDEN / "causal_lm", "causal-lm")


@cache
def _crossed(framework: Framework) -> Any:
    return build(framework, CROSS, CROSS.config(), dtype="float64")


def _prompts(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three prompts, padded on the left with an arbitrary token."""
    numbers = np.random.default_rng(seed)
    mask = (np.arange(6) >= np.array([[2], [0], [4]])).astype(np.int64)
    return np.where(mask == 1, numbers.integers(1, 160, mask.shape), 0), mask


def _generate(framework: Framework, model: Any, *inputs: np.ndarray, **settings: Any) -> list:
    settings = {name: framework.tensor(value) for name, value in settings.items()}
    return framework.array(model.generate(*map(framework.tensor, inputs), **settings)).tolist()


@on_both
@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beam3", 3)])
def test_goldens(framework: Framework, name: str, beams: int) -> None:
    with np.load(GOLDEN / "causal_lm" / "expected.npz") as file:
        prompt, wanted = file["gen.prompt"], file[f"gen.{name}"]
    assert _generate(framework, _golden(framework), prompt, max_new_tokens=12, num_beams=beams) == wanted.tolist()


WAYS = [
    {},
    {"repetition_penalty": 1.5, "eos_token_id": [10, 97]},
    {"num_beams": 3, "eos_token_id": 97, "pad_token_id": 7, "early_stopping": True, "length_penalty": 2.0},
]
LONG_WAY = {"num_beams": 2, "eos_token_id": [10, 97], "early_stopping": "never", "repetition_penalty": 1.2}


@pytest.mark.parametrize("way", [*WAYS, pytest.param(LONG_WAY, marks=pytest.mark.slow)], ids=str)
def test_the_frameworks_agree(way: dict[str, Any]) -> None:
    pytest.importorskip("torch"), pytest.importorskip("keras")
    for seed in range(3):
        one, other = (_generate(each, _golden(each), *_prompts(seed), max_new_tokens=9, **way) for each in (PT, TF))
        assert one == other


@on_both
def test_padding_on_the_left_changes_nothing(framework: Framework) -> None:
    ids, mask = _prompts()
    together = _generate(framework, _golden(framework), ids, mask, max_new_tokens=5, eos_token_id=None)
    for row, start in enumerate((2, 0, 4)):
        alone = _generate(
            framework, _golden(framework), ids[row : row + 1, start:], max_new_tokens=5, eos_token_id=None
        )
        assert together[row][start:] == alone[0]


@on_both
@pytest.mark.parametrize("masked", [False, True])
def test_no_texts(framework: Framework, masked: bool) -> None:
    ids = framework.tensor(np.zeros((0, 4), np.int64))
    new = framework.array(_golden(framework).generate(ids, **({"attention_mask": ids} if masked else {})))
    assert new.shape == (0, 4)


@on_both_tf_slow
def test_a_source_is_attended_to_as_without_a_cache(framework: Framework) -> None:
    model, config = _crossed(framework), CROSS.config()
    inputs = CROSS.inputs(config)
    source = {name: inputs[name] for name in ("encoder_hidden_states", "encoder_attention_mask")}
    ids = inputs["input_ids"][:, :4]
    tokens = ids
    for _ in range(6):
        logits = framework.array(framework.call(model, input_ids=tokens, **source, use_cache=False).logits)
        tokens = np.concatenate([tokens, logits[:, -1:].argmax(-1)], axis=1)
    assert _generate(framework, model, ids, max_new_tokens=6, **source) == tokens.tolist()
    # A search with as many beams as there are texts of two new tokens finds the best of all of them.
    wanted = []
    for row in range(2):
        part = {name: array[row : row + 1] for name, array in source.items()}
        first = framework.call(model, input_ids=ids[row : row + 1], **part).logits
        several = {name: array.repeat(61, 0) for name, array in part.items()}
        longer = np.concatenate([ids[row : row + 1].repeat(61, 0), np.arange(61)[:, None]], 1)
        second = framework.call(model, input_ids=longer, **several).logits

        def logarithms(logits: Any) -> np.ndarray:
            last = framework.array(logits)[:, -1]
            return last - np.log(np.exp(last).sum(-1, keepdims=True))

        best = np.unravel_index((logarithms(first).T + logarithms(second)).argmax(), (61, 61))
        wanted.append([*ids[row].tolist(), *map(int, best)])
    searched = {name: array[:2] for name, array in source.items()}
    found = _generate(framework, model, ids[:2], max_new_tokens=2, num_beams=61, eos_token_id=None, **searched)
    assert found == wanted


@on_both_tf_slow
def test_ends(framework: Framework) -> None:
    ids, mask = _prompts()
    model = _golden(framework)
    free = _generate(framework, model, ids, mask, max_new_tokens=8, eos_token_id=None)
    assert all(len(row) == 14 for row in free)
    end = free[1][8]
    stopped = _generate(framework, model, ids, mask, max_new_tokens=8, eos_token_id=end, pad_token_id=5)
    for row, whole in zip(stopped, free, strict=True):
        new = whole[6:]
        count = new.index(end) + 1 if end in new else len(new)
        assert row[6:] == (new[:count] + [5] * 8)[: len(row) - 6]
    # A padding token that the model generates ends nothing and is attended to.
    padded = _generate(framework, model, ids, mask, max_new_tokens=8, eos_token_id=None, pad_token_id=free[1][7])
    assert padded == free


@on_both_tf_slow
def test_draws(framework: Framework) -> None:
    ids, mask = _prompts()
    model = _golden(framework)
    settings = {"max_new_tokens": 6, "do_sample": True, "eos_token_id": None}
    one = _generate(framework, model, ids, mask, seed=3, **settings)
    assert one == _generate(framework, model, ids, mask, seed=3, **settings)
    assert one != _generate(framework, model, ids, mask, seed=4, **settings)
    greedy = _generate(framework, model, ids, mask, max_new_tokens=6, eos_token_id=None)
    # With one token to draw from, sampling is greedy.
    for limit in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6, "top_k": 0}):
        assert _generate(framework, model, ids, mask, seed=0, **settings, **limit) == greedy
    beams = _generate(framework, model, ids, mask, seed=0, num_beams=2, **settings)
    assert beams == _generate(framework, model, ids, mask, seed=0, num_beams=2, **settings)


@on_both_tf_slow
def test_draws_follow_the_probabilities(framework: Framework) -> None:
    """One token after the same prompt, many times: frequencies against the model's own probabilities."""
    model, count = _golden(framework), 4000
    ids = np.array([[11, 54, 85]])
    logits = framework.array(framework.call(model, input_ids=ids).logits)[0, -1].astype(np.float64) / 0.7
    order = logits.argsort()[::-1][:5]  # top_k
    probabilities = np.exp(logits[order] - logits[order].max())
    probabilities /= probabilities.sum()
    kept = np.concatenate([[0], probabilities.cumsum()[:-1]]) < 0.8  # top_p
    wanted = np.where(kept, probabilities, 0) / probabilities[kept].sum()
    drawn = _generate(
        framework, model, ids.repeat(count, 0), max_new_tokens=1, do_sample=True, temperature=0.7, top_k=5, top_p=0.8,
        seed=1,
    )  # fmt: skip
    found = np.array([sum(row[-1] == token for row in drawn) for token in order]) / count
    assert found.sum() == 1
    np.testing.assert_allclose(found, wanted, atol=4 * 0.5 / count**0.5)  # four deviations


@on_both
def test_a_streamer_is_called_in_every_step(framework: Framework) -> None:
    ids, mask = _prompts()
    heard: list = []
    tokens = _generate(
        framework, _golden(framework), ids, mask, max_new_tokens=4, eos_token_id=None,
        streamer=lambda chosen: heard.append(framework.array(chosen).tolist()),
    )  # fmt: skip
    assert np.array(heard).T.tolist() == [row[6:] for row in tokens]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no new tokens": ({"max_new_tokens": 0}, "`max_new_tokens=0`"),
    "no beams": ({"num_beams": 0}, "`num_beams=0`"),
    "cold": ({"temperature": 0.0}, "`temperature=0.0`"),
    "top_k": ({"top_k": -1}, "`top_k=-1`"),
    "top_p": ({"top_p": 1.5}, "`top_p=1.5`"),
    "penalty": ({"repetition_penalty": 0}, "`repetition_penalty=0`"),
    "stopping": ({"early_stopping": "soon"}, "`early_stopping='soon'`"),
    "end": ({"eos_token_id": 160}, r"from 0 to 159.*`eos_token_id=160`"),
    "ends": ({"eos_token_id": [3, -1]}, "`eos_token_id=-1`"),
    "pad": ({"pad_token_id": 160}, "`pad_token_id=160`"),
    "stream of beams": ({"num_beams": 2, "streamer": print}, "`streamer`.*`num_beams=2`"),
    "too long": ({"max_new_tokens": 36}, "`max_position_embeddings=40`.*5 tokens.*36 new ones.*`max_new_tokens`"),
    "padding at the end": ({"attention_mask": np.array([[1, 1, 1, 1, 0]])}, "padded on the left"),
    "mask of pairs": ({"attention_mask": np.ones((1, 5, 5))}, r"\[1, 5, 5\]"),
    "mask of another length": ({"attention_mask": np.ones((1, 4))}, r"`attention_mask`.*\[1, 4\]"),
    "mask and something else than a tensor": (
        {"attention_mask": np.ones((1, 5)), "input_ids": [[1, 2, 3, 4, 5]]},
        "`input_ids` must be a",
    ),
    "source without cross-attention": ({"encoder_hidden_states": np.ones((1, 2, 32), np.float32)}, "cross-attention"),
}


@on_both
@pytest.mark.parametrize("name", REFUSED)
def test_invalid_arguments_are_refused(framework: Framework, name: str) -> None:
    settings, says = REFUSED[name]
    with pytest.raises(InputError, match=says):
        _generate(framework, _golden(framework), **{"input_ids": np.ones((1, 5), np.int64), **settings})


@on_both
def test_a_mask_of_pairs_with_the_source_is_refused(framework: Framework) -> None:
    """It would speak of the prompt's tokens alone."""
    source = {"encoder_hidden_states": np.ones((1, 2, 12), np.float32), "encoder_attention_mask": np.ones((1, 5, 2))}
    with pytest.raises(InputError, match=r"`encoder_attention_mask`.*3 dimensions"):
        _generate(framework, _crossed(framework), np.ones((1, 5), np.int64), **source)


@on_both
def test_ends_as_an_array_or_a_tensor(framework: Framework) -> None:
    ids = _prompts()[0]
    wanted = _generate(framework, _golden(framework), ids, eos_token_id=[10, 97])
    for ends in (np.array([10, 97]), framework.tensor(np.array([10, 97]))):
        assert _generate(framework, _golden(framework), ids, eos_token_id=ends) == wanted


@on_both
def test_an_encoder_does_not_generate(framework: Framework) -> None:
    with pytest.warns(UserWarning, match="is_decoder"):
        model = framework.build(CASES[0].config(), "causal-lm")
    with pytest.raises(InputError, match="`is_decoder=False`"):
        _generate(framework, model, np.ones((1, 5), np.int64))

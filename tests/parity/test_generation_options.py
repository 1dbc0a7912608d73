"""The options of `generate` that come from transformers: its own tokens, in both frameworks."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from rembert import BatchEncoding, RemBertTokenizer
from rembert.common.errors import InputError, KeywordError
from tests.common.tokenizer_cases import MODEL
from tests.frameworks import GOLDEN, PT, TF, Framework, needs_pt, needs_tf, on_both, on_both_tf_slow
from tests.parity.test_generation import _generate, _golden

# Recorded with the greedy search and the beam search of transformers' RemBertForCausalLM, on the weights beside it.
RECORDED = json.loads((GOLDEN / "causal_lm" / "generated.json").read_text("utf-8"))
QUICK = ("ngrams", "functions in beams", "min_length")  # in TensorFlow; the others in the slow part
IDS, MASK = (np.array(RECORDED[name]) for name in ("input_ids", "attention_mask"))


class Functions:
    """What the recorded `functions` cases used: only odd tokens, none twice in a row, an end after a multiple of 7."""

    def __init__(self, framework: Framework) -> None:
        self.framework = framework

    def process(self, texts: Any, scores: Any) -> Any:
        changed = self.framework.array(scores).copy()
        changed[:, ::2] = -np.inf
        np.put_along_axis(changed, self.framework.array(texts)[:, -1:], -np.inf, 1)
        return self.framework.tensor(changed)

    def stop(self, texts: Any, scores: None) -> Any:
        return self.framework.tensor(self.framework.array(texts)[:, -1] % 7 == 0)


@pytest.mark.parametrize(
    ("framework", "name"),
    [pytest.param(PT, name, id=f"{name}-pt", marks=needs_pt) for name in RECORDED["cases"]]
    + [
        pytest.param(TF, name, id=f"{name}-tf", marks=[needs_tf, *([] if name in QUICK else [pytest.mark.slow])])
        for name in RECORDED["cases"]
    ],
)
def test_options_give_the_tokens_of_transformers(framework: Framework, name: str) -> None:
    case = RECORDED["cases"][name]
    options = {key: np.array(value) if key == "token_type_ids" else value for key, value in case["options"].items()}
    if name.startswith("functions"):
        functions = Functions(framework)
        options |= {"logits_processor": [functions.process], "stopping_criteria": [functions.stop]}
    assert _generate(framework, _golden(framework), IDS, MASK, **options) == case["tokens"]


@on_both
def test_a_whole_batch_of_a_tokenizer(framework: Framework) -> None:
    case = RECORDED["cases"]["types"]
    columns = {"input_ids": IDS, "token_type_ids": np.array(case["options"]["token_type_ids"]), "attention_mask": MASK}
    batch = BatchEncoding({name: framework.tensor(values) for name, values in columns.items()})
    model = _golden(framework)
    tokens = framework.array(model.generate(**batch, eos_token_id=None, pad_token_id=0))
    assert tokens.tolist() == case["tokens"]
    without = _generate(framework, model, inputs=IDS, attention_mask=MASK, eos_token_id=None)
    assert without != case["tokens"]  # the types matter
    assert without == _generate(framework, model, IDS, MASK, eos_token_id=None, generation_config=None)


@on_both_tf_slow
def test_several_samples_of_a_prompt_follow_each_other(framework: Framework) -> None:
    model, settings = _golden(framework), {"max_new_tokens": 5, "eos_token_id": None}
    greedy = _generate(framework, model, IDS, MASK, **settings)
    sampled = {"do_sample": True, "num_return_sequences": 3, "seed": 1, **settings}
    assert _generate(framework, model, IDS, MASK, top_k=1, **sampled) == [row for row in greedy for _ in range(3)]
    rows = _generate(framework, model, IDS, MASK, **sampled)
    assert [row[:6] for row in rows] == IDS.repeat(3, 0).tolist()
    assert rows[0] != rows[1] or rows[1] != rows[2]


@on_both
def test_none_asks_for_the_defaults(framework: Framework) -> None:
    names = ("num_beams", "do_sample", "temperature", "repetition_penalty", "length_penalty", "num_return_sequences")
    model, settings = _golden(framework), {"max_new_tokens": 3, "eos_token_id": None}
    tokens = _generate(framework, model, IDS, MASK, **settings, **dict.fromkeys((*names, "early_stopping")))
    assert tokens == _generate(framework, model, IDS, MASK, **settings)


class Heard:
    """A streamer with the methods of transformers'."""

    def __init__(self) -> None:
        self.values: list[list] = []
        self.ended = 0

    def put(self, value: Any) -> None:
        self.values.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@on_both
def test_a_streamer_with_put_and_end(framework: Framework, capsys: pytest.CaptureFixture[str]) -> None:
    model, heard = _golden(framework), Heard()
    settings = {"max_new_tokens": 4, "eos_token_id": None}
    [tokens] = _generate(framework, model, IDS[1:2], streamer=heard, **settings)
    assert heard.values == [[tokens[:6]], *([token] for token in tokens[6:])]
    assert heard.ended == 1
    streamers = pytest.importorskip("transformers")
    tokenizer = RemBertTokenizer(MODEL)
    _generate(framework, model, IDS[1:2], streamer=streamers.TextStreamer(tokenizer, skip_prompt=True), **settings)
    assert capsys.readouterr().out == tokenizer.decode(tokens[6:]) + "\n"


@on_both_tf_slow
def test_functions_change_from_call_to_call(framework: Framework) -> None:
    """A graph that was traced with other functions calls those of the present call."""
    model, settings = _golden(framework), {"max_new_tokens": 3, "eos_token_id": None}

    def always(token: int) -> Any:
        def process(texts: Any, scores: Any) -> Any:
            return framework.tensor(np.where(np.arange(160) == token, 0.0, -1e4) + 0 * framework.array(scores))

        return process

    for token in (7, 9):
        rows = _generate(framework, model, IDS, MASK, logits_processor=always(token), **settings)
        assert [row[6:] for row in rows] == [[token] * 3] * 3
    counts = [len(_generate(framework, model, IDS, MASK, stopping_criteria=lambda texts, scores, at=at:
              bool(texts.shape[1] >= at), **settings)[0]) for at in (7, 8)]  # fmt: skip
    assert counts == [7, 8]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no prompt": ({"input_ids": None}, InputError, "as `inputs`. Received: neither"),
    "two prompts": ({"inputs": np.ones((1, 5), np.int64)}, InputError, "as `inputs`. Received: both"),
    "copies of one search": ({"num_return_sequences": 2}, InputError, "`num_return_sequences=2` and `num_beams=1`"),
    "more than beams": ({"num_return_sequences": 3, "num_beams": 2}, InputError, "`num_beams=2`"),
    "none returned": ({"num_return_sequences": 0}, InputError, "`num_return_sequences=0`"),
    "max_length": ({"max_length": 5}, InputError, "more than its 5 tokens. Received: `max_length=5`"),
    "minimum": ({"min_new_tokens": 9, "max_new_tokens": 8}, InputError, "Received: 9 and 8"),
    "ngrams": ({"no_repeat_ngram_size": -1}, InputError, "`no_repeat_ngram_size=-1`"),
    "cache": ({"use_cache": "no"}, InputError, "`use_cache='no'`"),
    "processor": ({"logits_processor": ["x"]}, InputError, "`logits_processor` must be functions"),
    "criterion": ({"stopping_criteria": 3}, InputError, "`stopping_criteria` must be functions"),
    "streamer": ({"streamer": 3}, InputError, "`streamer` must be a function"),
    "types": ({"token_type_ids": np.full((1, 5), 9)}, InputError, "`token_type_ids`"),
    "types of another shape": ({"token_type_ids": np.ones((1, 4), np.int64)}, InputError, "`token_type_ids`"),
    "plug-in": ({"penalty_alpha": 0.6}, KeywordError, "`penalty_alpha` here.*`import rembert.transformers`"),
    "configuration": ({"generation_config": object()}, KeywordError, "`import rembert.transformers`"),
    "misspelt": ({"max_new_token": 3}, KeywordError, "no argument `max_new_token`.*mean `max_new_tokens`"),
}


@on_both
@pytest.mark.parametrize("name", REFUSED)
def test_refused(framework: Framework, name: str) -> None:
    settings, error, says = REFUSED[name]
    prompt = framework.tensor(np.ones((1, 5), np.int64))
    given = {key: framework.tensor(value) for key, value in settings.items()}
    with pytest.raises(error, match=says):
        _golden(framework).generate(**{"input_ids": prompt, **given})


@on_both
def test_both_lengths(framework: Framework) -> None:
    with pytest.warns(UserWarning, match="`max_new_tokens=2` and `max_length=9` are both given"):
        rows = _generate(framework, _golden(framework), IDS, MASK, max_new_tokens=2, max_length=9, eos_token_id=None)
    assert len(rows[0]) == 8


@on_both
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"20 new ones.*smaller `max_new_tokens` \(by default 20\)"),
        ({"max_length": 600}, "595 new ones"),
        ({"min_new_tokens": 25}, r"Received: 25 and 20\."),
        ({"min_length": 9, "max_new_tokens": 2}, r"Received: 4 and 2\."),
    ],
)
def test_a_default_is_not_quoted_as_an_argument_that_was_not_given(
    framework: Framework, settings: dict[str, int], says: str
) -> None:
    length = 5 if settings else 35  # of 40 positions
    with pytest.raises(InputError, match=says) as caught:
        _golden(framework).generate(framework.tensor(np.ones((1, length), np.int64)), **settings)
    assert not re.search(r"`m\w+_(new_tokens|length)=", str(caught.value))


@on_both
def test_warnings_point_at_the_line_of_the_caller(framework: Framework) -> None:
    model = _golden(framework)
    prompt = framework.tensor(np.ones((1, 5), np.int64))
    with pytest.warns(UserWarning, match="both given") as caught:
        model.generate(prompt, max_new_tokens=1, max_length=9)
    with pytest.warns(UserWarning, match="attends in both directions") as also:
        framework.model_class("masked-lm").from_config(model.config)
    assert [each.filename for each in [*caught, *also]] == [__file__] * 2

"""Padding, truncation, windows, tensors and the parts of a call."""

from __future__ import annotations

import importlib.util
import pickle
from typing import Any

import numpy as np
import pytest

from rembert import RemBertTokenizer
from rembert.common.errors import InputError, KeywordError, MissingDependencyError
from rembert.common.tokenization import BatchEncoding
from rembert.common.tokenization.padding import UNLIMITED
from tests.common.tokenizer_cases import MODEL

NUMBERS = "one two three four five six seven eight nine ten"  # 20 tokens


def test_values_are_plain_lists_of_int(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer(["a b", "c"], return_special_tokens_mask=True)
    assert list(result) == ["input_ids", "token_type_ids", "attention_mask", "special_tokens_mask"]
    for rows in result.values():
        assert type(rows) is list
        assert {type(value) for row in rows for value in row} == {int}
    assert result["attention_mask"][0] is not result["attention_mask"][1]


def test_batches_of_pairs_have_two_forms(tokenizer: RemBertTokenizer) -> None:
    expected = tokenizer(["a", "b"], ["c", "d e"])
    assert tokenizer([("a", "c"), ["b", "d e"]]) == expected
    assert tokenizer.batch_encode_plus([("a", "c"), ("b", "d e")]) == expected
    assert tokenizer([["a", "x y"], ["b", "c"]], is_split_into_words=True)["input_ids"][0] == tokenizer.encode("a x y")


def test_single_pair_of_word_lists(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer(["a", "b"], ["c"], is_split_into_words=True)
    assert result["input_ids"] == tokenizer("a b", "c")["input_ids"]
    assert result.word_ids() == [None, 0, 1, None, 0, None]


def test_empty_batch(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer([]) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    assert tokenizer([], return_overflowing_tokens=True)["overflow_to_sample_mapping"] == []


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({}, [3, 8]),
        ({"padding": True}, [8, 8]),
        ({"padding": "longest"}, [8, 8]),
        ({"padding": "do_not_pad"}, [3, 8]),
        ({"padding": "max_length", "max_length": 10}, [10, 10]),
        ({"padding": "max_length", "max_length": 5}, [5, 8]),
        ({"padding": "max_length", "max_length": 5, "truncation": True}, [5, 5]),
        ({"padding": True, "max_length": 20}, [8, 8]),
        ({"padding": True, "pad_to_multiple_of": 5}, [10, 10]),
        ({"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4}, [12, 12]),
        ({"pad_to_multiple_of": 16}, [3, 8]),
        ({"max_length": 6}, [3, 6]),  # truncation follows from `max_length` alone
        ({"max_length": 6, "truncation": False}, [3, 8]),
    ],
)
def test_lengths(tokenizer: RemBertTokenizer, options: dict[str, Any], lengths: list[int]) -> None:
    result = tokenizer(["a", "a b c d e f"], **options)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert list(map(len, result[name])) == lengths, name
    assert [sum(mask) for mask in result["attention_mask"]] == [min(3, lengths[0]), min(8, lengths[1])]


def test_padding_on_the_left(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer(["a", "a b"], padding=True, padding_side="left", return_special_tokens_mask=True,
                       return_offsets_mapping=True, return_length=True)  # fmt: skip
    assert result["input_ids"][0] == [0, 3, 13, 4]
    assert result["attention_mask"][0] == [0, 1, 1, 1]
    assert result["special_tokens_mask"][0] == [1, 1, 0, 1]
    assert result["offset_mapping"][0] == [(0, 0), (0, 0), (0, 1), (0, 0)]
    assert result["length"] == [3, 4]
    assert result.word_ids(0) == [None, None, 0, None]


def test_truncation_on_the_left(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, truncation_side="left")
    ids = tokenizer.encode(NUMBERS, add_special_tokens=False)
    assert tokenizer.encode(NUMBERS, truncation=True, max_length=7) == [3, *ids[-5:], 4]
    windows = tokenizer(NUMBERS, truncation=True, max_length=12, stride=3, return_overflowing_tokens=True)
    assert windows["input_ids"] == [[3, *ids[-10:], 4], [3, *ids[-17:-7], 4], [3, *ids[:-14], 4]]


@pytest.mark.parametrize("stride", [0, 1, 5])
def test_windows_hold_everything_once_but_the_stride(tokenizer: RemBertTokenizer, stride: int) -> None:
    ids = tokenizer.encode(NUMBERS, add_special_tokens=False)
    result = tokenizer(NUMBERS, truncation=True, max_length=10, stride=stride, return_overflowing_tokens=True)
    rows = [row[1:-1] for row in result["input_ids"]]
    assert rows[0] + [index for row in rows[1:] for index in row[stride:]] == ids
    assert all(len(row) == 8 for row in rows[:-1])
    assert result["overflow_to_sample_mapping"] == [0] * len(rows)


def test_windows_when_both_texts_are_cut(tokenizer: RemBertTokenizer) -> None:
    # The rows and their order are those of transformers 4.57.6 with a `tokenizers` backend.
    result = tokenizer(
        "one two", "alpha beta", truncation="longest_first", max_length=7, return_overflowing_tokens=True
    )
    a, b = ([26, 59], [159, 182]), ([197, 1337], [105, 35])
    pairs = [(a[0], b[0]), (a[1], b[0]), (a[1], b[1]), (a[0], b[1])]
    assert result["input_ids"] == [[3, *x, 4, *y, 4] for x, y in pairs]


def test_short_texts_with_windows_are_still_a_batch(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer("a", truncation=True, max_length=10, return_overflowing_tokens=True)
    assert result["input_ids"] == [[3, 13, 4]]
    assert result["overflow_to_sample_mapping"] == [0]


def test_model_max_length(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, model_max_length=6)
    assert len(tokenizer.encode(NUMBERS, truncation=True)) == 6
    assert len(tokenizer.encode("a", padding="max_length")) == 6
    unlimited = tokenizer_class(MODEL)
    with pytest.warns(UserWarning, match="has no effect without `max_length`"):
        assert len(unlimited.encode(NUMBERS, truncation=True)) == 22


@pytest.mark.parametrize("kind", ["np", "pt", "tf"])
def test_tensors(tokenizer: RemBertTokenizer, kind: str) -> None:
    for name in {"pt": ["torch"], "tf": ["tensorflow"]}.get(kind, []):
        pytest.importorskip(name)
    result = tokenizer(
        ["a", "a b"], padding=True, return_tensors=kind, return_offsets_mapping=True, return_length=True
    )
    plain = tokenizer(["a", "a b"], padding=True, return_offsets_mapping=True, return_length=True)
    for name, value in result.items():
        array = value if kind == "np" else value.numpy()
        assert array.dtype == (np.int32 if kind == "tf" else np.int64)
        assert array.tolist() == np.array(plain[name]).tolist()
    assert tokenizer("", return_tensors=kind)["input_ids"].shape == (1, 2)
    assert tokenizer("", return_tensors=kind, add_special_tokens=False)["input_ids"].shape == (1, 0)


def test_to_moves_torch_tensors(tokenizer: RemBertTokenizer) -> None:
    torch = pytest.importorskip("torch")
    result = tokenizer("a", return_tensors="pt")
    result["note"] = "kept"
    assert result.to("meta") is result
    assert result.input_ids.device == torch.device("meta")
    assert result["note"] == "kept"


def test_a_missing_framework_names_the_extra(tokenizer: RemBertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"rembert\[pt\]"):
        tokenizer("a", return_tensors="pt")


def test_pad(tokenizer: RemBertTokenizer) -> None:
    rows = [tokenizer("a"), tokenizer("a b")]
    expected = tokenizer(["a", "a b"], padding=True)
    assert tokenizer.pad(rows) == expected
    assert tokenizer.pad({"input_ids": [[3, 13, 4], [3, 13, 187, 4]]})["attention_mask"] == [[1, 1, 1, 0], [1] * 4]
    assert tokenizer.pad(tokenizer("a"), padding="max_length", max_length=5)["input_ids"] == [3, 13, 4, 0, 0]
    arrays = [{name: np.array(value) for name, value in row.items()} for row in rows]
    assert tokenizer.pad(arrays, return_tensors="np")["input_ids"].tolist() == expected["input_ids"]
    labelled = [{**row, "labels": label} for row, label in zip(rows, (1, 0), strict=True)]
    assert tokenizer.pad(labelled, return_tensors="np")["labels"].tolist() == [1, 0]
    if importlib.util.find_spec("torch"):
        import torch

        tensors = [{"input_ids": torch.tensor(row["input_ids"])} for row in rows]
        assert tokenizer.pad(tensors, pad_to_multiple_of=6)["input_ids"][0] == [3, 13, 4, 0, 0, 0]


@pytest.mark.parametrize("kind", ["pt", "tf"])
def test_decimal_labels_have_the_type_of_the_models(tokenizer: RemBertTokenizer, kind: str) -> None:
    pytest.importorskip({"pt": "torch", "tf": "tensorflow"}[kind])
    rows = [{"input_ids": (3, 4), "labels": 0.5}, {"input_ids": (3, 13, 4), "labels": 1.0}]
    result = tokenizer.pad(rows, return_tensors=kind)
    assert result["labels"].numpy().dtype == np.float32
    assert result["input_ids"].numpy().tolist() == [[3, 4, 0], [3, 13, 4]]


def test_counts_may_be_numpys(tokenizer: RemBertTokenizer) -> None:
    options = {"max_length": np.int64(9), "stride": np.int32(1), "pad_to_multiple_of": np.int64(4)}
    assert tokenizer(NUMBERS, truncation=True, padding="max_length", **options) == tokenizer(
        NUMBERS, truncation=True, padding="max_length", max_length=9, stride=1, pad_to_multiple_of=4
    )


@pytest.mark.parametrize("length", [0, -1, True, "512", 12.5, [3]])
def test_a_bad_model_max_length(tokenizer_class: type[RemBertTokenizer], length: Any) -> None:
    with pytest.raises(InputError, match="`model_max_length` must be an integer of 1 or more"):
        tokenizer_class(MODEL, model_max_length=length)


def test_results_are_dictionaries_with_attributes(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer("a")
    assert isinstance(result, dict)
    assert result.input_ids == [3, 13, 4]
    assert type(result.copy()) is BatchEncoding
    with pytest.raises(AttributeError, match="its keys are"):
        result.inputs  # noqa: B018


def test_parts_of_a_call(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.num_special_tokens_to_add() == 2
    assert tokenizer.num_special_tokens_to_add(pair=True) == 3
    assert tokenizer.get_special_tokens_mask([3, 13, 5, 4, 0], already_has_special_tokens=True) == [1, 0, 1, 1, 1]
    assert tokenizer.tokenize("a", pair="b", add_special_tokens=True) == ["[CLS]", "▁a", "[SEP]", "▁b", "[SEP]"]
    assert tokenizer.encode("a", "b") == [3, 13, 4, 187, 4]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((3,), {}, r"`text` must be a string or a list of strings\. Received: int 3"),
        ((None,), {}, "Received: NoneType None"),
        ((b"x",), {}, "Received: bytes"),
        ((np.array("a"),), {}, "`text` must be a string or a list of strings. Received: ndarray"),
        ((["a", 1],), {}, "`text` must hold strings. Received: int 1 at position 1"),
        ((["a", b"x"],), {}, "Received: bytes b'x' at position 1"),
        (([["a", "b", "c"]],), {}, "is_split_into_words=True"),
        (("a", ["b"]), {}, "`text_pair` must be a string"),
        ((["a"], "b"), {}, "`text_pair` must be a list"),
        ((["a"], ["b", "c"]), {}, "Received: 1 and 2 texts"),
        (("a b",), {"is_split_into_words": True}, "a list of words"),
        (([["a"], "b"],), {"is_split_into_words": True}, r"`text\[1\]` must be a list of words"),
        (([["a", 2]],), {"is_split_into_words": True}, r"`text\[0\]` must hold strings"),
        ((["ok", "a\ud800b"],), {}, r"lone surrogates.* U\+D800 at position 1 of text 1"),
        (("a" * 6000 + "\udfff",), {}, r"U\+DFFF at position 6000"),
        (("a [MASK] \ud83d",), {}, "lone surrogates"),
        (("a",), {"padding": "all"}, "`padding` must be one of True, False"),
        (("a",), {"truncation": "middle"}, "`truncation` must be one of True, False"),
        (("a",), {"padding_side": "top"}, "`padding_side` must be one of left, right"),
        (("a",), {"return_tensors": "jax"}, "one of np, pt, tf, or None. Received: `return_tensors='jax'`"),
        (("a",), {"padding": "max_length"}, "`max_length` must be given for `padding='max_length'`"),
        (("a",), {"padding": True, "pad_to_multiple_of": 0}, "`pad_to_multiple_of` must be an integer of 1 or more"),
        (("a",), {"padding_side": ""}, "one of left, right. Received: `padding_side=''`"),
        (("a",), {"max_length": True}, "`max_length` must be an integer of 1 or more. Received: `max_length=True`"),
        (("a",), {"max_length": 0}, "`max_length` must be an integer of 1 or more"),
        (("a",), {"stride": -1}, "`stride` must be an integer of 0 or more"),
        (("a", "b"), {"max_length": 2}, "must hold the special tokens"),
        ((["a", "a b"],), {"return_tensors": "np"}, "must have one length to be a tensor. Received: 3 to 4 items"),
        (
            (NUMBERS,),
            {"truncation": True, "max_length": 20, "stride": 18, "return_overflowing_tokens": True},
            "here 18. Received: `stride=18` and rows of 20 tokens",
        ),
        (
            (NUMBERS, NUMBERS),
            {"truncation": "only_second", "max_length": 28, "stride": 5, "return_overflowing_tokens": True},
            "text tokens in a row, here 5",
        ),
        ((NUMBERS, "a"), {"truncation": "only_second", "max_length": 10}, "Received: texts of 20 and 1 tokens"),
        (("a", NUMBERS), {"truncation": "only_first", "max_length": 10}, "cannot make the row short enough"),
        ((NUMBERS,), {"truncation": "only_second", "max_length": 10}, "needs a second text"),
        (("a",), {"text_pair_target": "b"}, "`text_pair_target` needs `text_target`"),
    ],
)
def test_bad_calls(tokenizer: RemBertTokenizer, args: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizer(*args, **options)


def test_unknown_arguments_are_refused_under_the_names_of_public_functions(tokenizer: RemBertTokenizer) -> None:
    public = type(tokenizer).__name__
    for method in ("__call__", "encode", "encode_plus", "batch_encode_plus"):
        call, name = getattr(tokenizer, method), rf"^{public}\.{method}\(\)"
        with pytest.raises(KeywordError, match=name + r" got an .*'paddin'. Did you mean `padding`\?"):
            call("a", paddin=True)
        with pytest.raises(KeywordError, match=name + " does not support `split_special_tokens`"):
            call("a", split_special_tokens=True)
        call("a", split_special_tokens=False)
    for name in ("text", "text_pair", "is_split_into_words"):
        with pytest.raises(KeywordError, match=rf"^{public}\.prepare_for_model\(\) .*{name}"):
            tokenizer.prepare_for_model([5], **{name: True})
    assert tokenizer.prepare_for_model([5], is_split_into_words=False)["input_ids"] == [3, 5, 4]


@pytest.mark.parametrize("method", ["__call__", "encode", "tokenize", "pad", "decode", "batch_decode", "add_tokens"])
def test_arguments_of_another_number_are_refused_under_the_public_name(
    tokenizer: RemBertTokenizer, method: str
) -> None:
    with pytest.raises(TypeError, match=rf"^RemBertTokenizer\.{method}\(\) takes"):
        getattr(tokenizer, method)(*range(20))
    function = getattr(type(tokenizer), method)
    assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("options", [{"text_pair": "b"}, {"truncation": "only_second"}])
def test_a_limit_is_not_quoted_as_an_argument_that_was_not_given(fresh: RemBertTokenizer, options: Any) -> None:
    fresh.model_max_length = 2
    with pytest.raises(InputError, match="row") as caught:
        fresh("a", **{"truncation": True, **options})
    assert "max_length=" not in str(caught.value)


def test_warnings_point_at_the_line_of_the_caller(fresh: RemBertTokenizer) -> None:
    calls = [
        lambda: fresh("a b c"),
        lambda: fresh.encode("a b c"),
        lambda: fresh.batch_encode_plus(["a b c"]),
        lambda: fresh.prepare_for_model([5, 6, 7]),
    ]
    fresh.model_max_length = 4
    for call in calls:
        vars(fresh).pop("_warned", None)
        with pytest.warns(UserWarning, match="A row of 5 tokens") as caught:
            call()
        assert [each.filename for each in caught] == [__file__]
    fresh.model_max_length = UNLIMITED
    for name in ("encode", "encode_plus", "__call__"):
        with pytest.warns(UserWarning, match="has no effect without `max_length`") as caught:
            getattr(fresh, name)("a", truncation=True)
        assert [each.filename for each in caught] == [__file__]


def test_a_misspelt_argument_is_refused(tokenizer: RemBertTokenizer) -> None:
    with pytest.raises(TypeError, match="max_len"):
        tokenizer("a", max_len=3)


def test_padding_without_a_pad_token(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, pad_token=None)
    assert tokenizer.pad_token_id is None
    for call in (
        lambda: tokenizer(["a", "b"], padding=True),
        lambda: tokenizer.pad({"input_ids": [[1], [1, 2]]}),
    ):
        with pytest.raises(InputError, match="must have a pad token"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "max_length", "max_length": -3}, "`max_length` must be an integer of 1 or more"),
        ({"padding": "max_length", "max_length": "3"}, "`max_length` must be an integer of 1 or more"),
    ],
)
def test_bad_options_of_pad(tokenizer: RemBertTokenizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenizer.pad({"input_ids": [[1], [1, 2]]}, **options)


@pytest.mark.parametrize("labels", [["x", "y"], [None, None], [1, [1, 2]]])
def test_columns_that_cannot_be_tensors(tokenizer: RemBertTokenizer, labels: list[Any]) -> None:
    rows = [{"input_ids": [1], "labels": label} for label in labels]
    with pytest.raises(InputError, match="`labels`"):
        tokenizer.pad(rows, return_tensors="np")


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ({"input_ids": 3}, "a row of ids or a list of rows. Received: 3"),
        ({"input_ids": [[[1]], [[1, 2]]]}, "a row of ids or a list of rows"),
        ({"input_ids": [[1], [1, 2]], "attention_mask": [[1]]}, "`attention_mask` must have a value for each"),
        ({"input_ids": [1, 2], "token_type_ids": [0]}, "`token_type_ids` must have a value for each"),
        ([], "at least one row"),
        ({"attention_mask": [1]}, "must have `input_ids`"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": 2}], "same keys"),
        ([[1, 2]], "list of mappings"),
        ([{"input_ids": [1]}, 7], "list of mappings. Received: int 7 at position 1"),
        ("abc", "must be a mapping"),
    ],
)
def test_bad_pad(encoded: dict[str, Any] | list[Any] | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RemBertTokenizer(MODEL).pad(encoded)


@pytest.mark.parametrize("call", ["pad", "decode", "batch_decode"])
def test_unknown_arguments_are_named(tokenizer_class: type[RemBertTokenizer], call: str) -> None:
    """In the library's error, and not with the name of a class inside; what transformers has may be left off."""
    tokenizer = tokenizer_class(MODEL)
    given: Any = {"pad": {"input_ids": [[5], [6, 7]]}, "decode": [5, 6], "batch_decode": [[5], [6, 7]]}[call]
    method = getattr(tokenizer, call)
    assert method(given, use_source_tokenizer=False) == method(given)
    name = rf"^{tokenizer_class.__name__}\.{call}\(\)"
    with pytest.raises(KeywordError, match=name + " got an unexpected keyword: 'paddin'"):
        method(given, paddin=True)
    with pytest.raises(KeywordError, match="does not support `use_source_tokenizer`"):
        method(given, use_source_tokenizer=True)

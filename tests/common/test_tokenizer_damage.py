"""Files of a tokenizer that are damaged or hostile: an error of the library that names the file, and no long wait."""

from __future__ import annotations

import copy
import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rembert import AddedToken, RemBertTokenizer
from rembert.common.errors import InputError, RemBertError, TokenizerError
from rembert.common.tokenization.sentencepiece_model import MAX_SETTINGS, MAX_TOKENS, SentencePieceModel
from tests.amounts import DAMAGED
from tests.common.tokenizer_cases import train

TEXT = "the of <new> [MASK] x <e>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tokenizer of a few tokens, which no test may change."""
    directory = tmp_path_factory.mktemp("written")
    (directory / "a.model").write_bytes(train(control_symbols="[CLS],[SEP],[MASK]", pad_id=3))
    tokenizer = RemBertTokenizer(directory / "a.model")
    tokenizer.add_tokens(["<new>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<e>"]})
    tokenizer.save_pretrained(directory / "saved")
    return directory / "saved"


@pytest.fixture
def saved(written: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(written, tmp_path / "saved"))


def test_a_model_with_the_space_after_a_word_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(train(control_symbols="[CLS],[SEP],[MASK]", treat_whitespace_as_suffix=True))
    with pytest.raises(TokenizerError, match=r"a\.model.*treat_whitespace_as_suffix"):
        RemBertTokenizer(tmp_path / "a.model")


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"\x0a\x00" * (MAX_TOKENS + 1), f"more than {MAX_TOKENS} tokens"),
        (b"\x0a\x03\x0a\x01a" + b"\x12\x00\x0a\x00" * (MAX_SETTINGS // 4 + 1), r"\d+ bytes after"),
    ],
    ids=["tokens", "settings"],
)
def test_a_model_that_would_take_gigabytes_is_not_parsed(content: bytes, received: str) -> None:
    with pytest.raises(TokenizerError, match=rf"a\.model must have at most .* Received: {received}"):
        SentencePieceModel(content, "a.model")


def test_the_length_of_a_token_has_at_most_64_bits() -> None:
    """A number that never ends would be read, and grow, to the end of the file."""

    class Counted(bytes):
        reads = 0

        def __getitem__(self, key: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(key)

    with pytest.raises(TokenizerError, match=r"a\.model is damaged"):
        SentencePieceModel(Counted(b"\x0a" + b"\xff" * 1000), "a.model")
    assert Counted.reads < 20


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized", "special"])
def test_flags_of_tokens_are_true_or_false(flag: str) -> None:
    with pytest.raises(InputError, match=f"`{flag}` must be True or False. Received: `{flag}='no'`"):
        AddedToken("x", **{flag: "no"})


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("tokenizer_config.json", ["model_max_length"], [1]),
        ("tokenizer_config.json", ["model_max_length"], float("nan")),
        ("tokenizer_config.json", ["truncation_side"], "[SEP]"),
        ("tokenizer_config.json", ["padding_side"], 2**31),
        ("tokenizer_config.json", ["model_input_names"], 5),
        ("tokenizer_config.json", ["model_input_names"], ["input_ids", "\udc00"]),
        ("tokenizer_config.json", ["remove_space"], "\udc00"),
        ("tokenizer_config.json", ["clean_up_tokenization_spaces"], {"content": "\udc00"}),
        ("tokenizer_config.json", ["added_tokens_decoder", "0", "lstrip"], "no"),
        ("tokenizer_config.json", ["cls_token"], "\udc00"),
        ("special_tokens_map.json", ["cls_token"], {"content": "[CLS]", "rstrip": []}),
        ("tokenizer.json", ["added_tokens"], [{"id": 0, "content": "x", "special": "no"}]),
        ("tokenizer.json", ["model", "unk_id"], 10**30),
    ],
)
def test_values_of_another_type(name: str, keys: list[str], value: Any, saved: Path) -> None:
    content = json.loads((saved / name).read_text("utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (saved / name).write_text(json.dumps(content), "utf-8")
    with pytest.raises(TokenizerError, match=name):
        RemBertTokenizer.from_pretrained(saved)


@pytest.mark.parametrize("depth", [500, 900, 990, 100_000])
def test_deep_nesting(depth: int, saved: Path) -> None:
    """No file that is nested deeply ends in an error of another class."""
    nested = '{"type": "Sequence", "normalizers": [' * depth + "]}" * depth
    for name, key in (("tokenizer.json", "normalizer"), ("tokenizer_config.json", "unknown")):
        content = json.loads((saved / name).read_text("utf-8")) | {key: "HERE"}
        (saved / name).write_text(json.dumps(content).replace('"HERE"', nested), "utf-8")
        try:
            RemBertTokenizer.from_pretrained(saved)("the of")
        except TokenizerError as problem:
            assert str(saved) in str(problem)  # noqa: PT017 - it may load as well


# Values and keys that a damaged or hostile file may hold.
VALUES: list[Any] = [
    None, True, False, 0, -1, 5, 1.5, float("inf"), float("nan"), 2**31, 2**63, 2**70, "", "x", "\ud800", [], {}, [1],
    ["x"], [None], [[["x"]]], {"a": 1}, {"content": "x"}, {"content": 3}, {"content": "\udc00"}, "true", "[CLS]",
    "<new>", "\x00", " ", "▁", ".*(",
]  # fmt: skip
KEYS = [
    "self", "__dict__", "__class__", "__weakref__", "model", "added_tokens", "vocab_file", "name_or_path", "verbose",
    "extra_special_tokens", "model_input_names", "\ud800", "", "0", "-1", "9" * 20, "added_tokens_decoder", "special",
    "type",
]  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    keys = value if isinstance(value, dict) else range(min(len(value), 8)) if isinstance(value, list) else ()
    for key in keys:
        yield from _places(value[key], (*place, key))


def _damaged(content: Any, draw: random.Random) -> Any:
    place = draw.choice(list(_places(content)))
    value = copy.deepcopy(draw.choice(VALUES))
    if not place:
        return value
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    way = draw.random()
    if way < 0.6:
        inner[place[-1]] = value
    elif way < 0.75:
        del inner[place[-1]]
    elif isinstance(inner, dict):
        inner[draw.choice(KEYS)] = value
    else:
        inner.insert(place[-1], value)
    return content


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 60 + DAMAGED), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_json(seeds: range, written: Path, tmp_path: Path) -> None:
    """Either an error of the library that names the path, or a tokenizer that works and is the same after saving."""
    names = [path.name for path in written.glob("*.json")]
    contents = {name: (written / name).read_text("utf-8") for name in names}
    for seed in seeds:
        draw = random.Random(seed)
        directory = Path(shutil.copytree(written, tmp_path / f"{seed}"))
        if draw.random() < 0.3:
            (directory / "sentencepiece.model").unlink()
        for name in draw.sample(sorted(names), draw.choice([1, 1, 2])):
            content = json.loads(contents[name])
            for _ in range(draw.choice([1, 1, 2, 3])):
                content = _damaged(content, draw)
            (directory / name).write_text(json.dumps(content), "utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                _use(RemBertTokenizer.from_pretrained(directory), directory)
            except RemBertError as problem:
                if str(directory) not in str(problem):
                    raise AssertionError(f"seed {seed}: no file is named") from problem
            except Exception as problem:
                raise AssertionError(f"seed {seed}") from problem
        shutil.rmtree(directory)


def _use(tokenizer: RemBertTokenizer, directory: Path) -> None:
    if tokenizer.cls_token is None or tokenizer.sep_token is None:
        return  # a row needs them, and so does saving
    encoding = tokenizer([TEXT, ""], padding=tokenizer.pad_token is not None, return_offsets_mapping=True)
    assert encoding.word_ids() is not None
    tokenizer.decode(encoding.input_ids[0])
    tokenizer.save_pretrained(directory / "again")
    again = RemBertTokenizer.from_pretrained(directory / "again")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.encode(TEXT) == tokenizer.encode(TEXT)

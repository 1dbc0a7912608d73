"""Vocabulary trimming: what is kept is exactly as it was."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import open_checkpoint, save_checkpoint
from rembert.bridge.trimming import trim
from rembert.cli.demo_checkpoint import make_tokenizer
from rembert.cli.demo_text import SENTENCES
from rembert.common.errors import CheckpointError, DataError, InputError
from rembert.common.parameters import parameters
from rembert.common.tokenization.pruning import required_tokens, select_tokens
from rembert.common.tokenization.sentencepiece_model import NORMAL, UNKNOWN, build_model

EXTRA_ROWS = 3  # rows of the tables beyond the tokenizer, as a padded vocabulary has them


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model with random tables and two tokens added to its tokenizer."""
    directory = tmp_path_factory.mktemp("whole")
    tokenizer = make_tokenizer(directory)
    tokenizer.add_tokens(["<person>", "<place>"])
    tokenizer.save_pretrained(directory)
    config = RemBertConfig(
        vocab_size=len(tokenizer) + EXTRA_ROWS,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        input_embedding_size=6,
        output_embedding_size=10,
        intermediate_size=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=[tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids("<place>")],
        architectures=["RemBertForMaskedLM"],
        mask_token_id=tokenizer.mask_token_id,
    )
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(size=parameter.shape, scale=0.3).astype(np.float32)
        for name, parameter in parameters(config, "masked-lm").items()
    }
    save_checkpoint(directory, weights, config)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    lines = [*SENTENCES["en"], *SENTENCES["ru"], "<person> went to <place>.", "", "a [MASK] here"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def texts(corpus: Path) -> list[str]:
    return [line for line in corpus.read_text(encoding="utf-8").split("\n") if line]


def test_corpus_is_split_into_the_same_tokens(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    report = trim(checkpoint, tmp_path / "small", corpus=[corpus])
    whole, small = (RemBertTokenizer.from_pretrained(path) for path in (checkpoint, tmp_path / "small"))
    assert report.tokens_before == len(whole)
    assert report.tokens_after == len(small) < len(whole) * 0.8
    for text in texts(corpus):
        assert small.convert_ids_to_tokens(small.encode(text)) == whole.convert_ids_to_tokens(whole.encode(text))
    assert (report.corpus.lines, report.corpus.changed) == (len(texts(corpus)), 0)
    assert report.corpus.tokens_before == report.corpus.tokens_after
    assert report.held_out.lines == len(texts(corpus)) // 10


def test_rows_follow_their_tokens(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    report = trim(checkpoint, tmp_path / "small", corpus=[corpus])
    whole = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "sentencepiece.model"))
    small = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small/sentencepiece.model"))
    rows = [whole.PieceToId(small.IdToPiece(index)) for index in range(small.GetPieceSize())]
    rows += range(whole.GetPieceSize(), whole.GetPieceSize() + 2 + EXTRA_ROWS)
    with open_checkpoint(checkpoint) as before, open_checkpoint(tmp_path / "small") as after:
        assert after.config.vocab_size == len(rows) == report.tokens_after + EXTRA_ROWS
        for name in before.tensors:
            values = before.read(name)
            if name.endswith("word_embeddings.weight") or "decoder" in name:
                values = values[rows]
            np.testing.assert_array_equal(after.read(name), values)
        assert after.config == RemBertConfig.from_dict(
            before.config.to_dict()
            | {"vocab_size": len(rows)}
            | {"eos_token_id": [before.config.eos_token_id[0], small.GetPieceSize() + 1]}
            | {"mask_token_id": small.PieceToId("[MASK]")}
        )
    assert report.parameters_after == report.parameters_before - (
        (whole.GetPieceSize() - small.GetPieceSize()) * (6 + 10 + 1)
    )


def test_outputs_are_the_same(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from rembert.pt import RemBertForMaskedLM

    trim(checkpoint, tmp_path / "small", corpus=[corpus])
    outputs = []
    for path in (checkpoint, tmp_path / "small"):
        tokenizer, model = RemBertTokenizer.from_pretrained(path), RemBertForMaskedLM.from_pretrained(path)
        with torch.no_grad():
            logits = model(**tokenizer(texts(corpus), padding=True, return_tensors="pt")).logits
        outputs.append((tokenizer, logits))
    (whole, expected), (small, logits) = outputs
    columns = whole.convert_tokens_to_ids(small.convert_ids_to_tokens(list(range(len(small)))))
    torch.testing.assert_close(logits[..., : len(small)], expected[..., columns], rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("abcdefgh timrsn.,шé日☃"), max_size=40), seed=st.integers(0, 1000))
def test_any_text_of_kept_tokens_is_split_as_before(checkpoint: Path, text: str, seed: int) -> None:
    model = RemBertTokenizer.from_pretrained(checkpoint).sentencepiece_model
    (used,) = model.encode([text])
    others = np.flatnonzero(np.random.default_rng(seed).random(model.size) < 0.3)
    kept = np.union1d(np.union1d(required_tokens(model), others), np.array(used, np.int64))
    small = select_tokens(model, kept)
    assert [small.token(index) for index in small.encode([text])[0]] == [model.token(index) for index in used]


def test_rare_tokens_are_dropped(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    all_kept = trim(checkpoint, tmp_path / "all", corpus=[corpus])
    frequent = trim(checkpoint, tmp_path / "frequent", corpus=[corpus], min_count=3)
    few = trim(checkpoint, tmp_path / "few", corpus=[corpus], max_tokens=frequent.tokens_after - 2 - 5)
    assert few.tokens_after == frequent.tokens_after - 5 < all_kept.tokens_after - 5
    assert frequent.corpus.changed > 0
    assert frequent.corpus.tokens_after > frequent.corpus.tokens_before


def test_listed_tokens_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    whole = RemBertTokenizer.from_pretrained(checkpoint)
    wanted = [whole.convert_ids_to_tokens(index) for index in (300, 400)]
    (tmp_path / "tokens.txt").write_text("".join(f"{token}\t-3.5\n" for token in wanted), encoding="utf-8")
    report = trim(checkpoint, tmp_path / "small", keep_tokens=tmp_path / "tokens.txt")
    small = RemBertTokenizer.from_pretrained(tmp_path / "small")
    assert small.convert_ids_to_tokens(small.convert_tokens_to_ids(wanted)) == wanted
    assert report.corpus is None
    assert report.held_out is None


def test_other_text_is_reported(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"  # gzip is recognized by its content
    with gzip.open(other, "wt", encoding="utf-8") as file:
        file.write("\n".join([*SENTENCES["en"][:2], *SENTENCES["tr"]]))
    report = trim(checkpoint, tmp_path / "small", corpus=[corpus], other=[other])
    assert report.other.lines == 6
    assert report.other.changed == 4
    assert report.other.tokens_after > report.other.tokens_before


def test_bad_calls(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    target = tmp_path / "small"
    with pytest.raises(InputError, match="neither"):
        trim(checkpoint, target)
    with pytest.raises(InputError, match="min_count=0"):
        trim(checkpoint, target, corpus=[corpus], min_count=0)
    with pytest.raises(InputError, match="max_tokens=20"):
        trim(checkpoint, target, corpus=[corpus], max_tokens=20)
    with pytest.raises(DataError, match=r"absent\.txt cannot be read: No such file"):
        trim(checkpoint, target, corpus=[tmp_path / "absent.txt"])
    (tmp_path / "latin.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt:2: text must be UTF-8\. Received: byte 0xf6"):
        trim(checkpoint, target, corpus=[tmp_path / "latin.txt"])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="blank lines only"):
        trim(checkpoint, target, corpus=[tmp_path / "empty.txt"])
    (tmp_path / "tokens.txt").write_text("\nno such token\n")
    with pytest.raises(DataError, match=r"tokens\.txt:2: a token of the model was expected"):
        trim(checkpoint, target, keep_tokens=tmp_path / "tokens.txt")
    assert not target.exists()


def test_tokenizer_larger_than_the_tables_is_refused(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    tokenizer = RemBertTokenizer.from_pretrained(checkpoint)
    with open_checkpoint(checkpoint) as whole:
        weights = {name: whole.read(name) for name in whole.tensors}
        config = whole.config
    tokenizer.add_tokens([f"<more {number}>" for number in range(EXTRA_ROWS + 1)])
    save_checkpoint(tmp_path / "odd", weights, config)
    tokenizer.save_pretrained(tmp_path / "odd")
    with pytest.raises(CheckpointError, match="more tokens than the model has rows"):
        trim(tmp_path / "odd", tmp_path / "small", corpus=[corpus])


def test_the_cost_of_an_unknown_character_stays() -> None:
    # Unigram takes the lowest score less 10 for an unknown character: -110 here, so "ab" + "cd" (-50) beats
    # "abc" + unknown "d" (-111). Without the unused token of -100 it would be -35, and "abc" + "d" (-36) would win.
    scores = {"ab": -25.0, "cd": -25.0, "abc": -1.0, "unused": -100.0}
    tokens = [("<unk>", 0.0, UNKNOWN), *((token, score, NORMAL) for token, score in scores.items())]
    model = build_model(tokens, charsmap=b"", dummy_prefix=False, collapse_spaces=False, source="a test")
    used = np.array(model.encode(["abcd"])[0] + model.encode(["abc"])[0])
    small = select_tokens(model, np.union1d(required_tokens(model), used))
    assert small.encode_as_tokens("abcd") == model.encode_as_tokens("abcd") == ["ab", "cd"]
    without = select_tokens(model, np.union1d([0], used))
    assert without.encode_as_tokens("abcd") == ["abc", "d"]

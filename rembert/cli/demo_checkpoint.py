"""The small multilingual checkpoint of `rembert demo`, created without a framework."""

from __future__ import annotations

import io
from pathlib import Path

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import save_checkpoint
from rembert.cli.demo_text import SENTENCES
from rembert.common.files import atomic_path
from rembert.common.initialization import initial_values
from rembert.common.parameters import HEADS, parameters

HEAD = "masked-lm"


def make_checkpoint(directory: Path) -> str:
    """Write a small masked language model with random weights, its tokenizer trained on `SENTENCES`.

    Returns:
        Its sizes, for the report.
    """
    directory.mkdir(parents=True)
    tokenizer = make_tokenizer(directory)
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=6,
        input_embedding_size=32,
        output_embedding_size=128,
        intermediate_size=384,
        max_position_embeddings=128,
        # Large enough for the outputs of a random model to vary from token to token, as a trained model's do.
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        architectures=[HEADS[HEAD].architecture],
        dtype="float32",
    )
    table = parameters(config, HEAD)
    weights = {name: initial_values(parameter, config.initializer_range) for name, parameter in table.items()}
    save_checkpoint(directory, weights, config)
    return (
        f"{len(SENTENCES)} languages, {config.vocab_size} tokens, {config.num_hidden_layers} layers of width "
        f"{config.hidden_size}, {sum(parameter.size for parameter in table.values()):,} parameters"
    )


def make_tokenizer(directory: Path) -> RemBertTokenizer:
    """Train a SentencePiece model on `SENTENCES`, and write it and its tokenizer into `directory`."""
    import sentencepiece

    trained = io.BytesIO()
    lines = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        model_type="unigram",
        vocab_size=600,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=1,
        minloglevel=2,
    )
    with atomic_path(directory / "sentencepiece.model") as temporary:
        temporary.write_bytes(trained.getvalue())
    tokenizer = RemBertTokenizer(directory / "sentencepiece.model")
    tokenizer.save_pretrained(directory)
    return tokenizer

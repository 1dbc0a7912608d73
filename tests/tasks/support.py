"""Small files and models that the tests of tasks share; the texts were written for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from rembert import RemBertConfig, RemBertTokenizerFast
from rembert.tasks import Task, get_task
from rembert.tasks.examples import Example

FIXTURE = Path(__file__).parent.parent / "fixtures" / "tokenizer" / "sentencepiece.model"


@cache
def TOKENIZER() -> RemBertTokenizerFast:
    return RemBertTokenizerFast(FIXTURE)


def config(**changes: Any) -> RemBertConfig:
    """A model of milliseconds over the fixture's tokenizer; its outputs differ from text to text."""
    sizes = {
        "vocab_size": len(TOKENIZER()),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "input_embedding_size": 8,
        "output_embedding_size": 12,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "pad_token_id": TOKENIZER().pad_token_id,
    }
    return RemBertConfig(**{**sizes, **changes})


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def opened(name: str, path: Path, *, max_length: int = 64, **options: Any) -> tuple[Task, list[Example]]:
    """A task prepared with a file's examples."""
    task = get_task(name, TOKENIZER(), max_length=max_length, **options)
    examples = list(task.read(path))
    task.prepare(examples)
    return task, examples


ROWS = [
    {"text": "Der Zug hält in Graz.", "label": "travel"},
    {"text": "Die Mannschaft gewann drei zu eins.", "label": "sport", "language": "de"},
    {"text": "Timu ilishinda mbio.", "label": "sport", "language": "sw"},
]
SENTENCE = ["Wangari", "Maathai", "alizaliwa", "Nyeri", ",", "nchini", "Kenya", "."]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O", "O", "B-LOC", "O"]
POEM = (
    "Die Fähre fährt um acht.\n\nالعبّارة تغادر في الثامنة.\n渡轮八点出发。\n"
    + "Feri inaondoka saa mbili. " * 20
    + "\n"
)
CONTEXT = (
    "Паром до острова отходит каждый час и идёт сорок минут. Летом он берёт велосипеды, зимой нет. "
    "На острове живут двести человек, есть школа, маяк и пекарня, которая открывается в шесть утра."
)
ENGLISH = "The lighthouse on Fern Island was lit in 1871. Its keeper, Ada Moss, wrote down every ship that passed."


def squad_file(path: Path) -> Path:
    """Three questions in two languages; the last has no answer."""

    def answer(context: str, text: str) -> dict[str, Any]:
        return {"text": text, "answer_start": context.index(text)}

    data = {
        "version": "v2.0",
        "data": [
            {
                "title": "Острова",
                "paragraphs": [
                    {
                        "context": CONTEXT,
                        "qas": [
                            {
                                "id": "q1",
                                "question": "Сколько идёт паром?",
                                "answers": [answer(CONTEXT, "сорок минут")],
                                "is_impossible": False,
                            }
                        ],
                    },
                    {
                        "context": ENGLISH,
                        "qas": [
                            {
                                "id": "q2",
                                "question": "Who kept the lighthouse?",
                                "answers": [answer(ENGLISH, "Ada Moss"), answer(ENGLISH, "keeper, Ada Moss")],
                                "is_impossible": False,
                            },
                            {"id": "q3", "question": "Who built the school?", "answers": [], "is_impossible": True},
                        ],
                    },
                ],
            }
        ],
    }
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def conll(path: Path, sentences: list[tuple[list[str], list[str]]]) -> Path:
    rows = ("".join(f"{word} {tag}\n" for word, tag in zip(*each, strict=True)) for each in sentences)
    path.write_text("\n".join(rows), encoding="utf-8")
    return path

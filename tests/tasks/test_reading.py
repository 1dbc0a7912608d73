"""Files of every format, whole, packed, and broken: every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from rembert.common.errors import DataError, InputError
from rembert.tasks import DataOptions, Task, get_task
from rembert.tasks.reading import BadLine, Record, read_records
from tests.tasks.support import TOKENIZER, squad_file


def task(name: str = "sequence-classification", **data: object) -> Task:
    return get_task(name, TOKENIZER(), max_length=64, data=DataOptions(**data), **OPTIONS.get(name, {}))


OPTIONS = {"question-answering": {"stride": 8, "max_question_length": 16}}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def records(path: Path, **options: str) -> list[Record | BadLine]:
    return list(read_records(path, **options))


def test_tsv_fields_may_be_quoted(tmp_path: Path) -> None:
    lines = [
        "index_id\tcategory\ttext",
        '7\tsport\t"Sie rief ""Tor!"", und alle sprangen auf."',
        '8\ttravel\t"Hello," she said, "and goodbye"',
        "9\ttravel\tЛодка ждёт у причала.",
    ]
    found = list(task().read(write(tmp_path / "a.tsv", "\n".join(lines) + "\n")))
    assert [example.text for example in found] == [
        'Sie rief "Tor!", und alle sprangen auf.',
        '"Hello," she said, "and goodbye"',
        "Лодка ждёт у причала.",
    ]
    assert [(example.id, example.label, example.location.line) for example in found] == [
        ("7", "sport", 2),
        ("8", "travel", 3),
        ("9", "travel", 4),
    ]


def test_csv_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    content = 'text,label\n"one, two\nand three",x\n"she said ""no""",y\n'
    found = list(task().read(write(tmp_path / "a.csv", content)))
    assert [example.text for example in found] == ["one, two\nand three", 'she said "no"']
    assert [example.location.line for example in found] == [2, 4]


def test_columns_may_be_named_by_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"headline": "नमस्ते दुनिया", "topic": 3, "lang": "hi"}\n')
    [example] = task(columns={"text": "headline", "label": "topic"}).read(path)
    assert (example.text, example.label, example.language) == ("नमस्ते दुनिया", 3, "hi")


def test_conll_files_may_have_any_number_of_columns(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- O\n\n# a comment\nAmina NNP B-PER\nanaishi VB O\n\n\nNairobi NNP B-LOC"
    found = list(task("token-classification").read(write(tmp_path / "a.conll", content)))
    assert [(example.words, example.tags) for example in found] == [
        (("Amina", "anaishi"), ("B-PER", "O")),
        (("Nairobi",), ("B-LOC",)),
    ]
    tabbed = write(tmp_path / "b.txt", "New York\tB-LOC\n北京\tB-LOC\n")
    assert next(task("token-classification").read(tabbed)).words == ("New York", "北京")
    untagged = write(tmp_path / "c.txt", "Nairobi\n\nAmina\n")
    assert [example.tags for example in task("token-classification").read(untagged)] == [None, None]


def test_conllu_files_give_words_and_parts_of_speech(tmp_path: Path) -> None:
    rows = [
        "# sent_id = 1\n# text = Zum Haus",
        "1-2\tZum\t_\t_\t_\t_\t_\t_\t_\t_",
        "1\tzu\tzu\tADP\tAPPR\t_\t3\tcase\t_\t_",
        "2\tdem\tder\tDET\tART\t_\t3\tdet\t_\t_",
        "2.1\tnull\t_\tX\t_\t_\t_\t_\t_\t_",
        "3\tHaus\tHaus\tNOUN\tNN\t_\t0\troot\t_\tSpaceAfter=No\n",
    ]
    path = write(tmp_path / "de.conllu", "\n".join(rows))
    [found] = task("token-classification").read(path)
    assert (found.words, found.tags) == (("zu", "dem", "Haus"), ("ADP", "DET", "NOUN"))
    [own] = task("token-classification", columns={"tags": "xpos"}).read(path)
    assert own.tags == ("APPR", "ART", "NN")
    untagged = write(tmp_path / "u.conllu", "1\tHaus\t_\t_\t_\t_\t_\t_\t_\t_\n")
    assert next(task("token-classification").read(untagged)).tags is None
    short = write(tmp_path / "s.conllu", rows[-1] + "\n1\tHaus\tNOUN\n")
    with pytest.raises(DataError, match=r"s\.conllu:3: CoNLL-U's 10 columns"):
        list(task("token-classification").read(short))


def test_other_spaces_do_not_separate_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "10\u00a0000 O\nfrancs O\n")
    assert next(task("token-classification").read(path)).words == ("10\u00a0000", "francs")


def test_squad_files_of_both_versions_are_read(tmp_path: Path) -> None:
    path = squad_file(tmp_path / "a.json")
    found = list(task("question-answering").read(path))
    assert [example.id for example in found] == ["q1", "q2", "q3"]
    assert found[0].answers[0].text == "сорок минут"
    assert found[2].answers == ()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(f'"{example.id}"' in lines[example.location.line - 1] for example in found)


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.json"])
def test_files_may_have_gzip_and_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    if name == "a.json":
        plain, head = squad_file(tmp_path / "plain.json"), "question-answering"
    else:
        head = "masked-lm" if name == "a.txt" else "sequence-classification"
        content = {
            "a.jsonl": '{"text": "Žluťoučký kůň", "label": "x"}\n',
            "a.tsv": "text\tlabel\nŽluťoučký kůň\tx\n",
            "a.csv": "text,label\nŽluťoučký kůň,x\n",
            "a.txt": "Žluťoučký kůň\n",
        }[name]
        plain = write(tmp_path / f"plain{Path(name).suffix}", content)
    marked = write(tmp_path / name, b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    packed = write(tmp_path / f"{name}.gz", gzip.compress(plain.read_bytes()))
    first, second, third = ([_bare(e) for e in task(head).read(path)] for path in (plain, marked, packed))
    assert first == second == third


def _bare(example: object) -> tuple[object, ...]:
    return tuple(getattr(example, name) for name in type(example).__slots__)


BAD = {
    # name: (task, file, content, line, what the message says)
    "a missing column": ("sequence-classification", "a.tsv", "id\tthing\n1\tx\n", 2, "column 'text'"),
    "a short row": ("sequence-classification", "a.tsv", "text\tlabel\nx\ty\nz\n", 3, "2 columns"),
    "no JSON": ("sequence-classification", "a.jsonl", '{"text": "x"}\n{"text": \n', 2, "JSON object"),
    "no object": ("sequence-classification", "a.jsonl", "[1]\n", 1, "list"),
    "an empty text": ("sequence-classification", "a.jsonl", '{"text": " "}\n', 1, "empty"),
    "half a surrogate pair": ("sequence-classification", "a.jsonl", '{"text": "x\\ud800"}\n', 1, "surrogate"),
    "another encoding": ("sequence-classification", "a.tsv", b"text\nok\ncaf\xe9\n", 3, "byte 0xe9"),
    "UTF-16 without its mark": ("masked-lm", "a.txt", "x".encode("utf-16-le"), 1, "byte 0x00"),
    "UTF-16": ("sequence-classification", "a.tsv", "text\nx\n".encode("utf-16"), 1, "UTF-16"),
    "a column twice": ("sequence-classification", "a.tsv", "text\ttext\nx\ty\n", 1, "text"),
    "an open quote": ("sequence-classification", "a.csv", 'text\n"x\n', 2, "CSV"),
    "an open quote over lines": ("sequence-classification", "a.csv", 'text\ny\n"x\nz\nw\n', 3, "up to line 5"),
    "a list of mixed labels": (
        "sequence-classification",
        "a.jsonl",
        '{"text": "x", "label": [0.5, "a"]}\n',
        1,
        "label",
    ),
    "a CoNLL line without its tag": ("token-classification", "a.txt", "x O\ny\n", 2, "2 columns"),
    "a CoNLL line without its word": ("token-classification", "a.txt", "x\tO\n\tO\n", 2, "2, one of them empty"),
    "a CoNLL line of too many fields": ("token-classification", "a.txt", "x O\n\ny B-X z\n", 3, "2 columns"),
    "a tag too few": ("token-classification", "a.jsonl", '{"tokens": ["x", "y"], "tags": ["O"]}\n', 1, "2 tokens"),
    "one choice": ("multiple-choice", "a.jsonl", '{"premise": "x", "choice1": "y"}\n', 1, "two choices"),
    "a label that is no choice": (
        "multiple-choice",
        "a.jsonl",
        '{"premise": "x", "choice1": "y", "choice2": "z", "label": 2}\n',
        1,
        "0 to 1",
    ),
    "another number of choices": (
        "multiple-choice",
        "a.jsonl",
        '{"premise": "x", "choices": ["y", "z"]}\n{"premise": "x", "choices": ["y", "z", "w"]}\n',
        2,
        "2 choices",
    ),
    "a text for a truth value": (
        "question-answering",
        "a.tsv",
        "question\tcontext\tis_impossible\nx\ty\tfalse\n",
        2,
        "'is_impossible' must be true or false. Received: 'false'",
    ),
    "an answer that is elsewhere": (
        "question-answering",
        "a.jsonl",
        '{"question": "x", "context": "y z", "answers": [{"text": "z", "answer_start": 0}]}\n',
        1,
        "'z' was expected at 0 in its context. Received: 'y'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_lines_are_refused_or_counted(tmp_path: Path, case: str) -> None:
    name, file, content, line, said = BAD[case]
    path = write(tmp_path / file, content)
    with pytest.raises(DataError) as caught:
        list(task(name).read(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)
    if case == "UTF-16":
        return  # nothing in such a file can be read
    reader = task(name, skip_bad_lines=True)
    with suppress(DataError):  # where nothing else was in it
        assert len(list(reader.read(path))) == reader.report.examples
    assert reader.report.skipped == 1
    assert reader.report.reasons[0].startswith(f"{path}:{line}: ")


def test_a_wrong_squad_answer_names_the_line_of_its_question(tmp_path: Path) -> None:
    path = squad_file(tmp_path / "a.json")
    text = path.read_text(encoding="utf-8").replace('"сорок минут"', '"сорок часов"')
    path.write_text(text, encoding="utf-8")
    line = next(number for number, line in enumerate(text.splitlines(), 1) if '"q1"' in line)
    with pytest.raises(DataError, match=f"a.json:{line}, question 'q1': the answer 'сорок часов'"):
        list(task("question-answering").read(path))


def test_a_missing_squad_context_is_a_missing_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"data": [\n{"paragraphs": [{"qas": [{"id": 7, "question": "x"}]}]}]}')
    with pytest.raises(DataError, match=r"a\.json:2, question 7: a column 'context' or 'passage' was expected"):
        list(task("question-answering").read(path))


def test_a_file_without_valid_lines_names_the_first(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.jsonl", '{"text": "x"}\n{}\n'), write(tmp_path / "b.tsv", "thing\nx\ny\n")
    with pytest.raises(
        DataError, match=r"Received: none, and 2 malformed line\(s\) skipped: .*b\.tsv:2: a column 'text'"
    ):
        list(task(skip_bad_lines=True).read(good, bad))


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.txt", "a.json"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"")
    with pytest.raises(DataError, match="at least one example"):
        list(task().read(path))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.tsv cannot be read"):
        list(task().read(tmp_path / "nowhere.tsv"))
    damaged = write(tmp_path / "a.tsv.gz", gzip.compress(b"text\n" + b"x\n" * 5000)[:-20])
    with pytest.raises(DataError, match=r"a\.tsv\.gz is damaged"):
        list(task().read(damaged))
    with pytest.raises(InputError, match="xml"):
        list(task(format="xml").read(damaged))
    with pytest.raises(InputError, match="colour"):
        task(columns={"colour": "x"})
    with pytest.raises(DataError, match=r"b\.json: SQuAD's layout was expected, .* Received: an object with train"):
        list(task().read(write(tmp_path / "b.json", '{"train": [{"text": "x"}]}')))
    with pytest.raises(DataError, match=r"a.json:2: JSON was expected"):
        list(task("question-answering").read(write(tmp_path / "a.json", '{"data":\n [}')))


def test_files_of_several_formats_are_read_and_ids_are_unique_per_file(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", json.dumps({"id": 1, "text": "Wien", "language": "de"}) + "\n")
    other = write(tmp_path / "b.tsv", "id\ttext\n1\tVienna\n")
    found = list(task(language="en").read(one, other))
    assert [(example.id, example.text, example.language) for example in found] == [
        ("1", "Wien", "de"),
        ("1", "Vienna", "en"),
    ]


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f"the {n}th line of many\tx\n" for n in range(8000)))
    tracemalloc.start()
    count = sum(1 for _ in task().read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 100_000  # the file has 230,000 bytes

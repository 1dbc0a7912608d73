"""The example of docs/tasks/xtreme.md runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rembert.cli.main import main
from rembert.xtreme import BENCHMARK
from tests.frameworks import needs_pt
from tests.tasks.support import TOKENIZER, config

PAGE = (Path(__file__).parents[2] / "docs" / "tasks" / "xtreme.md").read_text(encoding="utf-8")
_FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)```\n", re.MULTILINE | re.DOTALL)


def block(kind: str, start: str) -> str:
    found = re.search(rf"^```{kind}\n({start}.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@needs_pt
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rembert.pt import RemBertModel

    monkeypatch.chdir(tmp_path)
    RemBertModel(config(max_position_embeddings=128)).save_pretrained("path/to/rembert")
    TOKENIZER().save_pretrained("path/to/rembert")
    for name, content in _FILE.findall(PAGE):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, encoding="utf-8")
    assert main(shlex.split(block("sh", "rembert xtreme"))[1:]) == 0
    printed = capsys.readouterr().out
    for line in block("text", r"\| model").splitlines():
        assert re.search(re.escape(line).replace("…", r"[\d.]+"), printed), line
    names: dict[str, Any] = {}
    exec(block("python", "from rembert"), names)
    assert set(names["scores"]["pawsx"]["accuracy"]) == {"de", "en"}


def test_the_page_has_the_languages_of_every_task() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|[^|]*\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    listed = {
        name: int(count)
        for names, counts in rows
        for name, count in zip(re.findall(r"\w+", names), counts.split(", "), strict=True)
    }
    assert listed == {name: len(task.languages) for name, task in BENCHMARK.items()}

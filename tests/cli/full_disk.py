"""Commands and saves while the disk is full: a file may have only so many bytes. A program, as `tests.cli.killing`.

    python -m tests.cli.full_disk FRAMEWORK FOLDER

Each case runs in a forked child over an older target. Prints a line of JSON for each: its name, the error, whether the
target is as before, and what is left beside it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rembert import RemBertConfig, RemBertTokenizer
from tests.bleurt.cases import make_variables, write_saved_model
from tests.cli.fuzzing import outcome_and_text, prepare_classifier
from tests.frameworks import PT, TF

Case = tuple[Callable[[], object], int]  # what writes the target, and the most bytes that a file may have
_TEXTS = "".join(f"The bread and the soup {number}.\n" for number in range(99))
_ENOUGH = 1000  # for a small file, not for weights


def _command(*arguments: object) -> Callable[[], object]:
    return lambda: outcome_and_text(*arguments)[1]


def commands(folder: Path, target: Path) -> dict[str, Case]:
    """Every command that writes a file, and every format that `convert` writes."""
    start, texts, metric = folder / "start", folder / "texts", folder / "metric"
    prepare_classifier(start)
    texts.write_text(_TEXTS)
    write_saved_model(metric, make_variables())
    task = ("sequence-classification", "--model", start, "--data")
    pairs = ("--candidates", texts, "--references", texts, "--quiet")
    cases = {
        f"convert-{to}": (_command("convert", start, target, "--to", to, "--force", "--quiet"), _ENOUGH)
        for to in ("pt", "torch-bin", "tf", "keras")
    }
    return {
        **cases,
        "convert-shards": (
            _command("convert", start, target, "--to", "pt", "--max-shard-size", "9KB", "--force", "--quiet"),
            _ENOUGH,
        ),
        "trim": (
            _command("trim", start, target, "--corpus", texts, "--force", "--quiet"),
            12_000,
        ),  # the tokenizer has less
        "embed": (_command("embed", start, "--data", texts, "--output", target), _ENOUGH),
        "predict": (_command("predict", *task, texts, "--format", "text", "--output", target), _ENOUGH),
        "score": (_command("score", "--model", metric, *pairs, "--output", target), 900),  # the scores kept have 891
        "score-kept": (_command("score", "--model", metric, *pairs, "--output", target), 600),
        "evaluate": (_command("evaluate", *task, start / "data.jsonl", "--output", target), 10),
    }


def saves(framework: Any, folder: Path, target: Path) -> dict[str, Case]:
    """`save_pretrained` of models in every format, of configurations and of tokenizers."""
    start = folder / "start"
    if not start.exists():
        prepare_classifier(start)
    config = RemBertConfig.from_pretrained(start)

    def saving(**options: Any) -> Callable[[], object]:
        return lambda: framework.build(config, "model").save_pretrained(target, **options)

    return {
        "save": (saving(), _ENOUGH),
        "save-shards": (saving(max_shard_size="9KB"), _ENOUGH),
        "save-other-format": (saving(safe_serialization=False), _ENOUGH),
        "save-config": (lambda: config.save_pretrained(target), 20),
        "save-tokenizer": (lambda: RemBertTokenizer.from_pretrained(start).save_pretrained(target), 20),
    }


def forked(work: Callable[[], object], limit: int) -> str:
    """What a child says or raises that may write files of at most `limit` bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            said = str(work())
        except BaseException as problem:
            said = f"{type(problem).__name__}: {problem}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return said


def content(path: Path) -> Any:
    """Every file below a path with its bytes, or the bytes of a file."""
    if path.is_file():
        return path.read_bytes()
    return {str(each): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def main(name: str, folder: Path) -> None:
    """All cases of a framework."""
    out = folder / "out"
    target = out / "target"
    framework = PT if name == "pt" else TF
    cases = saves(framework, folder, target)
    if name == "pt":
        cases |= commands(folder, target)
    for case, (work, limit) in cases.items():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if case in ("embed", "predict", "score", "score-kept", "evaluate"):
            target.write_text("what was there")
        else:
            shutil.copytree(folder / "start", target)
        before = content(target)
        said = forked(work, limit)
        left = sorted(path.name for path in out.iterdir() if path != target)
        print(json.dumps({"case": case, "said": said, "same": content(target) == before, "left": left}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

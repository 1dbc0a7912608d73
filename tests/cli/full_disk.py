"""Commands and saves while the disk is full: a file may have only so many bytes. A program, as `tests.cli.killing`.

    python -m tests.cli.full_disk {pt,tf,export-pt,export-tf} FOLDER

Each case runs in a forked child, over an older target if it may replace one. Prints a line of JSON for each: its name,
the error, whether the target is as before, and what is left beside it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rembert import RemBertConfig, RemBertTokenizer
from rembert.common.exporting import EXPORT_TARGETS
from tests.bleurt.cases import make_variables, write_saved_model
from tests.cli.fuzzing import outcome_and_text, prepare_classifier
from tests.frameworks import PT, TF
from tests.training.runs import write_examples

_TEXTS = "".join(f"The bread and the soup {number}.\n" for number in range(99))
_ENOUGH = 1000  # for a small file, not for weights


class Case(NamedTuple):
    """What writes the target, the most bytes that a file may have, and what is at the target before."""

    work: Callable[[], object]
    limit: int
    before: Literal["directory", "file", "nothing"] = "directory"


def _command(*arguments: object) -> Callable[[], object]:
    return lambda: outcome_and_text(*arguments)[1]


def commands(folder: Path, target: Path) -> dict[str, Case]:
    """Every command that writes a file, and every format that `convert` writes."""
    start, texts, metric = folder / "start", folder / "texts", folder / "metric"
    texts.write_text(_TEXTS)
    write_saved_model(metric, make_variables())
    task = ("sequence-classification", "--model", start, "--data")
    mistakes, replaced = folder / "mistakes.jsonl", ("--force", "--quiet")
    mistakes.write_text((start / "data.jsonl").read_text().replace("LABEL_1", "LABEL_0"))
    evaluate = ("evaluate", *task, mistakes)
    score = _command("score", "--model", metric, "--candidates", texts, "--references", texts, "--quiet", *_to(target))
    cases = {
        f"convert-{to}": Case(_command("convert", start, target, "--to", to, *replaced), _ENOUGH)
        for to in ("pt", "torch-bin", "tf", "keras")
    }
    shards = ("--to", "pt", "--max-shard-size", "9KB")
    return {
        **cases,
        "convert-shards": Case(_command("convert", start, target, *shards, *replaced), _ENOUGH),
        "average": Case(_command("average", start, start, *_to(target), "--force"), _ENOUGH),
        # The tokenizer has less.
        "trim": Case(_command("trim", start, target, "--corpus", texts, *replaced), 12_000),
        "embed": Case(_command("embed", start, "--data", texts, *_to(target)), _ENOUGH, "file"),
        "predict": Case(_command("predict", *task, texts, "--format", "text", *_to(target)), _ENOUGH, "file"),
        "score": Case(score, 900, "file"),  # the scores kept have 891
        "score-kept": Case(score, 600, "file"),
        "evaluate": Case(_command(*evaluate, *_to(target)), 10, "file"),
        "evaluate-diagram": Case(_command(*evaluate, "--reliability", target), _ENOUGH, "file"),
        "evaluate-errors": Case(_command(*evaluate, "--errors", target), 10, "file"),
        "finetune": Case(lambda: _finetune(start, target), 12_000, "nothing"),  # the settings have less
        "demo": Case(_command("demo", *_to(target)), _ENOUGH, "nothing"),
    }


def _to(target: Path) -> tuple[object, ...]:
    return "--output", target


def _finetune(start: Path, target: Path) -> str:
    """What a run says that is resumed once there is space again, or else its first error."""
    examples = write_examples(start.with_name("train.jsonl"), 9)
    files = ("--model", start, "--train", examples, *_to(target))
    run = ("finetune", "sequence-classification", *files, "--max-steps", 2)
    said = outcome_and_text(*run)[1]
    if next(target.rglob(".*"), None) is not None:
        return f"a temporary file is left: {said}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    outcome, resumed = outcome_and_text(*run, "--resume")
    if outcome != "ok" or not (target / "model.safetensors").exists():
        return f"not resumed: {resumed}"
    shutil.rmtree(target)
    return said


def exports(name: str, folder: Path, target: Path) -> dict[str, Case]:
    """`export` to every format of a framework."""
    return {
        f"export-{to}": Case(_command("export", folder / "start", target, "--to", to, "--quiet"), _ENOUGH, "nothing")
        for to, found in EXPORT_TARGETS.items()
        if found.framework == name
    }


def saves(framework: Any, folder: Path, target: Path) -> dict[str, Case]:
    """`save_pretrained` of models in every format, of configurations and of tokenizers."""
    start = folder / "start"
    config = RemBertConfig.from_pretrained(start)

    def saving(**options: Any) -> Callable[[], object]:
        return lambda: framework.build(config, "model").save_pretrained(target, **options)

    return {
        "save": Case(saving(), _ENOUGH),
        "save-shards": Case(saving(max_shard_size="9KB"), _ENOUGH),
        "save-other-format": Case(saving(safe_serialization=False), _ENOUGH),
        "save-config": Case(lambda: config.save_pretrained(target), 20),
        "save-tokenizer": Case(lambda: RemBertTokenizer.from_pretrained(start).save_pretrained(target), 20),
    }


def forked(work: Callable[[], object], limit: int) -> str:
    """What a child says or raises that may write files of at most `limit` bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
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
    prepare_classifier(folder / "start")
    if name.startswith("export-"):
        cases = exports(name.removeprefix("export-"), folder, target)
    else:
        cases = saves(PT if name == "pt" else TF, folder, target)
    if name == "pt":
        cases |= commands(folder, target)
    for case, (work, limit, kind) in cases.items():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if kind == "file":
            target.write_text("what was there")
        elif kind == "directory":
            shutil.copytree(folder / "start", target)
        before = content(target)
        said = forked(work, limit)
        left = sorted(path.name for path in out.iterdir() if path != target)
        print(json.dumps({"case": case, "said": said, "same": content(target) == before, "left": left}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

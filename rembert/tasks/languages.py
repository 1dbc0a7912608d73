"""Files in several languages: the language of each by `CODE=FILE`, or by the part in which the files' names differ."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.tasks.examples import Example
from rembert.tasks.sources import Data, data_files, is_path, sources
from rembert.tasks.task import Task

# ISO 639-1. Three letters are too often a word (`dev`, `new`) to be taken for a code in a file's name.
_CODES = frozenset(
    re.findall(
        r"\w+",
        """
        aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
        dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig
        ii ik io is it iu iw ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg
        mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro
        ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty
        ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
        """,
    )
)
_EXPLICIT = re.compile(r"([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)=(.+)", re.DOTALL)
_PARTS = re.compile(r"[/\\._-]")


class LanguageFile(NamedTuple):
    """A file of examples, and the language of all of them; None if nothing but the examples themselves names it."""

    path: str
    language: str | None


def language_files(data: Iterable[str | os.PathLike[str]]) -> list[LanguageFile]:
    """The files that arguments of a command name, with their languages.

    An argument is a file, a directory or a pattern such as `xquad.*.json`, also after `CODE=`. If the names of
    several files without a `CODE=` differ in nothing but a code of ISO 639-1, as `xquad.hi.json` and `xquad.de.json`
    or `de/test.tsv` and `ja/test.tsv`, that is their language.

    Raises:
        InputError: a pattern matches no file.
        DataError: a directory holds no file with the extension of a format.

    Example:
        >>> language_files(["hi=mine.tsv"])
        [LanguageFile(path='mine.tsv', language='hi')]
        >>> [file.language for file in language_files(["test-de.tsv", "test-sw.tsv"])]
        ['de', 'sw']
        >>> [file.language for file in language_files(["train.tsv", "dev.tsv"])]
        [None, None]
    """
    found = [file for each in data for file in _named(os.fspath(each))]
    open_ones = [file for file in found if file.language is None]
    named = _codes_in([file.path for file in open_ones])
    codes: Iterator[str | None] = iter(named) if named else repeat(None)
    return [file if file.language is not None else LanguageFile(file.path, next(codes)) for file in found]


def read_languages(task: Task, data: Sequence[Data], **options: Any) -> Iterator[Example]:
    """The examples of the files that `language_files` finds, one file after the other, each with its language.

    Args:
        task: reads them.
        data: as for `language_files`; or as for `task.read`, if some are records in memory.
        **options: of `task.read`.

    Raises:
        InputError: there is no file, or a pattern matches none.
        DataError: as for `task.read`.
    """
    if not all(map(is_path, data)):
        yield from task.read(*data, **options)
        return
    files = language_files(data)
    if not files:
        yield from task.read(**options)  # which refuses that
    for path, language in files:
        for example in task.read(path, **options):
            yield example if language is None else replace(example, language=language)


def count_records(task: Task, data: Sequence[str]) -> int | None:
    """The number of records, malformed ones included, of files as for `language_files`; None if a file can be read
    only once, as the standard input.

    Raises:
        InputError, DataError: as for `read_languages`, but no record is checked.
    """
    paths = [file.path for file in language_files(data)]
    if not all(map(os.path.isfile, paths)):
        return None
    return sum(1 for source in sources(paths) for _ in source.records(task.data, task.format))


def _named(argument: str) -> list[LanguageFile]:
    language, path = None, argument
    if not os.path.exists(argument) and (match := _EXPLICIT.fullmatch(argument)):
        language, path = match[1], match[2]
    if not (files := data_files(path)):
        raise InputError(f"`data` must name files. Received: the pattern {path}, which matches none.")
    return [LanguageFile(each, language) for each in files]


def _codes_in(paths: Sequence[str]) -> list[str] | None:
    """The codes in which the names of several files differ, or None if they differ in anything else."""
    rows = [_PARTS.split(path) for path in paths]
    if len(rows) < 2 or len({len(row) for row in rows}) > 1:
        return None
    differing = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
    if len(set(differing)) != 1:  # MLQA's names have the code twice
        return None
    codes = list(differing[0])
    return codes if len(set(codes)) == len(codes) and set(codes) <= _CODES else None

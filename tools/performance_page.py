"""The page of measurements, `docs/performance.md`: each benchmark rewrites its own section."""

from __future__ import annotations

from pathlib import Path

from rembert.common.files import write_text


def write_section(page: Path, name: str, title: str, text: str) -> None:
    """Put `text` between the marks of this name, or, without marks, under `title` at the end of the page."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    content = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    if start not in content:
        content = f"{content.rstrip()}\n\n## {title}\n\n{start}{end}"
    before, rest = content.split(start)
    write_text(page, f"{before}{start}{text.rstrip()}\n{end}{rest.split(end)[1]}")

"""A hook of MkDocs: every page in `docs/tasks` is in the navigation, under the title that the page gives itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SECTION = "Tasks"


def on_config(config: Any) -> None:
    """Add the pages that the section of tasks does not list, after its first one."""
    [section] = [entry[_SECTION] for entry in config.nav if _SECTION in entry]
    listed = {page if isinstance(page, str) else next(iter(page.values())) for page in section}
    pages = sorted(f"tasks/{path.name}" for path in (Path(config.docs_dir) / "tasks").glob("*.md"))
    section[1:1] = [page for page in pages if page not in listed]

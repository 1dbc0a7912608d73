"""A small Hugging Face Hub on this machine, for the real client: repositories, downloads by ETag, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"


@dataclass
class Repository:
    """The files of each commit, the newest last, and its messages."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    messages: list[str] = field(default_factory=list)

    def at(self, revision: str) -> int | None:
        """The number of a commit, by its hash or `main`."""
        numbers = range(len(self.commits))
        return (
            len(self.commits) - 1
            if revision == "main"
            else {_hash(number): number for number in numbers}.get(revision)
        )


def _hash(number: int) -> str:
    return f"{number:040x}"


class HubServer:
    """Serves `repositories` at `endpoint`. `downloads` lists the files whose content was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.downloads: list[str] = []
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def _is_trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after the answer that there is none: a private one is hidden from strangers."""
        found = self.server_state.repositories.get(name)
        if found is None or (found.private and not self._is_trusted):
            self._answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", self._path):
            name, kind, revision = match[1], match[2], match[3] or "main"
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", self._path):
            name, kind, revision = match[1], match[2], match[3]
        else:
            return self._answer(404, {"error": self._path})
        repository = self._repository(name)
        if repository is None:
            return None
        number = repository.at(revision)
        if number is None:
            return self._answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        files = repository.commits[number]
        if kind == "tree":
            return self._answer(
                200, [{"type": "file", "path": path, "size": len(files[path]), "oid": path} for path in files]
            )
        if kind != "resolve":
            siblings = [{"rfilename": path} for path in files]
            return self._answer(200, {"id": name, "sha": _hash(number), "siblings": siblings, "tags": []})
        if match[4] not in files:
            return self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        if self.command == "GET":
            self.server_state.downloads.append(match[4])
        content = files[match[4]]
        return self._answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=_hash(number))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_trusted:
            return self._answer(401, {"error": "Invalid credentials"})
        if self._path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            exists = name in self.server_state.repositories
            if not exists:
                self.server_state.repositories[name] = Repository(
                    private=bool(asked.get("private")) or asked.get("visibility") == "private"
                )
            return self._answer(409 if exists else 200, {"url": f"{self.server_state.endpoint}/{name}", "name": name})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self._path)
        repository = self._repository(match[1]) if match else None
        if match is None or repository is None:
            return self._answer(404, {"error": self._path}) if match is None else None
        if match[2] == "preupload":
            paths = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self._answer(200, {"files": modes})
        files = dict(repository.commits[-1])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                repository.messages.append(entry["value"]["summary"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
            else:
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        repository.commits.append(files)
        made = _hash(len(repository.commits) - 1)
        url = f"{self.server_state.endpoint}/{match[1]}/commit/{made}"
        return self._answer(200, {"success": True, "commitOid": made, "commitUrl": url})

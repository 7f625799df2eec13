"""A Hugging Face hub on loopback: what its client asks to log in, to upload and to download."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of-the-test"


@dataclass
class Repository:
    """Its files by revision: `main`, and the commits."""

    kind: str
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files. Returns the new commit."""
        self.files |= files
        digest = hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()
        self.commits[digest] = dict(self.files)
        return digest

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """A commit and its files."""
        last = [*self.commits][-1]
        commit = last if revision == "main" else revision
        return commit, self.commits[commit]


@dataclass
class Hub:
    """What it knows, and what it was asked."""

    url: str = ""
    account: dict[str, Any] = field(
        default_factory=lambda: {
            "type": "user",
            "name": "me",
            "orgs": [{"name": "lab"}],
            "auth": {"accessToken": {"role": "write"}},
        }
    )
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuses_commits: bool = False


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Start one, on a free port."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        hub, path = self.state, unquote(self.path.partition("?")[0])
        body = self._body()
        hub.asked.append(f"{self.command} {path}")
        if path.startswith("/large/"):
            hub.large[path.removeprefix("/large/")] = body
            return self._send({})
        if match := re.fullmatch(r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[2], match[3], match[4])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        if path == "/api/whoami-v2":
            return self._send(hub.account)
        if path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/(?:spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/api/(model|space)s/([^/]+/[^/]+)(?:/(.*))?", path):
            return self._repository(match[2], match[3] or "", body)
        return self._send({"error": path}, 404)

    def _repository(self, name: str, rest: str, body: bytes) -> None:
        repository = self.state.repositories[name]
        what, _, revision = rest.partition("/")
        if what == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send({"files": modes})
        if what == "commit":
            if self.state.refuses_commits:
                return self._send({"error": "Storage limit reached"}, 403)
            commit = repository.commit(self._committed(body))
            return self._send(
                {
                    "success": True,
                    "commitOid": commit,
                    "commitUrl": f"{self.state.url}/{name}/commit/{commit}",
                }
            )
        commit, files = repository.at(revision or "main")
        if what == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(files[path]), "oid": commit}
                for path in files
            ]
            return self._send(entries)
        siblings = [{"rfilename": path} for path in files]
        return self._send(
            {
                "id": name,
                "private": repository.private,
                "sha": commit,
                "siblings": siblings,
                "tags": [],
            }
        )

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or self.state.account['name']}/{asked['name']}"
        kind, url = asked.get("type") or "model", f"{self.state.url}/{name}"
        if kind == "space":
            assert asked["sdk"] == "gradio"
            url = f"{self.state.url}/spaces/{name}"
        if name in self.state.repositories:
            return self._send({"error": "You already created this repo", "url": url}, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.state.repositories[name] = Repository(kind, private)
        return self._send({"url": url, "name": name})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.state.url}/large/{each['oid']}"}}}
            if each["oid"] not in self.state.large
            else each
            for each in asked["objects"]
        ]
        self._send({"transfer": "basic", "objects": objects})

    def _committed(self, body: bytes) -> dict[str, bytes]:
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.state.large[entry["value"]["oid"]]
        return files

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self.state.repositories.get(name)
        if not repository:
            return self._send(
                {"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}
            )
        if revision != "main" and revision not in repository.commits:
            return self._send({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
        commit, files = repository.at(revision)
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            return self._send({"error": "none"}, 404, headers | {"X-Error-Code": "EntryNotFound"})
        content = files[path]
        etag = hashlib.sha256(content).hexdigest()
        return self._send(content, 200, headers | {"ETag": f'"{etag}"'})

    def _send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

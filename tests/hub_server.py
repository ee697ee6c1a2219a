"""A web server on this machine that speaks as much of the Hugging Face Hub's protocol as is needed.

Repositories of models: they are made, committed to (small files inside the commit, large ones by
git LFS), listed, and their files read, with faults on the way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]
_REPOSITORY = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Hub:
    """Repositories, the faults to come, and what was asked."""

    commits: dict[str, list[Files]] = field(default_factory=dict)
    """Repository to its commits on the branch main, the last one last."""
    large: Files = field(default_factory=dict)
    """Content of large files by checksum."""
    cuts: list[int] = field(default_factory=list)
    """One per answer with the bytes of weights: after how many to close the connection."""
    num_flipped: int = 0
    """Answers to come whose bytes of weights are wrong."""
    requests: list[str] = field(default_factory=list)
    """Method and path of each."""
    ranges: list[str] = field(default_factory=list)
    """What each request for the bytes of weights asked for ('' for all)."""
    url: str = ""

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = _QuietServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def revision(self, repo: str, name: str) -> tuple[str, Files]:
        """Commit id and files of a branch or commit."""
        commits = {commit_id(repo, number): files for number, files in self._numbered(repo)}
        if name == "main" and commits:
            return list(commits.items())[-1]
        return name, commits[name]

    def _numbered(self, repo: str) -> Iterator[tuple[int, Files]]:
        yield from enumerate(self.commits[repo], start=1)


def pretend_to_be_the_hub(hub: Hub, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Sends the client of this process to this server.

    Its constants are read from the environment when it is imported, once.
    """
    from huggingface_hub import constants

    patch.setenv("HF_TOKEN", "hf_test")
    patch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def commit_id(repo: str, number: int) -> str:
    return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Silence: clients reset their connections."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  # the names that http.server calls

    ROUTES = (
        ("POST", "/api/repos/create", "create"),
        ("POST", "/api/validate-yaml", "validate"),
        ("GET", f"/api/models/{_REPOSITORY}(/revision/(?P<revision>.+))?", "describe"),
        ("GET", f"/api/models/{_REPOSITORY}/tree/(?P<revision>.+)", "list"),
        ("POST", f"/api/models/{_REPOSITORY}/preupload/.+", "choose_way"),
        ("POST", f"/{_REPOSITORY}.git/info/lfs/objects/batch", "offer_upload"),
        ("PUT", "/large/(?P<oid>[0-9a-f]+)", "receive"),
        ("POST", f"/api/models/{_REPOSITORY}/commit/main", "commit"),
        ("(GET|HEAD)", f"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "send"),
    )

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        for method, pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, path)
            if found and re.fullmatch(method, self.command):
                repo = found.groupdict().get("repo")
                if repo is not None and repo not in self.hub.commits:
                    return self._refuse("RepoNotFound")
                try:
                    return getattr(self, name)(**found.groupdict())
                except KeyError:  # of Hub.revision
                    return self._refuse("RevisionNotFound")
        return self._refuse("EntryNotFound")

    def _refuse(self, code: str) -> None:
        self._answer(404, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    # writing ---------------------------------------------------------------------------------

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        self.hub.commits.setdefault(repo, [])
        self._json({"url": f"{self.hub.url}/{repo}", "id": repo})

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def choose_way(self, repo: str) -> None:
        ways = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": ways})

    def offer_upload(self, repo: str) -> None:
        offers = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": offers})

    def receive(self, oid: str) -> None:
        assert checksum(self.body) == oid
        self.hub.large[oid] = self.body
        self._json({})

    def commit(self, repo: str) -> None:
        commits = self.hub.commits[repo]
        files = dict(commits[-1]) if commits else {}
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commits.append(files)
        oid = commit_id(repo, len(commits))
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    # reading ---------------------------------------------------------------------------------

    def describe(self, repo: str, revision: str | None) -> None:
        oid, files = self.hub.revision(repo, revision or "main")
        self._json({"id": repo, "sha": oid, "siblings": [{"rfilename": name} for name in files]})

    def list(self, repo: str, revision: str) -> None:
        _, files = self.hub.revision(repo, revision)
        self._json(
            [
                {"type": "file", "path": name, "size": len(content), "oid": checksum(content)[:40]}
                for name, content in files.items()
            ]
        )

    def send(self, repo: str, revision: str, path: str) -> None:
        oid, files = self.hub.revision(repo, revision)
        if path not in files:
            return self._refuse("EntryNotFound")
        content, asked = files[path], self.headers.get("Range", "")
        headers = {"ETag": f'"{checksum(content)}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if self.command == "HEAD" or not path.endswith(".safetensors"):
            return self._answer(200, content, headers)
        self.hub.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.hub.num_flipped:
            self.hub.num_flipped -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        cut = self.hub.cuts.pop(0) if self.hub.cuts else len(body)
        self._answer(
            206 if start else 200, body[:cut], headers | {"Content-Length": str(len(body))}
        )
        self.close_connection = cut < len(body)

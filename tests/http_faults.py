"""A web server on this machine with DANDI's interface, and with every fault that networks know."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STALL_LIMIT = 10.0  # seconds after which a stalled answer ends, should its client wait for ever


@dataclass(frozen=True, kw_only=True, repr=False)
class Fault:
    """How one answer with a file's bytes goes wrong."""

    status: int | None = None
    """Answer only this status."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent besides, or in place of, what is right."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_after: int | None = None
    """Send nothing more after so many bytes of the body."""
    ignores_range: bool = False
    """Answer 200 with the whole file, whatever was asked for."""
    ignores_if_range: bool = False
    """Send the range, though the file is another one than the client began with."""
    chunked: bool = False
    """Do not tell the length."""
    flips: bool = False
    """Send wrong bytes."""

    def __repr__(self) -> str:
        given = {
            name: value
            for name, value in vars(self).items()
            if value is not getattr(Fault, name, None) and value != {}
        }
        return "-".join(f"{name}-{value}" for name, value in given.items()) or "well"


@dataclass
class Archive:
    """Files by path, the faults to come, and what was asked and sent."""

    files: dict[str, bytes]
    faults: list[Fault] = field(default_factory=list)
    """One per answer with bytes of a file, in order; then all goes well."""
    api_faults: list[Fault] = field(default_factory=list)
    """The same for the listing of files."""
    etag: str = '"1"'
    requests: list[str] = field(default_factory=list)
    """The range asked for by each request for bytes ('' for the whole file)."""
    bytes_sent: int = 0
    bytes_sent_of: dict[str, int] = field(default_factory=dict)
    base_url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    first_bytes: threading.Event = field(default_factory=threading.Event)
    """Set once bytes of a file were sent."""

    def url(self, path: str) -> str:
        """Where a file's bytes are, without the detour over the listing."""
        return f"{self.base_url}/assets/{sorted(self.files).index(path)}/download/"

    def take_fault(self, faults: list[Fault]) -> Fault:
        with self.lock:
            return faults.pop(0) if faults else Fault()

    def count(self, path: str, num_bytes: int) -> None:
        with self.lock:
            self.bytes_sent += num_bytes
            self.bytes_sent_of[path] = self.bytes_sent_of.get(path, 0) + num_bytes
        self.first_bytes.set()

    def __enter__(self) -> Archive:
        handler = type("Handler", (_Handler,), {"archive": self})
        self.server = _QuietServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/api"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Silence: clients that are killed reset their connections."""


class _Handler(BaseHTTPRequestHandler):
    archive: Archive
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        try:
            self._answer()
        except ConnectionError:
            self.close_connection = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        paths = sorted(self.archive.files)
        if parts.path == "/api/dandisets/000728/versions/0.240827.1809/assets/":
            self._list(parse_qs(parts.query)["path"][0])
        elif found := re.fullmatch(r"/api/assets/(\d+)/download/", parts.path):
            self._head(302, {"Location": f"/store/{found[1]}?signature=secret"}, length=0)
        elif found := re.fullmatch(r"/store/(\d+)", parts.path):
            self._send_file(paths[int(found[1])], self.archive.take_fault(self.archive.faults))
        else:
            self._head(404, {}, length=0)

    def _list(self, beginning: str) -> None:
        fault = self.archive.take_fault(self.archive.api_faults)
        if fault.status:
            return self._head(fault.status, fault.headers, length=0)
        results = [
            {"asset_id": str(number), "path": path, "size": len(self.archive.files[path])}
            for number, path in enumerate(sorted(self.archive.files))
            if path.lower().startswith(beginning.lower())
        ]
        body = json.dumps({"count": len(results), "next": None, "results": results}).encode()
        self._head(200, {"Content-Type": "application/json"}, length=len(body))
        self.wfile.write(body)

    def _send_file(self, path: str, fault: Fault) -> None:
        content = self.archive.files[path]
        asked = self.headers.get("Range", "")
        self.archive.requests.append(asked)
        if fault.status:
            return self._head(fault.status, fault.headers, length=0)
        start, stop = self._range(asked, len(content))
        is_other = self.headers.get("If-Range", self.archive.etag) != self.archive.etag
        is_other &= not fault.ignores_if_range
        if fault.ignores_range or is_other or not asked:
            start, stop, status, headers = 0, len(content), 200, {}
        else:
            status = 206
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        headers = {"ETag": self.archive.etag} | headers | fault.headers
        body = content[start:stop]
        if fault.flips:
            body = bytes(value ^ 1 for value in body)
        self._head(status, headers, length=None if fault.chunked else len(body))
        self._send(path, body, fault)

    @staticmethod
    def _range(asked: str, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if not found:
            return 0, size
        return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size

    def _head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        self.send_response(status)
        default = {"Transfer-Encoding": "chunked"} if length is None else {}
        default |= {} if length is None else {"Content-Length": str(length)}
        for name, value in (default | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, path: str, body: bytes, fault: Fault) -> None:
        sent = min(
            limit for limit in (len(body), fault.cut_after, fault.stall_after) if limit is not None
        )
        for place in range(0, sent, 2**16):
            block = body[place : min(place + 2**16, sent)]
            frame = b"%x\r\n%b\r\n" % (len(block), block) if fault.chunked else block
            self.wfile.write(frame)
            self.archive.count(path, len(block))
        if fault.stall_after is not None:
            self.archive.closing.wait(STALL_LIMIT)
        if fault.chunked and sent == len(body):
            self.wfile.write(b"0\r\n\r\n")
        elif sent < len(body) or fault.headers.get("Content-Length"):
            self.close_connection = True

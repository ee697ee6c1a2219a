"""Reading a file where it lies: its address on DANDI, and only those of its bytes that are needed.

Needs the extra ``poyo-ssl[remote]``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, BinaryIO

import requests

from poyo_ssl.extras import import_extra
from poyo_ssl.recordings.dandi.catalogue import DANDISET, VERSION
from poyo_ssl.recordings.dandi.resumable_http import DownloadError, Patience, open_url

DANDI_API = "https://api.dandiarchive.org/api"

_READ_AHEAD = 4 * 2**20  # bytes at most; more would fetch what lies behind the array that is read
_CACHE = 64 * 2**20  # bytes kept of what was read
_TOTAL = re.compile(r"bytes 0-0/(\d+)")


def resolve_url(path: str, base_url: str = DANDI_API, patience: Patience | None = None) -> str:
    """The download address of one file of the dandiset's published version.

    Args:
        path: Within the dandiset, as in ``find_sessions``.
        base_url: Root of DANDI's REST API.
        patience: How often and how long the server is asked.

    Returns:
        An address that redirects to the file's present place.

    Raises:
        DownloadError: If the server cannot be asked, or has no such file.
    """
    patience = patience or Patience()
    listing = f"{base_url}/dandisets/{DANDISET}/versions/{VERSION}/assets/"
    query = requests.Request("GET", listing, params={"path": path}).prepare().url or listing

    def ask() -> Any:
        with requests.Session() as session, open_url(session, query, patience) as response:
            return response.json()

    answer = patience.persist(ask, progress=lambda: 0)
    # the server matches paths by their beginning; no published path begins with another one
    found = [asset["asset_id"] for asset in _listed_assets(answer, query) if asset["path"] == path]
    if len(found) != 1:
        raise DownloadError(
            f"{query} lists {len(found)} files '{path}' where one is expected. Check base_url; "
            f"if it is DANDI's own, look at https://dandiarchive.org/dandiset/{DANDISET}."
        )
    return f"{base_url}/assets/{found[0]}/download/"


def _listed_assets(answer: Any, query: str) -> list[Mapping[str, str]]:
    assets = answer.get("results") if isinstance(answer, dict) else None
    is_listing = isinstance(assets, list) and all(
        isinstance(asset, dict) and {"asset_id", "path"} <= asset.keys() for asset in assets
    )
    if not is_listing:
        raise DownloadError(
            f"{query} answers with something other than a list of assets. Check that base_url is "
            "the root of DANDI's REST API."
        )
    return assets  # type: ignore[return-value]


def open_remote(url: str, patience: Patience | None = None) -> BinaryIO:
    """Opens a file on a web server for reading, as if it lay on disk.

    Only the parts that are read travel, with at most 4 MiB of read-ahead. While reading, remfile
    repeats a request that fails up to eight times with growing waits, half a minute in all.

    Args:
        url: Address of the file; redirects are followed once, now.
        patience: How often the file is asked for, and how long every request may be silent.

    Returns:
        A binary file object, for instance for ``open_hdf5(file, name=url)``.

    Raises:
        ImportError: If remfile is not installed.
        DownloadError: If the file is out of reach, or its server does not send parts of it.
    """
    remfile = import_extra(
        "remfile",
        "remote",
        "Reading files where they lie",
        "Or download the files first: poyo-ssl download.",
    )
    patience = patience or Patience()
    session = _BoundedSession(patience.timeout)
    place, num_bytes = patience.persist(lambda: _locate(session, url, patience), lambda: 0)
    # without _size, remfile would ask for it with a request that may wait for ever
    remote = remfile.File(
        place, _size=num_bytes, _max_chunk_size=_READ_AHEAD, _max_cache_size=_CACHE
    )
    remote.session = session
    return io.BufferedReader(_RemoteFile(remote, url, num_bytes, patience))


def _locate(session: requests.Session, url: str, patience: Patience) -> tuple[str, int]:
    """Where the redirects lead, and how many bytes lie there."""
    with open_url(session, url, patience, {"Range": "bytes=0-0"}) as response:
        total = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != HTTPStatus.PARTIAL_CONTENT or total is None:
            raise DownloadError(
                f"The server of '{url}' does not send parts of files. Download the file instead."
            )
        return response.url, int(total[1])


class _BoundedSession(requests.Session):
    """A session whose requests never wait without an end."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """As that of any session, with our timeout."""
        return super().request(*arguments, **({"timeout": self._timeout} | options))


class _RemoteFile(io.RawIOBase):
    """A remfile as a Python file object, with errors that can be named."""

    def __init__(self, remote: Any, url: str, num_bytes: int, patience: Patience) -> None:
        self._remote = remote
        self._url = url
        self._num_bytes = num_bytes
        self._patience = patience

    @property
    def name(self) -> str:
        """The address."""
        return self._url

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place; nothing travels."""
        self._remote.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        """The present place."""
        return int(self._remote.tell())

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer from the present place; returns how many bytes were there.

        Raises:
            DownloadError: If they could not be fetched.
        """
        size = min(len(buffer), max(0, self._num_bytes - self.tell()))
        if size == 0:
            return 0
        self._patience.raise_if_stopped()
        try:
            content = self._remote.read(size)
        except Exception as error:  # remfile raises nothing more particular
            raise DownloadError(
                f"Bytes {self.tell()} to {self.tell() + size} of '{self._url}' cannot be fetched: "
                f"{error}. Try again, or download the file first."
            ) from error
        buffer[:size] = content
        return size

    def close(self) -> None:
        """Ends the connection."""
        self._remote.session.close()
        super().close()

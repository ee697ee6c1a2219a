"""Weights given to others and taken from them: a directory, or a repository of Hugging Face's Hub.

Only safetensors, JSON and text are written and read; nothing that was downloaded is run. What comes
from elsewhere is held against the checksums that were written with it. The Hub needs the extra
``poyo-ssl[hub]``.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Self

from poyo_ssl.extras import import_extra
from poyo_ssl.model.checkpoint_files import CONFIG, WEIGHTS, CheckpointError
from poyo_ssl.model.model_card import ModelCard
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.model.shipped import SHIPPED, shipped_names
from poyo_ssl.whole_files import partial_file, publish

logger = logging.getLogger(__name__)

CARD, CHECKSUMS = "README.md", "SHA256SUMS"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NO_SCORES: Mapping[str, float] = MappingProxyType({})


class HubError(OSError):
    """A repository of the Hub that cannot be reached; the message says why and what to do."""


class Shareable:
    """What can be given to others with its model card: encoders and fitted decoders."""

    provenance: Provenance | None = None
    """What the weights were learned from, where it was kept."""

    @abstractmethod
    def write_weights(self, directory: Path) -> None:
        """Writes weights and config."""

    @classmethod
    @abstractmethod
    def read_weights(cls, directory: Path) -> Self:
        """Inverse of ``write_weights``."""

    @abstractmethod
    def model_card(self, source: str, scores: Mapping[str, float]) -> ModelCard:
        """What others should know.

        Args:
            source: The directory or repository that the weights will be loaded from.
            scores: Metric to value; may be empty.
        """

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        scores: Mapping[str, float] = _NO_SCORES,
        name: str | None = None,
    ) -> None:
        """Writes weights, config, model card and checksums.

        Args:
            directory: Is made if it is not there.
            scores: Metric to value for the model card, such as ``evaluate(...).mean()``.
            name: What the card says to load it by; None for the directory.
        """
        self._write(Path(directory), name or str(directory), scores)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        scores: Mapping[str, float] = _NO_SCORES,
        revision: str | None = None,
        private: bool = False,
    ) -> str:
        """Uploads what :meth:`save_pretrained` writes to a repository of the Hugging Face Hub.

        The token is the one of ``hf auth login`` or the variable ``HF_TOKEN``.

        Args:
            repo_id: ``owner/name``; is made if it is not there.
            scores: Metric to value for the model card.
            revision: Branch; None for the main one.
            private: Whether a repository that is made is hidden from others.

        Returns:
            Where the commit can be seen.

        Raises:
            HubError: If the Hub cannot be reached or refuses.
            ImportError: If huggingface_hub is not installed.
        """
        _require_repository(repo_id)
        hub = _require_hub(repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), repo_id, scores)
            try:
                api = hub.HfApi(library_name="poyo-ssl")
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    revision=revision,
                    commit_message=f"Upload of a {type(self).__name__}",
                )
            except (OSError, hub.errors.HTTPError) as error:
                raise HubError(
                    f"'{repo_id}' was not written ({_first_line(error)}). Check the name, and log "
                    "in with 'hf auth login' or set HF_TOKEN to a token that may write."
                ) from error
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Loads from a directory, from the package, or from a repository of the Hugging Face Hub.

        Args:
            source: What :meth:`save_pretrained` or any stage of the package wrote; the name of an
                encoder that comes with the package, ``simulated``; or ``owner/name`` of a
                repository. A directory of that name goes first.
            revision: Branch, tag or commit of the repository.

        Raises:
            CheckpointError: If there is nothing of that kind, or it is damaged.
            HubError: If the repository does not exist or cannot be reached.
            ImportError: If huggingface_hub is not installed.
        """
        if Path(source).is_dir():
            if revision is not None:
                raise CheckpointError(
                    f"'{source}' is a directory, which has no revision '{revision}'. Leave it out."
                )
            _require_whole(Path(source))
            return cls.read_weights(Path(source))
        if str(source) in shipped_names():
            return cls.read_weights(SHIPPED / source)
        _require_repository(str(source))
        return cls.read_weights(_download(str(source), revision))

    def _write(self, directory: Path, source: str, scores: Mapping[str, float]) -> None:
        (directory / CHECKSUMS).unlink(missing_ok=True)  # until all is written, none holds
        self.write_weights(directory)
        _write_text(directory / CARD, str(self.model_card(source, scores)))
        sums = [f"{_checksum(directory / name)}  {name}\n" for name in (WEIGHTS, CONFIG)]
        _write_text(directory / CHECKSUMS, "".join(sums))


def _write_text(path: Path, text: str) -> None:
    with partial_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
        publish(partial, path)


def _checksum(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _damaged_files(directory: Path) -> list[str]:
    """Files whose checksum is not the one written with them; none where there are no checksums."""
    sums = directory / CHECKSUMS
    if not sums.is_file():
        return []
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    return [
        name
        for name in (WEIGHTS, CONFIG)
        if (directory / name).is_file() and _checksum(directory / name) != written.get(name)
    ]


def _require_whole(directory: Path) -> None:
    damaged = _damaged_files(directory)
    if damaged:
        raise CheckpointError(
            f"{' and '.join(damaged)} in '{directory}' changed after {CHECKSUMS} was written. Copy "
            f"or download it again; if you changed it yourself, remove {CHECKSUMS}."
        )


def _require_repository(source: str) -> None:
    if not _REPOSITORY.fullmatch(source):
        raise CheckpointError(
            f"There is no directory '{source}', a repository of the Hub is called owner/name, and "
            f"with the package comes {', '.join(shipped_names())}. Correct the name."
        )


def _require_hub(repo_id: str) -> ModuleType:
    asked = f"'{repo_id}' on the Hugging Face Hub"
    instead = "If you mean a directory, there is none of that name."
    import_extra("huggingface_hub.errors", "hub", asked, instead)
    return import_extra("huggingface_hub", "hub", asked, instead)


def _download(repo_id: str, revision: str | None) -> Path:
    """The files of a repository, whole and unchanged; a damaged download is tried once more."""
    hub = _require_hub(repo_id)
    for is_again in (False, True):
        try:
            directory = Path(
                hub.snapshot_download(
                    repo_id,
                    revision=revision,
                    allow_patterns=[WEIGHTS, CONFIG, CARD, CHECKSUMS],
                    force_download=is_again,
                    library_name="poyo-ssl",
                )
            )
        except (OSError, hub.errors.HTTPError) as error:
            raise HubError(_explain(hub, error, repo_id, revision)) from error
        if not _damaged_files(directory):
            break
        logger.warning("The download of '%s' was damaged on its way.", repo_id)
    _require_whole(directory)
    return directory


def _explain(hub: ModuleType, error: Exception, repo_id: str, revision: str | None) -> str:
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return (
            f"The repository '{repo_id}' has no revision '{revision}'. Give a branch, tag or "
            "commit of it, or none for the main branch."
        )
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return (
            f"There is no directory '{repo_id}', and no such repository on the Hub, or it is "
            "private. Check the name; for a private one, log in with 'hf auth login' or set "
            "HF_TOKEN."
        )
    return (
        f"'{repo_id}' could not be downloaded ({_first_line(error)}). What has arrived is kept: "
        "check the connection and try again."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]

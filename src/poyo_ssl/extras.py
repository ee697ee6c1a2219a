"""Extras: packages that only a part of what poyo-ssl does needs, and that are imported there."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

EXTRAS = {
    "formats": "files of Inscopix and Minian",
    "hub": "sharing weights on the Hugging Face Hub",
    "lamb": "the optimizer LAMB",
    "movie": "writing decoded movies as .mp4",
    "nwb": "writing NWB files; reading them needs no extra",
    "pynapple": "objects of pynapple",
    "ray": "several workers, on one machine or a cluster",
    "remote": "reading files of DANDI without downloading them",
    "tensorboard": "curves of training in TensorBoard",
    "wandb": "curves of training in Weights & Biases",
    "xarray": "datasets of xarray",
}
"""Extra to what it is for; those for developers are left out."""


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def import_extra(module: str, extra: str, asked: str, instead: str = "") -> ModuleType:
    """Imports a module that comes with an extra.

    Args:
        module: Its full name.
        extra: One of :data:`EXTRAS`.
        asked: What needs it, as the subject of a sentence.
        instead: A sentence that says what can be done without it.

    Raises:
        MissingExtraError: If it is not there.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{asked} needs {module.partition('.')[0]} ({error}). Run: "
            f'pip install "poyo-ssl[{extra}]". {instead}'.rstrip()
        ) from error

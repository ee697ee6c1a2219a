"""Configs of the experiments, which come with the package: ``--config`` takes their names, too."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
_OPTION = "--config"


def find_configs(arguments: list[str]) -> list[str]:
    """Replaces the name of a config that comes with the package by its path.

    ``real_gratings``, ``real_gratings.yaml`` and ``configs/real_gratings.yaml`` name the same one;
    a file of that path goes first.
    """
    found = list(arguments)
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == _OPTION and equals:
            found[place] = f"{option}={_find(value)}"
        elif place and arguments[place - 1] == _OPTION:
            found[place] = _find(word)
    return found


def _find(word: str) -> str:
    path = Path(word)
    if path.exists() or path.parent.as_posix() not in (".", "configs"):
        return word
    packaged = CONFIGS / f"{path.name.removesuffix('.yaml')}.yaml"
    return str(packaged) if packaged in CONFIGS.iterdir() else word

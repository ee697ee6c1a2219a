"""What a command is, the options that several share, and the configs that are built of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jsonargparse import ArgumentParser, Namespace

Config = TypeVar("Config")


class Command(NamedTuple):
    """What a word on the command line does."""

    add_options: Callable[[ArgumentParser], None]
    call: Callable[[Namespace], None]
    text: str
    """Help; its first sentence stands in the list of commands."""


def add_files(parser: ArgumentParser) -> None:
    """The recordings to read."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="NWB files, prepared .h5 recordings, .npz arrays, suite2p folders, or directories "
        "that are searched for them",
    )


def add_source(parser: ArgumentParser) -> None:
    """How to read recordings whose layout does not say everything."""
    from poyo_ssl.recordings.sources import SourceConfig

    parser.add_class_arguments(SourceConfig, "source")


def add_workers(parser: ArgumentParser) -> None:
    """How many recordings are worked on at a time, and where."""
    parser.add_argument("--workers", type=int, default=1, help="recordings at a time; 0: all cores")
    parser.add_argument(
        "--address", help="Ray cluster to work on, such as auto or ray://head:10001"
    )


def add_config(parser: ArgumentParser, config: type) -> None:
    """The fields of a config dataclass, and a YAML file with any of the options."""
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_class_arguments(config)


def build(config: type[Config], options: Namespace) -> Config:
    """The config dataclass filled from parsed options."""
    names = {field.name for field in fields(config)}  # type: ignore[arg-type]
    return _instantiate(config, Namespace(**{k: v for k, v in vars(options).items() if k in names}))


def _instantiate(config: type[Config], values: Namespace) -> Config:
    parser = ArgumentParser()
    parser.add_class_arguments(config, "config")
    built: Config = parser.instantiate_classes(Namespace(config=values)).config
    return built


def read_source(options: Namespace) -> Any:
    """The ``SourceConfig`` that the options of :func:`add_source` say."""
    from poyo_ssl.recordings.sources import SourceConfig

    return _instantiate(SourceConfig, options.source)

"""Help on one screen, read from the sources: importing the configs would take seconds."""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from argparse import SUPPRESS
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from jsonargparse import ArgumentParser

from poyo_ssl.cli.options import CONFIG_HELP, Command, ConfigClass

PACKAGE = Path(__file__).resolve().parents[1]


def help_topic(arguments: list[str]) -> str | None:
    """What ``--help`` is asked about: "" for the short help, None if it is not asked for."""
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        if word in ("--help", "-h"):
            return "" if following.startswith("-") else following
    return None


def short_help(name: str, command: Command, usage: str, parser: ArgumentParser) -> str:
    """Usage, the options that one needs, and the groups of the others."""
    options = {
        ", ".join(action.option_strings) or f"{action.dest.upper()} ...": action.help or ""
        for action in parser._actions
        if action.help != SUPPRESS and action.dest != "help"
    }
    fields = outline(command.config) if command.config else {}
    options["--config FILE"] = CONFIG_HELP
    options |= {f"--{field}": fields[field].text for field in command.essentials}
    groups = {field: found.text for field, found in fields.items() if found.is_group}
    if command.reads_source:
        groups["source"] = "How to read recordings whose layout does not say everything."
    single = [
        f"--{field}"
        for field, found in fields.items()
        if not found.is_group and field not in command.essentials
    ]
    others = f"Others: {', '.join(single)}." if single else ""
    return "\n".join(
        [
            f"usage: {usage}",
            "",
            *textwrap.wrap(command.text, _width()),
            "",
            *_table(options),
            "",
            "Groups of options, such as --splits.guard, or --splits splits.yaml for all of one:",
            *_table(groups),
            "",
            *textwrap.wrap(others, _width()),
            f"Everything else: poyo-ssl {name} --help all, or --help GROUP, such as "
            f"poyo-ssl {name} --help {next(iter(groups))}",
        ]
    )


def help_of_topic(parser: ArgumentParser, topic: str) -> str | None:
    """Help of a group or of one option; None if there is no such."""
    actions = [
        action
        for action in parser._actions
        if action.help != SUPPRESS
        and (action.dest == topic or action.dest.startswith(f"{topic}."))
        and not action.dest.endswith(".help")
    ]
    if not actions:
        return None
    for group in parser._action_groups:
        group._group_actions = [action for action in group._group_actions if action in actions]
        if not group._group_actions:
            group.title = group.description = None
    parser.description = None
    return parser.format_help()


class Outline(NamedTuple):
    """What short help says of a field."""

    text: str
    """First sentence of its docstring."""
    is_group: bool
    """Whether it is a dataclass, whose options are named after it and a dot."""


def outline(config: ConfigClass) -> dict[str, Outline]:
    """The fields of a config dataclass, from its source."""
    path = PACKAGE.joinpath(*config.module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    modules = {
        name.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    found: dict[str, Outline] = {}
    for base in reversed(classes[config.name].bases):  # as dataclasses do
        if isinstance(base, ast.Name):
            module = config.module if base.id in classes else modules[base.id]
            if module.startswith(PACKAGE.name):
                found |= outline(ConfigClass(module, base.id))
    for node, below in pairwise(classes[config.name].body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(below, ast.Expr)
            assert isinstance(below.value, ast.Constant)
            is_group = isinstance(node.annotation, ast.Name) and isinstance(node.value, ast.Call)
            found[node.target.id] = Outline(_sentence(str(below.value.value)), is_group)
    return found


def _sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)


def _table(rows: dict[str, str]) -> list[str]:
    """A line each, two at most."""
    column = max(map(len, rows)) + 4
    return [
        textwrap.fill(
            _sentence(text),
            _width(),
            initial_indent=f"  {name:<{column - 2}}",
            subsequent_indent=" " * column,
            max_lines=2,
            placeholder=" ...",
        )
        for name, text in rows.items()
    ]

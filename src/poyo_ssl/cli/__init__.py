"""The command line: parse, call one command, say what went wrong."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import signal
import sys
import warnings
from argparse import Action

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from poyo_ssl.cli.commands import COMMANDS
from poyo_ssl.cli.options import Parser, gather_lists
from poyo_ssl.cli.shipped_configs import find_configs
from poyo_ssl.cli.short_help import help_of_topic, help_topic, short_help
from poyo_ssl.cli.terminal import console, log_handler
from poyo_ssl.ending import STOPPED_BY, ToldToEnd, end, on_signals
from poyo_ssl.progress_bars import messages
from poyo_ssl.training.memory import is_out_of_memory

set_parsing_settings(
    docstring_parse_attribute_docstrings=True,  # help texts of the options
    # a config may name classes; none but ours is ever imported for it
    import_path_denylist=["*"],
    import_path_allowlist=["poyo_ssl"],
)

atexit.register(gc.freeze)  # the last look for garbage takes a second

EPILOG = "Every command has --help. Start with: poyo-ssl demo --output runs/demo"


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``poyo-ssl``; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of cp1252 has no Δ
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[log_handler()])
    logging.getLogger("poyo_ssl").setLevel(logging.INFO)
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one tells
        logging.getLogger("poyo_ssl").setLevel(logging.WARNING)
        console.quiet = True
    warnings.filterwarnings("ignore", module="lightning")
    arguments = find_configs(sys.argv[1:] if arguments is None else arguments)
    called = _called(arguments)
    topic = help_topic(arguments) if called else None
    if called and topic == "" and COMMANDS[called].config and COMMANDS[called].reads_source:
        console.out(_short_help(called), highlight=False)
        return 0
    parser = build_parser(arguments)
    if called:
        assert parser._subcommands_action is not None
        command = parser._subcommands_action._name_parser_map[called]
        if topic and topic != "all":
            return _show_topic(command, called, topic)
        arguments = gather_lists(arguments, command)
    try:
        options = parser.parse_args(arguments)
    except ImportError as error:
        parser.error(f"Values of a config must not name a class_path of their own: {error}")
    except UnicodeDecodeError as error:
        parser.error(f"A config file is no text in UTF-8: {error}. Save it as UTF-8.")
    if called and isinstance(command, Parser):
        options[called]["sweep"] = command.sweep(arguments)
    try:
        with on_signals(end):
            COMMANDS[options.command].require_places(options[options.command])
            COMMANDS[options.command].call(options[options.command])
    except (KeyboardInterrupt, ToldToEnd) as told:
        return _say_ended(told.number if isinstance(told, ToldToEnd) else signal.SIGINT)
    except (ValueError, OSError, ImportError) as error:
        return _say_error(str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _say_error(
            f"Memory ran out ({str(error) or 'MemoryError'}). What was finished is kept. Run the "
            "same command with fewer jobs or workers, fewer recordings, or a smaller batch_size."
        )
    return 0


def _say_error(text: str) -> int:
    messages.print("[bold red]Error:[/] ", end="")
    messages.print(text, highlight=False, soft_wrap=True, markup=False)
    return 1


def _say_ended(number: int) -> int:
    """Says which signal ended a command; gives the exit status that is usual for it."""
    how = "Interrupted" if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}"
    messages.print(f"{how}. The same command resumes where it stopped.")
    return STOPPED_BY + number


def build_parser(arguments: list[str]) -> ArgumentParser:
    """All commands; options only for the one that is called, since they take seconds to import."""
    called = _called(arguments)
    parser = Parser(
        prog="poyo-ssl",
        description="Cell-pattern-aware pretraining and decoding for two-photon calcium imaging.",
        epilog=EPILOG,
        version=_version(),
        usage="poyo-ssl COMMAND ... [options]",
        formatter_class=_HelpFormatter,
    )
    commands = parser.add_subcommands(dest="command")
    for name, described in COMMANDS.items():
        command = Parser(description=described.text)
        if name == called:
            described.add_all_options(command)
            command.usage = _usage(name, command)
        commands.add_subcommand(name, command, help=described.text.split(". ")[0].rstrip("."))
        command.prog = f"poyo-ssl {name}"  # as typed, in messages, too
        if name == called:
            parser.prog, parser.usage = command.prog, command.usage
    return parser


def _called(arguments: list[str]) -> str | None:
    return next((word for word in arguments if word in COMMANDS), None)


def _short_help(name: str) -> str:
    parser = ArgumentParser()
    COMMANDS[name].add_options(parser)
    return short_help(name, COMMANDS[name], _usage(name, parser), parser)


def _show_topic(command: ArgumentParser, name: str, topic: str) -> int:
    text = help_of_topic(command, topic)
    if text is None:
        command.error(f"No options are called '{topic}'. All: poyo-ssl {name} --help all")
    console.out(text, end="", highlight=False)
    return 0


class _HelpFormatter(DefaultHelpFormatter):
    """Help that calls a path a path."""

    def _get_type_str(self, action: Action) -> str | None:
        text = super()._get_type_str(action)
        return "path" if text == "<class 'Path'>" else text


def _usage(name: str, command: ArgumentParser) -> str:
    """One line: what must be given, not the hundred options that may be."""
    needed = [
        action.option_strings[0] + " " + action.dest.upper()
        if action.option_strings
        else action.dest.upper() + " ..." * (action.nargs == "+")
        for action in command._actions
        if action.required
    ]
    return " ".join(["poyo-ssl", name, *needed, "[options]"])


def _version() -> str:
    from importlib.metadata import version

    return version("poyo-ssl")

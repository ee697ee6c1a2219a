"""What a command is, the options that several share, and the configs that are built of them."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace, get_loader
from yaml import YAMLError

from poyo_ssl.cli.sweeps import find_sweeps, holds, put
from poyo_ssl.output_directory import (
    OutputError,
    require_place_of_directory,
    require_place_of_file,
)

Config = TypeVar("Config")


CONFIG_HELP = "YAML file with any option of this command."


class ConfigClass(NamedTuple):
    """A config dataclass by name: importing it takes seconds, and short help does without."""

    module: str
    name: str

    def load(self) -> type:
        """The class."""
        gc.disable()  # imports make no garbage, and looking for it is a third of their time
        try:
            found: type = getattr(import_module(self.module), self.name)
        finally:
            gc.enable()
        return found


SOURCE = ConfigClass("poyo_ssl.recordings.sources", "SourceConfig")
"""How to read recordings whose layout does not say everything."""


Places = Mapping[str, Callable[[Path], None]]
FILE: Places = MappingProxyType({"output": require_place_of_file})
DIRECTORY: Places = MappingProxyType({"output": require_place_of_directory})


class Command(NamedTuple):
    """What a word on the command line does."""

    add_options: Callable[[ArgumentParser], None]
    """Adds the options that are no fields of a config."""
    call: Callable[[Namespace], None]
    text: str
    """Help; its first sentence stands in the list of commands."""
    writes: Places = MappingProxyType({})
    """Options that say where results go, to what checks that they can."""
    reads_source: bool = False
    """Whether it has the options of :data:`SOURCE`."""
    config: ConfigClass | None = None
    """The dataclass whose fields are its options."""
    takes_sweeps: bool = False
    """Whether config files may give several values of an option."""
    essentials: tuple[str, ...] = ()
    """Fields that its short help names; the rest stands in ``--help all``."""

    def require_places(self, options: Namespace) -> None:
        """Checks where results go, before anything long is done.

        Raises:
            OutputError: If a directory stands where a file is to be written, or the reverse, a
                file is one of the recordings to read, or two results would go to one.
        """
        places = {name: options[name] for name in self.writes if options[name] is not None}
        for name, place in places.items():
            self.writes[name](place)
            if place.is_file() and any(
                file.exists() and file.samefile(place) for file in options.get("files", [])
            ):
                raise OutputError(f"'{place}' is one of the recordings to read. Write elsewhere.")
        if len({place.resolve() for place in places.values()}) < len(places):
            raise OutputError(
                f"{', '.join(places)} are one file: {', '.join(map(str, places.values()))}. Name "
                "one for each."
            )

    def add_all_options(self, parser: ArgumentParser) -> None:
        """Every option, and a YAML file with any of them."""
        self.add_options(parser)
        if self.reads_source:
            parser.add_class_arguments(SOURCE.load(), "source")
        parser.add_argument("--config", action="config", help=CONFIG_HELP)
        if self.config is not None:
            config = self.config.load()
            parser.add_class_arguments(config)
            parser.set_defaults(_defaults_of_mappings(config))
            if self.takes_sweeps and isinstance(parser, Parser):
                parser.sweepable = config
        for action in parser._actions:
            # A group is filled from its fields or from a file. As long as it could be a class, too,
            # jsonargparse takes 'source.yaml' for the name of one, and refuses to import it.
            if hasattr(action, "resolve_subclass_spec"):
                action.resolve_subclass_spec = _unless_text(action.resolve_subclass_spec)
            elif any(map(is_dataclass, get_args(getattr(action, "_typehint", None)))):
                action._enable_path = True  # type: ignore[attr-defined]  # a file first, too


class Parser(ArgumentParser):
    """A parser that reads sweeps, and whose complaint about an unknown option names its like.

    Options have one name: none is shortened, since what is short today is ambiguous tomorrow.
    """

    sweepable: type | None = None
    """A config dataclass of whose options files may give several values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self._sweep: dict[str, list[Any]] = {}

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Parses a config file, with the first value of each sweep; other values are checked."""
        tree = None
        with suppress(YAMLError):  # said below
            tree = get_loader("yaml")(content)
        if self.sweepable is None or not isinstance(tree, dict):
            return super().parse_string(content, *args, **kwargs)
        found = dict(find_sweeps(tree, self.sweepable))
        for option, values in found.items():
            if not values:
                self.error(f"The sweep over {option} has no value. Give at least one.")
            tree = put(tree, option, values[0])
        for option, values in found.items():
            for value in values[1:]:
                super().parse_string(json.dumps(put(tree, option, value)), *args, **kwargs)
        earlier = {option: v for option, v in self._sweep.items() if not holds(tree, option)}
        self._sweep = {**earlier, **found}  # what a later file says counts
        return super().parse_string(json.dumps(tree) if found else content, *args, **kwargs)

    def sweep(self, arguments: list[str]) -> dict[str, list[Any]]:
        """Options with several values in the config files that were parsed, and not in words."""
        named = {word.partition("=")[0] for word in arguments}
        return {option: v for option, v in self._sweep.items() if f"--{option}" not in named}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with the complaint."""
        if message.startswith(_REQUIRED):
            message = self._name_required(message.removeprefix(_REQUIRED).split(", "))
        absent = [word for word in _UNREAD.findall(message) if not Path(word).exists()]
        message += f"\nThere is no file '{absent[0]}'." if absent else ""
        unknown = _UNKNOWN.search(message)
        if unknown is not None and _SAME not in message:  # said already of a part
            message += self._like(next(filter(None, unknown.groups())))
        super().error(message, ex)

    def _name_required(self, missing: list[str]) -> str:
        """What must be given, as it is typed."""
        actions = {action.dest: action for action in self._all_actions()}
        found = [actions[name.rpartition(".")[2]] for name in missing]
        names = [next(iter(action.option_strings), action.dest.upper()) for action in found]
        first = "" if all(action.option_strings for action in found) else _FIRST
        return f"{_REQUIRED}{', '.join(names)}{first}"

    def _like(self, wanted: str) -> str:
        """Lines about options that may be meant: of that name elsewhere, or of one like it."""
        options = self._options()
        group, _, name = wanted.rpartition(".")
        same = [option for option in options if option.rpartition(".")[2] == name]
        same = [option for option in same if option.startswith(f"{group}.")] or same
        near = [] if same and group else get_close_matches(wanted, options)
        near = [RENAMED[wanted]] if RENAMED.get(wanted) in options else near
        lines = ((_SAME, same), (_NEAR, near))
        return "".join(f"\n{text}{', '.join(found)}" for text, found in lines if found)

    def _options(self) -> list[str]:
        return [action.dest for action in self._all_actions() if action.option_strings]

    def _all_actions(self) -> list[Any]:
        """Those of the commands, too."""
        commands = self._subcommands_action._name_parser_map if self._subcommands_action else {}
        return [action for parser in (self, *commands.values()) for action in parser._actions]


RENAMED = {"workers": "jobs", "label_fraction": "labels.fraction"}
"""Names that options had, to those that they have."""
_REQUIRED = "the following arguments are required: "
_FIRST = ". Give them before options: a list, such as --tasks, takes every word that follows"
_UNREAD = re.compile(r"Unable to load config ['\"]([^'\"]+)['\"]")
_SAME = "Options of that name: "
_NEAR = "Options of a name like it: "
_UNKNOWN = re.compile(
    r"does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted"
    r"|unrecognized arguments: --([\w.]+)"
)
"""What jsonargparse says of an option in YAML, inside a mapping, and on the command line."""


def _unless_text(resolve: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, str) else resolve(value)


def _defaults_of_mappings(config: type) -> dict[str, Any]:
    """Mappings to dataclasses as plain values, which --print_config can write."""
    values = vars(config())
    return {
        name: {key: _set_values(part) for key, part in value.items()}
        for name, value in values.items()
        if isinstance(value, dict) and any(map(is_dataclass, value.values()))
    }


def _set_values(part: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    default = asdict(type(part)())
    return {name: value for name, value in asdict(part).items() if value != default[name]}


def gather_lists(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """Makes ``--label_fractions 0.25 1.0`` the ``--label_fractions [0.25, 1.0]`` that is parsed.

    Every word up to the next option belongs to the list, so files stand before it.
    """
    lists = {
        option: get_args(action._typehint)[0]  # type: ignore[attr-defined]
        for action in parser._actions
        if get_origin(getattr(action, "_typehint", None)) in (tuple, list)
        for option in action.option_strings
    }
    gathered, words = [], list(arguments)
    while words:
        name, equals, value = words.pop(0).partition("=")
        values = [value] if equals else []
        while name in lists and not equals and words and not re.match(r"--?[a-zA-Z]", words[0]):
            values.append(words.pop(0))
        if name in lists and values and values[0][:1] != "[":
            is_text = str in (lists[name], *get_args(lists[name]))
            values = ["[" + ", ".join(json.dumps(v) if is_text else v for v in values) + "]"]
        gathered += [f"{name}={values[0]}", *values[1:]] if equals else [name, *values]
    return gathered


def add_pretrained(parser: ArgumentParser, without: str = "") -> None:
    """The encoder to start from; ``without`` says what is done where there is none."""
    parser.add_argument(
        "--pretrained",
        required=not without,
        help="Encoder to begin with: directory that 'poyo-ssl pretrain' or 'poyo-ssl run' wrote, "
        "owner/name of a repository of the Hugging Face Hub, or simulated, which comes with the "
        f"package{without}.",
    )


def find_encoder(source: str | Path) -> str | Path:
    """The encoder in a directory that ``pretrain``, ``convert`` or, if it is alone, ``run`` wrote.

    What is no directory stays as it is: a name, or a repository of the Hub.

    Raises:
        ValueError: If a run holds several; they are listed.
    """
    directory = Path(source)
    if not directory.is_dir():
        return source
    places = ("pretrained/**/weights.safetensors", "encoder/weights.safetensors")
    found = sorted(path.parent for place in places for path in directory.glob(place))
    if len(found) > 1 and not (directory / "weights.safetensors").is_file():
        raise ValueError(
            f"'{directory}' holds {len(found)} encoders. Name one with --pretrained:\n- "
            + "\n- ".join(map(str, found))
        )
    return found[0] if len(found) == 1 else directory


def add_files(parser: ArgumentParser) -> None:
    """The recordings to read."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="NWB files, prepared .h5 recordings, .npz arrays, suite2p folders, or directories "
        "that are searched for them.",
    )


def add_run(parser: ArgumentParser, *, may_be_a_decoder: bool = False) -> None:
    """The run to read; some commands take what holds one decoder, too."""
    also = " or 'poyo-ssl finetune'" * may_be_a_decoder
    parser.add_argument("run", type=Path, help=f"Directory that 'poyo-ssl run'{also} wrote.")


def add_output(
    parser: ArgumentParser, what: str, *, required: bool = True, default: Path | None = None
) -> None:
    """Where results go; ``what`` says what is written there."""
    parser.add_argument("--output", type=Path, required=required, default=default, help=what)


def add_jobs(parser: ArgumentParser) -> None:
    """How many recordings are worked on at a time, and where."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="Recordings at a time, one CPU core each; 0 takes every core. More than one needs the "
        "extra poyo-ssl[ray].",
    )
    add_address(parser)


def add_address(parser: ArgumentParser, condition: str = "") -> None:
    """The cluster that works; ``condition`` says what must be so on it."""
    parser.add_argument(
        "--address",
        help=f"Ray cluster to work on, such as auto or ray://head:10001{condition}.",
    )


def build(config: type[Config], options: Namespace) -> Config:
    """The config dataclass filled from parsed options."""
    names = {field.name for field in fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in vars(options).items() if name in names}
    return _instantiate(config, values)


def _instantiate(config: type[Config], values: dict[str, Any]) -> Config:
    _require_no_empty(config, values)
    parser = ArgumentParser()
    parser.add_class_arguments(config, "config")
    built: Config = parser.instantiate_classes(_namespace(config=_namespace(**values))).config
    return built


def _require_no_empty(config: type, values: Mapping[str, Any]) -> None:
    """Refuses options, and groups of them, that a config file names without a value."""
    hints = get_type_hints(config)
    for name in (field.name for field in fields(config) if field.name in values):
        value, kinds = values[name], get_args(hints[name])
        if value is None and type(None) not in kinds:
            what = "group" if is_dataclass(hints[name]) else "option"
            raise ValueError(
                f"The {what} '{name}' of {config.__name__} holds nothing. Give it a value, or "
                "leave it out."
            )
        if is_dataclass(hints[name]):
            _require_within(hints[name], value)
        elif kinds and is_dataclass(kinds[-1]) and isinstance(value, Mapping):
            for part in value.values():
                _require_within(kinds[-1], part)


def _require_within(config: Any, value: Any) -> None:
    """The same of a value that is, or may become, a dataclass."""
    value = getattr(value, "init_args", value)
    if isinstance(value, Mapping | Namespace):
        _require_no_empty(config, dict(value.items()))


def _namespace(**values: Any) -> Namespace:
    made: Namespace = Namespace(**values)
    return made


def read_source(options: Namespace) -> Any:
    """The ``SourceConfig`` that the options say."""
    return _instantiate(SOURCE.load(), vars(options.source))

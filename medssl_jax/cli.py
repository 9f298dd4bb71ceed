"""What every command shares: flags, and a user's mistake told in one sentence with a non-zero exit."""

from __future__ import annotations

import difflib
import errno
import itertools
import json
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from medssl_jax.config import flat
from medssl_jax.errors import UserError

USAGE_EXIT, FAILURE_EXIT, INTERRUPT_EXIT, TERMINATE_EXIT = 2, 1, 128 + signal.SIGINT, 128 + signal.SIGTERM
FULL_DISK = "the disk is full ({}); free some space and start the same command again"
STOPPED = "stopped by {}; start the same command again: it keeps what was finished."
FULL_MEMORY = (
    "the memory is full; lower --config.pretrain.batch, --config.finetune.batch or --config.model.width, set --config.model.remat=True, or "
    "keep the images out of the accelerator's memory with --config.data.placement=host."
)
NO_BACKEND = "JAX does not start ({}); install what that platform needs (README.md, Set-up), or correct JAX_PLATFORMS and XLA_FLAGS."
OUTPUTS = ("workdir", "out", "landmarks")  # the options that say where a command writes
HELP = "Every --config.* option stands with its meaning in medssl_jax/config.py."
NO_CONFIG = "no config was given; use --config=configs/tower.py."

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with an optional argument: configs/tower.py:paper")


class Terminated(BaseException):
    """SIGTERM, of which a command does not make something else (a training saves what it has)."""


def execute(command: Callable[[], None], argv: list[str]) -> int:
    """Parse `argv`, run `command`; the exit code. Mistakes of the user's, and signals, end in one sentence on stderr."""
    if any(re.fullmatch("-h|--?help", a) for a in argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\n{flags.FLAGS.main_module_help()}\n\n{HELP}")
        return 0

    def parsed() -> int:
        """Success, unless parsing or the command raises."""
        _parse(argv)
        command()
        return 0

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return guarded(parsed)
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(command: Callable[[], int]) -> int:
    """What `command` returns; where it fails by what a user can mend, one sentence on stderr and the exit code for it."""
    try:
        return command()
    except UserError as error:
        return _complain(str(error), USAGE_EXIT)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _complain(FULL_DISK.format(error.filename or "while writing"), FAILURE_EXIT)
        if not error.filename:
            raise
        path, option = os.fsdecode(error.filename), _option_of(os.fsdecode(error.filename))
        if isinstance(error, PermissionError):
            return _complain(f"no permission for {path}; change its rights, or choose another {option}.", FAILURE_EXIT)
        return _complain(f"{path}: {error.strerror}; check {option}.", FAILURE_EXIT)
    except KeyboardInterrupt:
        return _complain(STOPPED.format("the keyboard"), INTERRUPT_EXIT)
    except Terminated:
        return _complain(STOPPED.format("SIGTERM"), TERMINATE_EXIT)
    except MemoryError:
        return _complain(FULL_MEMORY, FAILURE_EXIT)
    except Exception as error:  # Orbax, TensorStore and XLA have errors of their own for what is full
        if "No space left on device" in str(error):
            return _complain(FULL_DISK.format("while writing a checkpoint"), FAILURE_EXIT)
        if "RESOURCE_EXHAUSTED" in str(error):
            return _complain(FULL_MEMORY, FAILURE_EXIT)
        if reason := _without_backend(error):
            return _complain(NO_BACKEND.format(reason), FAILURE_EXIT)
        raise


def _without_backend(error: Exception) -> str:
    """Why JAX has no device, or "" for any other error. Where a GPU is asked for in vain, JAX (0.10 to 0.12) only fails an assertion."""
    if "Unable to initialize backend" in str(error):
        return " ".join(str(error).split())
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    asserted = isinstance(error, AssertionError) and frame.f_code.co_name == "backends"
    return f"there is no device for JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}" if asserted else ""


def config() -> ConfigDict:
    """The config the user named. Raises UserError where none was named."""
    if CONFIG.value is None:
        raise UserError(NO_CONFIG)
    return CONFIG.value


def required(flag: flags.FlagHolder) -> str:
    """The value of a flag. Raises UserError, which says what it is, where it was not given."""
    if not flag.value:
        raise UserError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
    return flag.value


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python ends, but without a traceback for Ctrl-C: while modules are imported nothing is `guarded` yet."""
    if issubclass(kind, KeyboardInterrupt):
        _complain(STOPPED.format("the keyboard"), INTERRUPT_EXIT)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end


def _complain(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


def _option_of(path: str) -> str:
    """The option on the command line that names the file, or the innermost folder around it; else the one that says where to write."""
    file, places = Path(os.path.abspath(path)), _values(sys.argv[1:])
    around = [(len(place.parts), name) for name, place in places if file.is_relative_to(place)]
    own = [flag.name for flag in flags.FLAGS.get_flags_for_module(sys.argv[0])]
    return f"--{max(around)[1]}" if around else next((f"--{name}" for name in OUTPUTS if name in own), "folder")


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Each option with its value, or with each of several, as a path."""
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, joined, value = argument.partition("=")
        for part in (value if joined else following).split(","):
            if name.startswith("-") and part.strip():
                yield name.lstrip("-"), Path(os.path.abspath(os.path.expanduser(part.strip())))


def _parse(argv: list[str]) -> None:
    argv[1:] = _joined(argv[1:])
    named = _named(argv)
    if named and not os.path.isfile(named[0]):
        raise UserError(f"there is no config file {named[0]!r}; the project's own are in configs/.")
    try:
        rest = flags.FLAGS(argv)
    except UserError:
        raise
    except Exception as error:  # of absl, or whatever a config file raises
        raise UserError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not an option; options are written --name=value.")
    if "out" in flags.FLAGS and "://" in (out := flags.FLAGS["out"].value or ""):
        raise UserError(f"--out={out} is a URL, and this command writes on this machine; name a folder, and copy it there afterwards.")


def _joined(arguments: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`, and `config.pretrain.from` by the name that Python allows (`from` is a keyword)."""
    if (where := next((i for i, a in enumerate(arguments[:-1]) if re.fullmatch("--?config", a)), None)) is not None:
        arguments = [*arguments[:where], f"--config={arguments[where + 1]}", *arguments[where + 2 :]]
    return [re.sub(r"^--?config\.pretrain\.from(?==|$)", "--config.pretrain.from_run", a) for a in arguments]


def _named(argv: list[str]) -> list[str]:
    """The config file of the command line and its argument, where they are given."""
    return next((a.split("=", 1)[1].split(":", 1) for a in argv if re.match("--?config=", a)), [])


def _explain(error: Exception, argv: list[str]) -> str:
    """A sentence for a flag that cannot be taken, with the nearest key where a key does not exist."""
    if not _named(argv) and any(re.match(r"--?config\.", a) for a in argv):
        return NO_CONFIG
    known = _known(argv)
    for argument in argv[1:]:
        key, _, value = argument.lstrip("-").partition("=")
        if known and key not in known and key not in flags.FLAGS:
            near = [f"config.{key}"] if f"config.{key}" in known else difflib.get_close_matches(key, [*known, *flags.FLAGS], 1, cutoff=0.5)
            hint = f"did you mean --{near[0]}?" if near else "see medssl_jax/config.py for all of them."
            return f"there is no option --{key}; {hint}"
        if f"--{key}={value}" in str(error) and (default := known.get(key)) is not None:
            return f"--{key}={value} cannot be read as a value of that option ({type(default).__name__}); its default is {default!r}."
    given = re.match(r"flag --([\w-]+)=(.*?): ", str(error))
    if given and isinstance(parser := flags.FLAGS[given[1]].parser, flags.IntegerParser):
        return f"--{given[1]}={given[2]} is not {parser.syntactic_help}: {flags.FLAGS[given[1]].help}"
    return " ".join(str(error).split())


def _known(argv: list[str]) -> dict[str, Any]:
    """The defaults of the config that `argv` names, read without its overrides: with a wrong one, the flag itself has no value."""
    if not (named := _named(argv)):
        return {}
    try:
        return flat(runpy.run_path(named[0])["get_config"](*named[1:]), "config.")
    except UserError:
        raise
    except Exception as error:  # whatever a config file raises
        raise UserError(f"{named[0]} is not a config file ({type(error).__name__}: {error}); see configs/tower.py for one.") from error


def from_json(text: str) -> dict[str, Any]:
    """A config that was written as JSON, its lists tuples again."""

    def tuples(tree: dict[str, Any]) -> dict[str, Any]:
        """One level of the tree; JSON has no tuples and made them lists."""
        return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}

    return json.loads(text, object_hook=tuples)

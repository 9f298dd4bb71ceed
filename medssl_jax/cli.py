"""What every command shares: flags, and a user's mistake told in one sentence with a non-zero exit."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from medssl_jax.errors import UserError

USAGE_EXIT, FAILURE_EXIT = 2, 1
FULL_DISK = "the disk is full ({}); free some space and start the same command again"

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with an optional argument: configs/tower.py:paper")


def execute(command: Callable[[], None], argv: list[str]) -> int:
    """Parse `argv`, run `command`; the exit code. Mistakes of the user's end in one sentence on stderr."""
    try:
        _parse(argv)
        command()
    except UserError as error:
        return _complain(str(error), USAGE_EXIT)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _complain(FULL_DISK.format(error.filename or "while writing"), FAILURE_EXIT)
        if isinstance(error, PermissionError):
            return _complain(f"no permission for {error.filename}; choose another --workdir or change its rights", FAILURE_EXIT)
        raise
    except Exception as error:  # Orbax and TensorStore wrap a full disk in errors of their own
        if "No space left on device" in str(error):
            return _complain(FULL_DISK.format("while writing a checkpoint"), FAILURE_EXIT)
        raise
    return 0


def config() -> ConfigDict:
    """The config the user named. Raises UserError where none was named."""
    if CONFIG.value is None:
        raise UserError("no config was given; use --config=configs/tower.py.")
    return CONFIG.value


def _complain(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


def _parse(argv: list[str]) -> None:
    argv[1:] = [re.sub(r"^--?config\.pretrain\.from(?==|$)", "--config.pretrain.from_run", a) for a in argv[1:]]  # `from` is a keyword
    named = next((a.split("=", 1)[1].split(":")[0] for a in argv if re.match(r"--?config=", a)), None)
    if named is not None and not os.path.exists(named):
        raise UserError(f"there is no config file {named}; the project's own are in configs/.")
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not an option; options are written --name=value.")


def _explain(error: Exception, argv: list[str]) -> str:
    """A sentence for a flag that cannot be taken, with the nearest key where a key does not exist."""
    known = _keys(CONFIG.value) if flags.FLAGS.is_parsed() or _has_config() else []
    for argument in argv[1:]:
        key = argument.lstrip("-").split("=", 1)[0]
        if key.startswith("config.") and known and key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
            hint = f"did you mean --{near[0]}?" if near else "see medssl_jax/config.py for all of them."
            return f"there is no option --{key}; {hint}"
    return " ".join(str(error).split())


def _has_config() -> bool:
    try:
        return flags.FLAGS["config"].value is not None
    except (KeyError, flags.Error):
        return False


def _keys(config: Any, prefix: str = "config") -> list[str]:
    config = flags.FLAGS["config"].value if config is None else config
    found = []
    for name, value in config.items():
        found.append(f"{prefix}.{name}")
        if isinstance(value, ConfigDict):
            found += _keys(value, f"{prefix}.{name}")
    return found

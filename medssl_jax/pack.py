"""The command that packs a data set into a few large files, which are read faster than many small ones.

python -m medssl_jax.pack --config=configs/tower.py --config.data.path=DIR --out=DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from medssl_jax import cli
from medssl_jax.config import validate
from medssl_jax.data import index, packed, packing, shards
from medssl_jax.data.sources import open_stored, settle
from medssl_jax.errors import UserError
from medssl_jax.machine import cores
from medssl_jax.report.words import counted
from medssl_jax.train.logging import say

OUT = flags.DEFINE_string("out", None, "A new or empty folder for the packed set, or one where the same command was interrupted.")
COMPRESSION = flags.DEFINE_enum("compression", "none", shards.COMPRESSIONS, "zstd takes less space and is slower; both keep every bit.")
SHARD_MB = flags.DEFINE_integer("shard_mb", 1024, "Megabytes of pixels in a file.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", cores(), "Images read at a time.", lower_bound=1)
VERIFY = flags.DEFINE_bool("verify", False, "Pack nothing; compare every byte of the packed set in --out with its checksum.")


def main() -> None:
    """Pack the data set of the config into --out, or verify what lies there."""
    out = Path(cli.required(OUT)).expanduser()
    if VERIFY.value:
        found = packed.verify(out)
        say(f"{out} is whole: {_amount(found)}, every byte as its checksum says.")
        return
    config = cli.config().copy_and_resolve_references()
    validate(config)
    _check_outside(out, config)
    opened = open_stored(config.data)
    dataset = settle(opened, config.data)  # what main would refuse is refused before hours of reading
    for note in dataset.notes:
        say(f"{dataset.name}: {note}")
    skip = config.data.on_damaged == "skip"
    job = packing.Job(opened, out, COMPRESSION.value, SHARD_MB.value * 2**20, THREADS.value, skip)
    with tqdm(desc="pack", unit="image", disable=not sys.stderr.isatty(), total=len(opened.collection.items)) as bar:
        written = packing.pack(job, lambda done, _: bar.update(done - bar.n))
    say(_summary(out, written))


def _summary(out: Path, written: int) -> str:
    found = packed.read_index(out)
    size = packing.size(sum(shard.bytes for shard in found.shards))
    return f"{out}: {_amount(found)}, {size}, {counted(written, 'shard')} written now; read it with --config.data.path={out}"


def _amount(found: index.Index) -> str:
    return f"{counted(len(found.items), 'image')} in {counted(len(found.shards), 'shard')}"


def _check_outside(out: Path, config: ConfigDict) -> None:
    """Raises UserError where the packed set would lie among the images, whose next reading would find it."""
    source = Path(config.data.path).expanduser()
    if config.data.path and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out={out} lies inside the data, {source}; choose a folder outside of it.")


if __name__ == "__main__":
    sys.exit(cli.execute(main, sys.argv))

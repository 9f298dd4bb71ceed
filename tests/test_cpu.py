"""What is settled before JAX starts: XLA's flags, where nobody has set them and the jaxlib knows them."""

import os
import subprocess
import sys

import pytest

from medssl_jax import cpu


@pytest.mark.parametrize(
    ("jaxlib", "accelerated", "given", "expected"),
    [
        (cpu.KNOWN_TO[0], (), None, cpu.WITHOUT_YNNPACK),
        (cpu.KNOWN_TO[0], (), "--xla_cpu_use_onednn=true", "--xla_cpu_use_onednn=true"),
        ("99.0", (), None, None),
        (cpu.KNOWN_TO[0], ("jax",), None, None),
    ],
    ids=["nothing set", "flags of the user", "another jaxlib", "an accelerator's plugin"],
)
def test_flags_are_set_where_they_are_known_and_nobody_has_set_them(monkeypatch, jaxlib, accelerated, given, expected):
    monkeypatch.setattr(cpu, "version", lambda package: jaxlib)
    monkeypatch.setattr(cpu, "ACCELERATED", accelerated)
    monkeypatch.setenv("XLA_FLAGS", given or "")
    if given is None:
        monkeypatch.delenv("XLA_FLAGS")
    cpu.settle()
    assert os.environ.get("XLA_FLAGS") == expected


@pytest.mark.parametrize(
    ("largest", "kept"),
    [
        (2**31 - 1, {cpu.M_ARENA_MAX: 1, cpu.M_MMAP_THRESHOLD: 2**31 - 1, cpu.M_TRIM_THRESHOLD: 2**31 - 1}),
        (2**25, {cpu.M_ARENA_MAX: 1, cpu.M_MMAP_THRESHOLD: 2**25, cpu.M_TRIM_THRESHOLD: 2**31 - 1}),
        (0, {cpu.M_ARENA_MAX: 1}),
    ],
    ids=["glibc", "an old one", "one that refuses"],
)
def test_a_trim_threshold_is_set_only_beside_one_for_mmap(monkeypatch, largest, kept):
    """Alone it would hold the threshold for mmap at 128 KiB."""
    taken = {}

    class Library:
        def mallopt(self, option, value):
            if option == cpu.M_MMAP_THRESHOLD and value > largest:
                return 0
            taken[option] = value
            return 1

    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda name: Library())
    cpu.settle()
    assert taken == kept


def test_xla_starts_with_what_is_settled():
    told = "from medssl_jax import cpu; cpu.settle(); import jax, jax.numpy as jnp; print(jax.jit(jnp.sum)(jnp.ones((3, 4))))"
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", told], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "12.0"), done.stderr

"""How a process learns of the others, by the variables that each kind of cluster sets, and what docs/machines.md tells of it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import jax
import pytest
import tiny
import yaml

from medssl_jax.config import flat
from medssl_jax.errors import UserError
from medssl_jax.train import processes

KNOWN = r"SLURM_|OMPI_|TPU_|MEGASCALE_|JAX_COORDINATOR|JAX_PROCESS"
SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}
TPUS = {"TPU_WORKER_HOSTNAMES": "a,b"}
MANIFESTS = [yaml.safe_load(block) for block in re.findall("```yaml\n(.*?)```", (tiny.ROOT / "docs/machines.md").read_text(), re.DOTALL)]


@pytest.fixture
def joined(monkeypatch):
    """The calls of jax.distributed.initialize, in an environment without a cluster, as if this machine had TPUs."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **named: calls.append(named))
    for name in [name for name in processes.os.environ if re.match(KNOWN, name)]:
        monkeypatch.delenv(name)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    yield calls
    jax.config.update("jax_platforms", before)


def environment(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


SEVERAL = {
    "srun": SLURM,
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    "a TPU VM asks the metadata server": {},
    "GKE": TPUS,
    "several slices of one host": {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_clusters_that_jax_knows(kind, joined, monkeypatch):
    environment(monkeypatch, SEVERAL[kind])
    processes.initialise_distributed()
    assert joined == [{"heartbeat_timeout_seconds": processes.SILENCE}]


ALONE = {
    "one host of GKE": {"TPU_WORKER_HOSTNAMES": "localhost"},
    "a notebook": {"TPU_SKIP_MDS_QUERY": "1"},
    "one task": {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "TPU_SKIP_MDS_QUERY": "1"},
    "a shell in an allocation": {"SLURM_NTASKS": "8", "TPU_SKIP_MDS_QUERY": "1"},
}


@pytest.mark.parametrize("kind", ALONE)
def test_one_process_alone_joins_nothing(kind, joined, monkeypatch):
    environment(monkeypatch, ALONE[kind])
    processes.initialise_distributed()
    assert joined == []


def test_without_tpus_nobody_is_asked(joined):
    jax.config.update("jax_platforms", "cpu")
    processes.initialise_distributed()
    assert joined == []


def test_arguments_come_before_the_environment(joined, monkeypatch):
    environment(monkeypatch, SLURM | {"JAX_COORDINATOR_ADDRESS": "other:1", "JAX_PROCESS_COUNT": "9", "JAX_PROCESS_INDEX": "8"})
    processes.initialise_distributed("host:1", 2, 1, silence=7)
    processes.initialise_distributed()
    named = [tuple(call[name] for name in ("coordinator_address", "num_processes", "process_id")) for call in joined]
    assert named == [("host:1", 2, 1), ("other:1", 9, 8)]
    assert joined[0]["heartbeat_timeout_seconds"] == 7


def test_a_coordinator_without_a_place(joined):
    with pytest.raises(UserError, match=r"index -1 of 2\); give every process --process_count=N and its own --process_index"):
        processes.initialise_distributed("host:1", 2)


@pytest.mark.parametrize("address", ["host", ":1", "host:0", "host:99999"])
def test_a_coordinator_that_cannot_be(address, joined):
    with pytest.raises(UserError, match=f"the coordinator '{address}' is not HOST:PORT"):
        processes.initialise_distributed(address, 2, 1)


def test_a_count_without_a_coordinator(joined, monkeypatch):
    environment(monkeypatch, {"JAX_PROCESS_COUNT": "2", "TPU_SKIP_MDS_QUERY": "1"})
    with pytest.raises(UserError, match="no process to join; add --coordinator=HOST:PORT of process 0"):
        processes.initialise_distributed()


def test_a_process_that_jax_aborts_while_it_waits_has_a_last_word():
    program = (
        "import os, jax; jax.distributed.initialize = lambda **named: os.abort()\n"
        "from medssl_jax.train import processes; processes.initialise_distributed('host:1', 2, 1)"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=tiny.ROOT, capture_output=True, text=True, check=False)
    assert said.returncode != 0
    first, last = (line for line in said.stderr.splitlines() if "other processes of the run" in line)
    assert first == "Waiting for the other processes of the run at host:1."
    assert last.startswith("error: the other processes of the run were not met at host:1; start all of them")


@pytest.mark.parametrize("variable", ["JAX_PROCESS_COUNT", "SLURM_NTASKS"])
def test_variables_that_are_no_numbers(variable, joined, monkeypatch):
    environment(monkeypatch, SLURM | {variable: "two"} | ({"JAX_COORDINATOR_ADDRESS": "other:1"} if variable.startswith("JAX") else {}))
    with pytest.raises(UserError, match=f"the environment variable {variable}='two' is no whole number"):
        processes.initialise_distributed()


def test_others_that_are_not_found(joined, monkeypatch):
    def unknown(**named):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", unknown)
    environment(monkeypatch, SLURM)
    with pytest.raises(UserError, match=r"does not find them \(coordinator_address should be defined\.\); a Slurm script needs srun"):
        processes.initialise_distributed()


class Gone(Exception):
    """Instead of the end of this process."""


@pytest.fixture
def of_several(monkeypatch):
    """As in a process of several: what it does at its end, instead of doing it."""
    done = []

    def leave(code):
        raise Gone(code)

    class Timer:
        def __init__(self, seconds, function, arguments):
            done.append((seconds, *arguments))

        def start(self):
            pass

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: done.append("shutdown"))
    monkeypatch.setattr(processes.os, "_exit", leave)
    monkeypatch.setattr(processes.threading, "Timer", Timer)
    return done


def test_a_regular_end_waits_for_the_others_and_says_nothing(of_several, capfd):
    with processes.together():
        pass
    assert of_several == ["shutdown"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_a_broken_connection_ends_at_once(kind, of_several, capfd):
    with pytest.raises(Gone), processes.together():
        raise kind("UNKNOWN: Gloo: connection closed by peer\nmore")
    assert of_several == []
    assert capfd.readouterr().err == "UNKNOWN: Gloo: connection closed by peer\n"


@pytest.mark.parametrize("error", [UserError("a mistake"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: memory")])
def test_a_failure_of_its_own_is_told_and_the_others_are_not_kept_waiting(error, of_several):
    with pytest.raises(type(error)), processes.together():
        raise error
    assert of_several == [(processes.GRACE, 1)]


def test_an_end_that_all_agreed_upon_is_not_hurried(of_several):
    with pytest.raises(SystemExit), processes.together():
        raise SystemExit(0)
    assert of_several == []


@pytest.mark.parametrize("manifest", MANIFESTS, ids=["tpu", "gpu"])
def test_manifests_of_the_docs(manifest, joined, monkeypatch):
    (job,) = manifest["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value", "1") for one in container.get("env", [])}
    environment(monkeypatch, variables or TPUS)
    processes.initialise_distributed()
    host, count = f"{manifest['metadata']['name']}-{job['name']}-0-0.{manifest['metadata']['name']}", job["template"]["spec"]["parallelism"]
    expected = {"coordinator_address": f"{host}:1234", "num_processes": count, "process_id": 1} if variables else {}
    assert joined == [{**expected, "heartbeat_timeout_seconds": processes.SILENCE}]


def test_options_of_the_docs_exist():
    known = flat(tiny.config("tower", "paper"), "config.").keys() | {"config", "workdir"}
    commands = [line for line in (tiny.ROOT / "docs/machines.md").read_text().splitlines() if "--config" in line and "|" not in line]
    words = [word for line in commands for word in shlex.split(line.replace("`", " ").replace("'", " ").rstrip("\\"))]
    named = {word.lstrip("-").split("=")[0] for word in words if word.startswith("--config.")}
    assert named
    assert named <= known, named - known

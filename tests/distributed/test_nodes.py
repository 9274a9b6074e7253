"""Processes started by others than Lightning, on one node and on several: the bytes of one device."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import virnucpro_pl
from support import model_overrides, run_here
from virnucpro_pl.api import Predictor
from virnucpro_pl.files.output_files import RESULT_FILES

PROGRAM = [sys.executable, "-m", "virnucpro_pl", "predict"]
SECONDS = 240  # a run that waits for a process that is gone must not hold up the tests


@pytest.fixture(scope="module")
def settings(mini: Path) -> list[str]:
    reads = mini / "inputs" / "mini.fa"
    return [f"input={reads}", "data.token_budget=256", "trainer.accelerator=cpu", *model_overrides(mini)]


def run_together(
    *commands: Sequence[object], environments: Sequence[dict[str, str]] = ({},)
) -> list[subprocess.CompletedProcess[str]]:
    """Run processes side by side; none outlives the test."""
    started = [
        subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(started, outputs, strict=True)
    ]


@pytest.fixture(scope="module")
def one_device(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("one")
    assert run_here("predict", f"output={output}", *settings) == 0
    return output


def assert_same_results(
    results: list[subprocess.CompletedProcess[str]], output: Path, one_device: Path, world_size: int
) -> None:
    for result in results:
        assert result.returncode == 0, result.stderr
    for name in RESULT_FILES:
        assert (output / name).read_bytes() == (one_device / name).read_bytes(), name
    assert json.loads((output / "run.json").read_text())["engine"]["world_size"] == world_size
    assert not (output / ".work").exists()
    assert [path.name for path in output.glob("*.log")] == ["run.log"]
    told = "".join(result.stderr for result in results)
    assert told.count("Results: ") == told.count("Device: ") == 1, "more than one process speaks"


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def torchrun(processes: int) -> list[object]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes),
        *PROGRAM[1:],
        f"trainer.devices={processes}",
        "trainer.strategy=ddp",
    ]


@pytest.mark.parametrize("processes", [3])
def test_torchrun(processes: int, settings: list[str], one_device: Path, tmp_path: Path) -> None:
    results = run_together([*torchrun(processes), f"output={tmp_path}", *settings])
    assert_same_results(results, tmp_path, one_device, processes)


def test_torchrun_without_a_folder_of_results_is_refused(settings: list[str], tmp_path: Path) -> None:
    """Each process would take a dated folder of its own."""
    settings = [f"paths.default_output={tmp_path}/${{now:%H-%M-%S-%f}}", *settings]
    (result,) = run_together([*torchrun(2), *settings])
    assert result.returncode != 0
    assert result.stderr.count("Error: output: each process would make another dated folder") == 1
    assert not list(tmp_path.rglob("*.tsv"))


def slurm_task(task: int, nodes: int = 1, tasks_per_node: int = 2) -> dict[str, str]:
    """Environment that srun gives a task; all nodes are this machine."""
    names = "localhost" if nodes == 1 else "127.0.0.1,127.0.0.1"
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "virnucpro",
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NODELIST": names,
        "SLURM_NODELIST": names,
        "SLURM_NTASKS": str(nodes * tasks_per_node),
        "SLURM_NTASKS_PER_NODE": str(tasks_per_node),
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task % tasks_per_node),
        "SLURM_NODEID": str(task // tasks_per_node),
    }


@pytest.mark.parametrize(("nodes", "tasks_per_node"), [(1, 2), (2, 1)])
def test_slurm(nodes: int, tasks_per_node: int, settings: list[str], one_device: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, f"output={tmp_path}", "trainer=slurm", *settings]
    port = free_port()
    environments = [{**slurm_task(task, nodes, tasks_per_node), "MASTER_PORT": port} for task in (0, 1)]
    results = run_together(command, command, environments=environments)
    assert_same_results(results, tmp_path, one_device, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"SLURM_STEP_ID": None}, "start the command with srun"),
        ({"SLURM_JOB_ID": None}, "start the command with srun"),
        ({"SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node"),
        ({"SLURM_NTASKS": "3"}, "3 tasks are not 1 nodes x 2 tasks per node"),
    ],
)
def test_slurm_that_does_not_fit_is_told(
    change: dict[str, str | None],
    told: str,
    cli: Callable,
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**slurm_task(0), **change}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    result = cli("predict", f"output={tmp_path}", "trainer=slurm", *settings)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: trainer=slurm: ")
    assert told in line


LEFT_OVER = {
    "a batch job of eight tasks": {
        **{f"SLURM_{name}": value for name, value in (("JOB_ID", "4711"), ("JOB_NAME", "x"), ("NTASKS", "8"))},
        **{f"SLURM_{name}": "3" for name in ("PROCID", "LOCALID", "NODEID", "STEP_ID", "NPROCS")},
        **{"SLURM_JOB_NODELIST": "node[1-4]", "SLURM_NODELIST": "node[1-4]", "SLURM_NNODES": "4"},
    },
    "an interactive job": {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "2"},
    "torchrun": {
        **{"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
        **{"GROUP_RANK": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"},
    },
    "a container": {"RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "1", "MASTER_ADDR": "nowhere.invalid"},
    "Kubeflow": {"KUBERNETES_PORT": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1", "WORLD_SIZE": "1", "RANK": "0"},
    "LSF": {
        **{"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "1"},
        **{"JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "3", "LSB_HOSTS": "a b"},
    },
    "MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2"},
    "words for numbers": {"RANK": "", "NODE_RANK": "first", "LOCAL_RANK": "x", "SLURM_NTASKS": "", "WORLD_SIZE": ""},
}
"""F7: variables that other launchers leave behind."""


@pytest.fixture(params=LEFT_OVER.values(), ids=LEFT_OVER)
def left_over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    return request.param


def test_one_device_heeds_no_other_launcher(
    left_over: dict[str, str], cli: Callable, settings: list[str], one_device: Path, tmp_path: Path
) -> None:
    result = cli("predict", f"output={tmp_path}", *settings)
    assert_same_results([subprocess.CompletedProcess([], result.code, "", result.err)], tmp_path, one_device, 1)


def test_mistakes_are_told_whatever_rank_is_left_over(left_over: dict[str, str], cli: Callable, tmp_path: Path) -> None:
    """Processes beside the first of a run are silent about them."""
    result = cli("predict", f"input={tmp_path / 'nothing.fa'}", f"output={tmp_path / 'out'}")
    assert result.code == 2
    assert result.err.count("Error: ") == 1


def test_the_python_interface_heeds_no_other_launcher(left_over: dict[str, str]) -> None:
    """Nor does it change the environment of the program that uses it."""
    before = dict(os.environ)
    table = Predictor("demo", {"trainer.accelerator": "cpu"}).predict("ATGGCTGCTGCTGCTGCTGCT" * 8)
    assert table["status"].to_pylist() == ["called"]
    assert dict(os.environ) == before


def test_fabrics_launcher_does_not_overrule_the_python_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CLI_USED", "1"), ("DEVICES", "2"), ("ACCELERATOR", "tpu"), ("STRATEGY", "ddp")):
        monkeypatch.setenv(f"LT_{name}", value)
    assert Predictor("demo", {"trainer.accelerator": "cpu"}).predict("ATGGCTGCTGCTGCTGCTGCT").num_rows == 1


def test_several_devices_heed_no_other_launcher(settings: list[str], one_device: Path, tmp_path: Path) -> None:
    """A process would wait for a day for others, on a machine that is not there."""
    names = ("a batch job of eight tasks", "torchrun", "LSF")
    variables = {key: value for name in names for key, value in LEFT_OVER[name].items()} | {"WORLD_SIZE": "1"}
    command = [*PROGRAM, f"output={tmp_path}", "trainer.devices=2", "trainer.strategy=ddp", *settings]
    assert_same_results(run_together(command, environments=[variables]), tmp_path, one_device, 2)


def test_loggers_are_not_silent_where_a_rank_is_left_over() -> None:
    """Lightning reads it when it is imported, and only the first rank writes logs."""
    code = (
        "from virnucpro_pl.distributed.process_environment import process_environment\n"
        "from lightning.pytorch.utilities import rank_zero_only\n"
        "before = rank_zero_only.rank\n"
        "process_environment(devices=1, num_nodes=1, slurm=False)\n"
        "print(before, rank_zero_only.rank)\n"
    )
    environment = {**os.environ, "RANK": "3"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "3 0\n", result.stderr


def node(number: int, address: str, port: str) -> dict[str, str]:
    return {"MASTER_ADDR": address, "MASTER_PORT": port, "NODE_RANK": str(number)}


NODES = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp"]


def test_nodes_with_stores_of_their_own(settings: list[str], one_device: Path, tmp_path: Path) -> None:
    commands = [
        [*PROGRAM, f"output={tmp_path / 'out'}", *NODES, *settings, *store_of_its_own(tmp_path / str(number))]
        for number in (0, 1)
    ]
    port = free_port()
    results = run_together(*commands, environments=[node(number, "127.0.0.1", port) for number in (0, 1)])
    assert_same_results(results, tmp_path / "out", one_device, 2)
    stores = [{path.name for path in (tmp_path / str(number)).glob("*/")} for number in (0, 1)]
    assert stores[0] == stores[1] != set()


def store_of_its_own(folder: Path) -> list[str]:
    return ["data.store_per_node=true", f"data.store_dir={folder}"]


def test_nodes_that_read_other_inputs_are_told(settings: list[str], mini: Path, tmp_path: Path) -> None:
    other = tmp_path / "mini.fa"
    other.write_text((mini / "inputs" / "mini.fa").read_text() + ">one_more\nACGT\n")
    command = [*PROGRAM, f"output={tmp_path / 'out'}", *NODES, *settings]
    commands = [
        [*command, *store_of_its_own(tmp_path / "0")],
        [*command, *store_of_its_own(tmp_path / "1"), f"input={other}"],
    ]
    port = free_port()
    first, second = run_together(*commands, environments=[node(number, "127.0.0.1", port) for number in (0, 1)])
    assert (first.returncode, second.returncode) == (1, 1)
    assert "Traceback" not in first.stderr + second.stderr
    assert "or the nodes read different inputs" in second.stderr
    assert "another process has ended" in first.stderr


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_that_is_gone_makes_the_others_fail(lost: int, settings: list[str], tmp_path: Path) -> None:
    """Only heartbeats tell of a process on another host."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Slow(Callback):\n"
        "    def on_predict_batch_end(self, trainer, *_, **__):\n"
        f"        if trainer.global_rank == {lost}:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        time.sleep(3)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [*PROGRAM, f"output={tmp_path / 'out'}", *NODES, *settings, "+callbacks.slow._target_=slow.Slow"]
    command += ["callbacks.ranks.beat_seconds=0.5", "callbacks.ranks.lost_seconds=4"]
    port = free_port()
    environments = [{**node(number, "127.0.0.1", port), "PYTHONPATH": path} for number in (0, 1)]
    results = run_together(command, command, environments=environments)

    assert results[lost].returncode == -9
    assert results[1 - lost].returncode == 1
    assert f"Error: rank {lost} has sent no heartbeat for 4 s" in results[1 - lost].stderr
    assert "Traceback" not in results[1 - lost].stderr
    assert [*(tmp_path / "out").glob(".work/parts/*/part-*.parquet")], "what was done is kept"


@pytest.fixture
def namespaces() -> Iterator[list[tuple[str, str, str]]]:
    """Two network namespaces joined by a cable: name, interface and address of each."""
    ends = [
        (f"vnp{os.getpid()}{side}", f"ve{os.getpid()}{side}", f"10.213.7.{number}")
        for number, side in ((1, "a"), (2, "b"))
    ]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    made = []
    try:
        for name, _, _ in ends:
            ip("netns", "add", name)
            made.append(name)
        ip(
            "link",
            "add",
            ends[0][1],
            "netns",
            ends[0][0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1][1],
            "netns",
            ends[1][0],
        )
        for name, interface, address in ends:
            ip("-n", name, "address", "add", f"{address}/24", "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be made: run as root on Linux with iproute2, outside of a container")
    else:
        yield ends
    finally:
        for name in made:
            ip("netns", "delete", name)


def test_two_nodes_with_networks_of_their_own(
    namespaces: list[tuple[str, str, str]], settings: list[str], one_device: Path, tmp_path: Path
) -> None:
    """Nothing but the cable and the output folder is shared."""
    commands, environments = [], []
    for number, (name, interface, _) in enumerate(namespaces):
        commands.append(["ip", "netns", "exec", name, *PROGRAM, f"output={tmp_path}", *NODES, *settings])
        environments.append({**node(number, namespaces[0][2], "29500"), "GLOO_SOCKET_IFNAME": interface})
    assert_same_results(run_together(*commands, environments=environments), tmp_path, one_device, 2)


SPY = """
import json, time
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch.distributed.distributed_c10d import _get_default_group


class Spy(Callback):
    # Last of the callbacks, so that it sees what the others do at the end of prediction.
    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds
        self.batches = 0

    def number_of_collectives(self):
        return _get_default_group()._get_sequence_number_for_group()

    def on_predict_start(self, trainer, pl_module):
        self.before = self.number_of_collectives()
        self.began = time.monotonic()

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.global_rank == 1:
            time.sleep(self.seconds)
        self.batches += 1
        self.computed = time.monotonic()

    def on_predict_end(self, trainer, pl_module):
        found = {
            "collectives": self.number_of_collectives() - self.before,
            "batches": self.batches,
            "seconds": self.computed - self.began,
        }
        dist.barrier()
        found["counted"] = self.number_of_collectives() - self.before
        (Path(self.folder) / f"spy-{trainer.global_rank}.json").write_text(json.dumps(found))
"""


def spied(folder: Path, settings: list[str], seconds: float) -> list[dict[str, float]]:
    """Predict with two processes, the second of them slow, and return what a callback saw in each."""
    (folder / "spy.py").write_text(SPY)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [*PROGRAM, f"output={folder / 'out'}", "trainer.devices=2", "trainer.strategy=ddp", *settings]
    command += ["+callbacks.spy._target_=spy.Spy", f"+callbacks.spy.folder={folder}"]
    command += [f"+callbacks.spy.seconds={seconds}"]
    (result,) = run_together(command, environments=[{"PYTHONPATH": path}])
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"spy-{rank}.json").read_text()) for rank in (0, 1)]


def test_no_process_waits_for_another_while_predicting(settings: list[str], tmp_path: Path) -> None:
    fast, slow = spied(tmp_path, settings, seconds=2)
    assert fast["collectives"] == slow["collectives"] == 0
    assert fast["counted"] == slow["counted"] > 0, "the spy would notice none"
    assert slow["batches"] >= 3
    assert slow["seconds"] >= 2 * slow["batches"]
    assert fast["seconds"] < slow["seconds"] - slow["batches"], "the fast process was held up"


def test_source_is_what_other_processes_run() -> None:
    """Processes that the tests start must run the package that is tested: this checkout, or an installed wheel."""
    code = "import virnucpro_pl; print(virnucpro_pl.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == virnucpro_pl.__file__

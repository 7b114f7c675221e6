import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import onsight
from onsight.core.errors import SpecError
from onsight.training.on_ray import command, resources
from together import LIMIT, free_port, wait_for_checkpoint


def nodes(*each, alive=True):
    return [{"Alive": alive, "Resources": {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})}
            for cpus, gpus in each]  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "workers", "expected"),
    [
        (nodes((8, 0), (4, 0)), 2, ({"CPU": 4.0}, "STRICT_SPREAD")),
        (nodes((8, 0), (4, 0)), 3, ({"CPU": 1.0}, "SPREAD")),
        (nodes((8, 4), (32, 8), (64, 0)), 2, ({"CPU": 8.0, "GPU": 4.0}, "STRICT_SPREAD")),
        ([*nodes((8, 0)), *nodes((8, 0), alive=False)], 1, ({"CPU": 8.0}, "STRICT_SPREAD")),
    ],
)
def test_a_worker_takes_a_node_or_a_core(cluster, workers, expected):
    assert resources(cluster, workers) == expected


@pytest.mark.parametrize(
    ("cluster", "workers", "message"),
    [
        (nodes((2, 0)), 3, "--workers 3 does not fit the cluster, which has 1 node with 2 cores. Choose 1 to 2"),
        (nodes((2, 0)), 0, "--workers 0 does not fit"),
        (nodes((16, 8), (16, 8)), 3, "a worker takes all GPUs of a node, and there are 2 nodes"),
    ],
)
def test_a_cluster_without_room_is_refused(cluster, workers, message):
    with pytest.raises(SpecError, match=message):
        resources(cluster, workers)


def test_workers_get_the_users_command_with_absolute_paths(photos):
    spec = onsight.TrainSpec(photos.name, epochs=2, classes="red,blue", backend="jax")
    expected = ["train", str(photos), "--epochs", "2", "--classes", "red,blue", "--backend", "jax"]
    assert sorted(command(spec, None)) == sorted(expected)
    assert command(onsight.TrainSpec("toy", backend="jax"), None)[:2] == ["train", "toy"]
    resumed = ["train", "--resume", str(Path.cwd() / "runs" / "one")]
    assert command(None, Path("runs/one")) == resumed
    assert sorted(command(onsight.TrainSpec(epochs=9), Path("runs/one"))) == sorted([*resumed, "--epochs", "9"])
    with pytest.raises(SpecError, match="on JAX only: add --backend jax"):
        command(onsight.TrainSpec("toy"), None)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a Ray cluster of two cores on this machine; yield its address and the environment of its users."""
    pytest.importorskip("ray", reason="ray is not installed")
    source = Path(onsight.__file__).parents[1]
    environment = os.environ | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(source), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    port, client = free_port(), free_port()
    # Ray makes sockets in this folder, and their paths must be short.
    words = ["start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}",
             f"--ray-client-server-port={client}", "--include-dashboard=false", "--object-store-memory=80000000",
             "--min-worker-port=0", "--max-worker-port=0"]  # fmt: skip
    log = tmp_path_factory.mktemp("ray") / "log.txt"
    with log.open("w") as out:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words], env=environment, stdout=out, stderr=out
        )
        limit = time.monotonic() + LIMIT
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.2)
        yield f"ray://127.0.0.1:{client}", environment
        head.terminate()
        head.wait(LIMIT)


def start(cluster, runs, *words):
    address, environment = cluster
    words = ["train", "toy", "--model", "mlp", "--epochs", 30, "--batch-size", 16, "--optimizer", "sgd",
             "--learning-rate", 0.01, "--backend", "jax", "--checkpoint-seconds", 0.05, *words, "--on", address,
             "--workers", 2]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "onsight", *map(str, words)], env=environment | {"ONSIGHT_RUNS": str(runs)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def child_of_rank(runs, rank):
    """Return the process id of a rank that trains in a folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            here = f"ONSIGHT_RUNS={runs}" in (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if here and "--rank" in words and words[words.index("--rank") + 1] == str(rank):
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of Ray in /proc")
def test_a_training_on_ray_survives_a_killed_worker(cluster, tmp_path):
    def weights(runs):
        (path,) = runs.glob("*/model/weights.safetensors")
        return path.read_bytes()

    unbroken, broken, stopped = (tmp_path / name for name in ("unbroken", "broken", "stopped"))
    launcher = start(cluster, unbroken)
    out, err = launcher.communicate(timeout=2 * LIMIT)
    assert launcher.returncode == 0, err
    (run,) = unbroken.iterdir()
    assert out.strip() == str(run)

    launcher = start(cluster, broken)
    wait_for_checkpoint(broken, 4, [launcher])
    os.kill(child_of_rank(broken, 1), signal.SIGKILL)
    _, err = launcher.communicate(timeout=2 * LIMIT)
    assert launcher.returncode == 0, err
    assert "restart" in err
    assert weights(broken) == weights(unbroken)

    launcher = start(cluster, stopped)
    wait_for_checkpoint(stopped, 4, [launcher])
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=2 * LIMIT)
    assert launcher.returncode == 130, err
    assert "Continue with the same command and --or-resume" in err
    launcher = start(cluster, stopped, "--or-resume")
    _, err = launcher.communicate(timeout=2 * LIMIT)
    assert launcher.returncode == 0, err
    assert weights(stopped) == weights(unbroken)

"""A Slurm of one host and a Ray of several nodes on this machine, and what disturbs the workers on them."""

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

PACKAGES = {"ray": ["ray"], "slurm": ["submitit"], "git over ssh": [], "ssh": ["dvc_ssh"], "s3": ["dvc_s3", "swift"]}
SLURM_PROGRAMS = (["munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun"], "slurm-wlm munge")
SSH_PROGRAMS = (["sshd", "ssh", "ssh-keygen"], "openssh-server openssh-client")
PROGRAMS = {"slurm": SLURM_PROGRAMS, "git over ssh": SSH_PROGRAMS, "ssh": SSH_PROGRAMS}
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MailProg=/bin/true
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing(engine: str) -> str:
    """Return why the engine cannot be tested here, or nothing."""
    for package in PACKAGES[engine]:
        if find_spec(package) is None:
            return f"the package {package} is not installed; `make test-cluster` installs it"
    os.environ["PATH"] += ":/usr/sbin"
    programs, debian = PROGRAMS.get(engine, ([], ""))
    if absent := [name for name in programs if not shutil.which(name)]:
        return f"{', '.join(absent)} not on PATH; `apt-get install {debian}`"
    if engine == "slurm" and os.geteuid():
        return "Slurm needs root"
    return ""


@contextmanager
def slurm_host(folder: Path, cpus: int) -> Iterator[dict[str, str]]:
    """Run munge, slurmctld and slurmd on 127.0.0.1; yield the environment that finds them."""
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    conf.write_text(SLURM_CONF.format(host=host, folder=folder, cpus=cpus, ports=(free_port(), free_port())))
    for number in range(cpus):
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # for Slurm a GPU; it is /dev/null
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{cpus - 1}]\n")
    environment = {"SLURM_CONF": str(conf)}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    ]
    with (folder / "output.log").open("w") as log:
        processes = []
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment}))
            time.sleep(1)
    try:
        wait_for(lambda: "idle" in output_of(["sinfo", "-h", "-o", "%T"], environment), 60)
        yield environment
    finally:
        subprocess.run(["scancel", "--me"], env={**os.environ, **environment})
        time.sleep(1)
        for process in reversed(processes):
            process.terminate()
            process.wait(60)


@contextmanager
def ray_nodes(nodes: int, cpus: int):
    """Run a Ray cluster of a head without CPUs and `nodes` nodes; yield the cluster and the nodes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - else tasks have the lowest priority, and a busy machine none
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster, [cluster.add_node(num_cpus=cpus, num_gpus=cpus) for _ in range(nodes)]
    finally:
        cluster.shutdown()


def workers(folder: Path) -> list[int]:
    """Return the processes of `studies.worker` whose work folder is `folder`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"--repository" in words and str(folder).encode() in words:
                found.append(int(place.name))
    return found


def kill_tree(process: int) -> None:
    """Kill a process and all that it started, itself first."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.name))
    left = [process]
    while left:
        number = left.pop(0)
        left += children.get(number, [])
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def disturb(sweep: subprocess.Popen, folder: Path, seconds: float, limit: int) -> int:
    """Kill one of several workers every so many seconds until the sweep ends, at most `limit`; return how many."""
    draw, killed = random.Random(1), 0
    while sweep.poll() is None:
        time.sleep(seconds)
        found = workers(folder)
        if len(found) > 1 and killed < limit:  # not the base, which has to end before others start
            kill_tree(draw.choice(found))
            killed += 1
    return killed


def wait_for(condition, seconds: float) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it never happened")
        time.sleep(0.5)


def output_of(command: list[str], environment: dict[str, str]) -> str:
    """Return what a command prints, errors included."""
    done = subprocess.run(command, text=True, capture_output=True, env={**os.environ, **environment})
    return done.stdout + done.stderr


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

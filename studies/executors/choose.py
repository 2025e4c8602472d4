"""The executors by name."""

from importlib import import_module
from pathlib import Path

from stages.common.errors import UserError
from studies.executors.local import LocalExecutor
from studies.executors.protocol import Executor
from studies.study import Study

CLUSTERS = {
    "ray": ("studies.executors.ray_tasks", "RayExecutor"),
    "slurm": ("studies.executors.slurm_jobs", "SlurmExecutor"),
}
EXECUTORS = ("local", *CLUSTERS)


def new_executor(name: str, file: Path, study: Study, baseline: str, jobs: int | None, gpus: list[str]) -> Executor:
    """Return the executor `name` for the study in `file`, whose experiments start from the commit `baseline`.

    `jobs` is None where the executor chooses. Raises UserError where its package is not installed.
    """
    if name == "local":
        return LocalExecutor(study, baseline, jobs or len(gpus) or 1, gpus)
    if gpus:
        raise UserError(f"GPUS names GPUs of this machine; for EXECUTOR={name} set {name}.gpus in cluster.yaml")
    module, executor = CLUSTERS[name]
    try:
        return getattr(import_module(module), executor)(file, study, baseline, jobs)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "submitit"):
            raise
        raise UserError(
            f"EXECUTOR={name} needs the package {error.name}; `make {name}` installs it (requirements-{name}.txt)"
        ) from None

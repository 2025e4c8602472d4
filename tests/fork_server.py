"""A Python that has imported the large libraries and runs each command in a fork of itself; forks.py starts it.

A client sends its three standard streams and one line of JSON: arguments, folder and environment. It receives the exit
status as os.waitpid gives it. If the client goes, its command is killed.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import types
from contextlib import suppress
from pathlib import Path

import huggingface_hub.constants

# What the stages import from outside the project, and nothing of the project: each command imports that itself.
LIBRARIES = (
    "torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.generation",
    "transformers.models.llama.modeling_llama", "transformers.tokenization_utils_tokenizers", "lm_eval.evaluator",
    "lm_eval.tasks", "datasets", "pandas", "pyarrow.parquet", "scipy.stats", "matplotlib.pyplot", "peft", "ptflops",
    "pydantic", "safetensors.torch", "gguf", "sympy", "ruamel.yaml", "dvc.repo", "vl_convert",
)  # fmt: skip


def serve(listener: socket.socket) -> dict:
    """Fork for each client, and return its request in the child; the parent exits when its own stdin ends."""
    events = selectors.DefaultSelector()
    events.register(listener, selectors.EVENT_READ)
    events.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in events.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request, streams = receive(connection)
                process = os.fork()
                if process == 0:
                    for opened in (events, listener, connection):
                        opened.close()
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                        os.close(stream)
                    return request
                for stream in streams:
                    os.close(stream)
                connection.send(b"%d\n" % process)
                ended = os.pidfd_open(process)
                for watched in (connection, ended):  # it can be read when the client is gone, or the process
                    events.register(watched, selectors.EVENT_READ, (process, connection, ended))
            elif key.fd == 0:
                shutil.rmtree(Path(listener.getsockname()).parent)
                sys.exit()
            elif events.get_map().get(key.fd) is key:  # not closed with its pair a moment ago
                process, connection, ended = key.data
                if key.fileobj is connection:
                    os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                with suppress(BrokenPipeError):
                    connection.send(b"%d\n" % status)
                for watched in (connection, ended):
                    events.unregister(watched)
                connection.close()
                os.close(ended)


def receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """Return a client's request and its standard streams."""
    line, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not line.endswith(b"\n"):
        line += connection.recv(1 << 16)
    return json.loads(line), streams


def become(request: dict) -> None:
    """Take the request's folder, environment and import path, as a Python that starts there."""
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    further = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = ["" if request["arguments"][0] == "-c" else str(Path.cwd()), *filter(None, further)]
    sys.executable = str(Path(sys.argv[1]).parent / "bin/python")  # so that what a fork starts is a fork too
    sys.orig_argv[1:] = request["arguments"]
    importlib.invalidate_caches()
    importlib.reload(huggingface_hub.constants)  # which reads HF_ENDPOINT and HF_HOME


def execute(kind: str, what: str, *arguments: str) -> None:
    """Run a module or a text of code as the main one, and exit without taking the libraries apart, a second's work."""
    sys.argv[:] = [kind, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
        leave.status = 0
    except SystemExit as exit:
        leave.status = 0 if exit.code is None else exit.code if isinstance(exit.code, int) else 1
        raise


class Leave:
    """Called at the very end, after threads and exit functions: leaves with `status`, or lets Python end as it does."""

    status: int | None = None

    def __call__(self) -> None:
        sys.stdout.flush()
        if self.status is not None:
            os._exit(self.status)


leave = Leave()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()  # from here on, clients wait
    atexit.register(leave)  # exit functions run in reverse
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    request = serve(listener)
    become(request)
    execute(*request["arguments"])

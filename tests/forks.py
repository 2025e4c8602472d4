"""A `python` that starts without importing torch and transformers again, which takes 5 seconds of each process.

It is a script that has `fork_server.py` run the command. What it cannot run alike, the real Python runs. A fork starts
other processes by the same script, which is its `sys.executable`.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

PACKAGES = ("stages.", "chat")  # whose modules run in forks
# Libraries read these as they are imported, or Python as it starts.
READ_EARLY = (
    "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HOME", "LANG", "LC_ALL", "MPLCONFIGDIR",
    "PYTHONHASHSEED", "PYTHONIOENCODING", "TMPDIR", "XDG_CACHE_HOME",
)  # fmt: skip
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
command, environment = sys.argv[1:], dict(os.environ)
alike = all(environment.get(name) == value for name, value in {read_early}.items())
forks = alike and len(command) > 1 and (command[0] == "-c" or command[0] == "-m" and command[1].startswith({packages}))
server = socket.socket(socket.AF_UNIX)
signals = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
try:
    if not forks:
        raise OSError
    server.connect({socket!r})
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until they can be passed on
except OSError:
    os.execv({python!r}, [{python!r}, *command])
request = {{"arguments": command, "folder": os.getcwd(), "environment": environment}}
line = json.dumps(request).encode() + b"\\n"
sent = socket.send_fds(server, [line], [0, 1, 2])
server.sendall(line[sent:])
answers = server.makefile()
process = int(answers.readline())
for number in signals:
    signal.signal(number, lambda number, frame: os.kill(process, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
status = os.waitstatus_to_exitcode(int(answers.readline()))
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if status != -signal.SIGKILL else None
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def forking_python() -> Path:
    """Return a `python` in a folder of its own; the first call starts the server that it uses."""
    python = Path(sys.executable)
    if not hasattr(os, "pidfd_open"):  # Linux alone has it
        return python
    folder = Path(tempfile.mkdtemp(prefix="espalier-forks-"))
    path = folder / "socket"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.Popen(
        [python, Path(__file__).with_name("fork_server.py"), path],
        cwd="/", env={key: value for key, value in environment.items() if key != "PYTHONPATH"},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,  # it ends with its stdin, so with this process
    )  # fmt: skip
    client = folder / "bin" / "python"
    client.parent.mkdir()
    read_early = {name: os.environ.get(name) for name in READ_EARLY}
    values = {"python": str(python), "socket": str(path), "read_early": read_early, "packages": PACKAGES}
    client.write_text(CLIENT.format(**values))
    client.chmod(0o755)
    while not path.exists():
        time.sleep(0.01)
    return client

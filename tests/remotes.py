"""An ssh and an S3 server on 127.0.0.1, for git and DVC remotes."""

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clusters import free_port, output_of, wait_for

SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""
SSH_CONFIG = """
Host cluster
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/client_key
  UserKnownHostsFile {folder}/known_hosts
"""
# Swift has its S3 API, and nothing else, in front of its own. Paste reads the parts that each server's pipeline names.
SWIFT_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}
mount_check = false
[pipeline:main]
pipeline = {filters} {name}-server
[app:{name}-server]
use = egg:swift#{name}
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
"""
SWIFT_FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "s3api", "tempauth", "slo")
SWIFT_SERVER = """
import sys
from swift.common import utils
folder, name = sys.argv[1:]
utils.SWIFT_CONF_FILE = f"{folder}/swift.conf"
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(f"{folder}/{name}.conf", f"{name}-server"))
"""
S3_USER, S3_KEY, BUCKET = "test:tester", "testing", "models"


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run sshd with keys of its own; yield the URL of its root, and the environment of a user that may log in."""
    port = free_port()
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    config = home / ".ssh/config"
    config.write_text(SSH_CONFIG.format(port=port, folder=folder, user=getpass.getuser()))
    if not os.geteuid():
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it
    # OpenSSH looks for its configuration where /etc/passwd says, asyncssh in HOME.
    environment = {"HOME": str(home), "GIT_SSH_COMMAND": f"ssh -o BatchMode=yes -F {config}"}
    sshd = str(shutil.which("sshd"))  # which starts itself again, by its whole path
    with running([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], folder / "sshd.log"):
        wait_for(lambda: "in" in output_of(["ssh", "-F", str(config), "cluster", "echo in"], {}).split(), 20)
        yield "ssh://cluster", environment


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run OpenStack Swift; yield the URL of an empty bucket, and the environment of a user that may write to it."""
    from botocore.session import Session

    (folder / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_prefix = test\n")
    ports = {name: free_port() for name in ("account", "container", "object", "proxy")}
    with ExitStack() as stack:
        for name, port in ports.items():
            filters = SWIFT_FILTERS if name == "proxy" else ()
            conf = SWIFT_CONF.format(
                port=port, folder=folder, name=name, user=getpass.getuser(), filters=" ".join(filters)
            ) + "".join(f"[filter:{each}]\nuse = egg:swift#{each}\n" for each in filters if each != "tempauth")
            (folder / f"{name}.conf").write_text(conf)
            if name != "proxy":
                write_ring(folder / f"{name}.ring.gz", port)
            command = [sys.executable, "-c", SWIFT_SERVER, str(folder), name]
            stack.enter_context(running(command, folder / f"{name}.log"))
        url = f"http://127.0.0.1:{ports['proxy']}"
        client = Session().create_client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=S3_USER, aws_secret_access_key=S3_KEY
        )

        def made() -> bool:
            try:
                return bool(client.create_bucket(Bucket=BUCKET))
            except Exception:
                return False

        wait_for(made, 60)
        yield f"s3://{BUCKET}", {
            "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": S3_USER, "AWS_SECRET_ACCESS_KEY": S3_KEY,
        }  # fmt: skip


def write_ring(file: Path, port: int) -> None:
    """Write the ring, by which the proxy finds a server, of one device."""
    from swift.common.ring import RingBuilder

    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "disk"})
    builder.rebalance()
    builder.get_ring().save(str(file))


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a server in the context."""
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            server.terminate()
            server.wait(20)

"""A real API server without a cluster: etcd and kube-apiserver, two processes and a folder.

What the API server itself does can be tried on it: schemas, CEL, defaults, server-side apply, watches,
subresources. Controllers, nodes and pods are not there: nothing makes a pod of a StatefulSet, nothing
deletes what belonged to a deleted object, a deleted namespace stays in Terminating.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
BIN_VARIABLE = "PENSTOCK_KUBE_BIN"
"""Environment variable: the folder of these programs, looked into before PATH."""

_PATIENCE_S = 90
_TRIES = 3
_PR_SET_PDEATHSIG = 1


def missing_programs() -> list[str]:
    """Those that cannot be found."""
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
    path = os.pathsep.join(filter(None, [os.environ.get(BIN_VARIABLE), os.environ.get("PATH")]))
    return shutil.which(name, path=path)


@dataclass(frozen=True)
class ApiServer:
    """A running API server. `kubeconfig` is an administrator's, for `kubectl --as` everybody's."""

    url: str
    folder: Path
    kubeconfig: Path

    def kubectl(
        self, *arguments: str, given: Any = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `given` goes to its input, an object or a list of them as YAML."""
        program = _program("kubectl")
        assert program is not None
        text = given if given is None or isinstance(given, str) else _yaml(given)
        done = subprocess.run(
            [program, *arguments],
            input=text,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o yaml`, read."""
        return yaml.safe_load(self.kubectl("get", *arguments, "-o", "yaml").stdout)

    def environment(self) -> dict[str, str]:
        """Environment variables for a process that talks to this server."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),
        }

    def new_namespace(self) -> str:
        """A namespace of a test's own."""
        name = f"t-{uuid.uuid4().hex[:10]}"
        self.kubectl("create", "namespace", name)
        return name


def _yaml(given: Any) -> str:
    return yaml.safe_dump_all(given if isinstance(given, list) else [given], sort_keys=False)


@contextlib.contextmanager
def running(folder: Path, *, authorization: str = "AlwaysAllow") -> Iterator[ApiServer]:
    """A server of its own with its files in that folder; nothing of it lives on.

    `authorization` is that of kube-apiserver's flag; with RBAC the administrator may still do all.
    """
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    _write_key(folder / "service-account.key")
    for chance in range(1, _TRIES + 1):
        with contextlib.ExitStack() as stack:
            url, processes = _start(folder, stack, authorization)
            if _is_ready(url, token, processes):
                yield ApiServer(url, folder, _write_kubeconfig(folder, url, token))
                return
        # Another process may have taken a port in the meantime.
        if chance == _TRIES:
            raise AssertionError(f"no API server within {_TRIES} tries:\n{_last_lines(folder)}")


def _start(
    folder: Path, stack: contextlib.ExitStack, authorization: str
) -> tuple[str, list[subprocess.Popen[bytes]]]:
    etcd_port, peer_port, port = _free_ports(3)
    etcd_url, peer_url = (f"http://127.0.0.1:{p}" for p in (etcd_port, peer_port))
    data = folder / f"etcd-{etcd_port}"
    etcd = stack.enter_context(
        _process(
            folder,
            "etcd",
            f"--data-dir={data}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
    )
    key = folder / "service-account.key"
    server = stack.enter_context(
        _process(
            folder,
            "kube-apiserver",
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--authorization-mode={authorization}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            # Nobody would make the accounts that it waits for.
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            "--watch-cache=true",
        )
    )
    return f"https://127.0.0.1:{port}", [etcd, server]


@contextlib.contextmanager
def _process(folder: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    program = _program(name)
    assert program is not None, name
    with (folder / f"{name}.log").open("wb") as log:
        started = _popen([program, *arguments], log)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def _popen(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)

    def die_with_the_tests() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_the_tests,  # noqa: PLW1509  (one call of a library that is loaded)
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in held]


def _is_ready(url: str, token: str, processes: list[subprocess.Popen[bytes]]) -> bool:
    """Whether the server says so in time; not when one of the two has ended."""
    trusting = ssl._create_unverified_context()
    asked = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(asked, context=trusting, timeout=5) as answer,
        ):
            if answer.status == 200:
                return True
        time.sleep(0.1)
    return False


def _last_lines(folder: Path) -> str:
    logs = (folder / f"{name}.log" for name in ("etcd", "kube-apiserver"))
    return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _write_kubeconfig(folder: Path, url: str, token: str) -> Path:
    config: Mapping[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "test",
                "cluster": {"server": url, "certificate-authority": str(folder / "apiserver.crt")},
            }
        ],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path

"""A Redis that speaks TLS, with a certificate authority of its own, made by the openssl command."""

from __future__ import annotations

import shutil
import socket
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from support.valkey import ValkeyServer

HOST = "127.0.0.1"
PORT_ATTEMPTS = 10

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


class Authority:
    """Signs certificates in `folder`; who trusts it has its `certificate` as ``ssl_ca_certs``."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on PATH to make certificates with")
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        self._openssl("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def sign(self, address: str) -> tuple[Path, Path]:
        """A certificate for the server at an IP `address`, and its key."""
        name = f"{self._name}-{address}"
        self._openssl(
            *("-CA", f"{self._name}.pem", "-CAkey", f"{self._name}.key"),
            *("-subj", "/CN=store", "-addext", f"subjectAltName=IP:{address}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _openssl(self, *options: str) -> None:
        command = ["openssl", "req", "-x509", *_NEW_KEY, *options]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)


class TlsServer:
    """Debian's Redis at a port of `HOST` that the system chose, with TLS, and at a Unix socket for its `admin`."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("no redis-server on PATH")
        self.trusted = Authority(folder, "trusted")
        self._server = ValkeyServer(binary)
        try:
            self._server.start()
            self.admin = Redis.from_url(self._server.url)
            self.port = self._listen()
        except BaseException:
            self._server.close()
            raise

    def url(self, *, user: str, host: str = HOST, authority: Authority | None = None) -> str:
        """For ``user:password`` as `user`, trusting `authority`, which is the server's own unless it is given."""
        certificate = (authority or self.trusted).certificate
        return f"rediss://{user}@{host}:{self.port}/0?ssl_ca_certs={certificate}"

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.admin.close()
        self._server.close()

    def _listen(self) -> int:
        if not self.admin.config_get("tls-port"):
            pytest.skip("redis-server is built without TLS")
        certificate, key = self.trusted.sign(HOST)
        options: dict[str, object] = {
            "bind": HOST,
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": self.trusted.certificate,
            "tls-auth-clients": "no",
        }
        for _ in range(PORT_ATTEMPTS):
            options["tls-port"] = _free_port()
            try:
                self.admin.config_set(*map(str, chain(*options.items())))
            except RedisError as error:
                refusal = error  # somebody was faster at that port
            else:
                return int(str(options["tls-port"]))
        raise RuntimeError(f"redis-server does not listen with TLS: {refusal}")


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        port: int = chosen.getsockname()[1]
        return port

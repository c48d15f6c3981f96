"""The two directories of a gateway: the runtime directory has sockets, the state directory what outlives a reboot.

Both are the owner's alone (0700), and each is locked by the gateway that uses it, for as long as it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path

from stickygw.config.places import default_runtime_base
from stickygw.errors import RuntimeDirError
from stickygw.types import GatewayId

MAX_PATH_BYTES = 90
"""A Unix socket's path has at most 107 bytes (unix(7)): 17 are left for the names in the directory."""

SECRET_BYTES = 32
GATEWAY_ID_BYTES = 4


class LockedDir:
    """A private directory held by this process; `close()`, or the process's end, lets it go."""

    def __init__(self, path: Path, *, setting: str) -> None:
        """Make `path` if it is not there, and lock it. `setting` names the setting to change, for errors.

        Raises `RuntimeDirError`: another gateway holds it, it is not ours, or open to others.
        """
        self.path = path
        _make_private(path, setting)
        self._lock = _lock(path, setting)

    def close(self) -> None:
        """Let the directory go. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_runtime_dir(explicit: Path | None, *, port_name: str) -> LockedDir:
    """The runtime directory: `explicit`, or ``$XDG_RUNTIME_DIR`` or the temporary folder + ``stickygw-UID/PORT``.

    Raises `RuntimeDirError`, also when the path is too long for the sockets in it.
    """
    if explicit is None:
        base = default_runtime_base()
        _make_private(base, "runtime_dir")
        explicit = base / port_name
    path = explicit.absolute()
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise RuntimeDirError(
            f"runtime_dir {path} has {length} bytes, at most {MAX_PATH_BYTES} leave room for socket names: "
            "name a shorter one with --runtime-dir"
        )
    return LockedDir(path, setting="runtime_dir")


def open_state_dir(explicit: Path | None, *, port_name: str) -> LockedDir:
    """The state directory: `explicit`, or ``$XDG_STATE_HOME`` or ``~/.local/state`` + ``stickygw/PORT``.

    Raises `RuntimeDirError`.
    """
    if explicit is None:
        home = os.environ.get("XDG_STATE_HOME")
        base = (Path(home) if home else Path.home() / ".local" / "state") / "stickygw"
        _make_private(base, "state_dir")
        explicit = base / port_name
    return LockedDir(explicit.absolute(), setting="state_dir")


def port_name(port: int | None, path: Path | None) -> str:
    """What a gateway's default directories are called: its TCP port, or a short hash of its Unix socket's path."""
    if port is not None:
        return str(port)
    return hashlib.sha256(os.fsencode((path or Path()).absolute())).hexdigest()[:8]


def own_secret(state: LockedDir) -> str:
    """The gateway's own signing key, made once: 32 random bytes in hex. Raises `RuntimeDirError` for a bad file."""
    secret = _once(state.path / "secret", secrets.token_hex(SECRET_BYTES))
    if len(secret) < SECRET_BYTES:
        raise RuntimeDirError(
            f"{state.path / 'secret'} is too short: remove it, and a new one is made (all sessions end)"
        )
    return secret


def own_gateway_id(state: LockedDir) -> GatewayId:
    """The gateway's name in its cookies, made once: 8 hex digits. Raises `RuntimeDirError` for a bad file."""
    gateway = _once(state.path / "gateway-id", secrets.token_hex(GATEWAY_ID_BYTES))
    if len(gateway) != 2 * GATEWAY_ID_BYTES or not set(gateway) <= set("0123456789abcdef"):
        raise RuntimeDirError(
            f"{state.path / 'gateway-id'} does not hold 8 hex digits: remove it, and a new one is made"
        )
    return GatewayId(gateway)


def _make_private(path: Path, setting: str) -> None:
    try:
        # Parents have the mode of all directories; only what is ours is private.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()  # a symbolic link that somebody put into a shared folder is not followed
    except OSError as error:
        raise RuntimeDirError(f"{setting} {path} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise RuntimeDirError(f"{setting} {path} is not a directory")
    if found.st_uid != os.geteuid():
        raise RuntimeDirError(f"{setting} {path} belongs to user {found.st_uid}, not to {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise RuntimeDirError(f"{setting} {path} is open to others (mode {mode:o}): chmod 700 it, or name another")


def _lock(path: Path, setting: str) -> int:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RuntimeDirError(f"{setting} {path} cannot be locked: {error.strerror}") from error
    try:
        _hold(lock)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise RuntimeDirError(
            f"{setting} {path} is held by another gateway" + (f" (pid {holder})" if holder.isdigit() else "")
        ) from error
    except OSError as error:  # a full disk, a file system without locks
        os.close(lock)
        raise RuntimeDirError(f"{setting} {path} cannot be locked: {error.strerror}") from error
    return lock


def _hold(lock: int) -> None:
    """Take the lock and write who has it. Raises BlockingIOError when another has it."""
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())


def _once(path: Path, value: str) -> str:
    """What the file holds; `value` where there is none, which is written then, whole or not at all."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        _write(path, value)
        return value
    except OSError as error:
        raise RuntimeDirError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RuntimeDirError(f"{path} is not a file of this user alone (mode 600)")
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError as error:
        raise RuntimeDirError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, value: str) -> None:
    # The directory is locked, so nobody else writes this name.
    unfinished = path.with_name(path.name + ".new")
    try:
        unfinished.unlink(missing_ok=True)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "w", encoding="ascii") as stream:
            stream.write(value + "\n")
            stream.flush()
            os.fsync(file)
        unfinished.rename(path)
    except OSError as error:
        raise RuntimeDirError(f"{path} cannot be written: {error.strerror}") from error

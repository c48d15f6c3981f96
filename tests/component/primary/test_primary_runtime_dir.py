"""The gateway's directories are private, locked, and keep what is made once."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stickygw.errors import RuntimeDirError
from stickygw.primary.runtime_dir import (
    MAX_PATH_BYTES,
    open_runtime_dir,
    open_state_dir,
    own_gateway_id,
    own_secret,
    port_name,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_defaults_are_named_by_user_and_port_and_private(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(short_dir / "state"))
    runtime = open_runtime_dir(None, port_name="8000")
    state = open_state_dir(None, port_name="8000")
    assert runtime.path == short_dir / "run" / f"stickygw-{os.geteuid()}" / "8000"
    assert state.path == short_dir / "state" / "stickygw" / "8000"
    for private in (runtime.path, runtime.path.parent, state.path, state.path.parent):
        assert mode(private) == 0o700
    runtime.close()
    state.close()


def test_without_xdg_variables_the_temporary_folder_and_the_home_are_used(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(short_dir))
    monkeypatch.setenv("HOME", str(short_dir / "home"))
    runtime = open_runtime_dir(None, port_name="8000")
    state = open_state_dir(None, port_name="8000")
    assert runtime.path == short_dir / f"stickygw-{os.geteuid()}" / "8000"
    assert state.path == short_dir / "home" / ".local" / "state" / "stickygw" / "8000"
    runtime.close()
    state.close()


def test_a_unix_socket_is_named_by_a_short_hash():
    name = port_name(None, Path("/run/a/gateway"))
    assert len(name) == 8
    assert name != port_name(None, Path("/run/b/gateway"))
    assert port_name(8000, None) == "8000"


def test_a_second_gateway_is_refused_and_told_by_whom(short_dir: Path):
    held = open_runtime_dir(short_dir / "r", port_name="")
    with pytest.raises(RuntimeDirError, match=rf"held by another gateway \(pid {os.getpid()}\)"):
        open_runtime_dir(short_dir / "r", port_name="")
    held.close()
    open_runtime_dir(short_dir / "r", port_name="").close()


def test_a_child_does_not_hold_the_lock(short_dir: Path):
    held = open_runtime_dir(short_dir / "r", port_name="")
    with subprocess.Popen(
        [sys.executable, "-c", "print('here', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # exec is over: the kernel lets go of the parent before it closes the descriptors
        held.close()
        open_runtime_dir(short_dir / "r", port_name="").close()
        child.communicate(b"\n")


def test_a_directory_that_is_open_to_others_is_refused_and_not_changed(short_dir: Path):
    path = short_dir / "open"
    path.mkdir(mode=0o755)
    with pytest.raises(RuntimeDirError, match=r"open to others .mode 755.: chmod 700 it"):
        open_runtime_dir(path, port_name="")
    assert mode(path) == 0o755


def test_a_symbolic_link_is_not_followed(short_dir: Path):
    (short_dir / "real").mkdir(mode=0o700)
    (short_dir / "link").symlink_to(short_dir / "real")
    with pytest.raises(RuntimeDirError, match="not a directory"):
        open_runtime_dir(short_dir / "link", port_name="")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(short_dir: Path):
    path = short_dir / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(RuntimeDirError, match="belongs to user 12345"):
        open_runtime_dir(path, port_name="")


def test_a_path_too_long_for_sockets_is_a_clear_error(short_dir: Path):
    path = short_dir / ("x" * MAX_PATH_BYTES)
    with pytest.raises(RuntimeDirError, match=r"at most 90 leave room for socket names"):
        open_runtime_dir(path, port_name="")
    assert not path.exists()


def test_a_directory_that_cannot_be_made_is_a_clear_error(short_dir: Path):
    (short_dir / "file").write_text("")
    with pytest.raises(RuntimeDirError, match=r"state_dir .* cannot be made"):
        open_state_dir(short_dir / "file" / "state", port_name="")


def test_secret_and_gateway_id_are_made_once_and_private(short_dir: Path):
    state = open_state_dir(short_dir / "s", port_name="")
    secret, gateway = own_secret(state), own_gateway_id(state)
    assert len(bytes.fromhex(secret)) == 32
    assert len(bytes.fromhex(gateway)) == 4
    assert (own_secret(state), own_gateway_id(state)) == (secret, gateway)
    assert mode(state.path / "secret") == 0o600
    state.close()
    other = open_state_dir(short_dir / "other", port_name="")
    assert own_secret(other) != secret
    other.close()


def test_a_secret_that_others_can_read_or_that_was_cut_is_refused(short_dir: Path):
    state = open_state_dir(short_dir / "s", port_name="")
    own_secret(state)
    (state.path / "secret").chmod(0o644)
    with pytest.raises(RuntimeDirError, match="not a file of this user alone"):
        own_secret(state)
    (state.path / "secret").chmod(0o600)
    (state.path / "secret").write_text("short\n")
    with pytest.raises(RuntimeDirError, match="too short"):
        own_secret(state)
    state.close()


def test_a_secret_whose_making_was_interrupted_is_made_anew(short_dir: Path):
    state = open_state_dir(short_dir / "s", port_name="")
    (state.path / "secret.new").write_text("half")
    assert len(own_secret(state)) == 64
    state.close()


def test_a_lock_that_cannot_be_had_is_a_clear_error(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    path = short_dir / "r"
    (path / "lock").mkdir(parents=True, mode=0o700)
    path.chmod(0o700)
    with pytest.raises(RuntimeDirError, match=r"runtime_dir .* cannot be locked: Is a directory"):
        open_runtime_dir(path, port_name="")
    (path / "lock").rmdir()

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RuntimeDirError, match="cannot be locked: No space left on device"):
            open_runtime_dir(path, port_name="")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_secret_that_cannot_be_read_or_made_is_a_clear_error(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    state = open_state_dir(short_dir / "s", port_name="")
    (state.path / "secret.new").mkdir()
    with pytest.raises(RuntimeDirError, match=r"secret cannot be written: "):
        own_secret(state)
    (state.path / "secret.new").rmdir()
    own_secret(state)

    def broken(*arguments: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_text", broken)
    with pytest.raises(RuntimeDirError, match="secret cannot be read: Input/output error"):
        own_secret(state)
    state.close()

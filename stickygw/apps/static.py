"""The files of one folder, by the paths of requests."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from stat import S_ISREG
from urllib.parse import unquote

_TEXTUAL = frozenset({"application/javascript", "application/json", "image/svg+xml"})


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it stands on the disk now."""

    path: Path
    size: int
    modified: float
    content_type: str

    @property
    def etag(self) -> str:
        """A validator that changes when size or time of modification do (RFC 9110 §8.8.3)."""
        return f'"{self.size:x}-{int(self.modified * 1000):x}"'

    @property
    def last_modified(self) -> str:
        """The time of modification as an HTTP date."""
        return formatdate(self.modified, usegmt=True)


class StaticFiles:
    """Finds files below `folder`. Hidden ones, and whatever a link leads to outside of it, do not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def find(self, path: str) -> StaticFile | None:
        """The file that a request for `path` means; a folder means its ``index.html``."""
        decoded = unquote(path)
        segments = [segment for segment in decoded.split("/") if segment]
        if "\0" in decoded or "\\" in decoded or any(segment.startswith(".") for segment in segments):
            return None
        file = self._folder.joinpath(*segments)
        if path.endswith("/") or not segments:
            file /= "index.html"
        try:
            file = file.resolve(strict=True)
            status = file.stat()
        except (OSError, RuntimeError):
            return None
        if not S_ISREG(status.st_mode) or not file.is_relative_to(self._folder):
            return None
        return StaticFile(file, status.st_size, status.st_mtime, _content_type(file))


def _content_type(file: Path) -> str:
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXTUAL else kind

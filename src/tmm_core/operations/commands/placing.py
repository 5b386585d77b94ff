"""Put a new file in its place: whole or not at all, and never over another one without being asked to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tmm_core.errors import TMMError

__all__ = ["place"]


def place(path: Path, text: str, *, replace: bool = False, hint: str = "choose another name") -> bool:
    """Write a new file; readers see all of it or none of it, also when the machine stops half-way.

    Parameters
    ----------
    path : Path
        Its folder is made if it does not exist.
    text : str
        Written as UTF-8.
    replace : bool
        Put it in the place of another file of that name.
    hint : str
        What to do where there is another file.

    Returns
    -------
    bool
        False if a file with exactly this content was there already.

    Raises
    ------
    TMMError
        Another file of that name is there.
    OSError
        The folder cannot be written to.
    """
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named so that nobody who looks for dated files takes it for one.
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)  # mkstemp's 0600 would hide it from the gateway's account
        if replace:
            os.replace(part, path)
        else:
            _place_new(Path(part), path, hint)
        _sync_folder(path.parent)
    finally:
        Path(part).unlink(missing_ok=True)
    return True


def _place_new(part: Path, path: Path, hint: str) -> None:
    taken = TMMError(f"{path} is there already, with other content: {hint}")
    try:
        os.link(part, path)  # fails if the name is taken, at one moment with looking
    except FileExistsError:
        raise taken from None
    except (OSError, NotImplementedError, AttributeError):  # a file system without links
        if os.path.lexists(path):
            raise taken from None
        os.replace(part, path)


def _sync_folder(folder: Path) -> None:
    """Make the new name last; where a folder cannot be opened (Windows) the system sees to it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)

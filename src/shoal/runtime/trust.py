"""Whether a file is ours: nobody else could have written it, or put it where it is.

As OpenSSH's StrictModes does for its keys: the file, the folders on the way to it and the links among them belong to
us or to root, and nobody else may write to them (https://man.openbsd.org/sshd_config#StrictModes). Commands that are
run in somebody else's folder would otherwise take a planted ``.shoal`` for a service of their own.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from shoal.errors import ConfigurationError

TRUSTED_UID: Final = "SHOAL_TRUST_UID"
"""The variable that names one user more, such as the owner of a folder that is mounted into a container."""
_ROOT: Final = 0
_OTHERS_WRITE: Final = 0o002
_GROUP_WRITES: Final = 0o020


def require_ours(path: Path) -> None:
    """Makes sure that ``path`` was written by us or by root, as far as it and the folders on the way exist.

    Raises:
        ConfigurationError: somebody else may have; the message names the place and the way out.
    """
    trusted = _trusted()
    lexical, real = path.absolute(), Path(os.path.realpath(path))
    for place in dict.fromkeys([*lexical.parents, lexical, *real.parents, real]):
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if fault := _fault(status, trusted):
            what = "it" if place == path else place
            raise ConfigurationError(
                f"{path} is not trusted: {what} {fault}. Set SHOAL_HOME to a folder of your own, or name the service "
                f"with --target and --api-key; if that user is you, set {TRUSTED_UID}={status.st_uid}"
            )


def _trusted() -> set[int]:
    """Root, this user, who became root for this command, and whom they name."""
    named = [os.environ.get(TRUSTED_UID, "")]
    if os.geteuid() == _ROOT:
        named.append(os.environ.get("SUDO_UID", ""))
    return {_ROOT, os.geteuid(), *(int(text) for text in named if text.isdecimal())}


def _fault(status: os.stat_result, trusted: set[int]) -> str:
    """What lets somebody else write there; empty where nothing does."""
    if status.st_uid not in trusted:
        return f"belongs to {_user(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return ""  # its mode says nothing, and nobody but its owner can change it
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return ""  # as /tmp: what is in it can be replaced by its own owner alone, whom we look at next
    if status.st_mode & _OTHERS_WRITE:
        return f"can be written to by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
    if status.st_mode & _GROUP_WRITES and not _is_private(status.st_gid, trusted):
        return f"can be written to by its group (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _is_private(group: int, trusted: set[int]) -> bool:
    """Whether ``group`` is one user's own: many systems give each user a group of the same name, and a umask of 002.

    Who else has it as primary group can't be asked where a directory service keeps the users; hence the name.
    """
    if group == _ROOT:
        return True
    try:
        entry = grp.getgrgid(group)
        owner = pwd.getpwnam(entry.gr_name)
        members = {pwd.getpwnam(name).pw_uid for name in entry.gr_mem}
    except KeyError:  # a group, its namesake or a member without an entry
        return False
    return owner.pw_gid == group and members | {owner.pw_uid} <= trusted


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"

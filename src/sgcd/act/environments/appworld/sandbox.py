"""Confines a process for good: what it may read and write, and no processes, sockets or signals. Runs without sgcd.

Two means of the Linux kernel that need no rights: Landlock for files, a seccomp filter for system calls. Threads that
start later are confined too. Python's own checks can be undone by code in the same process; these cannot.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls, the same on all machines."""
_READ = 1 << 2 | 1 << 3
_FILE_RIGHTS = 1 << 1 | 1 << 2
"""Those that a file that is no folder may have: to be written and read."""
_FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights on files a version of Landlock knows; later ones know 16."""
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2

_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_LOAD, _IS_EQUAL, _IS_AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD = 0x10000
_CLONE3 = 435
_SAME_EVERYWHERE = (424, 425, 434)  # pidfd_send_signal, io_uring_setup, pidfd_open
_MACHINES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    # (fork, vfork,) execve, execveat, socket, connect, bind, kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo,
    # ptrace, process_vm_readv, process_vm_writev, bpf, unshare, mount
    "x86_64": (
        0xC000003E,
        56,
        (57, 58, 59, 322, 41, 42, 49, 62, 200, 234, 129, 297, 101, 310, 311, 321, 272, 165),
    ),
    "aarch64": (0xC00000B7, 220, (221, 281, 198, 203, 200, 129, 130, 131, 138, 240, 117, 270, 271, 280, 97, 40)),
}
"""The machine's number for seccomp, the call that starts threads and processes, and the calls that are refused."""

_libc = ctypes.CDLL(None, use_errno=True)


def confine(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Take from this process all files but these folders, and everything that reaches other processes."""
    if _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise _failure("no_new_privs")
    _restrict_files(readable, writable)
    _restrict_calls()


def _restrict_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        raise _failure("Landlock")
    all_rights = (1 << _FILE_RIGHTS_BY_VERSION.get(version, 16)) - 1
    attributes = struct.pack("=Q", all_rights)
    rules = _libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        raise _failure("Landlock")
    for rights, folders in ((_READ, readable), (all_rights, writable)):
        for folder in folders:
            if Path(folder).exists():
                _allow(rules, folder, rights if Path(folder).is_dir() else rights & _FILE_RIGHTS)
    if _libc.syscall(_RESTRICT_SELF, rules, 0):
        raise _failure("Landlock")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    opened = os.open(path, os.O_PATH)
    try:
        if _libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, opened), 0):
            raise _failure(f"Landlock: {path}")
    finally:
        os.close(opened)


def _restrict_calls() -> None:
    """Install the filter: another machine's calls end the process, the listed ones are refused."""
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    machine, clone, refused = _MACHINES[platform.machine()]
    lines = [(_LOAD, 0, 0, _MACHINE_AT), (_IS_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER_AT)]
    lines += [(_IS_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]  # the x32 calls of an x86_64
    for number in (*refused, *_SAME_EVERYWHERE):
        lines += [(_IS_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    lines += [
        (_IS_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _UNKNOWN),
    ]  # its flags are out of reach; libc takes clone then
    lines += [(_IS_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_HAS_BITS, 1, 0, _CLONE_THREAD)]
    lines += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    if _libc.prctl(_SET_SECCOMP, _FILTER_MODE, header, 0, 0):
        raise _failure("seccomp")


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what} is not to be had on this machine: {os.strerror(number)}")

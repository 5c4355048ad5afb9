"""The few Linux system calls that the jail needs and Python 3.11 has no function for.

Mechanism only: which of them are used, and in which order, is decided in `_jail.py`. Each function raises OSError with
the kernel's reason. Numbers are from the kernel's headers (include/uapi/linux: sched.h, mount.h, landlock.h,
seccomp.h, capability.h, prctl.h; arch/*/include: unistd).
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)

# sched.h
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_CLONE_THREAD = 0x00010000
_NEW_ANYTHING = 0x7E020000  # these, control groups and host names; a namespace of times is none of clone's flags
# prctl.h
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _SECCOMP_FILTER = 1, 4, 22, 24, 38, 2
# mount.h
_READ_ONLY, _NOSUID, _NODEV, _NO_EXECUTION, _RECURSIVE, _PRIVATE = 0x1, 0x2, 0x4, 0x8, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE, _ATTR_READ_ONLY, _ATTR_NOSUID = -100, 0x8000, 0x1, 0x2
# The system calls younger than 2019 have the same number on every architecture.
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _syscall(what: str, number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), what)


def _prctl(what: str, option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(ctypes.c_int(option), *words), what)


def unshare(flags: int) -> None:
    """Moves this process (for NEW_PID: its next children) into new namespaces."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def set_namespace(descriptor: int, kind: int) -> None:
    """Joins the namespace of `kind` that the open file of /proc/*/ns stands for."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def _mount(source: bytes, target: str, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _checked(_libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), data), f"mount on {target}")


def private_mounts() -> None:
    """What is mounted from here on stays in this mount namespace."""
    _mount(b"none", "/", None, _RECURSIVE | _PRIVATE, None)


def mount_memory(target: str, size: int) -> None:
    """Mounts an empty memory file system of at most `size` bytes and 1,024 files, for this user alone."""
    _mount(b"tmpfs", target, b"tmpfs", _NOSUID | _NODEV, f"size={size},nr_inodes=1024,mode=0700".encode())


def mount_processes() -> None:
    """Mounts a /proc that shows the processes of this pid namespace alone; nothing can be changed by it."""
    _mount(b"proc", "/proc", b"proc", _READ_ONLY | _NOSUID | _NODEV | _NO_EXECUTION, None)


def mounts_read_only() -> None:
    """Makes every mounted file system of this mount namespace read-only, all the way down from the root."""
    attributes = struct.pack("QQQQ", _ATTR_READ_ONLY | _ATTR_NOSUID, 0, 0, 0)
    _syscall("mount_setattr", _MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes))


def die_with_parent() -> None:
    """This process gets SIGKILL when the thread that started it ends."""
    _prctl("prctl(PR_SET_PDEATHSIG)", _SET_PDEATHSIG, 9)


def not_traced() -> None:
    """No other process of this user may look into this one's memory or descriptors, nor does a crash leave a core."""
    _prctl("prctl(PR_SET_DUMPABLE)", _SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    """From here on no execve gives privileges (setuid programs, file capabilities)."""
    _prctl("prctl(PR_SET_NO_NEW_PRIVS)", _SET_NO_NEW_PRIVS, 1)


def bound_capabilities() -> None:
    """No process that this one starts can gain a capability that it doesn't have: the bounding set is emptied."""
    for capability in range(64):
        try:
            _prctl("prctl(PR_CAPBSET_DROP)", _CAPBSET_DROP, capability)
        except OSError:
            break  # EINVAL: past the last one; EPERM: an ordinary user without a namespace has none to drop


def drop_capabilities() -> None:
    """Gives up every capability."""
    _checked(_libc.capset(struct.pack("II", 0x20080522, 0), bytes(24)), "capset")


# Landlock (landlock.h). Rights that later versions of the interface added are asked for only where the kernel knows
# them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_READ = _READ_FILE | _READ_DIRECTORY
_ALL_RIGHTS_OF_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}


def landlock_rules(
    read: Iterable[str], read_write: Iterable[str], read_write_files: Iterable[str], *, execute: bool = False
) -> int:
    """The descriptor of rules that allow the files under these paths and no other.

    Missing paths are skipped. A path stands for what is mounted below it, too.

    Args:
        execute: whether what can be read under the first two may be executed.
    """
    version = _syscall("landlock", _LANDLOCK_CREATE, None, 0, 1)
    every = _ALL_RIGHTS_OF_VERSION[min(version, 5)]
    # Since version 6 a domain can also keep signals and abstract sockets inside.
    attributes = struct.pack("QQQ", every, 0, 3) if version >= 6 else struct.pack("Q", every)
    rules = _syscall("landlock", _LANDLOCK_CREATE, attributes, len(attributes), 0)
    executed = _EXECUTE if execute else 0
    allowed = dict.fromkeys(read, _READ | executed)
    allowed |= dict.fromkeys(read_write, every & ~_EXECUTE | executed)
    allowed |= dict.fromkeys(read_write_files, _READ_FILE | _WRITE_FILE)
    for path, rights in allowed.items():
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _EXECUTE
        try:
            _syscall("landlock", _LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, beneath), 0)
        finally:
            os.close(beneath)
    return rules


def landlock(rules: int) -> None:
    """Binds this process to rules. What is open stays usable. Needs `no_new_privileges` (or CAP_SYS_ADMIN)."""
    _syscall("landlock", _LANDLOCK_RESTRICT, rules, 0)


# seccomp. For each architecture: its audit number, clone, socketpair, and five lists of calls.
# FORK, vfork: x86-64 only. EXECUTE: execve, execveat.
# REFUSED, in this order: socket; ptrace, process_vm_readv,
# process_vm_writev, kcmp; mount, umount2, pivot_root, chroot; unshare, setns; name_to_handle_at, open_by_handle_at;
# bpf, perf_event_open, userfaultfd; add_key, request_key, keyctl; init_module, delete_module, finit_module, kexec_load,
# kexec_file_load, reboot. What is shared by all programs of a machine, or lies outside the limit of memory: shmget,
# shmat, shmctl, shmdt; semget, semop, semtimedop, semctl; msgget, msgsnd, msgrcv, msgctl; mq_open, mq_unlink;
# memfd_create; setpriority, ioprio_set, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr,
# migrate_pages, move_pages; fanotify_init, inotify_init (x86-64 only), inotify_init1; tkill, rt_sigqueueinfo,
# rt_tgsigqueueinfo; vmsplice, splice, tee, sendfile (pages that pipes and sockets keep); seccomp; io_setup; sync,
# syncfs; bind, listen, connect.
# BY_ARGUMENT: prlimit64, whose first must be 0 or the caller's process; kill and tgkill, where it must be the process;
# prctl, fcntl and ioctl, by the tables below.
# METADATA, refused where mounts are not read-only, since Landlock does not guard them: chmod (x86-64 only), fchmod,
# fchmodat; chown, lchown (x86-64 only), fchown, fchownat; utime, utimes, futimesat (x86-64 only), utimensat; setxattr,
# lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr.
_FILTERS = {
    "x86_64": (
        (0xC000003E, 56, 53),
        "57 58",
        "59 322",
        "41 101 310 311 312 165 166 155 161 272 308 303 304 321 298 323 248 249 250 175 176 313 246 320 "
        "169 29 30 31 67 64 65 220 66 68 69 70 71 240 241 319 141 251 142 144 203 314 256 279 300 253 294 200 129 297 "
        "278 275 276 40 317 206 162 306 49 50 42",
        "302 62 234 157 72 16",
        "90 91 268 92 94 93 260 132 235 261 280 188 189 190 197 198 199",
    ),
    "aarch64": (
        (0xC00000B7, 220, 199),
        "",
        "221 281",
        "198 117 270 271 272 40 39 41 51 97 268 264 265 280 241 282 217 218 219 105 106 273 104 294 142 "
        "194 196 195 197 190 193 192 191 186 189 188 187 180 181 279 140 30 118 119 122 274 238 239 262 26 130 138 240 "
        "75 76 77 71 277 0 81 267 200 201 203",
        "261 129 131 167 25 29",
        "52 53 55 54 88 5 6 7 14 15 16",
    ),
}
# Young calls, the same number everywhere: pidfd_send_signal; io_uring (3); the mount interface from open_tree to
# fspick (6); pidfd_open, pidfd_getfd, process_madvise, mount_setattr, Landlock (3), memfd_secret, process_mrelease.
_YOUNG = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 444, 445, 446, 447, 448)
_YOUNG_METADATA = (452, 463, 466, 469)  # fchmodat2, setxattrat, removexattrat, file_setattr
# PR_SET_PDEATHSIG and PR_SET_DUMPABLE undo what `_jail.py` has set; PR_SET_SECCOMP, PR_SCHED_CORE.
_REFUSED_OF_PRCTL = (1, 4, 22, 62)
# F_SETOWN, F_SETOWN_EX: who is signalled; F_SETLEASE: all others who open the file wait; F_NOTIFY; F_SETPIPE_SZ:
# memory; F_SET_RW_HINT, F_SET_FILE_RW_HINT: of the file, not of the descriptor.
_REFUSED_OF_FCNTL = (8, 15, 1024, 1026, 1031, 1036, 1038)
_REFUSED_OF_IOCTL = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
# FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION and its 32-bit form, FS_IOC_ENABLE_VERITY
_METADATA_OF_IOCTL = (0x40086602, 0x401C5820, 0x40087602, 0x40047602, 0x40806685)
_CLONE3 = 435
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@cache
def seccomp_filter(process: int, *, metadata: bool, execute: bool = False, fork: bool = False) -> bytes:
    """The instructions of a filter for the process of that number.

    It refuses (EPERM) to start processes and programs, to open sockets, and kernel interfaces that no program needs.
    Threads may be started, and socketpairs of streams made (asyncio needs one). Refusing `socket` also closes the
    sockets that lie in the file system, which no network namespace hides and Landlock does not guard.

    Args:
        metadata: whether the modes, owners, times and attributes of files may be changed.
        execute: whether it may become another program.
        fork: whether it may start processes, and signal any: only where it sees none but its own.

    Raises:
        OSError: the kernel has no seccomp, or the machine is neither x86-64 nor 64-bit ARM.
    """
    if platform.machine() not in _FILTERS:
        raise OSError(_ENOSYS, f"no filter for {platform.machine()}")
    (architecture, clone, socketpair), forking, executing, refused, own_only, of_files = _FILTERS[platform.machine()]
    numbers = [*map(int, refused.split()), *_YOUNG]
    numbers += [] if fork else map(int, forking.split())
    numbers += [] if execute else map(int, executing.split())
    # A runtime that asks for its threads to be ordinary ones hears that they are, though nobody was asked.
    scheduler = {"x86_64": 144, "aarch64": 119}[platform.machine()]
    if not metadata:
        numbers += [*map(int, of_files.split()), *_YOUNG_METADATA]
    instructions: list[tuple[int, int, int, int]] = [  # code, jump if true, jump if false, constant
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _ERRNO | _EPERM),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _ERRNO | _EPERM),  # so have x32 calls
        # glibc goes back to clone, whose flags a filter can see.
        *_return_if_equal(_CLONE3, _ERRNO | _ENOSYS),
    ]
    if execute:
        instructions += _return_if_equal(scheduler, _ERRNO)
    for number in numbers:
        instructions += _return_if_equal(number, _ERRNO | _EPERM)
    limits, kill, thread_kill, prctl, fcntl, ioctl = map(int, own_only.split())
    for number, other in ((limits, 0),) if fork else ((limits, 0), (kill, process), (thread_kill, process)):
        instructions += [
            (_JUMP_EQUAL, 0, 5, number),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_JUMP_EQUAL, 1, 0, process),
            (_JUMP_EQUAL, 0, 1, other),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | _EPERM),
        ]
    for number, argument, commands in (
        (prctl, _FIRST_ARGUMENT, _REFUSED_OF_PRCTL),
        (fcntl, _SECOND_ARGUMENT, _REFUSED_OF_FCNTL),
        (ioctl, _SECOND_ARGUMENT, _REFUSED_OF_IOCTL if metadata else _REFUSED_OF_IOCTL + _METADATA_OF_IOCTL),
    ):
        compared = [line for command in commands for line in _return_if_equal(command, _ERRNO | _EPERM)]
        instructions += [
            (_JUMP_EQUAL, 0, len(compared) + 2, number),
            (_LOAD, 0, 0, argument),
            *compared,
            (_RETURN, 0, 0, _ALLOW),
        ]
    # SOCK_STREAM, and SOCK_SEQPACKET, with which Rust hears of its processes. A datagram socket could still be pointed
    # at another one.
    pairs = (1, 5) if fork else (1,)
    refuse, allow = (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)
    instructions += [
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_SET, 0, 1, _NEW_ANYTHING if fork else _CLONE_THREAD),
        *((refuse, allow) if fork else (allow, refuse)),
        (_JUMP_EQUAL, 0, 5 + len(pairs), socketpair),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_EQUAL, 0, 2 + len(pairs), 1),  # AF_UNIX: another family may load a module of the kernel
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_AND, 0, 0, 0xF),
        *((_JUMP_EQUAL, len(pairs) - place, 0, kind) for place, kind in enumerate(pairs)),
        refuse,
        allow,
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def seccomp(code: bytes) -> None:
    """Puts this process behind a filter for good."""
    program = _FilterProgram(len(code) // 8, code)
    _prctl("seccomp", _SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(program))


def _return_if_equal(number: int, action: int) -> Sequence[tuple[int, int, int, int]]:
    return (_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)

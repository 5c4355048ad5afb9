"""Programs that want out of the walls, or more than the limits, of x86-64 machines.

Each raises unless it got something that it shouldn't, so an outcome of "ok" is an escape. In front stand PATH (a file
of the user, outside, readable), PARENT (a process of the user, outside), PROJECT (a file of the project) and HELP. All
are harmless where their wall fails: signals are 0, memory is at most half beyond the limit, nothing of others is
deleted.
"""

HELP = """
import ctypes, errno, fcntl, mmap, os, resource, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
NEW = PATH + ".new"
HERE = -100
def call(number, *words):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def reached(number, *words):  # the kernel looked at the arguments: no wall stood before them
    try:
        call(number, *words)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
def machine(code, *, high=False):  # runs machine code
    page = libc.mmap(ctypes.c_void_p(0), ctypes.c_size_t(4096), 7, 0x22 | (0x40 if high else 0), -1, ctypes.c_long(0))
    ctypes.memmove(page, code, len(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(page)()
def text(path):
    with open(path, "rb") as stream:
        return stream.read(100)
"""

_OUTSIDE = {
    "open": "open(PATH, 'w')",
    "append": "open(PATH, 'a')",
    "read and write": "open(PATH, 'r+')",
    "truncate": "os.truncate(PATH, 0)",
    "create": "open(NEW, 'w')",
    "openat2": "call(437, HERE, NEW.encode(), struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o600, 0), 24)",
    "nameless file": "os.open(os.path.dirname(PATH), os.O_TMPFILE | os.O_RDWR)",
    "mkdir": "os.mkdir(NEW)",
    "fifo": "os.mkfifo(NEW)",
    "symlink": "os.symlink('x', NEW)",
    "hard link": "os.link(PATH, NEW)",
    "link from its descriptor": "os.link(f'/proc/self/fd/{os.open(PATH, os.O_RDONLY)}', NEW, follow_symlinks=True)",
    "linkat without a path": "call(265, os.open(PATH, os.O_PATH), b'', HERE, NEW.encode(), 0x1000)",
    "rename in": "open('a', 'w').close(); os.rename('a', NEW)",
    "exchange": "open('a', 'w').close(); call(316, HERE, b'a', HERE, PATH.encode(), 2)",
    "reopen by its descriptor": "open(f'/proc/self/fd/{os.open(PATH, os.O_RDONLY)}', 'w')",
    "by a thread's root": "open(f'/proc/thread-self/root{PATH}', 'w')",
    "by another's root": "open(f'/proc/{PARENT}/root{PATH}', 'w')",
    "by the first's root": "open(f'/proc/1/root{PATH}', 'w'); assert os.getpid() != 1",
    "from a symlink of one's own": "os.symlink(PATH, 's'); open('s', 'w')",
    "above by dots": "open('../' + os.path.basename(PATH), 'w')",
    "mapping": "mmap.mmap(os.open(PATH, os.O_RDONLY), 1, mmap.MAP_SHARED, mmap.PROT_WRITE)",
    "mapping made writable": (
        "page = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, os.open(PATH, os.O_RDONLY), ctypes.c_long(0))\n"
        "call(10, page, 4096, 3)"
    ),
    "copy_file_range": (
        "f = os.open(PATH, os.O_RDONLY); open('a', 'w').write('x'); os.copy_file_range(os.open('a', 0), f, 1)"
    ),
    "fallocate": "os.posix_fallocate(os.open(PATH, os.O_RDONLY), 0, 10)",
    "chmod": "os.chmod(PATH, 0o777)",
    "fchmod": "os.fchmod(os.open(PATH, os.O_RDONLY), 0o777)",
    "fchmodat2": "call(452, HERE, PATH.encode(), 0o777, 0)",
    "chown": "os.chown(PATH, os.getuid(), os.getgid())",
    "utime": "os.utime(PATH, (1, 1))",
    "futimens": "os.utime(os.open(PATH, os.O_RDONLY), (1, 1))",
    "setxattr": "os.setxattr(PATH, 'user.x', b'1')",
    "fsetxattr": "os.setxattr(os.open(PATH, os.O_RDONLY), 'user.x', b'1')",
    "setxattrat": "call(463, HERE, PATH.encode(), 0, b'user.x', struct.pack('QII', id(b'1') + 32, 1, 0), 16)",
    "attributes by ioctl": "fcntl.ioctl(os.open(PATH, os.O_RDONLY), 0x40086602, struct.pack('Q', 0x40))",
    "more attributes by ioctl": (
        "fcntl.ioctl(os.open(PATH, os.O_RDONLY), 0x401C5820, struct.pack('IIIII8x', 0x80, 0, 0, 0, 0))"
    ),
    "file_setattr": "call(469, HERE, PATH.encode(), struct.pack('QIIII', 0x80, 0, 0, 0, 0), 24, 0)",
    "version by ioctl": "fcntl.ioctl(os.open(PATH, os.O_RDONLY), 0x40087602, struct.pack('Q', 7))",
    "verity by ioctl": (
        "fcntl.ioctl(os.open(PATH, os.O_RDONLY), 0x40806685, struct.pack('III', 1, 1, 4096).ljust(128, bytes(1)))"
    ),
    "write hint": "fcntl.fcntl(os.open(PATH, os.O_RDONLY), 1036, struct.pack('Q', 2))",
    "lease": "fcntl.fcntl(os.open(PATH, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "exclusive lock": "fcntl.flock(os.open(PATH, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "lock of readers": "fcntl.lockf(os.open(PATH, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)",
    # Of a device that others lock, too: one that is taken was reached as well.
    "exclusive lock of a device": "reached(73, os.open('/dev/null', os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)",
}
_MOUNTS = {
    "mount": "assert libc.mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) == 0",
    "remount": "assert libc.mount(None, b'/', None, 32 | 4096, None) == 0",
    "umount": "assert libc.umount2(os.getcwd().encode(), 2) == 0",
    "pivot_root": "os.mkdir('a'); call(155, b'.', b'a')",
    "chroot": "os.chroot('.')",
    "open_tree": "call(428, HERE, b'/', 1)",
    "open_tree_attr": "call(467, HERE, b'/', 0x8001, struct.pack('QQQQ', 0, 1, 0, 0), 32)",
    "fsopen": "call(430, b'tmpfs', 0)",
    "mount_setattr": "call(442, HERE, b'/', 0x8000, struct.pack('QQQQ', 0, 1, 0, 0), 32)",
    "new user namespace": "assert libc.unshare(0x10000000) == 0",
    "new mount namespace": "assert libc.unshare(0x20000) == 0",
    "clone3 with a namespace": "if call(435, struct.pack('Q', 0x10000000).ljust(88, bytes(1)), 88) == 0: os._exit(0)",
    "clone with a namespace": "if call(56, 0x10000000 | 17, 0, 0, 0, 0) == 0: os._exit(0)",
    "sethostname": "socket.sethostname(socket.gethostname())",
}
_READS = {
    "project": "text(PROJECT)",
    "project by its descriptor": "text(f'/proc/self/fd/{os.open(PROJECT, os.O_PATH)}')",
    "project opened beneath a path": (
        "os.open('pyproject.toml', os.O_RDONLY, dir_fd=os.open(os.path.dirname(PROJECT), os.O_PATH))"
    ),
    "project by execveat": "call(322, os.open(PROJECT, os.O_PATH), b'', 0, 0, 0x1000)",
    "project by its handle": (
        "reached(303, HERE, PROJECT.encode(), struct.pack('II', 128, 0).ljust(136), ctypes.byref(ctypes.c_int()), 0)"
    ),
    "project watched": "call(254, call(294, 0), PROJECT.encode(), 0xFFF)",
    "directory watched by fcntl": (
        "fcntl.fcntl(os.open('/usr/lib', os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MULTISHOT)"
    ),
    "home": "assert os.listdir(os.path.expanduser('~root'))",
    "shadow": "text('/etc/shadow')",
    "another's environment": "assert text(f'/proc/{PARENT}/environ')",
    "another's memory": "os.open(f'/proc/{PARENT}/mem', os.O_RDONLY)",
    "another's descriptors": "os.listdir(f'/proc/{PARENT}/fd')",
    "another's working directory": "os.listdir(f'/proc/{PARENT}/cwd/')",
    "another's memory by process_vm_readv": "reached(310, PARENT, None, 0, None, 0, 0)",
    "another's mounts": "text(f'/proc/{PARENT}/mountinfo')",
    "mounts by statmount": (
        "buffer = ctypes.create_string_buffer(4096)\n"
        "call(457, struct.pack('IIQQQ', 32, 0, (1 << 64) - 1, 0, 0), buffer, 400, 0)"
    ),
    "kernel's log": "call(103, 3, ctypes.create_string_buffer(100), 100)",
    "kernel's keys": "call(250, 0, -3, 0)",
}
_OTHERS = {
    "signal": "os.kill(PARENT, 0)",
    "signal to all": "os.kill(-1, 0)",
    "signal to a group": "os.kill(-PARENT, 0)",
    "tkill": "call(200, PARENT, 0)",
    "tgkill": "call(234, PARENT, PARENT, 0)",
    "sigqueue": "call(129, PARENT, 0, bytes(128))",
    "pidfd": "call(424, call(434, PARENT, 0), 0, 0, 0)",
    "pidfd of a descriptor": "call(438, call(434, PARENT, 0), 0, 0)",
    "ptrace": "call(101, 0x4206, PARENT, 0, 0)",
    "limits": "resource.prlimit(PARENT, resource.RLIMIT_NOFILE)",
    "limits raised": (
        "s, h = resource.getrlimit(resource.RLIMIT_AS); resource.setrlimit(resource.RLIMIT_AS, (2 * h, 2 * h))"
    ),
    "CPU limit raised": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
    "priority": "os.setpriority(os.PRIO_PROCESS, PARENT, os.getpriority(os.PRIO_PROCESS, PARENT))",
    "own priority higher": "os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 5)",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "scheduler of another": "os.sched_setscheduler(PARENT, os.SCHED_OTHER, os.sched_param(0))",
    "affinity of another": "os.sched_setaffinity(PARENT, os.sched_getaffinity(0))",
    "input and output priority": "call(251, 1, PARENT, 4)",
    "core scheduling": "reached(157, 62, 1, PARENT, 0, 0)",
    "owner of signals": "fcntl.fcntl(0, fcntl.F_SETOWN, PARENT)",
    "owner of signals, extended": "fcntl.fcntl(0, 15, struct.pack('ii', 1, PARENT))",
    "owner of signals by ioctl": "fcntl.ioctl(1, 0x8901, struct.pack('i', PARENT))",
    "owner of signals, high bits": "call(72, 1, 8 | 1 << 32, PARENT)",
    "timer for another": (
        "event = struct.pack('QiiI', 0, 10, 4, PARENT).ljust(64, bytes(1))\n"
        "call(222, 1, event, ctypes.byref(ctypes.c_int()))"
    ),
    "kill with high bits": "call(62, PARENT | 1 << 32, 0)",
    "process group": "os.setpgid(PARENT, 0)",
    "session": "os.setsid()",
    "robust list": "call(274, PARENT, ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long()))",
    "kcmp": "reached(312, os.getpid(), PARENT, 0, 0, 0)",
    "move_pages": "reached(279, PARENT, 0, 0, 0, 0, 0)",
    "process_madvise": "reached(440, 0, 0, 0, 0, 0)",
}
_SOCKETS = {
    "TCP": "socket.socket()",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK)",
    "AF_ALG": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "Unix": "socket.socket(socket.AF_UNIX)",
    "pair of datagrams": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "pair of packets": "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
    "pair of raw": "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW)",
    "pair of another family": "reached(53, 30, 1, 0, ctypes.create_string_buffer(8))",  # the kernel loads its module
    "abstract name on a pair": "socket.socketpair()[0].bind('\\0attack2')",
    "name on a pair": "socket.socketpair()[0].bind(NEW)",
    "a pair that listens": "a = socket.socketpair()[0]; a.bind('\\0attack2'); a.listen()",
    "a pair connected elsewhere": "socket.socketpair()[0].connect('\\0attack2')",
    "the judge's channel": "socket.socket(fileno=5)",
    "io_uring": "reached(425, 1, bytes(120))",
    "int 0x80": "assert machine(bytes.fromhex('b814000000cd80c3'), high=True) > 0",
    "x32": "call(0x40000000 | 39)",
    "x32 socket": "call(0x40000000 | 41, 1, 1, 0)",
}
_STARTS = {
    "fork": "if os.fork() == 0: os._exit(0)",
    "vfork": "if call(58) == 0: os._exit(0)",
    "clone": "if call(56, 17, 0, 0, 0, 0) == 0: os._exit(0)",
    "clone3": "if call(435, struct.pack('QQQQQ', 0, 0, 0, 0, 17).ljust(88, bytes(1)), 88) == 0: os._exit(0)",
    "posix_spawn": "assert os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)[1] == 0",
    "execve": "os.execv('/bin/true', ['true'])",
    "execveat": "reached(322, os.open('/bin/true', os.O_PATH), b'', 0, 0, 0x1000)",
    "fexecve of a file of one's own": "open('a', 'wb').write(b'x'); os.chmod('a', 0o700); reached(59, b'a', 0, 0)",
}
# What the kernel keeps for a program beyond its address space, and interfaces of the whole machine.
_MEMORY = {
    "address space": "b = bytearray(300 << 20)",
    "address space without reserve": "mmap.mmap(-1, 300 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)",
    "shared address space": "mmap.mmap(-1, 300 << 20)",
    "growing mapping": "mmap.mmap(-1, 1 << 20).resize(300 << 20)",
    "huge pages in pipes": """
PIECE, KEPT, pipes = 2 << 20, 0, []
class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))
for number in range(160):  # 320 MiB, of a limit of 256
    if number % 16 == 0: pipes.append(os.pipe())
    start = libc.mmap(None, ctypes.c_size_t(2 * PIECE), 3, 0x22, -1, ctypes.c_long(0))
    page = -(-start // PIECE) * PIECE
    libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(PIECE), 14)
    ctypes.memset(page, 1, PIECE)
    call(278, pipes[-1][1], ctypes.byref(Vector(page, 4096)), 1, 0)
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(2 * PIECE))
""",
    "pages of pipes": """
for _ in range(20):
    fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)
""",
    "pages in sockets by sendfile": """
pairs, sent = [socket.socketpair() for _ in range(8)], 0
for _ in range(16):
    with open("a", "w+b") as file:
        file.truncate(0); file.write(bytes(4 << 20)); file.flush()
        for page in range(1024):
            try: sent += os.sendfile(pairs[sent % 8][0].fileno(), file.fileno(), page * 4096, 1) if 1 else 0
            except BlockingIOError: break
            if sent >= 1600: break
    if sent >= 1600: break
assert sent >= 1600  # a byte counts, a page is kept
""",
    "locks of ranges": """
f = os.open("a", os.O_CREAT | os.O_RDWR)
for place in range(6000, 0, -2):
    fcntl.lockf(f, fcntl.LOCK_EX, 1, place)
""",
    "timers": """
event, found = struct.pack("QiiI", 0, 34, 1, 0).ljust(64, bytes(1)), ctypes.c_int()
for _ in range(5000): call(222, 1, event, ctypes.byref(found))
""",
    "queued signals": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
for _ in range(5000): os.kill(os.getpid(), signal.SIGRTMIN)
queued = 0
while signal.sigtimedwait([signal.SIGRTMIN], 0): queued += 1
assert queued > 1000
""",
    "threads": """
threading.stack_size(32768)
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(1500)]
for thread in threads: thread.start()
stop.set()
""",
    "filters of one's own": """
libc.prctl(38, 1, 0, 0, 0)
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000) * 4000)
call(317, 1, 0, struct.pack("HxxxxxxQ", 4000, ctypes.addressof(code)))
""",
    "filter of one's own by prctl": """
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000) * 4000)
call(157, 22, 2, struct.pack("HxxxxxxQ", 4000, ctypes.addressof(code)))
""",
    "Landlock's rules": """
rules = call(444, struct.pack("QQ", 0, 3), 16, 0)
for port in range(20_000): call(445, rules, 2, struct.pack("QQ", 1, port), 0)
""",
    "asynchronous input and output of all": "call(206, 1000, ctypes.byref(ctypes.c_long()))",
    "shared memory": "call(30, call(29, 0, 1 << 20, 0o600), 0, 0)",
    "semaphores": "call(66, call(64, 0, 1, 0o600), 0, 0)",
    "messages": "call(71, call(68, 0, 0o600), 0, 0)",
    "message queue": "call(240, b'attack2', 0x42, 0o600, 0)",
    "memory file": "os.memfd_create('x')",
    "secret memory": "call(447, 0)",
    "user faults": "call(323, 1)",
    "performance events": "reached(298, bytes(128), 0, -1, -1, 0)",
    "bpf": "reached(321, 0, bytes(128), 128)",
    "key": "reached(248, b'user', b'x', b'x', 1, -3)",
    "fanotify": "call(300, 0, 0)",
    "shared memory by its path": "open('/dev/shm/attack2', 'w')",
    "files beyond the limit": """
for number in range(20):
    with open(str(number), "wb") as file: file.write(bytes(1 << 20))
""",
    "attributes of files": """
for number in range(200): open(str(number), "w").close(); os.setxattr(str(number), "user.x", bytes(32 << 10))
""",
    "inodes": "for number in range(2000): os.mkdir(str(number))",
    "space by hard links": "open('a', 'w').close()\nfor number in range(2000): os.link('a', str(number))",
    "space beyond the end": "os.truncate(os.open('a', os.O_CREAT | os.O_RDWR), 17 << 20)",
    "space by fallocate": "os.posix_fallocate(os.open('a', os.O_CREAT | os.O_RDWR), 0, 17 << 20)",
    "descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
    "descriptors in flight": """
a, b = socket.socketpair()
for _ in range(200):
    read, write = os.pipe()
    socket.send_fds(a, [b"x"], [read, write]); os.close(read); os.close(write)
""",
    "traces and cores": "call(157, 4, 1, 0, 0, 0)",
    "outlives its parent": "call(157, 1, 0, 0, 0, 0)",
    "locked memory": "b = mmap.mmap(-1, 32 << 20); call(149, ctypes.addressof(ctypes.c_char.from_buffer(b)), 32 << 20)",
    "capabilities back": "call(126, struct.pack('II', 0x20080522, 0), struct.pack('6I', 1 << 21, 1 << 21, 0, 0, 0, 0))",
    "ambient capability": "call(157, 47, 2, 21, 0, 0)",
    "another user": "os.setuid(65534) if os.getuid() == 0 else os.setuid(0)",
    "groups": "os.setgroups([0])",
    "all to disk": "call(162)",
    "clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "swap": "reached(167, b'/nowhere', 0)",
    "modules": "reached(175, 0, 0, b'')",
    "ports": "call(172, 3)",
    "reboot": "call(169, 0, 0, 0, 0)",
}

ATTACKS: dict[str, str] = {
    f"{group}: {name}": source
    for group, programs in {
        "outside": _OUTSIDE,
        "mounts": _MOUNTS,
        "reads": _READS,
        "others": _OTHERS,
        "sockets": _SOCKETS,
        "starts": _STARTS,
        "limits": _MEMORY,
    }.items()
    for name, source in programs.items()
}

# Finds that succeed today: why, and in which configurations; all where none is named.
FINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "limits: locks of ranges": (
        "F_SETLK: each lock is memory of the kernel, without a limit",
        ("full", "no landlock", "no seccomp"),
    ),
    "outside: exclusive lock": ("flock needs no right to write: others outside wait", ()),
    "outside: exclusive lock of a device": ("flock on what all programs share", ()),
    "outside: lock of readers": ("fcntl F_SETLK: writers outside wait", ()),
}
# What no wall is left against where one is missing, as `_jail.NECESSARY` says.
LOST: dict[str, set[str]] = {
    "full": set(),
    "no namespaces": set(),
    "no landlock": {
        "reads: another's descriptors",
        "reads: another's environment",
        "reads: another's mounts",
        "reads: another's working directory",
        "reads: home",
        "reads: project",
        "reads: project by its descriptor",
        "reads: shadow",
    },
    "no seccomp": {
        "limits: Landlock's rules",
        "limits: all to disk",
        "limits: asynchronous input and output of all",
        "limits: bpf",
        "limits: fanotify",
        "limits: filter of one's own by prctl",
        "limits: filters of one's own",
        "limits: huge pages in pipes",
        "limits: key",
        "limits: memory file",
        "limits: message queue",
        "limits: messages",
        "limits: outlives its parent",
        "limits: pages in sockets by sendfile",
        "limits: pages of pipes",
        "limits: performance events",
        "limits: secret memory",
        "limits: semaphores",
        "limits: shared memory",
        "limits: traces and cores",
        "limits: user faults",
        "mounts: clone with a namespace",
        "mounts: clone3 with a namespace",
        "mounts: new user namespace",
        "others: affinity of another",
        "others: core scheduling",
        "others: input and output priority",
        "others: kcmp",
        "others: move_pages",
        "others: process_madvise",
        "outside: lease",
        "outside: write hint",
        "reads: another's memory by process_vm_readv",
        "reads: directory watched by fcntl",
        "reads: kernel's keys",
        "reads: project by its handle",
        "reads: project watched",
        "sockets: AF_ALG",
        "sockets: TCP",
        "sockets: UDP",
        "sockets: Unix",
        "sockets: abstract name on a pair",
        "sockets: int 0x80",
        "sockets: io_uring",
        "sockets: netlink",
        "sockets: packet",
        "sockets: pair of another family",
        "sockets: pair of datagrams",
        "sockets: pair of packets",
        "sockets: pair of raw",
        "sockets: vsock",
        "starts: clone",
        "starts: clone3",
        "starts: fork",
        "starts: vfork",
    },
}

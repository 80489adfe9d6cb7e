"""The system calls a sandboxed process may not make, as a BPF program for the kernel (pure, no I/O).

Rules, in order:
  1. a process of another architecture than the verifier's is killed (its numbers mean other calls);
  2. x32 calls are refused with EPERM, calls newer than this table's `NEWEST` with ENOSYS;
  3. everything in `DENIED` is refused with EPERM, never by a kill: an honest library that only tries goes on;
  4. `clone3` answers ENOSYS, because its flags lie behind a pointer; glibc then uses `clone`, whose flags can
     be read here and may not ask for a namespace;
  5. sockets are AF_UNIX only (vsock, for one, does not respect network namespaces); no typing into a
     terminal.

Numbers: Linux's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
Format: struct sock_filter of linux/filter.h over struct seccomp_data of linux/seccomp.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEWEST = 462  # mseal, Linux 6.10; from 424 on all architectures share one numbering

# name: (x86_64, aarch64); None if the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes' memory, descriptors and identity
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # keys are not namespaced by process tree
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large and often broken kernel surfaces
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # the machine itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "create_module": (174, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
    # memory that no poll of the processes' resident size sees
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_secret": (447, 447),
}
MEMFD_CREATE = (319, 279)
CLONE, CLONE3, SOCKET, IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)

_NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_X32_BIT = 0x40000000
_AF_UNIX = 1
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # low words: both architectures are little-endian
ALLOW, KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
DENY, MISSING = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def _instructions(machine: str, memfd: bool) -> Iterator[_Instruction]:
    column = 0 if machine == "x86_64" else 1

    def refuse(test: int, operand: int, answer: int) -> Iterator[_Instruction]:
        yield test, 0, 1, operand
        yield _RETURN, 0, 0, answer

    yield _LOAD, 0, 0, _ARCH
    yield _JUMP_EQ, 1, 0, AUDIT_ARCH[machine]
    yield _RETURN, 0, 0, KILL_PROCESS
    yield _LOAD, 0, 0, _NR
    if machine == "x86_64":
        yield from refuse(_JUMP_GE, _X32_BIT, DENY)
    yield from refuse(_JUMP_GE, NEWEST + 1, MISSING)
    yield from refuse(_JUMP_EQ, CLONE3[column], MISSING)
    denied = [numbers[column] for numbers in DENIED.values()] + ([] if memfd else [MEMFD_CREATE[column]])
    for number in denied:
        if number is not None:
            yield from refuse(_JUMP_EQ, number, DENY)
    yield _JUMP_EQ, 0, 4, CLONE[column]
    yield _LOAD, 0, 0, _ARG0
    yield from refuse(_JUMP_SET, _NEW_NAMESPACE, DENY)
    yield _RETURN, 0, 0, ALLOW
    yield _JUMP_EQ, 0, 4, SOCKET[column]
    yield _LOAD, 0, 0, _ARG0
    yield _JUMP_EQ, 1, 0, _AF_UNIX
    yield _RETURN, 0, 0, DENY
    yield _RETURN, 0, 0, ALLOW
    yield _JUMP_EQ, 0, 6, IOCTL[column]
    yield _LOAD, 0, 0, _ARG1
    yield from refuse(_JUMP_EQ, _TIOCSTI, DENY)
    yield from refuse(_JUMP_EQ, _TIOCLINUX, DENY)
    yield _RETURN, 0, 0, ALLOW
    yield _RETURN, 0, 0, ALLOW


def program(machine: str, *, memfd: bool = False) -> bytes:
    """The filter for `machine` ("x86_64" or "aarch64"), 8 bytes an instruction, as `bwrap --seccomp` reads
    it.

    `memfd` allows memfd_create (GPU drivers share memory through it); KeyError for any other machine.
    """
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in _instructions(machine, memfd))

"""``python -m trust.offline REPORT COMMAND...``: run a command without a network, report who asked for one.

The kernel refuses every socket that is not a local one (AF_UNIX), to the command and to all processes that it
starts, whatever language they are written in, and tells this program. REPORT receives a JSON list of
``{"pid", "process", "call", "family"}``, empty when nothing asked. Exits as the command does.

Source: seccomp(2), seccomp_unotify(2); io_uring, which could open sockets past the filter, is refused whole.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": (0xC000003E, 317, 41, 425), "aarch64": (0xC00000B7, 277, 198, 425)}
"""Of a machine: AUDIT_ARCH, and the numbers of the system calls seccomp, socket and io_uring_setup."""

NO_NEW_PRIVS, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 8
ALLOW, KILL, ASK = 0x7FFF0000, 0x80000000, 0x7FC00000
RECEIVE, SEND = 0xC0502100, 0xC0182101
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16

UNAVAILABLE = 77
"""Exit code where the kernel has no such filters."""


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_of(architecture: int, socket_call: int, ring_call: int) -> bytes:
    """BPF: local sockets pass, others and io_uring are asked about, calls of another architecture kill."""
    lines = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (EQUAL, 4, 0, ring_call),
        (EQUAL, 0, 2, socket_call),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (EQUAL, 0, 1, socket.AF_UNIX),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ASK),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install(machine: str) -> int:
    """Put this process, and all it will start, under the filter; returns the listener's descriptor."""
    architecture, seccomp, socket_call, ring_call = ARCHITECTURES[machine]
    code = ctypes.create_string_buffer(filter_of(architecture, socket_call, ring_call))
    program = Program(len(code) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


def refuse(listener: int, ring_call: int) -> dict[str, Any] | None:
    """Answer one call with ENETUNREACH; returns what it was, None when its process is gone."""
    asked = bytearray(80)
    try:
        fcntl.ioctl(listener, RECEIVE, asked)
        number, pid, _, call, _, _, family = struct.unpack_from("<QIIiIQQ", asked)
        about = {"pid": pid, "process": process_of(pid), "family": family}
        fcntl.ioctl(listener, SEND, struct.pack("<QqiI", number, 0, -errno.ENETUNREACH, 0))
    except FileNotFoundError:  # it was killed meanwhile
        return None
    return about | {"call": "io_uring" if call == ring_call else "socket"}


def process_of(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:300]
    except OSError:
        return "gone"


def main() -> None:
    report, command, machine = Path(sys.argv[1]), sys.argv[2:], platform.machine()
    if machine not in ARCHITECTURES or sys.platform != "linux":
        raise SystemExit(UNAVAILABLE)
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            socket.send_fds(there, [b"1"], [install(machine)])
        except OSError as error:
            print(f"no filter: {error}", file=sys.stderr)
            os._exit(UNAVAILABLE)
        os.execvp(command[0], command)
    there.close()
    _, listeners, _, _ = socket.recv_fds(here, 1, 1)
    calls: list[dict[str, Any]] = []
    if listeners:
        waiting = select.poll()
        waiting.register(listeners[0], select.POLLIN)
        # POLLHUP alone: the last process under the filter has ended.
        while waiting.poll()[0][1] & select.POLLIN:
            if call := refuse(listeners[0], ARCHITECTURES[machine][3]):
                calls.append(call)
    report.write_text(json.dumps(calls))
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()

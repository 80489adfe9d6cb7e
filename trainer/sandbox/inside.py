"""The first program inside every sandbox: ours, run before any untrusted byte, as `python -I -S -c`.

The two arguments are the descriptors of the channel and of the control socket. It takes one JSON order from
the socket, hands the parent open descriptors of the writable folders, applies the resource limits, waits
for the word to go and becomes the ordered command. Only stdin, stdout, stderr and the channel, as
descriptor 3, survive. Standard library only; the parent never imports it.
"""

import contextlib
import fcntl
import json
import os
import resource
import socket
import sys

CHANNEL = 3


def main() -> None:
    channel, inherited = (int(argument) for argument in sys.argv[1:])
    control = socket.socket(fileno=fcntl.fcntl(inherited, fcntl.F_DUPFD_CLOEXEC, 16))
    lines = control.makefile("rb")
    order = json.loads(lines.readline())
    folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in order["folders"]]
    for name, limit in order["limits"].items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (value, value))
    os.chdir(order["cwd"])
    socket.send_fds(control, [b"ready\n"], folders)
    if lines.readline() != b"go\n":
        sys.exit(125)
    os.dup2(channel, CHANNEL)
    for name in os.listdir("/dev/fd"):
        if int(name) > CHANNEL:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.close(int(name))
    os.execve(order["argv"][0], order["argv"], order["env"])


main()

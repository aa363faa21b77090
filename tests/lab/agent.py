"""Carries out what comes through a virtio port: the other end of lab/guest.py, in the guest. Stands alone.

One line of JSON is one message. {"id", "argv", "stdin"} starts a command, {"id", "kill": true} kills it; when it has
ended, {"id", "code", "out", "err"} goes back (contents in base64). Several may run at once.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

ENVIRONMENT = dict(word.split("=", 1) for word in sys.argv[2:])
RUNNING: dict[int, subprocess.Popen[bytes]] = {}
WRITING = threading.Lock()


def carry_out(port: int, request: dict[str, Any]) -> None:
    # Files of memory, not pipes: a daemon that a script started would keep a pipe open, and us waiting for its end.
    files = [os.memfd_create(name) for name in ("in", "out", "err")]
    os.write(files[0], base64.b64decode(request["stdin"]))
    os.lseek(files[0], 0, os.SEEK_SET)
    try:
        process = subprocess.Popen(
            request["argv"],
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except OSError as error:
        code = 127
        os.write(files[2], str(error).encode())
    else:
        RUNNING[request["id"]] = process
        code = process.wait()
        del RUNNING[request["id"]]
    out, err = (base64.b64encode(contents(fd)).decode() for fd in files[1:])
    answer = json.dumps({"id": request["id"], "code": code, "out": out, "err": err}).encode() + b"\n"
    with WRITING:
        while answer:
            answer = answer[os.write(port, answer) :]
    for fd in files:
        os.close(fd)


def contents(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def main() -> None:
    # What tests run lives in a cgroup of its own, and not in that of this service.
    os.makedirs("/sys/fs/cgroup/lab", exist_ok=True)
    with open("/sys/fs/cgroup/lab/cgroup.procs", "w") as file:
        file.write("0")
    port = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    pending = b""
    while True:
        data = os.read(port, 1 << 16)
        if not data:
            time.sleep(0.02)  # nobody is at the other end yet
            continue
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "kill" not in request:
                threading.Thread(target=carry_out, args=(port, request)).start()
            elif request["id"] in RUNNING:
                RUNNING[request["id"]].kill()


if __name__ == "__main__":
    main()

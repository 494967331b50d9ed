"""Runs a command on a pseudo-terminal, as a person does, and answers what it asks."""

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl

PATIENCE_S = 60
# Wide enough for every line of a page.
ROWS, COLUMNS = 50, 400
QUESTION = re.compile(r"Type .*: $")
NUMBER = re.compile(r"Type (\d+) to ")


def run(text, shown, environment, folder):
    """Runs a shell command; returns its exit code and its lines. It is answered as the page shows, or else with the number that
    it names."""
    controller, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    child = subprocess.Popen(
        ["bash", "-c", text], stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=folder, start_new_session=True
    )
    os.close(terminal)
    written, answered, deadline = "", 0, time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            if not select.select([controller], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # no process has the terminal open any more
                break
            if not chunk:
                break
            written += chunk.decode(errors="replace")
            last = (lines_of(written) or [""])[-1]
            if QUESTION.match(last) and len(written) > answered:
                os.write(controller, f"{answer(last, shown)}\n".encode())
                answered = len(written)
        else:
            child.kill()
            return "no end", lines_of(written)
        return child.wait(timeout=PATIENCE_S), lines_of(written)
    finally:
        os.close(controller)


def answer(question, shown):
    for line in shown or []:
        if line.startswith(question):
            return line.removeprefix(question)
    number = NUMBER.match(question)
    return number.group(1) if number else ""


def lines_of(written):
    """What is left on the screen: a line that was written over is gone."""
    return [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rpartition("\r")[2]) for line in written.replace("\r\n", "\n").removesuffix("\n").split("\n")]

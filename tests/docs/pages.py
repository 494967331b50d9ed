"""Reads the pages: their commands with the output that they show, and their links to other places. Running them is left to
`check`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHELL, CONSOLE = ("sh",), "console"
# What else stands in fenced blocks. A language that is not known here could hide commands.
OTHER = {"", "json", "mermaid", "rust", "text", "yaml"}
FOLDERS = ("crates", "deploy", "docs", "schemas", "tests")
NOT_OURS = {"node_modules", "target"}


def pages():
    """Every page of the repository."""
    found = list(ROOT.glob("*.md"))
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*.md") if not NOT_OURS & set(path.parts)]
    return sorted(found)


@dataclass
class Command:
    """A command line, with the output that its page shows; `None` where the page shows none."""

    page: str
    line: int
    text: str
    shown: list | None = None

    def __str__(self):
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"


@dataclass
class Block:
    """A fenced block of commands."""

    page: str
    line: int
    language: str
    lines: list = field(default_factory=list)

    def commands(self):
        found = console(self) if self.language == CONSOLE else script(self)
        return [part for command in found for part in parts(command)]


def blocks(page, text):
    """The fenced blocks of a page, whatever is in them."""
    block = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```(\S*)$", line)
        if block is None and fence:
            block = Block(page, number, fence.group(1))
        elif fence:
            yield block
            block = None
        elif block is not None:
            block.lines.append(line)
    if block is not None:
        raise ValueError(f"{page}:{block.line}: the block has no end")


def console(block):
    """Commands after `$ `, each with the lines below it."""
    found = []
    for number, line in enumerate(block.lines, block.line + 1):
        if line.startswith("$ "):
            found.append(Command(block.page, number, line[2:], []))
        elif found:
            found[-1].shown.append(line)
        else:
            raise ValueError(f"{block.page}:{number}: output before the first command")
    return found


def script(block):
    """Commands of a script: a line goes on after a backslash, or within quotes."""
    found, open_command = [], None
    for number, line in enumerate(block.lines, block.line + 1):
        if open_command is not None:
            open_command.text += "\n" + line
        elif line.strip() and not line.lstrip().startswith("#"):
            open_command = Command(block.page, number, line)
            found.append(open_command)
        if open_command is not None and not goes_on(open_command.text):
            open_command = None
    return found


def goes_on(text):
    if text.endswith("\\"):
        return True
    quote, escaped, before = "", False, " "
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and before.isspace():
            return False
        before = char
    return bool(quote)


def parts(command):
    """`a && b` is two commands, where no quotes make that uncertain."""
    if " && " not in command.text or re.search("['\"]", command.text) or command.shown is not None:
        return [command]
    return [Command(command.page, command.line, text.strip()) for text in command.text.split(" && ")]


def bare(text):
    """The command on one line, without its comment, as tables and rules name it."""
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return re.sub(r"\s+#\s.*$", "", text)


def links(text):
    """Where a page leads outside of the repository."""
    return set(re.findall(r"(?:\]\(|<)(https://[^)>\s]+)", text))


# What differs between two runs, and what stands for it. Idempotency keys are UUIDs of version 5: they never differ.
FREE = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?!\")"), "<time>"),
    (re.compile(r"\(\d+[smhd] ago\)"), "(<age> ago)"),
    (re.compile(r"(?<=<uuid>  )\d+[smhd] +"), lambda found: "<age>".ljust(len(found[0]))),
    (re.compile(r"(?<=dlq_at_ms \(Number\): )\d{13}\b"), "<ms>"),
    (re.compile(r"(?<=^  process      )[0-9a-f]{8}$"), "<process>"),
    (re.compile(r"\bin \d+\.\d s\b"), "in <seconds>"),
    (re.compile(r"(?<=//127\.0\.0\.1:)\d+"), "<port>"),
]


# What comes back while a command runs depends on how fast the worker is, and progress is shown only of what takes long.
MEANWHILE = re.compile(r"\d+ left alone: sent after this run began")


def normal(lines):
    """The lines with what may differ taken out, and without empty lines at the end."""
    found = []
    for line in lines:
        if MEANWHILE.match(line):
            continue
        for pattern, instead in FREE:
            line = pattern.sub(instead, line)
        found.append(line.rstrip())
    while found and not found[-1]:
        found.pop()
    return found

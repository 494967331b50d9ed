"""How each command of a page is run, and what must come of it. What is left out, and the count, are left to `check`."""

import difflib
import json
import re
import shlex
import shutil
import subprocess

import terminal
from pages import ROOT, bare, normal
from world import Bare, Held, Letters, Nothing, Running, Servers, environment

# Of each page that shows dead letters: how many refusals there are beside the eight letters of operations.md.
MORE_REFUSED = {"docs/runbook.md": 8}
ASSIGNMENT = re.compile(r"(?:export )?\w+=")
MATCHES = re.compile(r"^(?:Message \S|[1-9]\d* of \d+ (?:messages match|redriven, 0 failed|discarded, 0 failed))", re.MULTILINE)


class Missing(Exception):
    """A program that a command needs is not installed."""


class Page:
    """The commands of one page, in their order, and what they have left behind."""

    def __init__(self, name, folder, programs):
        self.name, self.folder, self.programs = name, folder, programs
        self.environment = environment(folder)
        self.stages = {}
        # Assignments, for the later commands of the page; the last exit code.
        self.set, self.code = [], 0
        self.found, self.met, self.missing = [], set(), set()

    def stage(self, kind, *arguments):
        key = (kind, *arguments)
        if key not in self.stages:
            # One that cannot be made is not tried for each command.
            self.stages[key] = None
            self.stages[key] = kind(self.programs, *arguments)
        if self.stages[key] is None:
            raise RuntimeError(f"no {kind.__name__}, as above")
        return self.stages[key]

    def run(self, text, stage, shown=None):
        """Runs a command as it stands, but for the ports; returns its lines, and keeps its exit code."""
        script = self.placed("\n".join([*self.set, f"(exit {self.code})", text]), stage)
        whole = "set -o pipefail\n" + script.replace(" /tmp/", f" {self.folder}/")
        self.code, lines = terminal.run(whole, shown, {**self.environment, **stage.variables}, self.folder)
        return lines

    @staticmethod
    def placed(text, stage):
        """A text with this stage's ports and names."""
        for name, own in stage.names.items():
            text = re.sub(rf"\b{name}\b", own, text)
        for port, own in stage.ports.items():
            text = re.sub(rf"((?:localhost|127\.0\.0\.1):){port}\b", rf"\g<1>{own}", text)
        return text

    def exported(self, stage):
        """The variables that the page has exported so far."""
        names = [name for text in self.set if text.startswith("export ") for name in re.findall(r"(\w+)=", text)]
        script = self.placed("\n".join(self.set), stage) + "\n" + "\n".join(f'printf "%s\\0" "{name}=${name}"' for name in names)
        said = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, env={}).stdout
        return dict(pair.split("=", 1) for pair in said.split("\0") if pair)

    def needs(self, program):
        if not shutil.which(program, path=self.environment["PATH"]):
            raise Missing(program)

    def well(self, lines):
        """No fault where the last command ended well."""
        return [] if self.code == 0 else [f"exit code {self.code}", *lines]


def own(page, command):
    """`reservation-worker`, also in a pipe, or in a pod of the page."""
    text = re.sub(r"^kubectl .*exec .* -- /(?=reservation-worker )", "", command.text)
    stage = stage_of(page, text, command.shown)
    stage.before(text)
    lines = page.run(text, stage, command.shown)
    if command.shown is not None:
        return different(command.shown, lines)
    found = MATCHES.search("\n".join(lines))
    return page.well(lines) or ([] if found or " dlq " not in text else ["nothing matches", *lines])


def stage_of(page, text, shown):
    verb = re.search(r"reservation-worker (\w+)", text).group(1)
    if verb == "dlq" or "$DLQ_URL" in text:
        return page.stage(Letters, MORE_REFUSED.get(page.name, 0))
    if verb == "event" and 'IDEMPOTENCY_STORE is "memory"' in "\n".join(shown or []):
        return page.stage(Nothing)
    if verb in ("event", "forget"):
        page.needs("redis-server")
        return page.stage(Held, verb == "forget")
    if verb in ("check", "ctl"):
        return page.stage(Running)
    if verb == "decode":
        return page.stage(Nothing)
    raise ValueError(f"no state is known for `reservation-worker {verb}`")


def different(shown, lines):
    return list(difflib.unified_diff(normal(shown), normal(lines), "the page", "the program", lineterm="", n=1))


def plain(page, command):
    """A shell command that needs nothing but the folder."""
    if command.text.startswith("jq "):
        page.needs("jq")
    lines = page.run(command.text, page.stage(Nothing), command.shown)
    return page.well(lines) if command.shown is None else different(command.shown, lines)


def man(page, command):
    page.needs("man")
    said = "\n".join(page.run(command.text, page.stage(Nothing)))
    return page.well([said]) or [f"no {name} in the page" for name in ("SQS_QUEUE_URL", "forget") if name not in said]


def completions(page, command):
    lines = page.run(f"{bare(command.text)}\ncomplete -p reservation-worker", page.stage(Nothing))
    return page.well(lines)


def alerts(page, command):
    faults = plain(page, command)
    before, after = ((where / name).read_text() for where, name in ((ROOT, "deploy/prometheus/alerts.yaml"), (page.folder, "alerts.yaml")))
    found = (after.count("runbook_url: https://"), len(re.findall(r"\brunbook: ", after)))
    return faults or ([] if found == (before.count("runbook: docs/"), 0) and found[0] else [f"alerts with a link and without: {found}"])


def policy(page, command):
    lines = page.run(command.text, page.stage(Nothing))
    left = re.findall(r"REGION|ACCOUNT|QUEUE|DLQ|_KEY", "".join(lines))
    return page.well(lines) or ([f"left as they were: {left}"] if left else []) or ([] if json.loads("\n".join(lines))["Statement"] else ["empty"])


def make(page, command):
    """`make` knows the target, and each variable goes where it is read."""
    words = shlex.split(bare(command.text))
    said = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=page.environment, capture_output=True, text=True, check=False)
    if said.returncode:
        return [f"exit code {said.returncode}", said.stderr]
    scripts = [ROOT / path for path in re.findall(r"(?<![\w./-])(?:tests|\.ci|fuzz|crates)/[\w./-]+", said.stdout)]
    read = "\n".join(path.read_text() for path in scripts if path.is_file())
    pairs = [word.split("=", 1) for word in words[1:] if re.match(r"\w+=", word)]
    return [f"nobody reads {name}" for name, value in pairs if value not in said.stdout and name not in read]


def helm(page, command):
    """`helm upgrade --install` as `helm template`, with the same values."""
    if not page.programs["helm"]:
        raise Missing("helm")
    text = bare(command.text).replace("helm upgrade --install", f"{page.programs['helm']} template", 1)
    lines = page.run(text.replace("oci://REGISTRY/charts", "./deploy/helm"), page.stage(Nothing))
    said = "\n".join(lines)
    given = [one.split("=", 1)[1] for one in re.findall(r"--set (\S+)", text)]
    return page.well(lines) or [f"{value} is nowhere" for value in [*given, "helm.sh/hook"] if value not in said]


def assign(page, command):
    page.set.append(command.text)
    return []


def cargo_run(page, command):
    """The worker itself in place of `cargo run`, with what the page has exported."""
    stage = page.stage(Bare)
    stage.add(page.exported(stage))
    return []


def docker_run(page, command):
    """The worker itself in place of the image, with the same variables."""
    stage = page.stage(Servers)
    words = shlex.split(page.placed(bare(command.text), stage))
    worker = stage.add(dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-e"))
    stage.send('{"id":"evt_1","type":"reservation.expired","reservation_id":"rsv_1","event_id":"show_1","payload":{"qty":2}}')
    stage.released("rsv_1")
    code, log = worker.stop()
    return [] if code == 0 else [f"exit code {code}", *map(str, log[-3:])]


def aws(page, command):
    """AWS's own command line. An event that it sends must take effect."""
    if "reservation-worker" in command.text:
        return own(page, command)
    text = re.sub(r"^docker compose .* exec localstack awslocal ", "aws ", bare(command.text))
    stage = page.stage(Running if text != bare(command.text) else Bare)
    lines = page.run(text, stage)
    faults = page.well(lines)
    if not faults and " send-message " in text:
        stage.released(json.loads(shlex.split(text)[-1])["reservation_id"])
    return faults


def get(page, command):
    """`open URL`: the worker has such a page."""
    stage = page.stage(Running)
    status, body = stage.worker.get(re.sub(r"^open http://[^/]+", "", bare(command.text)))
    return [] if status == 200 and body else [f"status {status}"]


def bench(page, command):
    """The comparison for no rounds: its arguments are read."""
    text, changed = re.subn(r"^target/release/bench compare \d+ ", f"{page.programs['bench']} compare 0 ", bare(command.text))
    lines = page.run(text, page.stage(Nothing))
    return page.well(lines) if changed else ["not a comparison"]


# The first that fits runs a command.
RULES = [
    (ASSIGNMENT, assign),
    (r"make ", make),
    (r"helm upgrade --install ", helm),
    (r"cargo run$", cargo_run),
    (r"docker run .* reservation-worker:dev$", docker_run),
    (r"docker compose .* exec localstack awslocal sqs ", aws),
    (r"aws sqs ", aws),
    (r"open http://localhost:8040/", get),
    (r"target/release/bench ", bench),
    (r"sed .* deploy/prometheus/alerts\.yaml >alerts\.yaml$", alerts),
    (r"sed .* deploy/iam/policy\.json$", policy),
    (r"(kubectl .*exec .* -- /)?reservation-worker (check|ctl|decode|dlq|event|forget) ?", own),
    (r"echo '.*' \| reservation-worker decode", own),
    (r"reservation-worker completions ", plain),
    (r"reservation-worker man \| man -l -$", man),
    (r"source <\(reservation-worker completions bash\)$", completions),
    (r"jq ", plain),
    (r"echo \$\?$", plain),
]

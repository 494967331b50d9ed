"""Runs the commands of the documentation's pages, as their readers would, and compares what they print with what the pages show.

    check.py WORKER SANDBOX BENCH HELM AWS [PAGE ...]

Each command line of a block `sh` or `console` is run against the sandbox, or is tried as far as one machine allows, or is named
in LEFT_OUT. One that is neither fails. Prints a line for each command that fails, then `N passed, N failed`. AWS is AWS's
command line, version 1. HELM may be empty. What is not installed is left out, and fails where `CI` is set."""

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import terminal
from pages import CONSOLE, OTHER, ROOT, SHELL, bare, blocks, links, pages
from rules import ASSIGNMENT, RULES, Missing, Page
from world import CHILDREN, Running

CLUSTER = "needs a cluster; `make test-cluster` installs and tries the chart on one"
ENGINE = "needs Docker; `make test-docker` runs the image, `make test-deploy` checks the compose file"
LEFT_OUT = {
    "helm test reservation-worker --namespace tickets --logs": CLUSTER,
    "kubectl apply --namespace tickets -f deploy/k8s": CLUSTER,
    "kubectl apply --namespace tickets -f deploy/k8s/monitoring": CLUSTER,
    "kubectl port-forward deployment/reservation-worker 8040 &": CLUSTER,
    "kubectl describe scaledobject reservation-worker-scaler": CLUSTER,
    "kubectl get hpa,pods -l app.kubernetes.io/name=reservation-worker": CLUSTER,
    "kubectl logs -l app.kubernetes.io/name=reservation-worker --tail=20": CLUSTER,
    "kubectl logs -n keda deploy/keda-operator --tail=50": CLUSTER,
    "kubectl annotate scaledobject reservation-worker-scaler autoscaling.keda.sh/paused-replicas=5": CLUSTER,
    "kubectl annotate scaledobject reservation-worker-scaler autoscaling.keda.sh/paused- autoscaling.keda.sh/paused-replicas-": CLUSTER,
    "kind load docker-image sandbox:dev reservation-worker:dev": CLUSTER,
    "docker build -f deploy/compose/sandbox.Dockerfile -t sandbox:dev .": ENGINE,
    "docker buildx build --platform linux/amd64,linux/arm64 -t reservation-worker:latest .": ENGINE,
    "docker compose -f deploy/compose.yaml up --build": ENGINE,
    "docker run -d -p 4566:4566 localstack/localstack:4.12.0": "needs Docker; `make test-integration` uses a LocalStack of its own",
    "cosign verify REGISTRY/charts/reservation-worker:VERSION --certificate-oidc-issuer https://token.actions.githubusercontent.com "
    "--certificate-identity-regexp '^https://github.com/OWNER/REPOSITORY/[.]github/workflows/ci[.]yml@refs/tags/v'": "needs a published release",
}
# Pages that are tried at once: their commands mostly wait.
AT_ONCE = 4


def tried(name, text, folder, programs):
    """Runs all commands of a page; returns it with what it found."""
    scratch(folder, programs)
    page = Page(name, folder, programs)
    try:
        for block in blocks(name, text):
            hidden = [line for line in block.lines if line.startswith("$ ")]
            if block.language in OTHER and not hidden:
                continue
            if block.language not in (*SHELL, CONSOLE):
                page.found.append((f"{name}:{block.line}", [f"a block `{block.language}` with commands: must be `sh` or `console`"]))
            else:
                try_block(page, block.commands())
    finally:
        for stage in filter(None, page.stages.values()):
            stage.close()
    return page


def try_block(page, commands):
    # Assignments alone are an environment: the worker must take it.
    is_environment = all(ASSIGNMENT.match(command.text) for command in commands)
    if is_environment:
        page.set = []
    for command in commands:
        found = faults(page, command)
        if found is not None:
            page.found.append((command, found))
    if is_environment:
        page.found.append((f"{commands[0].page}:{commands[0].line}: the variables", refused(page)))
        page.set = []


def faults(page, command):
    """What is wrong with a command; `None` where it is left out."""
    text = bare(command.text)
    if text in LEFT_OUT:
        page.met.add(text)
        return None
    rule = next((rule for pattern, rule in RULES if re.match(pattern, text)), None)
    if rule is None:
        return ["nobody runs it: a rule of tests/docs/rules.py must, or LEFT_OUT of check.py must name it, with the reason"]
    try:
        return rule(page, command)
    except Missing as program:
        page.missing.add(str(program))
        return [f"needs {program}"] if os.environ.get("CI") else None
    except (OSError, RuntimeError, TimeoutError, ValueError, subprocess.SubprocessError) as why:
        return [f"{type(why).__name__}: {why}"]


def refused(page):
    """`health` reads the whole configuration; `check` calls everything, where all of it is on this machine."""
    stage = page.stage(Running)
    given = page.exported(stage)
    is_here = all("127.0.0.1" in value for value in given.values() if "://" in value)
    verbs = ["health", "check"] if is_here else ["health"]
    script = "\n".join(f"reservation-worker {verb} || exit" for verb in verbs)
    code, lines = terminal.run(script, None, {**page.environment, **given, "SERVER_PORT": stage.ports["8040"]}, page.folder)
    return [] if code == 0 else [f"exit code {code}", *lines]


BROKEN = """
```console
$ reservation-worker decode event.json
accepted: reservation.expired
$ reservation-worker decode --no-such-flag event.json
$ reservation-worker frobnicate
```
```sh
reservation-worker dlq list --reason no_such_reason
make no-such-target
make sandbox NOBODY=reads-it
frobnicate
aws sqs frobnicate
export SQS_QUEUE_URL=nowhere
```
```sh
export SQS_QUEUE_URL=nowhere
```
"""


def scratch(folder, programs):
    """The repository's files, as far as pages name them, where what a command writes is not left behind."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/reservation-worker").symlink_to(programs["worker"])
    # Version 1 needs two options, as README.md says: it sends what is for SQS to AWS, whatever AWS_ENDPOINT_URL says.
    aws = folder / "bin/aws"
    aws.write_text(f'#!/bin/sh\nset -u\nexec {programs["aws"]} --endpoint-url "$AWS_ENDPOINT_URL" --region "$AWS_REGION" "$@"\n')
    aws.chmod(0o755)
    for path in ROOT.iterdir():
        if path.name not in ("target", ".git"):
            (folder / path.name).symlink_to(path)
    example = next(block for block in blocks("README.md", (ROOT / "README.md").read_text()) if block.language == "json")
    (folder / "event.json").write_text("\n".join(example.lines))


def main():
    names, only = ("worker", "sandbox", "bench", "helm", "aws"), sys.argv[6:]
    programs = {name: path and str(Path(path).resolve()) for name, path in zip(names, sys.argv[1:6], strict=True)}
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in pages()}
    texts = {name: text for name, text in texts.items() if not only or name in only}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            given = {"BROKEN": BROKEN, **texts}
            runs = [pool.submit(tried, name, given[name], Path(made, str(number)), programs) for number, name in enumerate(given)]
            broken, *done = [run.result() for run in runs]
        finally:
            for child in CHILDREN:
                child.kill()
    well = [str(what) for what, found in broken.found if not found]
    found = [("a page with faults", [f"{what}: nothing is found" for what in well if " export " not in what])]
    found += [one for page in done for one in page.found]
    met = set().union(*(page.met for page in done))
    found += [("LEFT_OUT", [f"no page has: {text}"]) for text in sorted(LEFT_OUT.keys() - met) if not only]
    return report(found, met, set().union(*(page.missing for page in done)), set().union(*map(links, texts.values())), began)


def report(found, met, missing, outside, began):
    for what, faults_found in found:
        if faults_found:
            print(f"docs: {what}", *faults_found, sep="\n    ", file=sys.stderr)
    for text in sorted(met):
        print(f"left out: {text}: {LEFT_OUT[text]}")
    print("links to other places, which are not tried:", *sorted(outside), sep="\n  ")
    for program in sorted(missing):
        print(f"\n  LEFT OUT: what needs {program}, which is not installed\n")
    failed = sum(bool(faults_found) for _, faults_found in found)
    print(f"all took {time.monotonic() - began:.0f} s")
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The worker's decoder, schemas/ and tests/corpus agree about every body: what the decoder accepts validates, and what it
refuses for its shape does not, but for the bodies below, of which JSON Schema cannot say what is wrong.

    check.py WORKER EXAMPLES

EXAMPLES are those of docs/asyncapi.yaml, as asyncapi.mjs prints them: each validates, and is accepted. Prints a line for
each body that they disagree about, then `N passed, N failed`."""
import json
import re
import subprocess
import sys
from pathlib import Path

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parent.parent.parent

# Bodies that the decoder refuses and the schemas do not, by the reason.
UNSAID = {
    "a JSON parser keeps one of two members of one name, and the schema sees the one": [
        "json.txt: id twice",
        "json.txt: id twice, once null",
        "json.txt: id twice, once with an escape in its name",
        "json.txt: id twice, and the same",
        "json.txt: type twice",
        "json.txt: payload twice",
        "json.txt: qty twice in the payload",
        "json.txt: seat_ids twice",
        "json.txt: a field twice in a detail",
        "json.txt: a field twice in a payload that an envelope covers",
        "producers.txt: a camelCase field given twice",
        "producers.txt: a CloudEvent that names a field twice in its data",
    ],
    "a length counts characters, and the rule is about bytes": [
        "ids.txt: id of 65 characters of four bytes",
        "ids.txt: reservation_id of 65 characters of four bytes",
        "ids.txt: event_id of 65 characters of four bytes",
    ],
    "a member's value cannot be compared with another's": [
        "payments.txt: a quantity that is not that of the seats",
        "seats.txt: fewer than seats",
        "seats.txt: more than seats",
        "producers.txt: both spellings of reservation_id with different values",
        "producers.txt: both spellings of event_id with different values",
        "producers.txt: both spellings of qty with different values",
        "producers.txt: both spellings of payment_intent_id with different values",
        "producers.txt: both spellings of user_id with different values",
        "producers.txt: both spellings of error_code with different values",
        "producers.txt: both spellings of error_message with different values",
        "producers.txt: both spellings of event_type with different values",
        "producers.txt: both spellings of seat_ids with different values",
    ],
    "a JSON parser rounds to a double": ["producers.txt: a quantity that is nearly whole"],
}

# Objects that nest deeper than this are skipped: Python's parser recurses, the worker's does not.
sys.setrecursionlimit(5000)


def corpus():
    """Name and body of each case; tests/corpus/README.md has the format."""
    def expanded(rule):
        if rule[1].startswith("U+"):
            return chr(int(rule[1][2:], 16))
        times, text = rule[1].split(" ", 1)
        return int(times) * text

    for path in sorted((ROOT / "tests/corpus").glob("*.txt")):
        for case in path.read_text(encoding="utf-8").split("\n== ")[1:]:
            name, expected, *lines = case.split("\n")
            while lines and lines[0].startswith("@"):
                lines.pop(0)
            body = re.sub(r"<<(.*?)>>", expanded, "\n".join(lines).rstrip("\n"), flags=re.DOTALL)
            yield f"{path.name}: {name}", expected.split(" ")[0], body


def validators():
    """Those of a body, and of what is in one envelope and in two."""
    registry = Registry()
    for path in (ROOT / "schemas").glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        registry = registry.with_resource(f"file:///{path.name}", Resource.from_contents(schema))
    refs = ["file:///body.json", "file:///body.json#/$defs/inside1", "file:///body.json#/$defs/inside2"]
    return [Draft202012Validator({"$ref": ref}, registry=registry) for ref in refs]


def is_valid(value, by_depth, depth=0):
    """Validates a body, and the text in an SNS notification, as `contentSchema` means it."""
    if not by_depth[depth].is_valid(value):
        return False
    is_event = any(value.get(key) is not None for key in ("reservation_id", "reservationId", "payload"))
    if is_event or value.get("Type") is None or value.get("Message") is None:
        return True
    try:
        return is_valid(json.loads(value["Message"]), by_depth, depth + 1)
    except ValueError:
        return False


def decoded(worker, bodies):
    """What `reservation-worker decode` says about each, as messages of one receive."""
    messages = [{"MessageId": "5f1ae4ac-1b0b-4b6e-8a39-6f5f1c9a4a11", "ReceiptHandle": "h", "Body": body} for body in bodies]
    said = subprocess.run([worker, "decode", "--json"], input=json.dumps({"Messages": messages}).encode(), capture_output=True, check=False)
    assert said.returncode in (0, 1), said.stderr.decode()
    return [json.loads(line) for line in said.stdout.splitlines()]


def main():
    cases, by_depth = list(corpus()), validators()
    reports = decoded(sys.argv[1], [body for _, _, body in cases])
    unsaid = {name: reason for reason, names in UNSAID.items() for name in names}
    passed = failed = deep = 0
    outcomes = {"event": "handled", "no_change": "no_change"}
    for (name, expected, body), report in zip(cases, reports, strict=True):
        is_accepted = report["outcome"] != "refused"
        faults = []
        if report["outcome"] != outcomes.get(expected, "refused") or report.get("reason", expected) != expected:
            faults.append(f"the corpus says {expected}, decode {report}")
        try:
            validates = is_valid(json.loads(body), by_depth)
            if validates != (is_accepted or name in unsaid):
                faults.append(f"it {'validates' if validates else 'does not validate'}, decode says {report}")
        except ValueError:
            if is_accepted:
                faults.append("it is no JSON for Python")
        except RecursionError:
            deep += 1
        passed, failed = passed + (not faults), failed + bool(faults)
        for fault in faults:
            print(f"schemas: {name}: {fault[:300]}", file=sys.stderr)
    for name in sorted(unsaid.keys() - {name for name, _, _ in cases}):
        print(f"schemas: {name}: no such body", file=sys.stderr)
        failed += 1
    if deep > 10:
        print(f"schemas: {deep} bodies are too deep for Python", file=sys.stderr)
        failed += 1
    examples = [json.loads(line) for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
    for example, report in zip(examples, decoded(sys.argv[1], [json.dumps(one["payload"]) for one in examples]), strict=True):
        validates = Draft202012Validator(example["schema"]).is_valid(example["payload"])
        if validates and report["outcome"] == "handled":
            passed += 1
        else:
            print(f"schemas: {example['name']}: {'validates' if validates else 'does not validate'}, decode says {report}", file=sys.stderr)
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())

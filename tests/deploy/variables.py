"""The chart's `config` has exactly the worker's variables, with the worker's ranges and, in its comments, the worker's defaults.

The worker's table is read from its source, src/config/table.rs: the checks here need no build.
"""

import json
import re

import yaml

from chart import variable
from harness import CHART, ROOT

# Besides the worker's own variables: those of the AWS SDK, and the name of a Secret.
NOT_IN_TABLE = {"AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "IDEMPOTENCY_STORE_SECRET"}
# Values for which the chart has another default than the worker, because it suits a cluster.
OWN_DEFAULT = {"SQS_QUEUE_URL": None, "INVENTORY_GRPC_ADDR": "inventory:50051", "RESERVATION_API_BASE": "http://reservation-api:8080"}


def table():
    """Default and range of each variable; `None` without one."""
    source = (ROOT / "src/config/table.rs").read_text()
    body = source[source.index("\nvariables! {") :]
    entries = re.findall(r"^    ([A-Z][A-Z_]+): (.*?);$", body, re.MULTILINE | re.DOTALL)
    found = {}
    for name, entry in entries:
        default = re.match(r'Value\("(.*?)"\)', entry)
        bounds = re.search(r"whole\(([\d_]+), ([\d_]+)\)|min: ([\d_]+), max: ([\d_]+)", entry)
        words = re.search(r"OneOf\(&\[(.*?)\]\)", entry, re.DOTALL)
        found[name] = {
            "default": default and default.group(1),
            "range": bounds and [int(bound.replace("_", "")) for bound in bounds.groups() if bound],
            "words": words and re.findall('"(.*?)"', words.group(1)),
        }
    return found


def run(checks):
    variables = table()
    checks.expect(f"src/config/table.rs: only {len(variables)} variables were understood", len(variables) >= 30)
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)["config"]
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    checks.expect("values.yaml and the schema have the same config", values.keys() == schema.keys())
    ours = {variable(key): key for key in values}
    checks.none("config lacks", sorted(variables.keys() - ours.keys()))
    checks.none("config has what the worker does not know", sorted(ours.keys() - variables.keys() - NOT_IN_TABLE))
    for name, facts in variables.items():
        key = ours.get(name)
        if key is None:
            continue
        part = schema[key]
        if facts["range"]:
            bounds = [part.get("minimum"), part.get("maximum")]
            checks.expect(f"config.{key}: range {bounds}, the worker's is {facts['range']}", bounds == facts["range"])
        if facts["words"] == ["true", "false"]:
            checks.expect(f"config.{key}: {part}, the worker's is true or false", part == {"type": ["boolean", "null"]})
        elif facts["words"]:
            words = [word for word in part["enum"] if word is not None]
            checks.expect(f"config.{key}: words {words}, the worker's are {facts['words']}", words == facts["words"])
        if name in OWN_DEFAULT:
            checks.expect(f"config.{key} is {values[key]!r}", values[key] == OWN_DEFAULT[name])
        elif values[key] is not None:
            checks.expect(f"config.{key} is {values[key]!r}, the worker's default {facts['default']}", str(values[key]) == facts["default"])
        elif facts["default"]:
            line = re.search(rf"^  {key}: null  # (.*)$", text, re.MULTILINE)
            said = line and re.split("[ ;]", line.group(1))[0]
            checks.expect(f"config.{key}: the comment's default is {said!r}, the worker's {facts['default']!r}", said == facts["default"])

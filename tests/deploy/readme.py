"""Writes the chart's README.md to stdout: a table of all values, from the comments of values.yaml on stdin.

Reads lines, not YAML, as `make manifests` needs no Python package. A comment belongs to the key below it, or on whose line it is.
"""

import re
import sys

HEAD = """# reservation-worker

Consumes reservation and payment events from Amazon SQS; scaled by KEDA from 0 to 50 pods.

```sh
helm upgrade --install reservation-worker oci://REGISTRY/charts/reservation-worker --namespace tickets --create-namespace \\
  --set config.sqsQueueUrl=https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations
helm test reservation-worker --namespace tickets --logs
```

`REGISTRY` is where the release's workflow published the chart: `ghcr.io/` and the owner of the repository, in lower case. It is signed by
that workflow's identity:

```sh
cosign verify REGISTRY/charts/reservation-worker:VERSION --certificate-oidc-issuer https://token.actions.githubusercontent.com \\
  --certificate-identity-regexp '^https://github.com/OWNER/REPOSITORY/[.]github/workflows/ci[.]yml@refs/tags/v'
```

The folder `examples/` has values for single features. Values that cannot work are refused before anything is sent to the cluster.

Made from `values.yaml` by `make manifests`.

| value | default | |
| --- | --- | --- |
"""


def rows(lines):
    """Yields path, default and comment of each value."""
    path, comment, in_list = [], [], None
    for line in lines:
        line = line.rstrip()
        stripped = line.lstrip()
        indent = len(line) - len(stripped)
        if not stripped:
            comment = []
        elif stripped.startswith("#"):
            comment.append(stripped.lstrip("#").strip())
        elif match := re.match(r"([A-Za-z0-9./-]+):(?: +(.*))?$", stripped):
            # What is below a list's item belongs to the list.
            if in_list is not None and indent > in_list:
                comment = []
                continue
            in_list = None
            name, value = match.group(1), match.group(2) or ""
            value, _, trailing = value.partition("  # ")
            path = [one for one in path if one[0] < indent] + [(indent, name)]
            yield ".".join(one[1] for one in path), value.strip(), "; ".join(filter(None, [" ".join(comment).rstrip("." if trailing else ""), trailing]))
            comment = []
        else:
            # A list below its key: its items are left to values.yaml.
            comment = []
            in_list = path[-1][0] if in_list is None else in_list


def main():
    sys.stdout.write(HEAD)
    for path, value, said in rows(sys.stdin):
        default = f"`{value}`" if value not in ("", "null") else ""
        # A block's name alone says nothing that its values do not.
        if default or said or value:
            print(f"| `{path}` | {default} | {said.replace('|', chr(92) + '|')} |")


if __name__ == "__main__":
    main()

"""Validates objects against Kubernetes' schemas and against CRDs, strictly: an unknown field is a finding."""

import copy

import jsonschema
import kubernetes_validate
import yaml

from harness import HERE

# The oldest that the chart admits, the one that most clusters have, and the newest that there is a schema of.
KUBERNETES_VERSIONS = ("1.27", "1.33", kubernetes_validate.latest_version())
# Kinds that only an example's extraObjects have.
WITHOUT_SCHEMA = {("external-secrets.io/v1", "ExternalSecret")}


def strict(schema):
    """A CRD's schema that rejects fields that the API server would silently drop."""
    schema = copy.deepcopy(schema)
    todo = [schema]
    while todo:
        part = todo.pop()
        if not isinstance(part, dict):
            continue
        is_open = part.get("additionalProperties") or part.get("x-kubernetes-preserve-unknown-fields")
        if part.get("properties") and not is_open:
            part["additionalProperties"] = False
        if part.get("x-kubernetes-int-or-string"):
            part.pop("type", None)
        todo += (part.get("properties") or {}).values()
        todo += [part.get("items"), part.get("additionalProperties")]
    return schema


def crd_validators():
    """A validator for each kind of the CRDs in `schemas/`, by apiVersion and kind."""
    validators = {}
    for path in sorted((HERE / "schemas").glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            # Every object has metadata; the schema only requires an object.
            schema["properties"]["metadata"] = {"type": "object"}
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            validators[key] = jsonschema.Draft202012Validator(schema)
    return validators


CRDS = crd_validators()


def findings(document):
    """The faults of one object, as text."""
    key = document["apiVersion"], document["kind"]
    name = f"{document['kind']}/{document['metadata']['name']}"
    if key in CRDS:
        errors = CRDS[key].iter_errors(document)
        return [f"{name}: {error.json_path}: {error.message[:200]}" for error in errors]
    found = []
    for version in KUBERNETES_VERSIONS if key not in WITHOUT_SCHEMA else ():
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{name}: {error.path}: {error.message[:200]} (Kubernetes {version})")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{name}: no schema for {key} (Kubernetes {version})")
    return found

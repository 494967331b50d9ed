"""Runs every deployment check; `run` calls it. Prints `N passed, N failed`, and fails if a check failed."""

import os
import pathlib
import sys

import chart
import faults
import features
import monitoring
import pages
import rejects
import supply
import variables
from harness import Checks


def main():
    checks = Checks()
    scratch = pathlib.Path(os.environ["DEPLOY_SCRATCH"])
    parts = {
        "chart": lambda: chart.run(checks, scratch),
        "faults": lambda: faults.run(checks, scratch),
        "features": lambda: features.run(checks),
        "monitoring": lambda: monitoring.run(checks),
        "pages": lambda: pages.run(checks),
        "rejects": lambda: rejects.run(checks),
        "variables": lambda: variables.run(checks),
        "supply": lambda: supply.run(checks),
    }
    for name, run in parts.items():
        before = checks.passed, checks.failed
        run()
        print(f"{name}: {checks.passed - before[0]} held, {checks.failed - before[1]} did not")
    print(f"{checks.passed} passed, {checks.failed} failed")
    return checks.failed != 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs every deployment check; `run` calls it. Prints `N passed, N failed`, and fails if a check failed."""

import sys

import chart
import monitoring
import pages
import rejects
import supply
import variables
from harness import Checks


def main():
    checks = Checks()
    for module in (chart, monitoring, pages, rejects, variables, supply):
        before = checks.passed, checks.failed
        module.run(checks)
        print(f"{module.__name__}: {checks.passed - before[0]} held, {checks.failed - before[1]} did not")
    print(f"{checks.passed} passed, {checks.failed} failed")
    return checks.failed != 0


if __name__ == "__main__":
    sys.exit(main())

"""Draws the dashboard's graphs from the data of a run as one SVG, with the dashboard's queries but without Grafana."""

import math
import re
from xml.sax.saxutils import escape

COLUMNS, WIDTH, HEIGHT, GAP = 3, 400, 220, 16
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 34, 62
HEAD = 58
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
# The titles in the order in which an on-call engineer reads them.
SHOWN = (
    "Queue depth",
    "Pods",
    "Settled within a minute",
    "Events by outcome",
    "Latency",
    "Age at settlement, and queue lag",
    "In flight by state",
    "Breakers",
    "Refusing everybody",
    "Suspects",
    "Calls at once",
    "Paced answers, rate, limit changes",
    "Calls that did not succeed",
    "Retries by reason",
    "Call duration, p95",
    "Workers busy",
    "SQS calls",
    "Duplicates, superseded, dead letters",
)
STATES = {0: "closed", 1: "half-open", 2: "open"}


def draw(path, panels, results, times):
    chosen = [next(panel for panel in panels if panel["title"] == title) for title in SHOWN]
    rows = math.ceil(len(chosen) / COLUMNS)
    width = COLUMNS * WIDTH + (COLUMNS + 1) * GAP
    height = HEAD + rows * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        'role="img" aria-label="Graphs of two workers under load; both services are away, then one is half well, twice">',
        f'<rect width="{width}" height="{height}" fill="#f4f5f7"/>',
        f'<text x="{GAP}" y="28" font-size="18" font-weight="600" fill="#1b1f24">Two workers under load; both services go away '
        "and come back; then one is half well, twice</text>",
        f'<text x="{GAP}" y="46" font-size="12" fill="#57606a">The dashboard\'s own queries, answered by the Prometheus of '
        "`make test-observe`. Drawn from its data, not by Grafana. Time in seconds; shaded: services that are away, or half well.</text>",
    ]
    for place, panel in enumerate(chosen):
        x = GAP + place % COLUMNS * (WIDTH + GAP)
        y = HEAD + place // COLUMNS * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">{graph(panel, results, times)}</g>')
    parts.append("</svg>\n")
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(parts))


def graph(panel, results, times):
    began, ended = times.began, times.ended
    lines = list(all_lines(panel, results))
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    most = max((value for _, points in lines for _, value in points), default=0)
    is_state = panel["title"] == "Breakers"
    top = 2 if is_state else nice(most)
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    to_x = lambda at: LEFT + (at - began) / (ended - began) * inner_w
    to_y = lambda value: TOP + inner_h - min(value, top) / top * inner_h
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff" stroke="#d0d7de"/>',
        f'<text x="12" y="21" font-size="13" font-weight="600" fill="#1b1f24">{escape(panel["title"])}</text>',
    ]
    for name, from_s, to_s in times.phases:
        x, width = to_x(from_s), to_x(to_s) - to_x(from_s)
        parts.append(f'<rect x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{inner_h}" fill="#fff1d6"/>')
        parts.append(f'<text x="{x + 2:.1f}" y="{TOP + 9}" font-size="8" fill="#9a6700">{escape(name)}</text>')
    for part in (0, 0.5, 1):
        y = to_y(top * part)
        label = STATES[round(top * part)] if is_state else shown(top * part, unit)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#eaeef2"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" font-size="10" fill="#57606a" text-anchor="end">{label}</text>')
    for second in range(0, int(ended - began) + 1, 20):
        x = to_x(began + second)
        parts.append(f'<text x="{x:.1f}" y="{TOP + inner_h + 14}" font-size="10" fill="#57606a" text-anchor="middle">{second}</text>')
    for colour, (_, points) in zip(COLOURS, lines):
        for run in unbroken(points):
            steps = "L".join(f"{to_x(at):.1f} {to_y(value):.1f}" for at, value in run)
            parts.append(f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>')
    parts.append(legend(lines, TOP + inner_h + 32))
    return "".join(parts)


def all_lines(panel, results):
    """Each series with its legend, highest first; series that are always 0 are left out, except for states."""
    lines = []
    for target in panel["targets"]:
        for one in results[panel["id"], target["refId"]]:
            name = re.sub(r"\{\{(\w+)\}\}", lambda label: one["metric"].get(label[1], ""), target["legendFormat"])
            points = [(at, float(value)) for at, value in one["values"] if math.isfinite(float(value))]
            # The limit of messages in flight would flatten all other lines.
            if name != "most" and points and (panel["title"] == "Breakers" or any(value for _, value in points)):
                lines.append((name or panel["title"], points))
    lines.sort(key=lambda line: -max(value for _, value in line[1]))
    return lines[: len(COLOURS)]


def unbroken(points):
    """Runs of points without a gap of more than two seconds."""
    run = []
    for at, value in points:
        if run and at - run[-1][0] > 2:
            yield run
            run = []
        run.append((at, value))
    if run:
        yield run


def legend(lines, y):
    parts, x = [], 12
    for colour, (name, _) in zip(COLOURS, lines):
        width = 24 + 6.2 * len(name)
        if x + width > WIDTH - 8:
            x, y = 12, y + 14
        if y > HEIGHT - 4:
            break
        parts.append(f'<rect x="{x}" y="{y - 7}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y - 2}" font-size="10.5" fill="#1b1f24">{escape(name)}</text>')
        x += width
    return "".join(parts)


def nice(most):
    """A round number of at least `most`."""
    if most <= 0:
        return 1
    power = 10 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= most)


def shown(value, unit):
    if value == 0:
        return "0"
    if unit == "s":
        return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"
    suffix = "/s" if unit == "ops" else ""
    return (f"{value / 1000:g}k" if value >= 1000 else f"{value:g}") + suffix

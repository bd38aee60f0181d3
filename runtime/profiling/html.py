"""A profile as one HTML page without external files; its plots are inline SVG."""

from __future__ import annotations

from html import escape

from .report import Latency, Profile

COLOURS = ("#1f6feb", "#d9480f")
WIDTH, HEIGHT, MARGIN = 760, 220, 44
LAYERS_SHOWN = 15
BINS = 40

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;
border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}svg{max-width:100%}code{white-space:pre-wrap;word-break:break-all}
.over{color:#c92a2a}"""


def profile_page(profiles: list[Profile], commands: dict[str, str], budget: float | None = None) -> str:
    """HTML of one profile, or a comparison of two.

    Args:
        profiles: one or two.
        commands: command lines to show, by tool.
        budget: limit on the p99 of a frame in milliseconds, drawn as a line.
    """
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>maskring profile</title>",
        f"<style>{STYLE}</style><h1>maskring profile</h1>",
        _summary(profiles, budget),
        "<h2>Every frame</h2>",
        _frames_plot(profiles, budget),
        "<h2>Distribution</h2>",
        _distribution_plot(profiles),
        "<h2>Stages</h2>",
        *(_stages(profile, COLOURS[i]) for i, profile in enumerate(profiles)),
        "<h2>Layers</h2>",
        *(_layers(profile, COLOURS[i]) for i, profile in enumerate(profiles)),
        "<h2>Machine</h2>",
        *(_machine(profile, COLOURS[i]) for i, profile in enumerate(profiles)),
        "<h2>The same with other tools</h2>",
        *(f"<p>{escape(tool)}<br><code>{escape(line)}</code></p>" for tool, line in commands.items()),
        "</html>\n",
    ]
    return "\n".join(parts)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(text)}" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _figures(latency: Latency) -> list[str]:
    return [f"{v:.2f}" for v in (latency.p50, latency.p90, latency.p99, latency.max, latency.jitter)]


HEADS = ["p50 ms", "p90", "p99", "max", "jitter"]


def _summary(profiles: list[Profile], budget: float | None) -> str:
    rows = [
        [p.model, f"{p.width}x{p.height}", *_figures(p.total), f"{p.fps:.1f}", f"{p.peak_memory_mb:.0f}"]
        for p in profiles
    ]
    verdicts = []
    for profile in profiles if budget is not None else []:
        over = budget is not None and profile.total.p99 > budget
        verdicts.append(
            f"<p{' class=over' if over else ''}>{escape(profile.model)}: p99 {profile.total.p99:.2f} ms is "
            f"{'over' if over else 'within'} the budget of {budget:g} ms</p>"
        )
    return _table(["model", "frames", *HEADS, "fps", "peak MB"], rows) + "".join(verdicts)


def _stages(profile: Profile, colour: str) -> str:
    rows = [[name, *_figures(latency)] for name, latency in profile.stages.items()]
    if profile.runner is not None:
        rows.append(["polygraphy's runner, bare file", *_figures(profile.runner)])
    return _caption(profile, colour) + _table(["stage", *HEADS], rows)


def _layers(profile: Profile, colour: str) -> str:
    shown = profile.layers[:LAYERS_SHOWN]
    rest = sum(layer.milliseconds for layer in profile.layers[LAYERS_SHOWN:])
    rows = [[layer.name, layer.kind, f"{layer.milliseconds:.3f}"] for layer in shown]
    rows.append([f"{max(0, len(profile.layers) - LAYERS_SHOWN)} others", "", f"{rest:.3f}"])
    return _caption(profile, colour) + _table(["layer", "kind", "ms"], rows)


def _machine(profile: Profile, colour: str) -> str:
    return _caption(profile, colour) + _table([], [[key, value] for key, value in profile.machine.items()])


def _caption(profile: Profile, colour: str) -> str:
    return f'<p><b style="color:{colour}">{escape(profile.model)}</b></p>'


def _svg(drawn: list[str], x_label: str, top: float, unit: str) -> str:
    base = HEIGHT - MARGIN
    axes = (
        f'<path d="M{MARGIN} 8V{base}H{WIDTH - 8}" fill="none" stroke="#888"/>'
        f'<text x="4" y="16" font-size="12">{top:.3g} {unit}</text><text x="{MARGIN - 14}" y="{base}" '
        f'font-size="12">0</text><text x="{WIDTH // 2}" y="{HEIGHT - 8}" font-size="12">'
        f"{escape(x_label)}</text>"
    )
    body = "".join(drawn)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(x_label)}">{axes}{body}</svg>'


def _points(values: list[float], top: float) -> str:
    span, base = WIDTH - 8 - MARGIN, HEIGHT - MARGIN
    step = span / max(1, len(values) - 1)
    return " ".join(
        f"{MARGIN + i * step:.1f},{base - value / top * (base - 16):.1f}" for i, value in enumerate(values)
    )


def _frames_plot(profiles: list[Profile], budget: float | None) -> str:
    top = max(*(max(p.frames) for p in profiles), budget or 0.0)
    drawn = [
        f'<polyline points="{_points(p.frames, top)}" fill="none" stroke="{colour}"/>'
        for p, colour in zip(profiles, COLOURS, strict=False)
    ]
    if budget is not None:
        drawn.append(
            f'<polyline points="{_points([budget, budget], top)}" stroke="#c92a2a" stroke-dasharray="6 4"/>'
        )
    return _svg(drawn, "frame", top, "ms")


def _distribution_plot(profiles: list[Profile]) -> str:
    low = min(min(p.frames) for p in profiles)
    width = (max(max(p.frames) for p in profiles) - low) / BINS or 1.0
    counts = []
    for profile in profiles:
        column = [0.0] * BINS
        for value in profile.frames:
            column[min(BINS - 1, int((value - low) / width))] += 1
        counts.append(column)
    top = max(map(max, counts))
    drawn = [
        f'<polyline points="{_points(column, top)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for column, colour in zip(counts, COLOURS, strict=False)
    ]
    return _svg(drawn, f"{low:.2f} to {low + BINS * width:.2f} ms per frame", top, "frames")

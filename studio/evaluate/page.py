"""One HTML page that shows methods side by side: tables, plots, pictures, curves and every cell's recipe.

The page stands alone: pictures are data URIs, plots are SVG, and a few lines of script only sort its tables.
It follows the reader's light or dark scheme and fits a phone.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studio.evaluate.plots import Axis, Series, curve, lines, scatter, strip
from studio.evaluate.results import TRUTHS, Cell, ClipNames, Curve, Group, Row
from studio.reports import Figure


@dataclass(frozen=True)
class _Column:
    key: str
    title: str
    says: str
    shown: Callable[[float], str]


def _digits(count: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:.{count}f}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # never -0.00


def _verdict(value: int | float) -> str:
    """One run's answer; the share of several."""
    return ("yes" if value else "no") if isinstance(value, int) else f"{value:.0%}"


_COLUMNS = (
    _Column("psnr_db", "PSNR", "dB over white, to the nearest model that the prompt means", _digits(1)),
    _Column("silhouette_iou", "IoU", "of the silhouettes, 1 is equal", _digits(2)),
    _Column(
        "clip_score", "CLIP, {net}", "100 times the cosine of picture and prompt, over the views", _digits(1)
    ),
    _Column(
        "clip_r_precision",
        "R-precision, {pool}",
        "share of the views that are nearer to their prompt than to any other text of the pool",
        _digits(2),
    ),
    _Column("second_face", "Janus", "the back is nearer to a true front than to any true back", _verdict),
    _Column("modes_found", "modes", "share of the prompt's models that some result became", _digits(2)),
    _Column(
        "modes_distance", "off", "total variation distance of the results' models to the weights", _digits(2)
    ),
    _Column("saturation", "saturation", "mean over the asset, 0 grey to 1 pure", _digits(2)),
    _Column("oversaturation", "over", "saturation above that of the nearest model", _signed),
    _Column("clipped", "clipped", "share of the asset with a channel at 0 or 1", _digits(2)),
    _Column("sharpness", "sharpness", "variance of the Laplacian, in thousandths", _digits(1, 1000.0)),
    _Column("front_back_similarity", "front ~ back", "Janus alarm, 1 where both look the same", _digits(2)),
    _Column("alpha_mean", "alpha", "mean coverage of the picture", _digits(2)),
    _Column("alpha_undecided", "undecided", "share of covered pixels below 0.95", _digits(2)),
    _Column("alpha_border", "border", "mean coverage of the outermost pixels", _digits(2)),
    _Column(
        "view_variance",
        "view var.",
        "variance of each pixel over the views, in thousandths",
        _digits(1, 1000.0),
    ),
    _Column(
        "denoiser_calls", "calls", "images sent through denoisers, a critic's training included", _digits(0)
    ),
    _Column("calls_per_image", "per image", "the same for each image of a step", _digits(1)),
    _Column("step_ms", "step", "median milliseconds of a step", _digits(0)),
    _Column("seconds", "time", "seconds of the whole loop", _digits(1)),
)

_CURVES = (("gradient rms", True), ("alpha", False), ("burnt share", False))
"""What is drawn of each cell, and whether on a logarithmic axis."""


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Keeps a browser from asking anything of anyone."""


def page(
    title: str,
    notes: Sequence[str],
    groups: Sequence[Group],
    summary: Sequence[Row],
    clip: ClipNames | None = None,
) -> str:
    """The whole page.

    Args:
        notes: lines under the title.
        summary: means over the groups, one row a method and guidance scale.
        clip: what the columns of CLIP are called by; needed where a cell has such figures.
    """
    columns = [
        replace(column, title=column.title.format(net=clip.net, pool=clip.pool)) if clip else column
        for column in _COLUMNS
        if clip or not column.key.startswith("clip_")
    ]
    several = len(groups) > 1
    parts = [f"<h1>{_text(title)}</h1>", *(f'<p class="soft">{_text(note)}</p>' for note in notes)]
    parts.append('<p><label><input type="checkbox" id="still"> hide what moves</label></p>')
    plots = _plots(groups, summary)
    if several:
        parts += ["<h2>All prompts and seeds</h2>", "<p>Means over the finished runs.</p>"]
        parts += [_table(summary, columns), plots, _contents(groups)]
    parts += [_group(index, group, columns, "" if several else plots) for index, group in enumerate(groups)]
    parts.append(_glossary(columns))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_text(title)}</title><style>{_beside('page.css')}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><script>{_beside('page.js')}</script></body></html>\n"
    )


def _contents(groups: Sequence[Group]) -> str:
    links = "".join(
        f'<li><a href="#g{index}">{_text(group.prompt)}, seed {group.seed}</a></li>'
        for index, group in enumerate(groups)
    )
    return f'<nav aria-label="prompts and seeds"><ul>{links}</ul></nav>'


def _group(number: int, group: Group, columns: Sequence[_Column], plots: str) -> str:
    shown = group.truths[:TRUTHS]
    rows = [Row(f"truth: {truth.model}", "", None, truth.figures, is_truth=True) for truth in shown]
    rows += [
        Row(cell.method, cell.scale, cell.cfg_scale, cell.figures, link=f"g{number}c{place}")
        for place, cell in enumerate(group.cells)
        if not cell.ending
    ]
    ranges = {
        name: _range([cell.curves[name] for cell in group.cells if name in cell.curves], is_log)
        for name, is_log in _CURVES
    }
    truths = "".join(
        f'<div class="card"><h3>{_text(truth.model)}</h3>'
        f"{_image(truth.sides, f'{truth.model}: front, right, back, left')}"
        f'<p class="soft">{truth.weight:.0%} of the prompt</p></div>'
        for truth in shown
    )
    rest = f", the {TRUTHS} likeliest of {len(group.truths)} models" if len(group.truths) > TRUTHS else ""
    names = _named([(cell.method, cell.scale) for cell in group.cells])
    cards = "".join(
        _card(f"g{number}c{place}", name, cell, ranges)
        for place, (name, cell) in enumerate(zip(names, group.cells, strict=True))
    )
    return (
        f'<section id="g{number}"><h2>{_text(group.prompt)}, seed {group.seed}</h2>'
        + "".join(f'<p class="soft">{_text(note)}</p>' for note in group.notes)
        + _table(rows, columns)
        + plots
        + (f'<h3>What the prompt means{rest}</h3><div class="grid">{truths}</div>' if truths else "")
        + f'<h3>What each method made</h3><div class="grid">{cards}</div></section>'
    )


def _card(link: str, name: str, cell: Cell, ranges: Mapping[str, tuple[float, float]]) -> str:
    parts = [f"<h3>{_text(name)}</h3>"]
    parts.append(f'<p class="soft">{_text(cell.paper)}<br>guidance scale: {_text(cell.scale)}</p>')
    if cell.ending:
        parts.append(f'<p class="alarm">{_text(cell.ending)}</p>')
    if cell.turntable is not None:
        parts.append(_image(cell.turntable, f"{name}, turning", "turn"))
    if cell.sides is not None:
        parts.append(_image(cell.sides, f"{name}: front, right, back, left"))
    curves = [
        _curve(key, cell.curves[key], ranges[key], is_log) for key, is_log in _CURVES if key in cell.curves
    ]
    parts.append(
        f"<details><summary>curves, recipe</summary>{''.join(curves)}"
        f'<p><code>{_text(cell.command)}</code></p><pre tabindex="0">{_text(cell.recipe)}</pre></details>'
    )
    return f'<article class="card" id="{link}" data-method="{_text(cell.method)}">{"".join(parts)}</article>'


# ---------------------------------------------------------------------------------------------- tables


def _table(rows: Sequence[Row], columns: Sequence[_Column]) -> str:
    columns = [column for column in columns if any(column.key in row.figures for row in rows)]
    has_model = any("nearest_model" in row.figures for row in rows)
    heads = "".join(f'<th title="{_text(column.says)}">{_text(column.title)}</th>' for column in columns)

    def line(row: Row) -> str:
        name = f'<a href="#{row.link}">{_text(row.name)}</a>' if row.link else _text(row.name)
        figures = "".join(f"<td>{_figure(row.figures.get(key.key), key.shown)}</td>" for key in columns)
        model = f'<td class="words">{_text(row.figures.get("nearest_model", ""))}</td>' if has_model else ""
        return f'<tr><th scope="row">{name}</th><td>{_text(row.scale)}</td>{figures}{model}</tr>'

    truths = "".join(line(row) for row in rows if row.is_truth)
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="figures"><table>'
        f"<thead><tr><th>method</th><th>scale</th>{heads}"
        + ('<th class="words">nearest model</th>' if has_model else "")
        + "</tr></thead>"
        + (f'<tbody class="truth">{truths}</tbody>' if truths else "")
        + f"<tbody>{''.join(line(row) for row in rows if not row.is_truth)}</tbody></table></div>"
    )


def _glossary(columns: Sequence[_Column]) -> str:
    entries = "".join(f"<dt>{_text(column.title)}</dt><dd>{_text(column.says)}</dd>" for column in columns)
    return (
        "<h2>What the columns say</h2><p>All figures but the times are from views that no run has optimised. "
        f"No network is asked but for CLIP.</p><dl>{entries}</dl>"
    )


def _figure(value: Figure | None, shown: Callable[[float], str]) -> str:
    return shown(value) if isinstance(value, int | float) else "–"


# ----------------------------------------------------------------------------------------------- plots


def _plots(groups: Sequence[Group], summary: Sequence[Row]) -> str:
    """What there is to plot: quality against cost, saturation, and saturation against the guidance scale."""
    rows = [row for row in summary if not row.is_truth]
    cells = [cell for group in groups for cell in group.cells if not cell.ending]
    found = [_quality_plot(rows), _saturation_plot(rows, cells), _scale_plot(rows)]
    figures = "".join(
        f'<figure class="card"><figcaption>{_text(says)}</figcaption>{drawn}</figure>'
        for says, drawn in found
        if drawn
    )
    return f'<div class="plots">{figures}</div>' if figures else ""


def _quality_plot(rows: Sequence[Row]) -> tuple[str, str]:
    key, title = next(
        (
            (key, title)
            for key, title in (("psnr_db", "PSNR, dB"), ("clip_score", "CLIP score"))
            if any(key in row.figures for row in rows)
        ),
        ("", ""),
    )
    named = _named([(row.name, row.scale) for row in rows])
    points = [
        Series(name, ((float(row.figures["denoiser_calls"]), float(row.figures[key])),))
        for name, row in zip(named, rows, strict=True)
        if key in row.figures and "denoiser_calls" in row.figures
    ]
    if len(points) < 2:
        return "", ""
    calls, quality = zip(*(series.points[0] for series in points), strict=True)
    return "Quality against cost; better is higher, cheaper is to the left.", scatter(
        points, Axis.around("denoiser calls, logarithmic", calls, is_log=True), Axis.around(title, quality)
    )


def _saturation_plot(rows: Sequence[Row], cells: Sequence[Cell]) -> tuple[str, str]:
    key, title, level = _saturation(rows)
    named = _named([(row.name, row.scale) for row in rows])
    strips = [
        (name, values)
        for name, row in zip(named, rows, strict=True)
        if (
            values := [
                float(cell.figures[key])
                for cell in cells
                if (cell.method, cell.scale) == (row.name, row.scale) and key in cell.figures
            ]
        )
    ]
    if not strips:
        return "", ""
    level_too = [] if level is None else [level]
    axis = Axis.around(title, [value for _, values in strips for value in values] + level_too)
    says = "Saturation of each run"
    says += ", the bar at the median" * any(len(values) > 1 for _, values in strips)
    says += "" if level is None else "; at the dashed line it is the truth's"
    return f"{says}.", strip(strips, axis, level)


def _scale_plot(rows: Sequence[Row]) -> tuple[str, str]:
    key, title, level = _saturation(rows)
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.cfg_scale is not None and key in row.figures:
            points.setdefault(row.name, []).append((row.cfg_scale, float(row.figures[key])))
    drawn = [Series(name, tuple(sorted(own))) for name, own in points.items() if len(own) > 1]
    if not drawn:
        return "", ""
    scales = sorted({scale for series in drawn for scale, _ in series.points})
    values = [value for series in drawn for _, value in series.points] + ([] if level is None else [level])
    is_log = scales[0] > 0 and scales[-1] > 4 * scales[0]
    x = Axis.around(f"guidance scale{', logarithmic' if is_log else ''}", scales, is_log, scales)
    others = [name for name in dict.fromkeys(row.name for row in rows) if name not in {s.name for s in drawn}]
    says = f" Not drawn, as they have one scale or none: {', '.join(others)}." if others else ""
    return f"Saturation against the guidance scale.{says}", lines(drawn, x, Axis.around(title, values), level)


def _saturation(rows: Sequence[Row]) -> tuple[str, str, float | None]:
    """The figure to plot, its title and the truth's; where a model is known, the distance to it."""
    if any("oversaturation" in row.figures for row in rows):
        return "oversaturation", "saturation above that of the nearest model", 0.0
    return "saturation", "saturation", None


def _named(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Methods by name; with the guidance scale, the second of each pair, where a method has several."""
    methods = [method for method, _ in cells]
    return [f"{method} @{scale}" if methods.count(method) > 1 else method for method, scale in cells]


def _curve(name: str, values: Curve, limits: tuple[float, float], is_log: bool) -> str:
    thinned = values.thinned()
    points = tuple((float(step), value) for step, value in zip(thinned.steps, thinned.values, strict=True))
    return curve(
        Series(f"{name}{', logarithmic' if is_log else ''}", points), values.steps[-1], limits, is_log
    )


def _range(curves: Sequence[Curve], is_log: bool) -> tuple[float, float]:
    """The axis that a group's cells share, so that they can be compared by eye."""
    values = [value for curve in curves for value in curve.thinned().values if math.isfinite(value)]
    if is_log:
        values = [value for value in values if value > 0] or [1.0]
        return min(values), max(values)
    return 0.0, max([*values, 1e-3])


def _image(data: bytes, says: str, style: str = "") -> str:
    encoded = base64.b64encode(data).decode()
    kind = f' class="{style}"' if style else ""
    return f'<img{kind} alt="{_text(says)}" decoding="async" src="data:image/webp;base64,{encoded}">'


def _text(value: object) -> str:
    return html.escape(str(value))


def _beside(name: str) -> str:
    """The text of a file beside this one."""
    return "\n" + Path(__file__).with_name(name).read_text(encoding="utf-8")

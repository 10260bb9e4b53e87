"""One HTML page that shows methods side by side: tables, plots, pictures, curves and every cell's recipe.

The page stands alone: pictures are data URIs, plots are SVG, and a few lines of script only sort its tables.
It follows the reader's light or dark scheme and fits a phone.
"""

from __future__ import annotations

import base64
import html
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from studio.evaluate.plots import Axis, Series, curve, lines, scatter, strip
from studio.reports import Figure

_POINTS = 120
TRUTHS = 8
"""Of the models that a prompt means, how many are shown."""


@dataclass(frozen=True)
class Curve:
    """A value over the steps of a run."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def thinned(self) -> Curve:
        """At most 120 points, each the mean of its neighbours."""
        size = math.ceil(len(self.steps) / _POINTS) or 1
        starts = range(0, len(self.steps), size)
        means = (statistics.fmean(self.values[start : start + size]) for start in starts)
        return Curve(tuple(self.steps[start] for start in starts), tuple(means))


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: its kind.
        paper: whom to thank, in a line.
        scale: the guidance scale that was used, in words.
        cfg_scale: the same as a number; None where the method has none or lets it vary.
        ending: why the run is not finished; empty where it is.
        figures: by name, as in a run's ``metrics.json``.
        curves: by name.
        models: that the run's results are nearest to, where the prompt means known ones.
        turntable: an animated WebP.
        sides: the front, the right, the back and the left, as WebP.
        recipe: the whole recipe, as TOML.
        command: what takes this run again.
    """

    method: str
    paper: str
    scale: str
    cfg_scale: float | None
    ending: str
    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve]
    models: tuple[str, ...]
    turntable: bytes | None
    sides: bytes | None
    recipe: str
    command: str


@dataclass(frozen=True)
class Truth:
    """A model that the prompt means: its probability, its figures and its four sides as WebP."""

    model: str
    weight: float
    figures: Mapping[str, Figure]
    sides: bytes


@dataclass(frozen=True)
class Group:
    """The cells that share prompt, seed, scene and budget.

    Attributes:
        notes: what they share, a line each.
        truths: with the exact prior, the likeliest first.
    """

    prompt: str
    seed: int
    notes: tuple[str, ...]
    truths: tuple[Truth, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        scale, cfg_scale: as in a cell.
        is_truth: whether it is what a perfect result would score.
        link: the id of what it tells of, on the same page.
    """

    name: str
    scale: str
    cfg_scale: float | None
    figures: Mapping[str, Figure]
    is_truth: bool = False
    link: str = ""


@dataclass(frozen=True)
class ClipNames:
    """The network that compared pictures with texts, and what the pool of texts is called."""

    net: str
    pool: str


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

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1d21; --soft: #5c5f68; --line: #dcdee3; --paper: #fbfbfa;
  --card: #ffffff; --curve: #1f6feb; --alarm: #b3261e; --lightness: 38%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --soft: #a3a7b0; --line: #34373e;
  --paper: #15161a; --card: #1d1f24; --curve: #6cb0ff; --alarm: #ff8a80; --lightness: 72%; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; } .card h3 { margin: 0; }
p { margin: .2rem 0; max-width: 60rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
th a { font-weight: 500; }
.card p { font-size: .8rem; line-height: 1.35; }
.soft, figcaption, dd { color: var(--soft); } .alarm { color: var(--alarm); }
:focus-visible { outline: 2px solid var(--curve); outline-offset: 2px; }
nav ul { columns: 16rem; margin: .3rem 0; padding-left: 1.2rem; }
.wide, .card { border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .84rem; width: 100%; }
th, td { padding: .22rem .5rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom;
  line-height: 1.25; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card);
  box-shadow: 1px 0 var(--line); }
tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 5.5rem; max-width: 40vw; }
.truth th, .truth td { background: color-mix(in srgb, var(--curve) 9%, var(--card)); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--curve); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.words, th.words { text-align: left; }
.plots { display: flex; flex-wrap: wrap; gap: .9rem; align-items: flex-start; }
.plots figure { flex: 1 1 min(25rem, 100%); max-width: 44rem; margin: 0; padding: .8rem; }
.plot { max-width: 36rem; margin: .4rem auto 0; }
.grid { display: grid; align-items: start; gap: .7rem;
  grid-template-columns: repeat(auto-fill, minmax(min(12.5rem, 45%), 1fr)); }
.card { padding: .7rem; min-width: 0; }
article:target { border-color: var(--curve); box-shadow: 0 0 0 1px var(--curve); }
.card img { display: block; width: 100%; border-radius: 6px; background: #fff; margin: .4rem 0; }
.card img.turn { aspect-ratio: 1; }
body:has(#still:checked) .turn { display: none; }
@media (prefers-reduced-motion: reduce) { .turn { display: none !important; } }
figcaption { font-size: .84rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
polyline { fill: none; stroke: var(--curve); stroke-width: 1.3; vector-effect: non-scaling-stroke; }
circle { fill: var(--curve); fill-opacity: .75; }
.axis { stroke: var(--line); } .leader { stroke: var(--soft); stroke-width: .6; }
.level { stroke: var(--ink); stroke-dasharray: 5 4; } .median { stroke: var(--ink); stroke-width: 1.6; }
.line { --own: hsl(var(--hue) 70% var(--lightness)); } .line polyline { stroke: var(--own); }
.line circle, .line text { fill: var(--own); } .line:hover polyline { stroke-width: 4; }
pre { overflow: auto; max-height: 16rem; font-size: .75rem; margin: .4rem 0; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: .84rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; font-size: .86rem; } dd { margin: 0; }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const rows = table.tBodies[table.tBodies.length - 1];
  [...table.tHead.rows[0].cells].forEach((head, column, heads) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const order = head.ariaSort === "descending" ? "ascending" : "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = row => row.cells[column].textContent;
      const compare = (a, b) => {
        const [p, q] = [parseFloat(key(a)), parseFloat(key(b))];
        if (isNaN(p) && isNaN(q)) return key(b).localeCompare(key(a)) * (order === "ascending" ? -1 : 1);
        if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
        return order === "ascending" ? p - q : q - p;
      };
      rows.append(...[...rows.rows].sort(compare));
    };
  });
}
"""
"""Headings become buttons that sort by their column; what is no number comes last, the truth stays on top."""

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
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><script>{_SCRIPT}</script></body></html>\n"
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

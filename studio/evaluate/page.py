"""One HTML page that shows methods side by side: pictures, curves, a table, and every cell's recipe.

The page stands alone: pictures are data URIs, curves are drawn as SVG, and there is no script. It follows the
reader's light or dark scheme and fits a phone.
"""

from __future__ import annotations

import base64
import html
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studio.run.metrics import Figure

_POINTS = 120
_TRUTHS = 8
_WIDTH, _HEIGHT = 240, 64


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
        ending: why the run is not finished; empty where it is.
        figures: by name, as in a run's ``metrics.json``.
        curves: by name.
        turntable: an animated WebP.
        sides: a PNG of the front, the right, the back and the left.
        recipe: the whole recipe, as TOML.
        command: what takes this run again.
    """

    method: str
    paper: str
    scale: str
    ending: str
    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve]
    turntable: bytes | None
    sides: bytes | None
    recipe: str
    command: str


@dataclass(frozen=True)
class Truth:
    """A model that the prompt means: its probability, its figures and its four sides as PNG."""

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
    """A line of a table: its name, its guidance scale and its figures."""

    name: str
    scale: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class _Column:
    key: str
    title: str
    says: str
    shown: Callable[[float], str]


def _digits(count: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:.{count}f}"


def _verdict(value: int | float) -> str:
    """One run's answer; the share of several."""
    return ("yes" if value else "no") if isinstance(value, int) else f"{value:.0%}"


_COLUMNS = (
    _Column("seconds", "time", "seconds of the whole loop", _digits(1)),
    _Column("step_ms", "step", "median milliseconds of a step", _digits(0)),
    _Column(
        "denoiser_calls", "calls", "images sent through denoisers, a critic's training included", _digits(0)
    ),
    _Column("calls_per_image", "per image", "the same for each image of a step", _digits(1)),
    _Column("psnr_db", "PSNR", "dB over white, to the nearest model that the prompt means", _digits(1)),
    _Column("silhouette_iou", "IoU", "of the silhouettes, 1 is equal", _digits(2)),
    _Column("second_face", "Janus", "the back is nearer to a true front than to any true back", _verdict),
    _Column("modes_found", "modes", "share of the prompt's models that some run became", _digits(2)),
    _Column(
        "modes_distance", "off", "total variation distance of the runs' models to the weights", _digits(2)
    ),
    _Column("front_back_similarity", "front ~ back", "Janus alarm, 1 where both look the same", _digits(2)),
    _Column("saturation", "saturation", "mean over the asset, 0 grey to 1 pure", _digits(2)),
    _Column("clipped", "clipped", "share of the asset with a channel at 0 or 1", _digits(2)),
    _Column("sharpness", "sharpness", "variance of the Laplacian, in thousandths", _digits(1, 1000.0)),
    _Column("alpha_mean", "alpha", "mean coverage of the picture", _digits(2)),
    _Column("alpha_undecided", "undecided", "share of covered pixels below 0.95", _digits(2)),
    _Column("alpha_border", "border", "mean coverage of the outermost pixels", _digits(2)),
    _Column(
        "view_variance",
        "view var.",
        "variance of each pixel over the views, in thousandths",
        _digits(1, 1000.0),
    ),
)

_CURVES = (("gradient rms", True), ("alpha", False), ("burnt share", False))
"""What is drawn of each cell, and whether on a logarithmic axis."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1d21; --soft: #62656e; --line: #dcdee3; --paper: #fbfbfa;
  --card: #ffffff; --curve: #1f6feb; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --soft: #9a9ea8; --line: #34373e;
  --paper: #15161a; --card: #1d1f24; --curve: #6cb0ff; --alarm: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .2rem 0; } .soft, figcaption, dd { color: var(--soft); } .alarm { color: var(--alarm); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
td.words { text-align: left; }
.grid { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
.card { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .8rem;
  min-width: 0; }
.card img { display: block; width: 100%; border-radius: 6px; background: #fff; }
.card img.turn { aspect-ratio: 1; max-width: 13rem; margin: .4rem auto; }
@media (prefers-reduced-motion: reduce) { .turn { display: none !important; } }
figure { margin: .3rem 0; } figcaption { font-size: .8rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 9px system-ui, sans-serif; }
polyline { fill: none; stroke: var(--curve); stroke-width: 1.3; vector-effect: non-scaling-stroke; }
.axis { stroke: var(--line); }
pre { overflow-x: auto; font-size: .78rem; margin: .4rem 0; } code { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: .86rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; font-size: .86rem; } dd { margin: 0; }
"""


def page(title: str, notes: Sequence[str], groups: Sequence[Group], summary: Sequence[Row]) -> str:
    """The whole page.

    Args:
        notes: lines under the title.
        summary: one row a method, where there is more than one group.
    """
    parts = [f"<h1>{_text(title)}</h1>", *(f'<p class="soft">{_text(note)}</p>' for note in notes)]
    if summary:
        parts += ["<h2>All prompts and seeds</h2>", "<p>Means over the finished runs.</p>", _table(summary)]
    parts += [_group(group) for group in groups]
    parts.append(_glossary())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _group(group: Group) -> str:
    rows = [Row(f"truth: {truth.model}", "", truth.figures) for truth in group.truths[:_TRUTHS]]
    rows += [Row(cell.method, cell.scale, cell.figures) for cell in group.cells if not cell.ending]
    ranges = {
        name: _range([cell.curves[name] for cell in group.cells if name in cell.curves], is_log)
        for name, is_log in _CURVES
    }
    truths = "".join(
        f'<div class="card"><h3>{_text(truth.model)}</h3>{_image(truth.sides, "png", truth.model)}'
        f'<p class="soft">{truth.weight:.0%} of the prompt</p></div>'
        for truth in group.truths[:_TRUTHS]
    )
    rest = f", the {_TRUTHS} likeliest of {len(group.truths)} models" if len(group.truths) > _TRUTHS else ""
    cards = "".join(_card(cell, ranges) for cell in group.cells)
    return (
        f"<section><h2>{_text(group.prompt)}, seed {group.seed}</h2>"
        + "".join(f'<p class="soft">{_text(note)}</p>' for note in group.notes)
        + _table(rows)
        + (f'<p>What the prompt means{rest}:</p><div class="grid">{truths}</div>' if truths else "")
        + f'<p>Each method:</p><div class="grid">{cards}</div></section>'
    )


def _card(cell: Cell, ranges: Mapping[str, tuple[float, float]]) -> str:
    name = cell.method
    parts = [f'<h3>{_text(name)}</h3><p class="soft">{_text(cell.paper)}</p>']
    parts.append(f'<p class="soft">guidance scale: {_text(cell.scale)}</p>')
    if cell.ending:
        parts.append(f'<p class="alarm">{_text(cell.ending)}</p>')
    if cell.turntable is not None:
        parts.append(_image(cell.turntable, "webp", f"{name}, turning", "turn"))
    if cell.sides is not None:
        parts.append(_image(cell.sides, "png", f"{name}: front, right, back, left"))
    parts += [
        f"<figure>{_drawn(cell.curves[curve].thinned(), ranges[curve], is_log)}"
        f"<figcaption>{curve}{', logarithmic' if is_log else ''}</figcaption></figure>"
        for curve, is_log in _CURVES
        if curve in cell.curves
    ]
    parts.append(
        f"<details><summary>recipe</summary><p><code>{_text(cell.command)}</code></p>"
        f"<pre>{_text(cell.recipe)}</pre></details>"
    )
    return f'<article class="card" data-method="{_text(name)}">{"".join(parts)}</article>'


def _table(rows: Sequence[Row]) -> str:
    columns = [column for column in _COLUMNS if any(column.key in row.figures for row in rows)]
    has_model = any("nearest_model" in row.figures for row in rows)
    heads = "".join(f'<th title="{_text(column.says)}">{_text(column.title)}</th>' for column in columns)
    lines = [
        f"<tr><th>{_text(row.name)}</th><td>{_text(row.scale)}</td>"
        + "".join(f"<td>{_figure(row.figures.get(column.key), column.shown)}</td>" for column in columns)
        + (f'<td class="words">{_text(row.figures.get("nearest_model", ""))}</td>' if has_model else "")
        + "</tr>"
        for row in rows
    ]
    return (
        f'<div class="wide"><table><thead><tr><th>method</th><th>scale</th>{heads}'
        + ("<th>nearest model</th>" if has_model else "")
        + f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _glossary() -> str:
    entries = "".join(f"<dt>{_text(column.title)}</dt><dd>{_text(column.says)}</dd>" for column in _COLUMNS)
    return (
        "<h2>What the columns say</h2><p>All figures but the times are from views that no run has optimised; "
        f"no network is asked.</p><dl>{entries}</dl>"
    )


def _figure(value: Figure | None, shown: Callable[[float], str]) -> str:
    return shown(value) if isinstance(value, int | float) else "–"


def _range(curves: Sequence[Curve], is_log: bool) -> tuple[float, float]:
    """The axis that a group's cells share, so that they can be compared by eye."""
    values = [value for curve in curves for value in curve.thinned().values if math.isfinite(value)]
    if is_log:
        values = [value for value in values if value > 0] or [1.0]
        return min(values), max(values)
    return 0.0, max([*values, 1e-3])


def _drawn(curve: Curve, limits: tuple[float, float], is_log: bool) -> str:
    """A curve as SVG."""
    scaled: Callable[[float], float] = math.log10 if is_log else float
    low, high = scaled(limits[0]), scaled(limits[1])
    last = max(curve.steps[-1], 2)
    points = " ".join(
        f"{(step - 1) / (last - 1) * _WIDTH:.1f},"
        f"{_HEIGHT * (1 - (scaled(value) - low) / max(high - low, 1e-9)):.1f}"
        for step, value in zip(curve.steps, curve.values, strict=True)
        if math.isfinite(value) and (value > 0 or not is_log)
    )
    return (
        f'<svg viewBox="-2 -10 {_WIDTH + 4} {_HEIGHT + 22}" role="img">'
        f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<polyline points="{points}"/><text x="0" y="-2">{limits[1]:.2g}</text>'
        f'<text x="0" y="{_HEIGHT + 10}">{limits[0]:.2g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 10}" text-anchor="end">step {curve.steps[-1]}</text></svg>'
    )


def _image(data: bytes, kind: str, says: str, style: str = "") -> str:
    encoded = base64.b64encode(data).decode()
    return f'<img class="{style}" alt="{_text(says)}" src="data:image/{kind};base64,{encoded}">'


def _text(value: object) -> str:
    return html.escape(str(value))

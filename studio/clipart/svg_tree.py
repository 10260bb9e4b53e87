"""SVG files from anywhere, made into one small and safe tree: only what is drawn, with plain attributes.

The file is never trusted: nothing outside it is read, nothing in it runs, and what it may cost is bounded
before anything is drawn. Style sheets and ``style`` become attributes here, so that all that read the tree
see the same picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from studio.errors import StudioError

MAX_BYTES = 5_000_000
MAX_DEPTH = 100
MAX_DRAWN = 20_000
"""Elements, counting what ``use``, masks, clips and patterns refer to as often as they do."""
MAX_PATH_LENGTH = 500_000
"""Characters of one path: the time to draw it can grow with their square."""
MAX_ENTITY_LENGTH = 100
"""Characters; drawing programs abbreviate the addresses of namespaces."""

SVG_NAMESPACE = "http://www.w3.org/2000/svg"
_XLINK_HREF = "http://www.w3.org/1999/xlink}href"
_NOT_DRAWN = frozenset(
    "script foreignObject metadata title desc animate animateTransform animateMotion animateColor set "
    "discard cursor view font font-face audio video iframe canvas".split()
)
_LEFT_OUT = {"text": "text", "image": "embedded pictures"}
# The other filter primitives can take for ever, or read files.
_FILTERS = frozenset(
    "feGaussianBlur feOffset feFlood feBlend feComposite feMerge feMergeNode feColorMatrix "
    "feComponentTransfer feFuncR feFuncG feFuncB feFuncA feDropShadow".split()
)
_REFERRING = (
    "clip-path",
    "mask",
    "filter",
    "fill",
    "stroke",
    "marker",
    "marker-start",
    "marker-mid",
    "marker-end",
)
_REFERENCE = re.compile(r"url\(\s*['\"]?\s*#([^'\")]+?)\s*['\"]?\s*\)")
_OUTSIDE = re.compile(r"url\(\s*['\"]?\s*(?!data:)[^#'\"\s)]|@import", re.IGNORECASE)
_SELECTOR = re.compile(r"(\*|[\w-]+)?(?:([.#])([\w-]+))?")


@dataclass(frozen=True)
class SvgTree:
    """A drawing as SVG elements without namespaces, and what of the file is not among them.

    Attributes:
        root: the ``svg`` element.
        by_id: the elements that others refer to.
        left_out: kinds of content that the file had and the tree has not: "text", "embedded pictures" …
    """

    root: Element
    by_id: dict[str, Element]
    left_out: tuple[str, ...]


def read_svg(data: bytes, name: str) -> SvgTree:
    """The tree of an SVG file.

    Args:
        data: the file's bytes.
        name: what to call it in messages.

    Raises:
        StudioError: not SVG or not well-formed XML; too large, too deep or too many elements; entities that
            stand for markup or other files; references to other files; references in a circle.
    """
    if len(data) > MAX_BYTES:
        raise StudioError(
            f"{name} has {len(data) / 1e6:.1f} MB, expected at most {MAX_BYTES / 1e6:.0f} MB of SVG: "
            "simplify its paths, or export it as PNG."
        )
    reader = _Reader(name)
    root = reader.read(data)
    if root.tag != "svg":
        raise StudioError(f"{name} is XML but not SVG (its root is <{root.tag[:40]}>): export it as SVG.")
    left_out = dict.fromkeys(reader.left_out)
    left_out |= dict.fromkeys(_apply_styles(root, name, "".join(reader.styles)))
    _remove_hidden(root)
    left_out |= dict.fromkeys(_remove_costly_filters(root))
    by_id = {
        element.attrib["id"]: element for element in reversed(list(root.iter())) if "id" in element.attrib
    }
    if _cost(root, by_id, {}, name) > MAX_DRAWN:
        raise StudioError(
            f"{name} draws more than {MAX_DRAWN} elements, expected fewer: "
            "join its paths in a drawing program, or export it as PNG."
        )
    return SvgTree(root, by_id, tuple(left_out))


def reference(value: str | None) -> str | None:
    """The id that ``url(#id)`` names, or None."""
    found = _REFERENCE.match(value.strip()) if value else None
    return found.group(1) if found else None


@dataclass
class _Reader:
    """Builds the tree of what is drawn while the XML is read, and stops at what must not be read."""

    name: str
    left_out: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    _builder: TreeBuilder = field(default_factory=TreeBuilder)
    _depth: int = 0
    _elements: int = 0
    _skip_from: int | None = None
    _in_style: bool = False

    def read(self, data: bytes) -> Element:
        parser = expat.ParserCreate(namespace_separator="}")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        parser.buffer_text = True
        try:
            parser.Parse(data, True)
            return self._builder.close()
        except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
            raise StudioError(
                f"{self.name} cannot be read as SVG ({error}): "
                "check that the file is whole, or export it again."
            ) from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            raise StudioError(
                f"{self.name} nests its elements more than {MAX_DEPTH} deep, expected less: ungroup them."
            )
        if self._elements > 10 * MAX_DRAWN:
            raise StudioError(f"{self.name} has more than {10 * MAX_DRAWN} elements: simplify it.")
        if len(attributes.get("d", "")) > MAX_PATH_LENGTH:
            raise StudioError(
                f"{self.name} has a path of {len(attributes['d'])} characters, expected at most "
                f"{MAX_PATH_LENGTH}: simplify it, or export the drawing as PNG."
            )
        if self._skip_from is not None:
            return
        namespace, _, local = tag.rpartition("}")
        if local == "style" and namespace in ("", SVG_NAMESPACE):
            self._in_style = True
        known = _LEFT_OUT.get(local)
        if namespace not in ("", SVG_NAMESPACE) or local in _NOT_DRAWN or local == "style" or known:
            self._skip_from = self._depth
            if known and namespace in ("", SVG_NAMESPACE):
                self._own_references(local, attributes)
                self.left_out.append(known)
            return
        plain = {
            key: value for key, value in attributes.items() if "}" not in key and not key.startswith("on")
        }
        href = self._own_references(local, attributes)
        plain.pop("href", None)
        if href and local != "a":
            plain["href"] = href
        self._builder.start("g" if local == "a" else local, plain)

    def _own_references(self, tag: str, attributes: dict[str, str]) -> str | None:
        """The element's ``href``; whatever it or another attribute names must be in the file itself."""
        href = attributes.get("href", attributes.get(_XLINK_HREF))
        outside = href if href and not href.startswith(("#", "data:")) and tag != "a" else None
        for key, value in attributes.items():
            if "}" not in key and _OUTSIDE.search(value):
                outside = value
        if outside is not None:
            raise StudioError(
                f"{self.name} refers to another file ({outside[:60]!r} in <{tag}>), "
                "expected everything inside: embed or remove it."
            )
        return href

    def _end(self, tag: str) -> None:
        if self._skip_from is None:
            local = tag.rpartition("}")[2]
            self._builder.end("g" if local == "a" else local)
        elif self._skip_from == self._depth:
            self._skip_from = None
            self._in_style = False
        self._depth -= 1

    def _characters(self, text: str) -> None:
        if self._in_style:
            self.styles.append(text)

    def _entity(
        self, entity: str, parameter: int, value: str | None, base: str | None, *address: str | None
    ) -> None:
        if parameter or value is None or len(value) > MAX_ENTITY_LENGTH or "&" in value or "<" in value:
            raise StudioError(
                f"{self.name} declares the XML entity {entity[:40]!r}, "
                "expected none that stand for markup or files: save it as plain SVG."
            )


# --------------------------------------------------------------------------------------------------- style


def _apply_styles(root: Element, name: str, sheet: str) -> Iterator[str]:
    """Style sheet and ``style`` attributes become attributes; yields what could not be understood."""
    if _OUTSIDE.search(sheet):
        raise StudioError(
            f"{name} refers to another file in its style sheet, expected everything inside: remove it."
        )
    sheet = re.sub(r"/\*.*?\*/|<!--|-->", "", sheet, flags=re.DOTALL)
    rules: list[tuple[int, str, str, dict[str, str]]] = []
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", sheet):
        for selector in selectors.split(","):
            found = _SELECTOR.fullmatch(selector.strip())
            if found is None:
                yield "rules of its style sheet"
                continue
            tag, kind, value = found.group(1) or "*", found.group(2) or "", found.group(3) or ""
            specificity = {"": 0, ".": 2, "#": 4}[kind] + (tag != "*")
            rules.append((specificity, tag, kind + value, _declarations(body)))
    rules.sort(key=lambda rule: rule[0])
    for element in root.iter():
        marks = {"", *(f".{word}" for word in element.attrib.pop("class", "").split())}
        marks.add(f"#{element.attrib.get('id', '')}")
        for _, tag, mark, declarations in rules:
            if tag in ("*", element.tag) and mark in marks:
                element.attrib.update(declarations)
        element.attrib.update(_declarations(element.attrib.pop("style", "")))


def _declarations(body: str) -> dict[str, str]:
    pairs = (declaration.partition(":") for declaration in body.split(";"))
    return {
        key.strip(): value.replace("!important", "").strip()
        for key, _, value in pairs
        if re.fullmatch(r"\s*[a-z][a-z-]*\s*", key) and value.strip()
    }


def _remove_hidden(element: Element) -> None:
    for child in list(element):
        if child.attrib.get("display") == "none":
            element.remove(child)
        else:
            _remove_hidden(child)


def _remove_costly_filters(root: Element) -> Iterator[str]:
    costly = {
        element.attrib.get("id")
        for element in root.iter("filter")
        if any(part.tag.startswith("fe") and part.tag not in _FILTERS for part in element.iter())
    }
    for element in root.iter():
        if "filter" in element.attrib and reference(element.attrib["filter"]) in {*costly, None}:
            del element.attrib["filter"]
            yield "filter effects"


# ---------------------------------------------------------------------------------------------------- cost


def _cost(
    element: Element, by_id: dict[str, Element], known: dict[Element, int | None], name: str, depth: int = 0
) -> int:
    """How many elements are drawn for one and what it refers to; ``known`` holds None while it counts."""
    if depth > 2 * MAX_DEPTH:
        raise StudioError(f"{name} has a chain of more than {2 * MAX_DEPTH} references: simplify it.")
    if element in known:
        cost = known[element]
        if cost is None:
            raise StudioError(
                f"{name} has an element that contains itself by reference: remove one of the two."
            )
        return cost
    known[element] = None
    targets = [reference(element.attrib.get(key)) for key in _REFERRING]
    if element.tag == "use":
        targets.append(element.attrib.get("href", "")[1:])
    used = [by_id[target] for target in targets if target in by_id]
    cost = 1 + sum(_cost(child, by_id, known, name, depth + 1) for child in element)
    used = [target for target in used if not target.tag.endswith("Gradient")]
    cost += sum(_cost(target, by_id, known, name, depth + 1) for target in used)
    known[element] = cost
    return cost

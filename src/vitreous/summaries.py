"""Results in words, for a terminal: names from files are escaped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.data.images import shown
from vitreous.inspection import Inspection

if TYPE_CHECKING:
    from vitreous.checkpoints.convert import Conversion


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns between tabs; what could end a line or a column is escaped."""
    return "".join("\t".join(map(shown, row)) + "\n" for row in (heading, *rows))


def summary(inspection: Inspection, available: int) -> str:
    """The inspection in a few lines."""
    layout, trend = inspection.layout, inspection.depth_trend
    layers, heads = inspection.attention_distance.shape
    images = inspection.images
    entropy, mass = inspection.attention_entropy.mean(1), inspection.prefix_mass.mean(1)
    lines = [
        f"{shown(inspection.provenance['model'])}: {count(layers, 'layer')} x {count(heads, 'head')}, "
        f"{layout.rows} x {layout.columns} patches of {layout.patch_height} x {layout.patch_width} pixels, "
        f"{count(layout.prefix, 'prefix token')}",
        f"over {count(images, 'image')}" + (f" of {available}" if available > images else ""),
        f"attention distance  {trend['first_layer_mean']:6.1f} px in the first layer, "
        f"{trend['last_layer_mean']:.1f} px in the last",
        f"  spread over heads {trend['first_layer_spread']:6.1f} px in the first layer, "
        f"{trend['last_layer_spread']:.1f} px in the last",
        f"attention entropy   {entropy[0]:6.2f} bits in the first layer, {entropy[-1]:.2f} bits in the last",
        f"prefix mass         {mass[0]:6.1%} in the first layer, {mass[-1]:.1%} in the last",
        f"proof               {inspection.provenance['largest_proof_error']:.0e} from the model's own output at most",
    ]
    return "\n".join(lines)


def comparison(inspections: Mapping[str, Inspection]) -> str:
    """Several inspections, a line each: means over heads, of the first layer and of the last."""
    names = [shown(name) for name in inspections]
    width = max(map(len, names))
    lines = [f"{'':{width}}  {'images':>6}  {'distance, px':>15}  {'entropy, bits':>14}  {'prefix mass':>14}"]
    for name, inspection in zip(names, inspections.values(), strict=True):
        distance, entropy, mass = (
            values.mean(1)[[0, -1]].tolist()
            for values in (inspection.attention_distance, inspection.attention_entropy, inspection.prefix_mass)
        )
        lines.append(
            f"{name:{width}}  {inspection.images:6}  {distance[0]:5.1f} -> {distance[1]:6.1f}"
            f"  {entropy[0]:5.2f} -> {entropy[1]:5.2f}  {mass[0]:5.1%} -> {mass[1]:5.1%}"
        )
    return "\n".join([*lines, "means over heads, first layer -> last layer"])


def count(number: int, thing: str) -> str:
    """A number of things, in the plural where it needs one."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def conversion(done: Conversion, out: Path, to: str) -> str:
    """What `convert` wrote, how it was checked, and what was guessed on the way."""
    written = done.written
    lines = [f"{written.name} ({written.kind}) -> {out} ({to})", *done.remarks]
    lines += [f"? {note}" for note in written.notes]
    if written.notes:
        lines.append("? marks what nothing in the source says; settle it with --set NAME=VALUE")
    return "\n".join(map(shown, lines))


def description(described: Mapping[str, Any]) -> str:
    """What `describe` found, in lines."""
    lines = [
        f"{described['name']}: {described['format']}, {described['class']}",
        f"  parameters  {described['parameters']:,}",
        f"  file hash   {described['file_hash']}",
    ]
    for heading, settings in (("architecture", described["architecture"]), ("preprocess", described["preprocess"])):
        if settings:
            lines.append(f"{heading}")
            lines += [f"  {name:20s} {value}" for name, value in settings.items()]
    if described["class_names"]:
        names = described["class_names"]
        lines.append(f"classes: {len(names)} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})")
    if described["keys"]:
        lines += _keys(described["keys"])
    if described["decisions"]:
        lines.append("decisions (? marks a guess)")
        for decision in described["decisions"]:
            mark = "?" if decision["guessed"] else " "
            lines.append(f"{mark} {decision['setting']:20s} {decision['value']}: {decision['reason']}")
    return "\n".join(map(shown, lines))


def _keys(keys: Mapping[str, Any]) -> list[str]:
    """Every tensor of a file, those of all layers in one line: `N` stands for the layer."""
    used, renamed, ignored = keys["used"], keys["renamed"], keys["ignored"]
    counted = f"{len(used)} under our names, {len(renamed)} renamed or made, {len(ignored)} ignored"
    lines = [f"tensors: {counted}" + (f", all behind {keys['prefix']!r}" if keys["prefix"] else "")]
    made = [(_together(names), ours) for ours, names in renamed.items()]
    lines += [f"  {theirs} -> {ours}{times}" for (theirs, ours), times in _alike(made)]
    lines += [f"- {name}{times}: {reason}" for (name, reason), times in _alike(list(ignored.items()))]
    return lines


def _together(names: Sequence[str]) -> str:
    """Several names as one, what they share written once: `attn.{q,k,v}.weight`."""
    if len(names) < 2:
        return names[0] if names else "computed"
    start = _shared_start(names)
    end = _shared_start([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}{{{','.join(name[len(start) : len(name) - len(end)] for name in names)}}}{end}"


def _shared_start(names: Sequence[str]) -> str:
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _alike(pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], str]]:
    """Pairs that differ in their first number alone, once each, with how many there are."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for pair in pairs:
        left, right = (re.sub(r"(?<![^._/])([a-z_]*)\d+(?=[./])", r"\1N", part, count=1) for part in pair)
        groups.setdefault((left, right), []).append(pair)
    return [(key, f"  x {len(found)}") if len(found) > 1 else (found[0], "") for key, found in groups.items()]

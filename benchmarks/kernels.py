"""Times every operator against its peers, after checking that both sides agree; one table.

Run ``python benchmarks/kernels.py``, or name groups: ``python benchmarks/kernels.py splatting mesh``.
Columns: the largest relative difference of the results; processor time with one thread, ours and the peer's,
the least of several runs that take turns; their ratio, and the ratio that the studio aims at; our wall time
with one thread and with all, and what they gain. ``pip install '.[bench]'`` brings DEODR;
``benchmarks/peers/opensplat.py`` says how to have OpenSplat; PyTorch3D and what runs on GPUs only has to be
compiled (docs/recipes.md). The group ``gpu`` is a table of its own.
"""

from __future__ import annotations

import itertools
import platform
from typing import Annotated, Literal

import field
import gpu
import mesh
import splatting
import torch
import tyro
from contest import print_table

from studio.ops import library

Group = Literal["splatting", "mesh", "field", "gpu"]
CONTESTS = {"splatting": splatting.contests, "mesh": mesh.contests, "field": field.contests}


def main(groups: Annotated[tuple[Group, ...], tyro.conf.Positional] = (*CONTESTS, "gpu")) -> None:  # type: ignore[assignment]
    """Prints the table of the groups named, of all where none is."""
    print(f"python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(*library.report(), sep="\n")
    on_cpus = [CONTESTS[group]() for group in groups if group != "gpu"]
    if on_cpus:
        print_table(itertools.chain.from_iterable(on_cpus))
    if "gpu" in groups:
        for row in gpu.rows():
            print(row, flush=True)


if __name__ == "__main__":
    tyro.cli(main)

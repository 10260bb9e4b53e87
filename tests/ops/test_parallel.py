"""Loops of the kernels over several threads, in the situations where thread pools hang."""

from __future__ import annotations

import os
import signal
import threading

import torch

from tests.truth.splatting import random_scene


def test_a_forked_child_still_has_threads() -> None:
    # So small that torch itself, which would hang here, does not turn to its threads.
    scene = random_scene(splats=20, width=20, height=20, views=2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = scene.draw("native").rgb.detach()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # where it waits for threads that it does not have
            os._exit(0 if torch.equal(scene.draw("native").rgb, expected) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)


def test_several_threads_draw_at_once() -> None:
    scene = random_scene(splats=300)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = scene.draw("native").rgb.detach()
        pictures: list[torch.Tensor] = []
        drawers = [
            threading.Thread(target=lambda: pictures.extend(scene.draw("native").rgb for _ in range(5)))
            for _ in range(3)
        ]
        for drawer in drawers:
            drawer.start()
        for drawer in drawers:
            drawer.join()
        assert len(pictures) == 15 and all(torch.equal(picture, expected) for picture in pictures)
    finally:
        torch.set_num_threads(before)

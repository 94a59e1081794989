import math

import torch

from lerobot.nn.position import sinusoid_plane, sinusoid_table


def test_table_by_its_formula():
    table = sinusoid_table(9, 6)
    for p in range(9):
        for j in range(6):
            angle = p / 10000 ** (2 * (j // 2) / 6)
            assert math.isclose(table[p, j], (math.cos if j % 2 else math.sin)(angle), abs_tol=1e-6)


def test_plane_by_its_formula():
    height, width, half = 3, 5, 4
    plane = sinusoid_plane(height, width, channels=2 * half)
    assert plane.shape == (2 * half, height, width)
    for y in range(height):
        for x in range(width):
            for j in range(half):
                wave, rate = (math.cos if j % 2 else math.sin), 10000 ** (2 * (j // 2) / half)
                row, column = 2 * math.pi * (y + 1) / (height + 1e-6), 2 * math.pi * (x + 1) / (width + 1e-6)
                assert math.isclose(plane[j, y, x], wave(row / rate), abs_tol=1e-5)
                assert math.isclose(plane[half + j, y, x], wave(column / rate), abs_tol=1e-5)


def test_no_two_cells_are_alike():
    cells = sinusoid_plane(6, 7, channels=32).flatten(1).T
    distances = torch.cdist(cells, cells) + torch.eye(42) * 9
    assert distances.min() > 0.1

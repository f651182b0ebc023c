"""Features with a known motion, for tests of what reads motion out of them."""
import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sliding(grid, dx, dy, heads=3, d=32, seed=0, norm=8.):
    "Random features of equal length that move by (dx, dy) whole tokens per frame: (heads, tokens, d)."
    pad = grid.frames * max(abs(dx), abs(dy), 1)
    field = torch.randn(heads, grid.rows + 2 * pad, grid.cols + 2 * pad, d, generator=rng(seed))
    field = field / field.norm(dim=-1, keepdim=True) * norm
    cuts = [field[:, pad - f * dy:, pad - f * dx:][:, :grid.rows, :grid.cols] for f in range(grid.frames)]
    return grid.flatten(torch.stack(cuts, 1), 1)

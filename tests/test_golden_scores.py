"""The official DiffTrack code's attention and confidence scores, reproduced by options named after its quirks."""
from pathlib import Path

import numpy as np
import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.points.attention import AttentionReading, attention_scores
from vidlens.points.score_tables import ProbeOptions, ScoreProbe

GOLDEN = Path(__file__).parent / 'golden'
NAMES = ['A_cogvideox', 'B_cogvideox', 'C_hunyuan']
PARTS = ('text', 'self', 'cross')
WAYS = {'ref': AttentionReading.published(),
        'fixed': AttentionReading(lookup='rounded', padding='counted', hidden='published')}


def load(name):
    with np.load(GOLDEN / f'03_attention_scores__{name}.npz') as z:
        return {k: z[k] for k in z.files}


def case(name):
    z = load(name)
    grid = Grid(int(z['p_F']), int(z['p_h']), int(z['p_w']), int(z['p_stride']))
    assert (grid.height, grid.width) == (z['p_H_px'], z['p_W_px'])
    xy = torch.as_tensor(z['in_query_points_px'][0])
    queries = torch.cat([torch.zeros(len(xy), 1), xy], 1)
    q, k = (torch.as_tensor(z[f'in_{n}']).float() for n in ('query', 'key'))
    text = 'first' if z['p_text_first'] else 'last'
    return z, grid, q, k, queries, text, torch.as_tensor(z['in_visibility'][0]).T


def close(ours, theirs):
    theirs = torch.as_tensor(theirs).float()
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', NAMES)
def test_attention_scores(name, way):
    z, grid, q, k, queries, text, visible = case(name)
    found = attention_scores(q, k, grid, queries, text=text, visible=visible, reading=WAYS[way])
    for part in PARTS:
        attention = found.attention[part]
        close(attention[~attention.isnan()], z[f'out_attention_{part}_per_point_{way}'])
        assert torch.equal(attention.isnan(), ~visible[:, 0])
        close(found.confidence[part], z[f'out_confidence_{part}_per_point_{way}'])
    exact, rounded = found.means(), found.means(rounding=4)
    for n in exact:
        close(torch.tensor(exact[n]), z[f'out_{n}_mean_{way}'])
        assert rounded[n] == z[f'out_{n}_rounded4_{way}']


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', NAMES)
def test_weights(name, way):
    "Sums and peaks of each frame are those of the published weights."
    z, grid, q, k, queries, text, visible = case(name)
    found = attention_scores(q, k, grid, queries, text=text, reading=WAYS[way])
    w, n = torch.as_tensor(z[f'out_attn_weight_{way}']), int(z['p_text_len'])
    words, video = (w[:, :n], w[:, n:]) if text == 'first' else (w[:, grid.n:], w[:, :grid.n])
    frames = video.unflatten(1, (grid.frames, grid.per_frame))
    for ours, theirs in ((found.total, frames.sum(-1)), (found.peak, frames.amax(-1)), (found.text, words.sum(-1)),
                         (found.text_peak, words.amax(-1))):
        close(ours, theirs)


@pytest.mark.parametrize('block', [64, 1000, 3000])
def test_blocks_change_nothing(block, monkeypatch):
    "However small the scratch memory, the golden result stands."
    monkeypatch.setattr('vidlens.points.attention.BLOCK', block)
    test_attention_scores('A_cogvideox', 'ref')


@pytest.mark.parametrize('name', NAMES)
def test_the_default_differs_only_where_it_should(name):
    "From the corrected reference: at the asked token by half a token, and where a point is hidden."
    z, grid, q, k, queries, text, visible = case(name)
    queries[:, 1:] = (queries[:, 1:] / grid.stride).round().clamp(max=torch.tensor([grid.cols - 1, grid.rows - 1])
                                                                  ) * grid.stride + grid.stride / 2
    found = attention_scores(q, k, grid, queries, text=text, visible=visible)
    for part in PARTS:
        attention = found.attention[part]
        close(attention[~attention.isnan()], z[f'out_attention_{part}_per_point_fixed'])
        counts = ~found.confidence[part].isnan()
        close(found.confidence[part][counts], torch.as_tensor(z[f'out_confidence_{part}_per_point_fixed'])[counts])
        hidden = ~visible[:, 0] if part != 'cross' else ~visible[:, 0] | ~found.seen[:, 1:].any(1)
        assert torch.equal(~counts, hidden)


@pytest.mark.parametrize('name', NAMES)
def test_the_probe_scores_as_published(name):
    z, grid, q, k, queries, text, visible = case(name)
    probe = ScoreProbe(grid, queries, visible=visible, options=ProbeOptions.published())
    probe.add(q, k, layer=3, step=7, text=text)
    table = probe.result()
    for kind in ('attention', 'confidence'):
        for part in PARTS:
            close(table.map(f'{kind}_{part}')[0, 0], z[f'out_{kind}_{part}_mean_ref'])

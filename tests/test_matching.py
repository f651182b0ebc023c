"""Matching by planted truth: fields that move by known steps, clips that stand still, points that hide."""
import pytest
import torch
from planted import rng, sliding
from torch.utils._python_dispatch import TorchDispatchMode

from vidlens.core.grid import Grid
from vidlens.points.matching import (Matching, Tracks, match, match_cost, match_features, match_fields, nearest_patch,
                                     points_on_grid, read_out)
from vidlens.points.metrics import pck

LOOKUPS = ['nearest', 'bilinear', 'field']


def waves(grid, dx, dy, heads=2, d=64, seed=0):
    "Smooth features that move by any (dx, dy) tokens per frame."
    g = rng(seed)
    wave, phase = torch.randn(heads, 2, d, generator=g) * .7, torch.rand(heads, 1, d, generator=g) * 6.28
    steps = torch.arange(grid.frames).view(-1, 1, 1)
    uv = grid.to_token(grid.centres()).view(1, -1, 2) - torch.tensor([dx, dy]) * steps
    return (uv.reshape(1, -1, 2) @ wave + phase).cos() * 2


def centres(grid, t=0):
    xy = grid.centres().flatten(0, 1)
    return torch.cat([torch.full((len(xy), 1), float(t)), xy], 1)


def went(grid, queries, dx, dy):
    "Planted truth and whether it is still inside: the query moves dx, dy tokens for each token frame."
    steps = torch.arange(grid.frames)[None, :, None] - grid.frame_of(queries[:, 0].long())[:, None, None]
    xy = queries[:, None, 1:] + steps * torch.tensor([dx, dy]) * grid.stride
    return xy, ((xy >= 0) & (xy < torch.tensor([grid.width, grid.height]))).all(-1)


# what is right by default

@pytest.mark.parametrize('shape', [(3, 6, 9), (4, 9, 5), (2, 1, 12), (3, 7, 1)])
@pytest.mark.parametrize('move', [(1, 0), (0, -1), (-1, 1), (2, 0)])
@pytest.mark.parametrize('symmetric', [False, True])
def test_whole_token_motion_is_exact(shape, move, symmetric):
    grid = Grid(*shape, stride=8)
    q = sliding(grid, *move)
    queries = centres(grid)
    truth, inside = went(grid, queries, *move)
    tracks = match(q, q, grid, queries, matching=Matching(symmetric=symmetric))
    assert torch.equal(tracks.xy[inside], truth[inside])
    # anywhere inside of the token, too
    queries[:, 1:] += (torch.rand(len(queries), 2, generator=rng()) - .5) * 7.9
    truth, _ = went(grid, queries, *move)
    tracks = match(q, q, grid, queries, matching=Matching(symmetric=symmetric))
    assert (tracks.xy - truth)[inside].abs().max() < 1e-4


@pytest.mark.parametrize('lookup', LOOKUPS[::2])
@pytest.mark.parametrize('shape', [(3, 5, 8), (2, 8, 3)])
def test_a_still_clip_stays_still_to_the_corners(shape, lookup):
    grid = Grid(*shape)
    q = sliding(grid, 0, 0)
    edge = torch.tensor([[0, x, y] for x in (0., 3., grid.width / 2, grid.width) for y in (0., 5., grid.height)])
    for queries in (points_on_grid(9, grid.height, grid.width), edge):
        moved = match(q, q, grid, queries, matching=Matching(lookup=lookup)).xy - queries[:, None, 1:]
        assert moved.abs().max() < 1e-4 * (lookup == 'field') + 1e-9


def test_the_bilinear_lookup_needs_the_soft_readout():
    grid = Grid(3, 8, 11)
    q = waves(grid, 0, 0)
    p = points_on_grid(12, grid.height, grid.width)
    hard, soft = ((match(q, q, grid, p, matching=Matching(lookup='bilinear', readout=r)).xy - p[:, None, 1:])[:, 1:].abs().mean()
                  for r in ('argmax', 'soft'))
    assert soft < hard / 2 < 4


def test_the_published_lookup_drifts_by_up_to_4_8_px():
    "D2 at CogVideoX's size; papers call it 4.8 px: (44/44.297) of 708.75 px is 4.75 px short, and so is the y axis."
    grid = Grid(2, 30, 45)
    q = sliding(grid, 0, 0, heads=1)
    p = points_on_grid(20, 480, 720)
    drift = match(q, q, grid, p, matching=Matching(lookup='published')).xy[:, 1] - p[:, 1:]
    assert drift.abs().max().item() == pytest.approx(4.75, abs=1e-2) and (drift <= 0).all()
    assert drift[399].tolist() == pytest.approx([-4.75, -4.75], abs=1e-2)
    assert match(q, q, grid, p).xy.sub(p[:, None, 1:]).abs().max() == 0
    # in the 256x256 frame of TAP-Vid this is 1.7 and 2.5 px
    assert (drift[399] * torch.tensor([256 / 720, 256 / 480])).tolist() == pytest.approx([-1.69, -2.53], abs=.01)


@pytest.mark.parametrize('t', [0, 2, 4, 12])
def test_queries_start_anywhere(t):
    grid = Grid(4, 8, 10)
    q = sliding(grid, 1, 0)
    queries = centres(grid, t)
    truth, inside = went(grid, queries, 1, 0)
    tracks = match(q, q, grid, queries)
    assert torch.equal(tracks.xy[inside], truth[inside])
    own = grid.frame_of(t)
    assert torch.equal(tracks.xy[:, own], queries[:, 1:]) and (tracks.score[:, own] == 1).all()
    mixed = torch.cat([queries[:5], centres(grid, 8)[:5]])
    assert torch.equal(match(q, q, grid, mixed).xy[:5], tracks.xy[:5])


# the cost

def dense(q, k, grid, frame, to, symmetric):
    "From the definition, in float64."
    a, b = grid.unflatten(q.double()).flatten(2, 3), grid.unflatten(k.double()).flatten(2, 3)
    cost = (a[:, frame] @ b[:, to].mT / q.shape[-1] ** .5).softmax(-1)
    back = (a[:, to] @ b[:, frame].mT / q.shape[-1] ** .5).softmax(-1).mT
    return (cost + back) / 2 if symmetric else cost


@pytest.mark.parametrize('symmetric', [False, True])
@pytest.mark.parametrize('block', [1, 500, 2 ** 22])
def test_cost_by_definition(symmetric, block, monkeypatch):
    monkeypatch.setattr('vidlens.points.matching.BLOCK', block)
    grid = Grid(3, 4, 7)
    q, k = torch.randn(2, 5, grid.n, 12, generator=rng())
    full = dense(q, k, grid, 2, 1, symmetric)
    every = match_cost(q, k, grid, 2, 1, symmetric=symmetric)
    torch.testing.assert_close(every.double(), full.mean(0), rtol=1e-5, atol=1e-7)
    some = match_cost(q, k, grid, 2, 1, [9, 3, 3], symmetric=symmetric, per_head=True)
    torch.testing.assert_close(some.double(), full[:, [9, 3, 3]], rtol=1e-5, atol=1e-7)
    one = match_cost(q, k, grid, 2, 1, heads=[4, 0], symmetric=symmetric)
    torch.testing.assert_close(one.double(), full[[4, 0]].mean(0), rtol=1e-5, atol=1e-7)
    assert match_cost(q.double(), k.double(), grid, 2, 1).dtype == torch.float64


def test_layers_average_as_maps():
    grid = Grid(2, 4, 5)
    a, b = torch.randn(2, 3, grid.n, 8, generator=rng()), torch.randn(2, 6, grid.n, 16, generator=rng(1))
    both = match_cost([a[0], b[0]], [a[1], b[1]], grid, 0, 1, symmetric=True)
    alone = [match_cost(x[0], x[1], grid, 0, 1, symmetric=True) for x in (a, b)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_scale():
    grid = Grid(2, 3, 4)
    q, k = torch.randn(2, 4, grid.n, 16, generator=rng())
    assert torch.equal(match_cost(q, k, grid, 0, 1, scale=.25), match_cost(q, k, grid, 0, 1))
    sharp = match_cost(q, k, grid, 0, 1, scale='published_hunyuan')
    assert torch.equal(sharp, match_cost(q, k, grid, 0, 1, scale=.5))
    # the number of heads in the model counts, not of those chosen
    assert torch.equal(match_cost(q, k, grid, 0, 1, scale='published_hunyuan', heads=[1]),
                       match_cost(q[1:2], k[1:2], grid, 0, 1, scale=.5))


def test_per_head_tells_the_good_from_the_bad():
    grid = Grid(3, 6, 8)
    good = sliding(grid, 1, 0, heads=1)
    q = torch.cat([torch.randn(good.shape, generator=rng(5)), good])
    k = torch.cat([torch.randn(good.shape, generator=rng(6)), good])
    queries = centres(grid)
    truth, inside = went(grid, queries, 1, 0)
    each = match(q, k, grid, queries, per_head=True, matching=Matching(cycle=.25, symmetric=True))
    assert each.xy.shape == (2, 48, 3, 2) and each.visible.shape == each.error.shape == (2, 48, 3)
    score = pck(each.xy, truth, inside, 4)
    assert score[0] < .2 and score[1] == 1
    alone = match(q, k, grid, queries, heads=1, matching=Matching(cycle=.25, symmetric=True))
    assert torch.equal(alone.xy, each.xy[1]) and torch.equal(alone.error, each.error[1])
    assert 'heads' in repr(each)


def test_half_precision_is_summed_in_float32():
    grid = Grid(2, 8, 8)
    q = sliding(grid, 1, 1, d=64)
    for dtype in (torch.float16, torch.bfloat16):
        x = q.to(dtype)
        cost = match_cost(x, x, grid, 0, 1, symmetric=True)
        assert cost.dtype == torch.float32
        torch.testing.assert_close(cost, match_cost(x.float(), x.float(), grid, 0, 1, symmetric=True))
        assert match(x, x, grid, centres(grid)).xy.dtype == torch.float32
        assert match_features(x[0], grid, centres(grid)).score.dtype == torch.float32


class Largest(TorchDispatchMode):
    "The largest tensor that any operation makes; views are not counted."

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in known:
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize('options', [{'cycle': None}, {'symmetric': True, 'cycle': None},
                                     {'symmetric': True, 'cycle': .5, 'readout': 'soft'}])
def test_nothing_of_tokens_by_tokens(options, monkeypatch):
    monkeypatch.setattr('vidlens.points.matching.BLOCK', 2 ** 18)
    grid = Grid(13, 20, 30)
    q = torch.randn(2, grid.n, 8, generator=rng())
    with Largest() as seen:
        match(q, q, grid, points_on_grid(5, grid.height, grid.width), matching=Matching(**options))
    assert 0 < seen.entries <= 2 ** 18 < q.shape[0] * grid.per_frame ** 2 < grid.n ** 2


def test_the_watch_of_the_memory_test_sees_big_tensors():
    with Largest() as seen:
        torch.zeros(100, 1) @ torch.zeros(1, 100)
    assert seen.entries == 10_000


# read-outs

def test_soft_readout_recovers_sub_token_motion():
    grid = Grid(4, 9, 14)
    q = waves(grid, .3, -.2)
    p = centres(grid).view(9, 14, 3)[3:6, 3:9].reshape(-1, 3)
    truth, _ = went(grid, p, .3, -.2)
    error = {how: (match(q, q, grid, p, matching=Matching(readout=how)).xy - truth).norm(dim=-1)[:, 1:].mean()
             for how in ('argmax', 'soft')}
    assert error['soft'] < error['argmax'] / 2 and error['soft'] < 3


def test_soft_readout_by_definition():
    grid = Grid(1, 5, 6)
    cost = torch.rand(4, 30, generator=rng()) + .1
    uv, score = read_out(cost, grid, 'soft', temperature=.5, window=None)
    w = cost ** 2 / (cost ** 2).sum(-1, keepdim=True)
    u, v = torch.arange(30) % 6, torch.arange(30) // 6
    torch.testing.assert_close(uv, torch.stack([w @ u.float(), w @ v.float()], -1))
    assert torch.equal(score, cost.amax(-1))
    cold, _ = read_out(cost, grid, 'soft', temperature=1e-3)
    torch.testing.assert_close(cold, read_out(cost, grid)[0])
    zero, _ = read_out(cost, grid, 'soft', window=0)
    assert torch.equal(zero, read_out(cost, grid)[0])
    alike, _ = read_out(cost.log(), grid, 'soft', temperature=.5, window=None, kind='similarity')
    torch.testing.assert_close(alike, uv)


def test_the_soft_window_does_not_pull_border_points_inwards():
    "A symmetric bump on any token, corners included, is read at that token."
    grid = Grid(1, 6, 9)
    uv = grid.to_token(grid.centres()).view(-1, 2)
    bump = (-torch.cdist(uv, uv).square() / 2).exp()
    torch.testing.assert_close(read_out(bump, grid, 'soft', window=2)[0], uv)


def test_ties_stay():
    grid = Grid(3, 4, 5)
    flat = torch.ones(2, grid.n, 4)
    p = points_on_grid(4, grid.height, grid.width)
    for readout in ('argmax', 'soft'):
        matching = Matching(readout=readout, cycle=1 / 16)
        assert match(flat, flat, grid, p, matching=matching).xy.sub(p[:, None, 1:]).abs().max() < 1e-4


# visibility

def test_the_way_back_flags_hidden_points():
    grid = Grid(4, 10, 14)
    q = grid.unflatten(sliding(grid, 1, 0)).clone()
    q[:, 2, 3:7, 5:10] = 8 * torch.nn.functional.normalize(torch.randn(3, 4, 5, 32, generator=rng(9)), dim=-1)
    q = grid.flatten(q)
    p = centres(grid)
    truth, inside = went(grid, p, 1, 0)
    token = torch.floor(truth / 16)
    under = (torch.arange(4) == 2) & (token >= torch.tensor([5, 3])).all(-1) & (token < torch.tensor([10, 7])).all(-1)
    tracks = match(q, q, grid, p, matching=Matching(min_score=.5))
    assert under.any() and not tracks.visible[under].any() and tracks.visible[inside & ~under].all()
    assert (tracks.error[inside & ~under] == 0).all() and torch.equal(tracks.occluded, ~tracks.visible)
    everything = match(q, q, grid, p, matching=Matching(cycle=None))
    assert everything.visible.all() and everything.error is None and torch.equal(everything.xy, tracks.xy)


# tracks in RGB time

def test_exact_times():
    xy = torch.randn(6, 5, 2, generator=rng())
    score = torch.rand(6, 5, generator=rng())
    tracks = Tracks(xy, score < .5, score, Grid(5, 1, 1).times())
    rgb = tracks.at_frames(17)
    assert torch.equal(rgb.xy[:, ::4], xy) and torch.equal(rgb.visible[:, ::4], tracks.visible)
    torch.testing.assert_close(rgb.xy[:, 6], (xy[:, 1] + xy[:, 2]) / 2)
    assert torch.equal(rgb.score[:, ::4], tracks.score) and rgb.times.tolist() == list(range(17))
    assert torch.equal(tracks.at_frames(torch.tensor(17)).xy, rgb.xy)
    assert torch.equal(tracks.at_frames([16., 40.]).xy[:, 1], xy[:, 4]) and rgb.error is None
    published = tracks.at_frames(17, time='half_pixel').xy
    assert not torch.allclose(published[:, 4], xy[:, 1], atol=1e-2)


def test_other_vaes():
    "A VAE that is not causal sits in the middle of what it covers; the ends are held."
    grid = Grid(2, 1, 1, causal=False)
    xy = torch.tensor([[[0., 0.], [4., 8.]]])
    rgb = Tracks(xy, torch.ones(1, 2).bool(), torch.ones(1, 2), grid.times()).at_frames(8)
    assert rgb.xy[0, :, 0].tolist() == [0, 0, .5, 1.5, 2.5, 3.5, 4, 4]
    alone = Tracks(xy[:, :1], torch.ones(1, 1).bool(), torch.ones(1, 1), torch.zeros(1)).at_frames(3)
    assert alone.xy.tolist() == [[[0, 0]] * 3]


# features and baselines

@pytest.mark.parametrize('similarity', ['cosine', 'l2', 'softmax'])
@pytest.mark.parametrize('lookup', ['nearest', 'field'])
def test_features(similarity, lookup):
    grid = Grid(3, 7, 9)
    x = sliding(grid, 1, -1, heads=1)[0]
    p = centres(grid)
    truth, inside = went(grid, p, 1, -1)
    tracks = match_features(x, grid, p, similarity=similarity, matching=Matching(lookup=lookup, cycle=1 / 16, min_score=-1e-3))
    assert (tracks.xy - truth)[inside].abs().max() < 1e-4 and tracks.visible[inside].all()
    two = match_features([x, sliding(grid, 1, -1, heads=1, d=8, seed=3)[0]], grid, p, similarity=similarity)
    assert torch.equal(two.xy[inside], truth[inside])


def test_soft_features():
    grid = Grid(3, 9, 14)
    x = waves(grid, .4, 0, heads=1)[0]
    p = centres(grid).view(9, 14, 3)[3:6, 3:9].reshape(-1, 3)
    truth, _ = went(grid, p, .4, 0)
    hard, soft = ((match_features(x, grid, p, matching=Matching(readout=r)).xy - truth).norm(dim=-1).mean()
                  for r in ('argmax', 'soft'))
    assert soft < hard * .7


def test_nearest_patch_in_rgb_and_latents():
    grid = Grid(3, 4, 6, stride=8)
    frame = torch.rand(grid.height, grid.width + 16, 3, generator=rng())
    video = torch.stack([frame[:, 16 - 2 * t:][:, :grid.width] for t in range(9)])     # 2 px a frame: a token a step
    p = centres(grid)
    truth, inside = went(grid, p, 1, 0)
    tracks = nearest_patch(video, grid, p, matching=Matching(cycle=1 / 8, min_score=-1e-6))
    assert torch.equal(tracks.xy[inside], truth[inside]) and tracks.visible[inside].all()
    assert torch.equal(nearest_patch((video * 255).round().byte(), grid, p).xy[inside], truth[inside])
    latents = video[::4].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)                      # 2x2 latents for each token
    assert torch.equal(nearest_patch(latents, grid, p, similarity='cosine').xy[inside], truth[inside])


# what is refused

GRID = Grid(3, 4, 5)
Q, P = torch.randn(2, GRID.n, 8, generator=rng()), torch.tensor([[0, 8., 8.]])
VIDEO = torch.rand(9, 64, 80, 3, generator=rng())
BAD = {
    'text tokens left on': (lambda: match(*[torch.randn(2, 77, 8)] * 2, GRID, P),
                            'has 77 entries.*60 tokens: cut the text'),
    'a batch': (lambda: match(Q[None], Q[None], GRID, P), r'of a batch take one item, q\[i\]'),
    'q unlike k': (lambda: match(Q, Q[:1], GRID, P), r'q is \(2, 60, 8\).*k \(1, 60, 8\)'),
    'integers': (lambda: match(Q.long(), Q.long(), GRID, P), 'torch.int64.*must be floats'),
    'layers': (lambda: match([Q, Q], [Q], GRID, P), 'queries of 2 layers and keys of 1'),
    'no layers': (lambda: match([], [], GRID, P), 'each layer needs both'),
    'heads of layers': (lambda: match([Q, Q], [Q, Q], GRID, P, per_head=True), 'match the layers one by one'),
    'no heads': (lambda: match(Q[:0], Q[:0], GRID, P), 'it has no heads'),
    'empty heads': (lambda: match(Q, Q, GRID, P, heads=[]), r'heads=\[\] must name some of the 2 heads, 0 to 1'),
    'head 2 of 2': (lambda: match(Q, Q, GRID, P, heads=[2]), r'heads=\[2\] must name'),
    'scale word': (lambda: match(Q, Q, GRID, P, matching=Matching(scale='sqrt')), "scale='sqrt' is unknown: use None"),
    'scale 0': (lambda: match(Q, Q, GRID, P, matching=Matching(scale=0)), 'a number above 0'),
    'published scale': (lambda: match(*[Q.repeat(5, 1, 1)] * 2, GRID, P, matching=Matching.published('HunyuanVideo')),
                        'with 10 heads of 8 channels'),
    'lookup': (lambda: match(Q, Q, GRID, P, matching=Matching(lookup='linear')), "lookup='linear'.*'nearest', 'bilinear'"),
    'readout': (lambda: match(Q, Q, GRID, P, matching=Matching(readout='max')), "readout='max' is unknown: use 'argmax' or 'soft'"),
    'temperature': (lambda: match(Q, Q, GRID, P, matching=Matching(temperature=0)),
                    'temperature=0 must be a number of at least 1e-09'),
    'window': (lambda: match(Q, Q, GRID, P, matching=Matching(window=-1)), 'window=-1 must be a whole number of at least 0'),
    'cycle': (lambda: match(Q, Q, GRID, P, matching=Matching(cycle=-1)), 'cycle=-1 must be a number of at least 0'),
    'query right of the frame': (lambda: match(Q, Q, GRID, [[0, 8., 8.], [0, 81., 8.]]),
                                 r'query 1 is \(t, x, y\) = \(0, 81, 8\).*x from 0 to 80'),
    'query above the frame': (lambda: match(Q, Q, GRID, [[0, 8., -1.]]), 'y from 0 to 64 px'),
    'query after the clip': (lambda: match(Q, Q, GRID, [[9, 8., 8.]]), 'the clip has t from 0 to 8'),
    'published query after the clip': (lambda: match(Q, Q, GRID, [[9, 8., 8.]], matching=Matching.published()), 't from 0 to 8'),
    'nan query': (lambda: match(Q, Q, GRID, [[0, float('nan'), 8.]]), 'query 0 is'),
    'points without time': (lambda: match(Q, Q, GRID, [[8., 8.]]), r'shape \(1, 2\), but must be \(points, 3\)'),
    'no points': (lambda: match(Q, Q, GRID, torch.zeros(0, 3)), 'at least one'),
    'nan keys': (lambda: match(Q, Q * torch.nan, GRID, P), 'not finite. Run the model in float32'),
    'frame': (lambda: match_cost(Q, Q, GRID, 0, 3), r'token frame 3 is outside this grid of 3 \(0 to 2\)'),
    'tokens': (lambda: match_cost(Q, Q, GRID, 0, 1, [20]), 'whole numbers from 0 to 19'),
    'map size': (lambda: read_out(torch.rand(2, 60), GRID), 'have 60 entries, but a frame of this grid has 4x5 = 20'),
    'grid of no points': (lambda: points_on_grid(0, 64, 80), 'size must be at least 1'),
    'margin': (lambda: points_on_grid(3, 64, 80, margin=32), 'between 0 and half of a 64x80 frame'),
    'time': (lambda: match(Q, Q, GRID, P).at_frames(9, time='latent'), "use 'exact' or 'half_pixel'"),
    'no frames': (lambda: match(Q, Q, GRID, P).at_frames(0), 'a number of frames above 0'),
    'similarity': (lambda: match_features(Q[0], GRID, P, similarity='dot'), "use 'cosine', 'l2' or 'softmax'"),
    'features of heads': (lambda: match_features(Q, GRID, P), r'tokens \(heads d\)'),
    'features with text': (lambda: match_features(torch.randn(61, 8), GRID, P), 'cut the text tokens off first'),
    'no features': (lambda: match_features([], GRID, P), 'at least one layer'),
    'another clip': (lambda: nearest_patch(VIDEO[:8], GRID, P), 'with 9 RGB or 3 latent frames'),
    'channels first': (lambda: nearest_patch(VIDEO.permute(0, 3, 1, 2), GRID, P), 'whole multiple of the grid of 4x5'),
    'another size': (lambda: nearest_patch(VIDEO[:, :60], GRID, P), '60x80.*64x80 for RGB'),
}


@pytest.mark.parametrize('name', BAD)
def test_messages(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu_gives_the_same_tracks(dtype):
    grid = Grid(4, 8, 12)
    q = sliding(grid, 1, 0).to(dtype)
    p = points_on_grid(6, grid.height, grid.width)
    for options in ({'matching': Matching(symmetric=True, cycle=.5)}, {'matching': Matching(readout='soft', lookup='bilinear')},
                    {'per_head': True}):
        here, there = match(q, q, grid, p, **options), match(q.cuda(), q.cuda(), grid, p, **options)
        assert there.xy.is_cuda and torch.equal(here.visible, there.visible.cpu())
        torch.testing.assert_close(there.at_frames(13).xy.cpu(), here.at_frames(13).xy, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('symmetric', [False, True])
def test_costs_have_gradients(symmetric):
    "As a loss on attention needs them; the values are those without."
    g = torch.Generator().manual_seed(0)
    grid, q, k = Grid(2, 3, 4), *torch.randn(2, 3, 24, 5, generator=g, dtype=torch.float64)
    q.requires_grad_(), k.requires_grad_()
    cost = match_cost(q, k, grid, 0, 1, symmetric=symmetric)
    with torch.no_grad():
        torch.testing.assert_close(cost.detach(), match_cost(q, k, grid, 0, 1, symmetric=symmetric))
    assert torch.autograd.gradcheck(lambda a, b: match_cost(a, b, grid, 0, 1, [1, 7], symmetric=symmetric), (q, k))


def test_fields_are_the_costs_of_the_asked_tokens():
    asked = torch.tensor([[0., 9., 20.], [1, 40, 3], [0, 47.9, 31.9]])
    grid, q, k = Grid(3, 4, 6, 8, 1, False), *torch.randn(2, 2, 72, 5, generator=torch.Generator().manual_seed(0))
    fields = match_fields(q, k, grid, asked, symmetric=True, heads=1)
    assert fields.shape == (3, 3, 4, 6)
    for i, (t, x, y) in enumerate(asked.long().tolist()):
        for f in range(3):
            whole = match_cost(q, k, grid, t, f, symmetric=True, heads=1)
            torch.testing.assert_close(fields[i, f].flatten(), whole[y // 8 * 6 + x // 8])
    for bad, says in ((dict(queries=[[0, 99, 1]]), 'query 0'), (dict(heads=3), 'heads=')):
        with pytest.raises(ValueError, match=says):
            match_fields(q, k, grid, **dict(queries=asked) | bad)
    with pytest.raises(TypeError, match='lookup'):
        match_fields(q, k, grid, asked, lookup='nearest')

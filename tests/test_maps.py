"""Concept maps against planted truth, dense algebra and scikit-learn."""
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
from torch.utils._python_dispatch import TorchDispatchMode

from vidlens.core.grid import Grid
from vidlens.words.heads import HeadChoice, calinski_harabasz, davies_bouldin, fisher, lambda2, select_heads, separability
from vidlens.words.maps import (Contrast, aggregate, concept_attention_map, concept_maps, cross_attention_map, gram_col,
                                surrogate)

GRID, HEADS, D, RAW = Grid(frames=5, rows=6, cols=7), 8, 16, Contrast(None)


def planted(seed, noise=.2, seeing=(2, 5)):
    """q, o, keys (dog, cat), empty key, truth (2, frames, rows, cols).

    Two objects walk, the empty token fits the top row, and heads `seeing` carry a code of the frame everywhere."""
    gen = torch.Generator().manual_seed(seed)

    def randn(*s):
        return torch.randn(*s, generator=gen)
    truth = torch.zeros(2, *GRID.shape, dtype=torch.bool)
    for f in range(5):
        truth[0, f, 1:3, f:f + 2] = truth[1, f, 4:6, 5 - f:7 - f] = True
    keys, look = (torch.linalg.qr(randn(HEADS, D, D))[0][:, :3] for _ in range(2))
    q, o = noise * randn(HEADS, *GRID.shape, D), noise * randn(HEADS, *GRID.shape, D)
    for i in range(2):
        q += 4 * keys[:, i, None, None, None] * truth[i, ..., None]
        o += 2 * look[:, i, None, None, None] * truth[i, ..., None]
    q[:, :, 0] += 4 * keys[:, 2, None, None]
    for h in seeing:
        o[h] += 3 * F.normalize(randn(5, 1, 1, D), dim=-1)
    return GRID.flatten(q), GRID.flatten(o), keys[:, :2], keys[:, 2:], truth


Q, O, K, EMPTY, TRUTH = planted(0)
FRAME = GRID.place(torch.arange(GRID.n))[0]


class Largest(TorchDispatchMode):
    "The largest tensor that any operation makes."

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor) and not func.is_view:
                self.numel = max(self.numel, t.numel())
        return out


# Heads

@pytest.mark.parametrize('seed', range(5))
def test_planted_heads_are_selected(seed):
    seeing = torch.randperm(HEADS, generator=torch.Generator().manual_seed(seed))[:3].tolist()
    o = planted(seed, seeing=seeing)[1]
    for by, s in separability(o, GRID).items():
        assert set(select_heads(s, HeadChoice(3, by)).tolist()) == set(seeing)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('inside', [False, True], ids=['heads outside', 'heads inside tokens'])
@pytest.mark.parametrize('offset', [0., 1., 10., 300., 1e3, 1e5])
def test_scores_are_scikit_learns(offset, inside, dtype):
    "A large common offset, in spreads, must cost no digits: the reference sees the same numbers in float64."
    shift = .2 * offset * (torch.arange(HEADS) % 2)[:, None, None]   # heads with and without, in one call
    o = (O + shift).to(dtype)
    o = o.transpose(0, 1).contiguous().transpose(0, 1) if inside else o
    s, seen = separability(o, GRID), o.double() - shift.double()
    constant = (GRID.unflatten(seen).flatten(2, 3).var(2) == 0).all(2).all(1)   # half precision has no digits for all
    assert dtype != torch.float32 or not constant.any()
    for h in range(HEADS):
        want = dict(chi=calinski_harabasz_score(seen[h], FRAME), dbi=davies_bouldin_score(seen[h], FRAME))
        for by, x in want.items():
            assert s[by][h].isnan() if constant[h] else abs(s[by][h] / x - 1) < 1e-4
    assert torch.allclose(s['chi'], s['fisher'] * (GRID.n - 5) / 4, equal_nan=True)
    for by, f in (('chi', calinski_harabasz), ('fisher', fisher), ('dbi', davies_bouldin)):
        assert torch.allclose(f(o, GRID), s[by], rtol=2e-5, equal_nan=True)


@pytest.mark.parametrize('dtype, offset', [(torch.float32, 1e6), (torch.float64, 1e6), (torch.float64, 1e9)])
def test_heads_are_constant_by_the_rounding_of_their_dtype(dtype, offset):
    o = 5 * O.to(dtype) + offset
    o[3] = offset + torch.arange(5.)[FRAME, None] * .5
    seen = o.double() - offset
    for by, s in (separability(o, GRID) | dict(alone=calinski_harabasz(o, GRID))).items():
        score = davies_bouldin_score if by == 'dbi' else calinski_harabasz_score
        scale = 4 / (GRID.n - 5) if by == 'fisher' else 1.
        for h in range(HEADS):
            assert s[h].isnan() if h == 3 else abs(s[h] / scale / score(seen[h], FRAME) - 1) < 1e-4


@pytest.mark.parametrize('inside', [False, True], ids=['heads outside', 'heads inside tokens'])
@pytest.mark.parametrize('numbers', [1, 2 * GRID.n * D])
def test_scores_do_not_depend_on_the_pieces(numbers, inside, monkeypatch):
    o = O.transpose(0, 1).contiguous().transpose(0, 1) if inside else O
    whole = separability(o, GRID) | dict(alone=calinski_harabasz(o, GRID))
    monkeypatch.setattr('vidlens.words.heads._PIECE', numbers)
    for x in (o, o.bfloat16()):
        with Largest() as seen:
            s = separability(x, GRID) | dict(alone=calinski_harabasz(x, GRID))
        assert seen.numel <= O.numel() / 4    # no copy larger than two heads, or a frame
        for by in whole:
            assert torch.allclose(s[by], whole[by], rtol=1e-5 if x is o else .02)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e25])
def test_a_head_without_numbers_has_no_score(value):
    o = O.clone()
    o[2, 50, 3] = value
    for how in ('nan', 'published'):
        for by, s in (separability(o, GRID, how) | dict(evidence=calinski_harabasz(o, GRID, how))).items():
            assert s.isnan().nonzero().tolist() == [[2]] and 2 not in select_heads(s, HeadChoice(HEADS, by)).tolist()


def test_layouts_and_dtypes_agree():
    want = calinski_harabasz(O, GRID)
    for x in (GRID.unflatten(O), O.view(HEADS, 5, 42, D)):
        assert torch.equal(calinski_harabasz(x), want) and torch.equal(calinski_harabasz(x, GRID), want)
    assert calinski_harabasz(O.double(), GRID).dtype == torch.float64
    half = O.bfloat16()
    got = calinski_harabasz(half, GRID)
    assert got.dtype == torch.float32 and torch.allclose(got, calinski_harabasz(half.float(), GRID), rtol=1e-5)
    big = (O * 200).half()   # squares overflow float16
    assert torch.allclose(calinski_harabasz(big, GRID), want, rtol=1e-2)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('value', [0., 7., .1, 1e-20, 6e4])
def test_constant_heads_never_rank(value, dtype):
    o = O.clone()
    o[0] = value
    o[3] = value + torch.arange(5.)[FRAME, None] * .37   # constant within each frame
    alone = calinski_harabasz(o.to(dtype), GRID)
    for by, s in (separability(o.to(dtype), GRID) | dict(evidence=alone)).items():
        assert s[[0, 3]].isnan().all() and not s[[1, 2, 4, 5, 6, 7]].isnan().any()
        assert not {0, 3} & set(select_heads(s, HeadChoice(HEADS, by)).tolist())
        assert not {0, 3} & set(select_heads(s, HeadChoice(None, by, 1e9 if by == 'dbi' else -1e9)).tolist())


def test_equal_frames_are_the_worst_by_davies_bouldin():
    o = torch.randn(2, 1, 30, 4).repeat(1, 4, 1, 1)
    assert davies_bouldin(o).isinf().all() and (davies_bouldin(o, degenerate='published') == 0).all()
    assert (calinski_harabasz(o) < 1e-8).all()
    o = GRID.unflatten(O).flatten(2, 3).clone()
    o[0, 1:3] = 1.   # equal, and each constant
    want = davies_bouldin_score(o[0].flatten(0, 1), FRAME)
    assert davies_bouldin(o)[0].isinf() and davies_bouldin(o, degenerate='published')[0] == pytest.approx(want, rel=1e-5)
    assert select_heads(davies_bouldin(o), HeadChoice(HEADS, 'dbi'))[-1] == 0 and davies_bouldin(o)[1:].isfinite().all()


def test_select_heads():
    s = torch.tensor([1., 5., torch.nan, 5., 3.])
    assert select_heads(s, HeadChoice(2)).tolist() == [1, 3]            # a tie goes to the lower number
    assert select_heads(s, HeadChoice(2, skip=1)).tolist() == [3, 4]
    assert select_heads(s, HeadChoice(2, 'dbi')).tolist() == [0, 4]
    assert select_heads(s, HeadChoice(None, threshold=2.)).tolist() == [1, 3, 4]
    assert select_heads(s, HeadChoice(1, threshold=2.)).tolist() == [1]
    assert select_heads(s, HeadChoice(None, 'dbi', 4.)).tolist() == [0, 4]
    assert select_heads(s).tolist() == [1, 3, 4, 0]      # four have a score
    assert select_heads(s, HeadChoice(0)).tolist() == []
    assert select_heads(s, HeadChoice(9), strict=False).tolist() == [1, 3, 4, 0]
    assert select_heads(s, HeadChoice(3, threshold=9.), strict=False).tolist() == []
    assert select_heads([float('inf'), 1.], HeadChoice(1)).tolist() == [0]
    assert select_heads([1., float('-inf')], HeadChoice(2)).tolist() == [0, 1]


# The second eigenvalue

def dense2(q, k, scale=None):
    p = (q.double() @ k.double().mT * (q.shape[-1] ** -.5 if scale is None else scale)).softmax(-1)
    return torch.linalg.eigvals(p).abs().sort(descending=True).values[:, 1]


@pytest.mark.parametrize('n,d,scale', [(60, 8, None), (90, 16, .5), (5, 8, None), (2, 4, None)])
def test_lambda2_is_the_dense_one(n, d, scale):
    gen = torch.Generator().manual_seed(n)
    q, k = (1.5 * torch.randn(3, n, d, generator=gen, dtype=torch.float64) for _ in range(2))
    assert torch.allclose(lambda2(q, k, 300, scale), dense2(q, k, scale), atol=1e-7)
    assert torch.allclose(lambda2(q.float(), k.float(), 300, scale).double(), dense2(q, k, scale), atol=1e-4)


def test_lambda2_of_structured_attention_converges_soon():
    gen = torch.Generator().manual_seed(0)
    q = F.one_hot(FRAME, 16).float()[None] * 3 + .3 * torch.randn(2, GRID.n, 16, generator=gen)
    assert torch.allclose(lambda2(q, q, 10).double(), dense2(q, q), atol=1e-4)
    assert lambda2(q, q).dtype == torch.float32
    half = q.bfloat16()
    assert torch.allclose(lambda2(half, half), lambda2(half.float(), half.float()))


def test_lambda2_of_known_chains():
    own = F.one_hot(FRAME, 16).float()[None] * 20
    assert lambda2(own, own)[0] > 1 - 1e-4                       # no way from frame to frame
    assert lambda2(torch.zeros(1, 40, 8), torch.zeros(1, 40, 8))[0] < 1e-5   # all to all
    ring = 100 * torch.eye(6)[None]
    assert abs(lambda2(ring, ring.roll(1, 1))[0] - 1) < 1e-4     # a cycle never mixes: complex eigenvalues of size 1


@pytest.mark.parametrize('d, n', [(4, 10), (8, 40), (64, 300)])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_lambda2_of_a_head_without_numbers_is_nan_alone(d, n, value):
    q, k = torch.randn(2, 4, n, d, generator=torch.Generator().manual_seed(0))
    want = lambda2(q, k)
    q[1, 5, 2], k[2] = value, torch.nan
    found = lambda2(q, k)
    assert found.isnan().tolist() == [False, True, True, False] and torch.equal(found[[0, 3]], want[[0, 3]])


def test_lambda2_of_single_numbers():
    q, k = torch.randn(2, 2, 10, 1, generator=torch.Generator().manual_seed(0)) * 2
    values = torch.linalg.eigvals((q @ k.mT).softmax(-1)).abs().sort(descending=True).values
    assert torch.allclose(lambda2(q, k, 200), values[:, 1], atol=1e-3)


def test_nothing_is_tokens_by_tokens():
    grid, gen = Grid(4, 20, 20), torch.Generator().manual_seed(0)
    q, o, k = (torch.randn(2, n, 8, generator=gen) for n in (grid.n, grid.n, 3))
    with Largest() as seen:
        separability(o, grid)
        lambda2(q, o, 3)
        concept_maps(q, o, k[:, :2], grid, k_empty=k[:, 2:])
        cross_attention_map(q, k, grid)
    assert 2 * grid.n * 8 <= seen.numel < grid.per_frame ** 2
    with Largest() as seen:
        (q @ o.mT).softmax(-1)
    assert seen.numel == 2 * grid.n ** 2   # the meter works


# GramCol

def test_surrogate_and_gram_col_are_their_definitions():
    index = surrogate(Q, K, GRID)
    g, q, o = gram_col(O, index, GRID), Q.view(HEADS, 5, 42, D), O.view(HEADS, 5, 42, D)
    for h, c, f in [(0, 0, 0), (3, 1, 4), (7, 0, 2)]:
        assert index[h, c, f] == (q[h, f] @ K[h, c]).argmax()
        assert torch.allclose(g[h, c, f], (o[h, f] @ o[h, f].T)[index[h, c, f]], atol=1e-5)
    assert torch.equal(surrogate(GRID.unflatten(Q), K), index)


def test_pieces_do_not_matter(monkeypatch):
    args = dict(k_empty=EMPTY)
    index, maps, cross = surrogate(Q, K, GRID), concept_maps(Q, O, K, GRID, **args), cross_attention_map(Q, K, GRID)
    each = concept_maps(Q, O, K, GRID, reduce=None, **args)
    monkeypatch.setattr('vidlens.words.maps._ROOM', 1)
    assert torch.equal(surrogate(Q, K, GRID), index)
    assert torch.allclose(concept_maps(Q, O, K, GRID, **args), maps, atol=1e-6)
    assert torch.allclose(concept_maps(Q, O, K, GRID, reduce=None, **args), each, atol=1e-6)
    assert torch.allclose(cross_attention_map(Q, K, GRID), cross, atol=1e-6)


def test_half_inputs_are_joined_in_float():
    q, o, k, e = Q.bfloat16(), O.bfloat16(), K.bfloat16(), EMPTY.bfloat16()
    half, full = (concept_maps(*map(f, (q, o, k)), GRID, k_empty=f(e)) for f in (lambda x: x, torch.Tensor.float))
    assert half.dtype == torch.float32 and torch.allclose(half, full, atol=1e-5)
    assert cross_attention_map(q, k, GRID).dtype == concept_attention_map(o[:, :2], o, GRID).dtype == torch.float32
    assert concept_maps(Q.double(), O.double(), K.double(), GRID, contrast=RAW).dtype == torch.float64


# Maps of words

def pointing(maps):
    "Share of words and frames whose peak lies on the object of the word."
    return TRUTH.flatten(2).gather(2, maps.flatten(2).argmax(2, keepdim=True)).float().mean()


@pytest.mark.parametrize('seed', range(5))
def test_planted_objects_are_found(seed):
    q, o, k, empty, _ = planted(seed)
    for heads in (None, select_heads(calinski_harabasz(o, GRID), HeadChoice(2)), [0]):
        maps = concept_maps(q, o, k, GRID, heads, k_empty=empty)
        assert maps.shape == (2, 5, 6, 7) and pointing(maps) == 1
    assert pointing(concept_maps(q, o, k, GRID, [0, 1, 3, 4], RAW)) == 1   # raw: heads without frame code only
    assert pointing(cross_attention_map(q, k, GRID)) == 1


def test_z_scores_over_slots_throw_the_strength_away():
    "Over all slots a place of noise that favours the word scores as high as its object: not every peak is right."
    scores = []
    for seed in range(5):
        q, o, k, empty, _ = planted(seed)
        scores.append(pointing(concept_maps(q, o, k, GRID, [2, 5], Contrast('slots', slots=226), empty)))
    assert min(scores) < 1
    two = concept_maps(Q, O, K, GRID, contrast=Contrast('concepts'), reduce=None)
    assert (two.abs() - .5 ** .5).abs().median() < 1e-4   # two words: a sign


def test_a_map_does_not_depend_on_what_else_is_asked():
    both = concept_maps(Q, O, K, GRID, k_empty=EMPTY)
    assert torch.allclose(concept_maps(Q, O, K[:, 1:], GRID, k_empty=EMPTY)[0], both[1], atol=1e-6)
    third = torch.cat([K, EMPTY], 1)
    for normalise in ('concepts', 'slots'):
        a, b = (concept_maps(Q, O, k, GRID, contrast=Contrast(normalise)) for k in (K, third))
        assert not torch.allclose(a[0], b[0], atol=1e-3)


def test_empty_contrast_is_its_formula():
    heads = [1, 6]
    raw, zero = (concept_maps(Q, O, k, GRID, heads, RAW, reduce=None) for k in (K, EMPTY))
    want = ((raw - zero) / O[heads].square().sum(-1).mean(1).view(2, 1, 1, 1, 1)).mean(0)
    assert torch.allclose(concept_maps(Q, O, K, GRID, heads, k_empty=EMPTY), want, atol=1e-6)
    assert torch.allclose(concept_maps(Q, O, K, GRID, heads, k_empty=EMPTY[:, 0]), want, atol=1e-6)
    assert (concept_maps(Q, O, EMPTY, GRID, k_empty=EMPTY) == 0).all()   # the empty word says nothing
    scaled = concept_maps(Q, 7 * O, K, GRID, heads, k_empty=EMPTY)
    assert torch.allclose(scaled, want, atol=1e-5)                       # and the unit of the outputs falls out


@pytest.mark.parametrize('n', [1, 2])
def test_slots_with_one_empty_token_are_all_the_padding(n):
    q, o, k, empty = (x.double() for x in (Q, O, K, EMPTY))
    explicit = torch.cat([k[:, :n], empty.expand(-1, 30 - n, -1)], 1)
    want = concept_maps(q, o, explicit, GRID, contrast=Contrast('slots'), words=list(range(n)), reduce=None)
    got = concept_maps(q, o, k[:, :n], GRID, contrast=Contrast('slots', slots=30), k_empty=empty, reduce=None)
    assert torch.allclose(got, want, atol=1e-6)
    if n == 1:   # signs, whatever the evidence
        assert (got.abs() - 29 / 30 ** .5).abs().median() < 1e-3


def test_sums_means_and_heads():
    each = concept_maps(Q, O, K, GRID, contrast=Contrast('concepts'), reduce=None)
    assert each.shape == (HEADS, 2, 5, 6, 7)
    for reduce, f in (('sum', torch.sum), ('mean', torch.mean)):
        got = concept_maps(Q, O, K, GRID, [4, 1], Contrast('concepts'), reduce=reduce)
        assert torch.allclose(got, f(each[[4, 1]], 0), atol=1e-5)
    assert torch.allclose(concept_maps(Q, O, K, GRID, torch.tensor([4]), Contrast('concepts'))[0], each[4, 0])


def test_phrases():
    raw = concept_maps(Q, O, K, GRID, contrast=RAW)
    pooled = concept_maps(Q, O, K, GRID, contrast=RAW, words=[[0, 1], 1])
    assert torch.allclose(pooled[0], raw.mean(0), atol=1e-5) and torch.allclose(pooled[1], raw[1])
    single = concept_maps(Q, O, K, GRID, contrast=Contrast(None, None), words=[[0, 1], [1]])
    assert torch.allclose(single, raw[[0, 1, 1]])
    mixed = concept_maps(Q, O, K, GRID, contrast=RAW, words=[torch.tensor(1), range(1)])
    assert torch.allclose(mixed, raw[[1, 0]], atol=1e-5)
    keys = concept_maps(Q, O, K, GRID, contrast=Contrast(None, 'keys'), words=[[0, 1]])
    assert torch.allclose(keys, concept_maps(Q, O, K.mean(1, keepdim=True), GRID, contrast=RAW))
    cross = cross_attention_map(Q, K, GRID, words=[[0, 1]])
    assert torch.allclose(cross[0], cross_attention_map(Q, K, GRID).mean(0), atol=1e-5)
    assert torch.allclose(cross, cross_attention_map(Q, K, GRID, words=[[0, 1]], pool='keys'), atol=1e-5)


def test_padding_is_excluded():
    "Slots that are padding give no map and touch no map, whatever their keys are."
    valid = torch.tensor([1, 0, 1, 0]).bool()
    text = torch.stack([K[:, 0], EMPTY[:, 0], K[:, 1], EMPTY[:, 0]], 1)
    loud = text.clone()
    loud[:, ~valid] = 50.
    for f in (lambda k: concept_maps(Q, O, k, GRID, contrast=Contrast('concepts'), valid=valid),
              lambda k: concept_maps(Q, O, k, GRID, k_empty=EMPTY, valid=valid),
              lambda k: cross_attention_map(Q, k, GRID, valid=valid),
              lambda k: cross_attention_map(Q, k, GRID, valid=valid, softmax='slots')):
        assert f(text).shape[0] == 2 and torch.allclose(f(text), f(loud), atol=1e-5)
    assert torch.allclose(cross_attention_map(Q, text, GRID, valid=valid, softmax='slots').sum(0), torch.ones(5, 6, 7))


def test_baselines_are_their_definitions():
    cross = cross_attention_map(Q, K, GRID, [0, 3])
    want = torch.einsum('hnd,hcd->cn', Q[[0, 3]], K[[0, 3]]) / 2 / D ** .5
    assert torch.allclose(cross.flatten(1), want, atol=1e-5)
    oc = torch.randn(HEADS, 3, D, generator=torch.Generator().manual_seed(0))
    flat = oc.transpose(0, 1).flatten(1) @ O.transpose(0, 1).flatten(1).T   # all heads side by side
    assert torch.allclose(concept_attention_map(oc, O, GRID).flatten(1), flat, atol=1e-4)
    assert torch.allclose(concept_attention_map(oc, O, GRID, reduce='mean').flatten(1), flat / HEADS, atol=1e-4)
    assert concept_attention_map(oc, O, GRID, [1, 2], None).shape == (2, 3, 5, 6, 7)


def test_maps_are_joined_over_what_is_chosen():
    raw = torch.randn(3, 4, 5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(aggregate(raw), raw.mean((0, 1)), atol=1e-6)
    some = aggregate(raw, layers=[3, 1], steps=torch.tensor([2]), words=[[0], [1, 4]])
    assert torch.allclose(some[1], raw[2, [1, 3]][:, [1, 4]].mean((0, 1)), atol=1e-6) and some.shape == (2, 2, 3, 4)
    half = aggregate(raw.half(), softmax='published')
    assert half.dtype == torch.float32 and torch.allclose(half, aggregate(raw.half().float(), softmax='published'))
    early = aggregate(raw, words=[[1, 4]], softmax='early')
    assert torch.allclose(early[0], raw.softmax(2)[:, :, [1, 4]].mean((0, 1, 2)), atol=1e-6)
    late = aggregate(raw[:1], words=[2], softmax='late')        # one word, one step: stretched over 0 to 1
    assert late.min() == 0 and abs(float(late.max()) - 1) < 1e-4
    raw[1, 0, 2] = torch.nan
    assert aggregate(raw)[2].isnan().all() and not aggregate(raw)[0].isnan().any()


def test_one_frame_has_maps():
    grid = Grid(1, 6, 7)
    assert concept_maps(Q[:, :42], O[:, :42], K, grid, contrast=Contrast('concepts')).shape == (2, 1, 6, 7)


# Bad input

S = torch.tensor([3., 1., 2.])
TEXT = torch.zeros(HEADS, 7, D)
MANY = torch.zeros(1, 2, 3, 1, 2, 2)
BAD = {
    'text not cut': ('cut the text tokens off', lambda: concept_maps(torch.cat([TEXT, Q], 1), O, K, GRID)),
    'text not cut o': ('cut the text tokens off', lambda: calinski_harabasz(torch.cat([O, TEXT], 1), GRID)),
    'text not cut lambda2': ('same tokens', lambda: lambda2(torch.cat([TEXT, Q], 1), Q)),
    'no grid': ('with a grid', lambda: calinski_harabasz(O)),
    'batch axis': ('x[row]', lambda: calinski_harabasz(O[None], GRID)),
    'not a tensor': ('floating point torch tensor', lambda: fisher([[1.]], GRID)),
    'integers': ('torch.int64', lambda: davies_bouldin(O.long(), GRID)),
    'one frame': ('at least 2', lambda: davies_bouldin(O.view(HEADS, 1, -1, D))),
    'degenerate': ("use 'nan' or 'published'", lambda: fisher(O, GRID, degenerate='zero')),
    'no heads at all': ('not empty', lambda: calinski_harabasz(O[:0], GRID)),
    'no numbers': ('not empty', lambda: separability(O[..., :0], GRID)),
    'no numbers lambda2': ('of 0 numbers', lambda: lambda2(Q[..., :0], Q[..., :0])),
    'one token': ('at least 2 tokens', lambda: lambda2(Q[:, :1], Q[:, :1])),
    'no iterations': ('iterations=0', lambda: lambda2(Q, Q, 0)),
    'k too large': ('k=9 heads', lambda: select_heads(S, HeadChoice(9))),
    'k and skip': ('use k=1 or less', lambda: select_heads(S, HeadChoice(2, skip=2))),
    'negative k': ('k=-1 must be a whole number of at least 0', lambda: HeadChoice(-1)),
    'no k': ('k=None for all', lambda: HeadChoice(.5)),
    'negative skip': ('skip=-1 must be a whole number of at least 0', lambda: HeadChoice(skip=-1)),
    'threshold': ("threshold='high' must be a number", lambda: HeadChoice(threshold='high')),
    'by': ("by='best' is unknown", lambda: HeadChoice(by='best')),
    'table of scores': ('scores[layer]', lambda: select_heads(S[None])),
    'no head above': ('the best score is 3', lambda: select_heads(S, HeadChoice(2, threshold=9.))),
    'no head below': ('the best score is 1', lambda: select_heads(S, HeadChoice(2, 'dbi', .5))),
    'all constant': ('constant heads', lambda: select_heads(S * torch.nan, HeadChoice(1))),
    'skip all': ('no head is left', lambda: select_heads(S, HeadChoice(None, skip=3))),
    'keys of other heads': ('k_text is (3, 2, 16)', lambda: surrogate(Q, K[:3], GRID)),
    'keys of other width': ('(heads, words, d)', lambda: surrogate(Q, K[..., :8], GRID)),
    'no keys': ('at least 1', lambda: surrogate(Q, K[:, :0], GRID)),
    'index over the video': ('inside the frame', lambda: gram_col(O, torch.full((HEADS, 1, 5), 42), GRID)),
    'index shape': ('whole numbers', lambda: gram_col(O, torch.zeros(HEADS, 5), GRID)),
    'other call': ('same attention call', lambda: concept_maps(Q, O[:3], K, GRID, contrast=RAW)),
    'normalise': ("normalise='softmax' is unknown", lambda: Contrast('softmax')),
    'pool': ("pool='max' is unknown", lambda: Contrast(pool='max')),
    'pool of cross-attention': ("pool='max' is unknown", lambda: cross_attention_map(Q, K, GRID, pool='max')),
    'reduce': ("reduce='max' is unknown", lambda: concept_attention_map(K, O, GRID, reduce='max')),
    'softmax': ("softmax='tokens' is unknown", lambda: cross_attention_map(Q, K, GRID, softmax='tokens')),
    'no empty key': ('needs k_empty', lambda: concept_maps(Q, O, K, GRID)),
    'empty key shape': ('k_empty is (3, 1, 16)', lambda: concept_maps(Q, O, K, GRID, k_empty=EMPTY[:3])),
    'one concept': ('at least 2', lambda: concept_maps(Q, O, K[:, :1], GRID, contrast=Contrast('concepts'))),
    'one slot': ('at least 2 slots', lambda: concept_maps(Q, O, K[:, :1], GRID, contrast=Contrast('slots'))),
    'slots alone': ('with k_empty', lambda: concept_maps(Q, O, K, GRID, contrast=Contrast('slots', slots=226))),
    'slots too few': ('slots=1 with 2', lambda: concept_maps(Q, O, K, GRID, contrast=Contrast('slots', slots=1), k_empty=EMPTY)),
    'slots and keys': ("pool='maps'", lambda: Contrast('slots', 'keys')),
    'slots without z-scores': ("slots=9 is for normalise='slots'", lambda: Contrast(slots=9)),
    'slots of words': ('must be a whole number', lambda: Contrast('slots', slots='all')),
    'together': ('together=1 is unknown', lambda: Contrast(together=1)),
    'blank word': ('blank', lambda: Contrast(against=['a', ' '])),
    'number for a word': ('no text', lambda: Contrast(against=[3])),
    'one map of each token': ('one map for each word', lambda: Contrast(pool=None, against='a')),
    'softmax and keys': ("pool='maps'", lambda: cross_attention_map(Q, K, GRID, softmax='slots', pool='keys')),
    'no words': ('no words were requested', lambda: concept_maps(Q, O, K, GRID, words=[], k_empty=EMPTY)),
    'all padding': ('all slots are padding', lambda: cross_attention_map(Q, K, GRID, valid=[False, False])),
    'word as text': ('must be the slots', lambda: cross_attention_map(Q, K, GRID, words=['dog'])),
    'word without slots': ('not in the prompt', lambda: concept_maps(Q, O, K, GRID, words=[[]], k_empty=EMPTY)),
    'word cut off': ('cut off by the text length', lambda: concept_maps(Q, O, K, GRID, words=[[2]], k_empty=EMPTY)),
    'word is padding': ('is padding', lambda: cross_attention_map(Q, K, GRID, words=[1], valid=[True, False])),
    'valid length': ('there are 2 text slots', lambda: cross_attention_map(Q, K, GRID, valid=[True])),
    'no heads': ('at least one', lambda: concept_maps(Q, O, K, GRID, heads=[], k_empty=EMPTY)),
    'head out of range': ('from 0 to 7', lambda: cross_attention_map(Q, K, GRID, heads=[8])),
    'maps of one step': ('(steps, layers, slots, frames, rows, cols)', lambda: aggregate(torch.zeros(4, 5, 2, 3, 4))),
    'whole numbers': ('torch.int64', lambda: aggregate(torch.zeros(1, 1, 1, 1, 1, 1).long())),
    'no tensor': ('list', lambda: aggregate([[1.]])),
    'layer that is not there': ('layers=[7], but these maps have 2', lambda: aggregate(MANY, layers=[7])),
    'no steps': ('steps=[], but', lambda: aggregate(MANY, steps=[])),
    'steps by halves': ('steps=[0.5], but', lambda: aggregate(MANY, steps=[.5])),
    'slot that is not there': ('there are 3 text slots', lambda: aggregate(MANY, words=[3])),
    'softmax of no name': ("'published', 'early', 'late' or None", lambda: aggregate(MANY, softmax='all')),
    'concepts of other heads': ('o_concept', lambda: concept_attention_map(K[:3], O, GRID)),
}


@pytest.mark.parametrize('case', BAD)
def test_messages(case):
    text, call = BAD[case]
    with pytest.raises((ValueError, TypeError)) as e:
        call()
    assert text in str(e.value)


@pytest.mark.gpu
def test_on_cuda():
    q, o, k, e = (x.cuda() for x in (Q, O, K, EMPTY))
    for by, s in separability(o, GRID).items():
        assert torch.allclose(s.cpu(), separability(O, GRID)[by], rtol=1e-3)
    heads = select_heads(calinski_harabasz(o, GRID), HeadChoice(2))
    maps = concept_maps(q, o, k, GRID, heads, k_empty=e)
    assert maps.is_cuda and torch.allclose(maps.cpu(), concept_maps(Q, O, K, GRID, heads, k_empty=EMPTY), atol=1e-3)
    assert torch.allclose(lambda2(q, q).cpu(), lambda2(Q, Q), atol=1e-2)
    valid = torch.ones(2, device='cuda').bool()
    assert cross_attention_map(q, k, GRID, valid=valid, softmax='slots').is_cuda
    assert concept_attention_map(k, o, GRID, heads.cuda()).is_cuda

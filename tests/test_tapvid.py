"""Point sets: files are read without running them, protocols ask what they should, scores are what was planted."""
import io
import os
import pickle
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidlens.points.tapvid import (PointClip, PointSet, _Chunk, _skeleton, compare, evaluate_tapvid, read_difftrack,
                                   read_tapvid, write_tapvid)
from vidlens.points.matching import Tracks

DIFFTRACK = Path(__file__).resolve().parents[2] / 'shared/data/difftrack'
G = np.random.default_rng(0)


def example(frames=4, height=12, width=20, **changes):
    "One video in the official layout: pictures that JPEG keeps, points in shares of the frame."
    ramp = np.linspace(0, 250, height * width).reshape(height, width, 1).astype(np.uint8)
    video = np.stack([np.repeat(ramp // (f + 1), 3, -1) for f in range(frames)])
    return {'video': video, 'points': G.random((3, frames, 2)).astype(np.float32),
            'occluded': G.random((3, frames)) > .6} | changes


def jpeg(frame):
    out = io.BytesIO()
    Image.fromarray(frame).save(out, 'JPEG', quality=95, subsampling=0)
    return out.getvalue()


def dumped(folder, content, protocol=4, name='set.pkl'):
    (folder / name).write_bytes(pickle.dumps(content, protocol))
    return folder / name


def planted(name='a', points=6, frames=11, size=(256, 256), seed=0):
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(points, frames, 2, generator=g) * torch.tensor([size[1], size[0]])
    visible = torch.rand(points, frames, generator=g) > .3
    return PointClip(name, xy, visible, torch.rand(frames, *size, 3, generator=g))


def knowing(clip, change=lambda xy, visible: (xy, visible), mode='first'):
    def tracker(video, queries):
        which = clip.queries(mode)[1]
        xy, visible = change(clip.tracks[which].clone(), clip.visible[which].clone())
        return Tracks(xy, visible, torch.ones(visible.shape), torch.arange(visible.shape[1]).float())
    return tracker


# files

@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('layout', ['dict', 'list'])
def test_every_pickle_protocol(tmp_path, protocol, layout):
    x = example(height=60, width=80)
    x['points'] = x['points'].astype('>f8')          # other machines and types
    x['occluded'] = np.asfortranarray(x['occluded'])
    x['extra'] = {'fps': np.float64(25), 'tags': ('a', None, 1 << 40, -1, True, 2.5, b''), 'list': []}
    found = read_tapvid(dumped(tmp_path, {'goat': x} if layout == 'dict' else [x], protocol))
    assert found.names == (['goat'] if layout == 'dict' else ['set_0'])
    clip = found[0]
    assert torch.equal((clip.video * 255).round().to(torch.uint8), torch.from_numpy(x['video']))
    assert np.allclose(clip.tracks, x['points'] * [80, 60], atol=1e-4) and clip.size == (60, 80)
    assert np.array_equal(clip.visible, ~x['occluded'])


def test_names_of_old_numpy(tmp_path):
    x = example()
    data = pickle.dumps({'goat': x}, 2).replace(b'numpy._core.', b'numpy.core.')
    assert b'numpy.core.multiarray' in data
    (tmp_path / 'old.pkl').write_bytes(data)
    assert np.array_equal(read_tapvid(tmp_path / 'old.pkl')['goat'].visible, ~x['occluded'])


@pytest.mark.parametrize('kind', ['list', 'tuple', 'bytes array', 'object array', 'frames'])
def test_compressed_frames(tmp_path, kind):
    x = example(height=40, width=48)
    frames = [jpeg(f) for f in x['video']]
    packed = {'list': frames, 'tuple': tuple(frames), 'bytes array': np.array(frames),
              'object array': np.array(frames, dtype=object), 'frames': list(x['video'])}[kind]
    for protocol in (2, 4):
        clip = read_tapvid(dumped(tmp_path, [x | {'video': packed}], protocol))[0]
        assert clip.video.shape == (4, 40, 48, 3)
        assert (clip.video * 255 - torch.from_numpy(x['video'])).abs().mean() < 3


def test_size_while_decoding(tmp_path):
    x = example(height=60, width=80)
    path = dumped(tmp_path, {'goat': x})
    small, whole = read_tapvid(path, size=32)[0], read_tapvid(path)[0].resized(32)
    assert small.size == (32, 32)
    assert torch.allclose(small.video, whole.video, atol=1e-5) and torch.allclose(small.tracks, whole.tracks, atol=1e-4)


def test_long_strings_stay_in_the_file(tmp_path):
    "Opening a set costs its skeleton only, and a fault in a frame shows when that video is asked for."
    good, bad = example(height=60, width=80), example(height=60, width=80)
    bad['video'] = [jpeg(f) for f in bad['video'][:3]] + [b'no picture']
    for protocol in (2, 3, 4, 5):
        path = dumped(tmp_path, {'good': good, 'bad': bad}, protocol)
        content, _ = _skeleton(path)
        assert isinstance(content['good']['video'].data, _Chunk)
        found = read_tapvid(path)
        assert found['good'].video.shape == (4, 60, 80, 3)
        with pytest.raises(ValueError, match="'bad', key 'video': frame 3 is 10 bytes"):
            found['bad']


def test_folder_of_parts(tmp_path):
    for i in range(3):
        dumped(tmp_path, [example() for _ in range(2)], name=f'000{i}_of_0003.pkl')
    found = read_tapvid(tmp_path)
    assert len(found) == 6 and found.names[3] == '0001_of_0003_1'
    assert [c.name for c in found[1::2]] == found.names[1::2] and found[-1].name == found.names[-1]
    with pytest.raises(KeyError, match='goat'):
        found['goat']
    with pytest.raises(IndexError, match='0 to 5'):
        found[6]


class Calls:
    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


class Plain:
    pass


HARM = {'os.system': lambda mark: Calls(os.system, f'touch {mark}'), 'eval': lambda mark: Calls(eval, f'open({str(mark)!r}, "w")'),
        'getattr': lambda mark: Calls(getattr, Path, 'touch'), 'Path.touch': lambda mark: Calls(Path.touch, mark),
        'numpy.save': lambda mark: Calls(np.save, str(mark), 0), 'a class': lambda mark: Plain(),
        'a set': lambda mark: {1, 2}, 'an array of objects': lambda mark: np.array([Calls(os.system, f'touch {mark}')]),
        'a structured array': lambda mark: np.zeros(2, [('a', 'f4')]), 'complex': lambda mark: 1j}


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('harm', HARM)
def test_nothing_is_run(tmp_path, harm, protocol):
    mark = tmp_path / 'harm'
    x = example() | {'extra': HARM[harm](mark)}
    with pytest.raises(ValueError, match='nothing of it was run') as e:
        read_tapvid(dumped(tmp_path, {'goat': x}, protocol))
    assert not mark.exists() and not list(tmp_path.glob('harm*'))
    named = {'os.system': 'posix.system|nt.system', 'eval': 'builtin.*eval', 'getattr': 'getattr', 'a class': 'Plain|copy_?reg',
             'numpy.save': 'numpy.*save', 'an array of objects': 'system', 'complex': 'complex'}
    assert e.match(named.get(harm, 'holds'))


@pytest.mark.parametrize('data', [b'cos\nsystem\n(S"touch harm"\ntR.', b'(S"touch harm"\nios\nsystem\n.', b'Pabc\n.',
                                  b'\x80\x02\x82\x01.', b'\x80\x05\x97.', b'\x80\x04\x8c\x02os\x8c\x06system\x93.',
                                  b'c_codecs\nencode\n(cnumpy\nndarray\nS"x"\ntR.', b'}c_codecs\nencode\nb.'])
def test_hand_made_harm(tmp_path, data):
    (tmp_path / 'x.pkl').write_bytes(data)
    with pytest.raises(ValueError, match='x.pkl'):
        read_tapvid(tmp_path / 'x.pkl')


def test_deep_files_are_refused(tmp_path):
    "To hash, or to compare, what is nested deep enough would end the interpreter."
    deep = b'\x80\x04})' + b'\x85' * 200_000
    (tmp_path / 'x.pkl').write_bytes(deep + b'Ns.')
    with pytest.raises(ValueError, match='tuple as the key'):
        read_tapvid(tmp_path / 'x.pkl')
    (tmp_path / 'x.pkl').write_bytes(b'\x80\x04}\x8c\x01a)' + b'\x85' * 200_000 + b's.')
    with pytest.raises(ValueError, match="'a' is a tuple of 1"):
        read_tapvid(tmp_path / 'x.pkl')


def nested(depth, width, kind, first=b'X\x01\x00\x00\x00a'):
    "A container of containers, each holding the one before many times over: width**depth entries in a few bytes."
    out = first + b'q\x00'
    for i in range(1, depth):
        out = b'(' + out + (b'h' + bytes([i - 1])) * (width - 1) + kind + b'q' + bytes([i])
    return out


@pytest.mark.parametrize('data', [
    b'\x80\x04)' + b'\x85' * 200_000 + b'X\x01\x00\x00\x00n\x93.',       # a module name that is a tuple 200,000 deep
    b'\x80\x04' + nested(25, 10, b't') + b'X\x01\x00\x00\x00n\x93.',       # one of 10**24 references
    b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85cnumpy\ndtype\n' + nested(12, 10, b'l')
    + b'K\x00K\x01\x87R\x89X\x00\x00\x00\x00tb.',                          # the type of an array, of 10**11 entries
    b'\x80\x04}' + nested(25, 10, b't') + b'Ns.', b'\x80\x05\x96' + b'\xff' * 7 + b'\x00.',
    b'\x80\x04\x8f' + nested(20, 9, b't') + b'\x90.'])
def test_files_that_would_hang_end_at_once(tmp_path, data):
    "Neither depth nor repetition costs more than the bytes of the file."
    (tmp_path / 'x.pkl').write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(ValueError, match='x.pkl'):
        read_tapvid(tmp_path / 'x.pkl')
    assert time.perf_counter() - start < 10


def test_damaged_files_give_sentences(tmp_path):
    "Whatever is changed in a file, reading it ends well or in a ValueError."
    path, dice = tmp_path / 'x.pkl', random.Random(0)
    for protocol in (0, 2, 4, 5):
        whole = pickle.dumps({'goat': example(frames=2, height=4, width=4), 'cat': example(frames=2, height=4, width=4)},
                             protocol)
        for _ in range(120):
            data = bytearray(whole)
            for _ in range(dice.choice([1, 1, 3])):
                data[dice.randrange(len(data))] = dice.randrange(256)
            path.write_bytes(data[:dice.choice([len(data), len(data), dice.randrange(1, len(data))])])
            try:
                list(read_tapvid(path))
            except ValueError as e:
                assert 'x.pkl' in str(e)


WRONG = {'no key': ({'points': 0}, 'points', 'no such key'),
         'a float video': (example(video=np.zeros((4, 12, 20, 3))), 'video', r'\(4, 12, 20, 3\) float64'),
         'a grey video': (example(video=np.zeros((4, 12, 20), np.uint8)), 'video', r'\(4, 12, 20\)'),
         'a string': (example(video='goat.mp4'), 'video', 'a str'),
         'no frame': (example(video=[]), 'points', '0 frames'),
         'another length': (example(points=np.zeros((3, 5, 2))), 'points', r'\(3, 5, 2\) for a video of 4 frames'),
         'three coordinates': (example(points=np.zeros((3, 4, 3))), 'points', r'\(3, 4, 3\)'),
         'whole points': (example(points=np.zeros((3, 4, 2), int)), 'points', 'int64'),
         'points as a list': (example(points=[[[0., 0.]]]), 'points', 'a list of 1'),
         'pixels': (example(points=np.full((3, 4, 2), 99.), occluded=np.zeros((3, 4), bool)), 'points', 'divide pixels'),
         'lost but visible': (example(points=np.full((3, 4, 2), np.nan), occluded=np.zeros((3, 4), bool)), 'points', 'nan'),
         'other occluded': (example(occluded=np.zeros((3, 5), bool)), 'occluded', r'\(3, 5\)'),
         'float occluded': (example(occluded=np.zeros((3, 4))), 'occluded', 'float64'),
         'counts': (example(occluded=np.full((3, 4), 7)), 'occluded', 'up to 7'),
         'mixed frames': (example(video=[np.zeros((4, 4 + i % 2, 3), np.uint8) for i in range(4)]), 'video', 'shapes'),
         'bytes of text': (example(video=[b'x'] * 4), 'video', 'not a whole JPEG')}


@pytest.mark.parametrize('case', WRONG)
def test_malformed_content_is_named(tmp_path, case):
    x, key, found = WRONG[case]
    if case == 'no key':
        x = {k: v for k, v in example().items() if k != 'points'}
    with pytest.raises(ValueError, match=f"'goat', key '{key}'.*{found}"):
        read_tapvid(dumped(tmp_path, {'goat': x}))[0]


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.pkl'):
        read_tapvid(tmp_path / 'no.pkl')
    with pytest.raises(FileNotFoundError, match='holds no .pkl'):
        read_tapvid(tmp_path)
    for data, said in ((b'', 'empty'), (b'text, not a pickle', 'not a whole pickle'), (pickle.dumps(3), 'a dict or a list'),
                       (pickle.dumps({}), 'a dict of 0'), (pickle.dumps({'goat': 3}), "'goat' is a int"),
                       (pickle.dumps({'a': example()})[:-40], 'not a whole pickle')):
        (tmp_path / 'x.pkl').write_bytes(data)
        with pytest.raises(ValueError, match=said):
            read_tapvid(tmp_path / 'x.pkl')


@pytest.mark.parametrize('layout', ['davis', 'rgb_stacking', 'kinetics'])
def test_written_files_come_back_and_are_plain(tmp_path, layout):
    clips = [planted('a', size=(16, 24)), planted('b', size=(16, 24), seed=1)]
    path = write_tapvid(clips, tmp_path / 'x.pkl', layout)
    found = read_tapvid(path)
    assert found.names == (['a', 'b'] if layout == 'davis' else ['x_0', 'x_1'])
    for a, b in zip(clips, found):
        assert torch.equal(a.visible, b.visible) and (a.tracks - b.tracks).abs().max() < 1e-4
        assert (a.video - b.video).abs().max() < .003 or layout == 'kinetics'
    official = pickle.loads(path.read_bytes())   # our own file: what official code sees
    first = official['a'] if layout == 'davis' else official[0]
    assert set(first) == {'video', 'points', 'occluded'} and first['points'].max() <= 1
    with pytest.raises(FileExistsError):
        write_tapvid(clips, path)
    with pytest.raises(ValueError, match='own'):
        write_tapvid([clips[0], clips[0]], tmp_path / 'y.pkl')
    with pytest.raises(ValueError, match='no video'):
        write_tapvid([PointClip('a', clips[0].tracks, clips[0].visible, size=(16, 24))], tmp_path / 'y.pkl')
    with pytest.raises(ValueError, match="'davis'"):
        write_tapvid(clips, tmp_path / 'y.pkl', 'dvais')
    assert not (tmp_path / 'y.pkl').exists()


# clips and protocols

def test_queries_follow_the_official_sampling():
    "Written anew from the protocol: a loop over points, or over frames."
    clip = planted(points=9, frames=13)
    hidden = clip.visible.clone()
    hidden[4] = False                          # never visible
    clip = PointClip('a', clip.tracks, hidden, size=(256, 256))
    first = [[hits[0], *clip.tracks[i, hits[0]].tolist(), i] for i in range(9)
             if (hits := [f for f in range(13) if clip.visible[i, f]])]
    strided = [[f, *clip.tracks[i, f].tolist(), i] for f in range(0, 13, 5) for i in range(9) if clip.visible[i, f]]
    for mode, want in (('first', first), ('strided', strided)):
        q, which = clip.queries(mode)
        assert torch.allclose(torch.cat([q, which[:, None].float()], 1), torch.tensor(want))
    assert (clip.queries('first')[0][:, 0] > 0).any(), 'queries that start late belong to the protocol'
    with pytest.raises(ValueError, match="'strided'"):
        clip.queries('all')


def test_bad_clips():
    xy, seen = torch.zeros(2, 3, 2), torch.ones(2, 3).bool()
    for args, said in (((xy, seen[:, :2]), 'must be'), ((xy, seen.float()), '> 0.5'), ((xy, seen), 'give size'),
                       ((xy, seen, torch.zeros(4, 8, 8, 3)), '4 frames'), ((xy[..., :1], seen), 'must be'),
                       ((xy, seen, torch.zeros(3, 8, 8, 3), (9, 9)), 'same for both'), ((xy / 0, seen, None, (8, 8)), 'finite')):
        with pytest.raises(ValueError, match=said):
            PointClip('a', *args)


# scores

def test_planted_noise_gets_the_known_scores():
    "Errors of known length and flipped flags; d_k, AJ and OA counted point by point."
    clip, g = planted(points=20), torch.Generator().manual_seed(1)
    length = torch.tensor([.5, 1.5, 3., 6., 12., 24.])[torch.randint(6, (20, 11), generator=g)]
    flip = torch.rand(20, 11, generator=g) < .2
    score = evaluate_tapvid([clip], knowing(clip, lambda xy, v: (xy + length[..., None] * torch.tensor([.6, .8]), v ^ flip)))
    q, _ = clip.queries()
    counted = {(i, f) for i in range(20) for f in range(11) if f > q[i, 0]}
    seen, said = clip.visible, clip.visible ^ flip
    shares, jaccard = [], []
    for k in range(5):
        hit = {(i, f) for i, f in counted if seen[i, f] and length[i, f] < 2 ** k}
        true = sum(bool(said[i, f]) for i, f in hit)
        false = sum(bool(said[i, f]) and (i, f) not in hit for i, f in counted)
        all_seen = sum(bool(seen[i, f]) for i, f in counted)
        shares.append(len(hit) / all_seen), jaccard.append(true / (all_seen + false))
    right = sum(not flip[i, f] for i, f in counted) / len(counted)
    want = {'d_avg': np.mean(shares), 'AJ': np.mean(jaccard), 'OA': right} | {f'd{k}': s for k, s in enumerate(shares)}
    for name, value in want.items():
        assert float(score[name][0]) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize('mode', ['first', 'strided'])
def test_distances_are_in_256_whatever_the_size(mode):
    clip = planted(size=(64, 128))

    def shifted(size):
        c = clip.resized(size)
        away = torch.tensor([3. * c.size[1] / 256, 0])
        return evaluate_tapvid([clip], knowing(c, lambda xy, v: (xy + away, v), mode), mode, size)
    for size in (256, None, (32, 32)):
        score = shifted(size)
        assert torch.equal(score.values[0], torch.tensor([.6, .6, 1, 0, 0, 1, 1, 1])), size
    assert score.queries == [len(clip.queries(mode)[0])]


def test_strided_judges_both_directions():
    clip = planted(points=8)

    def forward_only(video, queries):
        found = knowing(clip, mode='strided')(video, queries)
        before = torch.arange(11) < queries[:, :1]
        return Tracks(found.xy + 99. * before[..., None], found.visible, found.score, found.times)
    assert evaluate_tapvid([clip], forward_only, 'strided')['d4'] < .8
    assert evaluate_tapvid([clip], knowing(clip, mode='strided'), 'strided')['d4'] == 1


def test_table_intervals_and_comparison():
    clips = [planted(n, seed=i) for i, n in enumerate('abcdef')]
    by_video = {c.video[0, 0, 0, 0].item(): (c, i) for i, c in enumerate(clips)}

    def worse(video, queries):
        c, i = by_video[video[0, 0, 0, 0].item()]
        return knowing(c, lambda xy, v: (xy + 1.5 * i, v))(video, queries)
    good = evaluate_tapvid(iter(clips), lambda v, q: knowing(by_video[v[0, 0, 0, 0].item()][0])(v, q))
    bad = evaluate_tapvid(clips, worse)
    rows = bad.to_dataframe().to_dict('records')
    assert [r['video'] for r in rows] == [*'abcdef', 'mean', 'from', 'to']
    assert rows[6]['d_avg'] == pytest.approx(float(bad['d_avg'].mean())) and rows[7]['d_avg'] < rows[6]['d_avg'] < rows[8]['d_avg']
    gain = compare(good, bad)['d_avg']
    assert gain.mean == pytest.approx(1 - rows[6]['d_avg'], abs=1e-6) and 0 < gain.lo < gain.hi
    assert 'mean' in str(bad) and len(str(bad).splitlines()) == 10 and '6 videos' in repr(bad) and '\n' not in repr(bad)
    assert bad.to_xarray()['values'].sel(video='b', metric='OA') == bad['OA'][1]
    with pytest.raises(ValueError, match='differ in names'):
        compare(good, evaluate_tapvid(clips[:2], worse))
    with pytest.raises(KeyError, match='d_avg'):
        good['davg']


def test_a_clip_without_visible_points_counts_for_nothing():
    c = planted('seen')
    blind = PointClip('blind', c.tracks, c.visible & False, c.video)
    score = evaluate_tapvid([c, blind], knowing(c))
    assert score['d_avg'][1].isnan() and score.interval('d_avg').mean == 1 and score.queries[1] == 0


def test_one_video_at_a_time():
    loaded = []

    def load(i):
        loaded.append(i)
        return planted(str(i), seed=i, points=2, frames=3, size=(8, 8))
    clips, seen = PointSet(list('0123'), load), []

    def tracker(video, queries):
        seen.append(len(loaded))
        return Tracks(torch.zeros(len(queries), 3, 2), torch.ones(len(queries), 3).bool(), torch.ones(len(queries), 3),
                      torch.arange(3.))
    evaluate_tapvid(clips, tracker, size=None)
    assert seen == [1, 2, 3, 4]


def test_answers_that_do_not_fit():
    clip = planted('goat', points=2, frames=3, size=(8, 8))
    n = len(clip.queries()[0])

    def gives(xy, seen):
        return lambda video, queries: Tracks(xy, seen, seen.float(), torch.arange(seen.shape[1]).float())
    whole = torch.zeros(n, 3, 2), torch.ones(n, 3).bool()
    for tracker, error, said in ((lambda v, q: whole[0], TypeError, 'must give Tracks'),
                                 (gives(whole[0][:, :2], whole[1][:, :2]), ValueError, r'at_frames\(3\)'),
                                 (gives(whole[0], whole[1][:, :2]), ValueError, 'visibility'),
                                 (gives(whole[0] / 0, whole[1]), ValueError, 'visible False')):
        with pytest.raises(error, match=f"'goat'.*{said}"):
            evaluate_tapvid([clip], tracker, size=None)
    with pytest.raises(ValueError, match='no video'):
        evaluate_tapvid([PointClip('a', clip.tracks, clip.visible, size=(8, 8))], gives(*whole))
    with pytest.raises(ValueError, match='no clip'):
        evaluate_tapvid([], gives(*whole))


# DiffTrack

def made(folder, tracks=(1, 5, 3, 2), seen=(1, 5, 3), prompts='one\ntwo\n', name='001'):
    for sub in ('tracks', 'visibility'):
        (folder / sub).mkdir(exist_ok=True)
    np.save(folder / f'tracks/{name}.npy', np.full(tracks, 4, np.float32))
    np.save(folder / f'visibility/{name}.npy', np.ones(seen, bool))
    (folder / 'prompt.txt').write_text(prompts)
    return folder


def test_difftrack_layout(tmp_path):
    clip = read_difftrack(made(tmp_path))['001']
    assert clip.prompt == 'two' and clip.tracks.shape == (3, 5, 2) and clip.visible.shape == (3, 5)
    assert (clip.tracks == 4.5).all() and (read_difftrack(tmp_path, half_pixel=False)[0].tracks == 4).all()


def test_difftrack_faults(tmp_path):
    with pytest.raises(ValueError, match='003.npy has no prompt'):
        read_difftrack(made(tmp_path, name='003'))[0]
    (tmp_path / 'tracks/003.npy').unlink()
    with pytest.raises(ValueError, match=r'001.npy is \(5, 3, 2\)'):
        read_difftrack(made(tmp_path, tracks=(5, 3, 2)))[0]
    with pytest.raises(ValueError, match="'001'"):
        read_difftrack(made(tmp_path, seen=(1, 4, 3)))[0]
    made(tmp_path)
    np.save(tmp_path / 'tracks/001.npy', np.array([Calls(os.system, f'touch {tmp_path / "harm"}')]))
    with pytest.raises(ValueError, match='001.npy'):
        read_difftrack(tmp_path)[0]
    assert not (tmp_path / 'harm').exists()
    (tmp_path / 'visibility/001.npy').unlink()
    made(tmp_path / 'visibility', name='000')
    with pytest.raises(FileNotFoundError, match='give one of its folders'):
        (tmp_path / 'prompt.txt').unlink()
        read_difftrack(tmp_path)
    with pytest.raises(FileNotFoundError, match='give the folder'):
        read_difftrack(tmp_path / 'none')


@pytest.mark.parametrize('folder', ['cogvideox_t2v_2b/fg', 'cogvideox_t2v_2b/bg', 'hunyuan_t2v/fg', 'hunyuan_t2v/bg'])
def test_published_difftrack_samples(folder):
    if not DIFFTRACK.is_dir():
        pytest.skip('needs ../shared/data/difftrack')
    found = read_difftrack(DIFFTRACK / folder)
    assert len(found) == 4
    for i in range(4):
        clip = found[i]
        assert clip.tracks.shape == (100 if 'bg' in folder else 400, 49, 2) and clip.size == (480, 720)
        assert len(clip.prompt) > 50 and (clip.video is not None) == (folder == 'cogvideox_t2v_2b/fg' and i == 0)
        q, _ = clip.queries()
        assert len(q) and (q[:, 1:] > 0).all() and (q[:, 1] < 720).all() and (q[:, 2] < 480).all()
    with pytest.raises(FileNotFoundError, match='fg'):
        read_difftrack((DIFFTRACK / folder).parent)

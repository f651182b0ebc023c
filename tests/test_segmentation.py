"""Folders of VSPW, DAVIS and MeViS as they are unpacked, and the figures of zero-shot segmentation."""
import json
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools.mask import encode
from sklearn.metrics import jaccard_score

from vidlens.core.grid import Grid
from vidlens.words.segmentation import (Segmentation, SegmentationScores, SegmentationTable, Segmented, _decoded,
                                        evaluate_segmentation, read_segmentation, segment, video_consistency)
from vidlens.core.upsampling import upsample

G = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 4, (4, 3, 4), generator=G).repeat_interleave(4, 1).repeat_interleave(4, 2)


def pictures(folder, labels=None, end='jpg', size=(12, 16)):
    folder.mkdir(parents=True)
    for f in range(4):
        if labels is None:
            x = np.full((*size, 3), 40 * f, np.uint8)
            Image.fromarray(x).save(folder / f'{f:05}.{end}')
        else:
            Image.fromarray(labels[f].numpy().astype(np.uint8)).save(folder / f'{f:05}.png')



@pytest.fixture
def folder(tmp_path, request):
    for video in ('a', 'b'):
        if request.param == 'VSPW':
            pictures(tmp_path / 'data' / video / 'origin')
            pictures(tmp_path / 'data' / video / 'mask', LABELS)
            (tmp_path / 'label_num_dic_final.json').write_text(json.dumps({'wall': 1, 'door': 2}))
            (tmp_path / 'val.txt').write_text('b\n')
        else:
            pictures(tmp_path / 'JPEGImages' / '480p' / video)
            pictures(tmp_path / 'Annotations' / '480p' / video, LABELS)
            (tmp_path / 'ImageSets' / '2017').mkdir(parents=True, exist_ok=True)
            (tmp_path / 'ImageSets' / '2017' / 'val.txt').write_text('b\n')
    return tmp_path


@pytest.mark.parametrize('folder', ['VSPW', 'DAVIS'], indirect=True)
def test_folders(folder):
    clips = read_segmentation(folder)
    assert clips.names == ['a', 'b'] and len(clips) == 2 and read_segmentation(folder, 'val').names == ['b']
    clip = clips[1]
    assert clip.name == 'b' and clip.video.shape == (4, 12, 16, 3) and abs(float(clip.video[2].mean()) - 80 / 255) < .01
    want = LABELS.masked_fill(LABELS == 0, -1) if 'wall' in clip.names.values() else LABELS
    assert torch.equal(clip.labels, want)
    small = read_segmentation(folder, frames=2, size=(6, 8))[0]
    assert small.video.shape == (2, 6, 8, 3) and torch.equal(small.labels, want[:2, ::2, ::2])
    with pytest.raises(IndexError):
        clips[2]


def test_the_one_object_of_davis_2016(tmp_path):
    "Masks of 0 and 255 show object 1; beside other numbers 255 is no label."
    for video, labels in (('one', 255 * (LABELS > 1)), ('more', LABELS.masked_fill(LABELS == 3, 255)), ('all', 0 * LABELS + 255)):
        pictures(tmp_path / 'JPEGImages' / '480p' / video)
        pictures(tmp_path / 'Annotations' / '480p' / video, labels)
    found = {name: clip.labels for name, clip in zip(('all', 'more', 'one'), read_segmentation(tmp_path))}
    assert torch.equal(found['one'], (LABELS > 1).long()) and (found['all'] == 1).all()
    assert torch.equal(found['more'], LABELS.masked_fill(LABELS == 3, -1))


@pytest.mark.parametrize('folder', ['DAVIS'], indirect=True)
def test_the_lists_of_davis_2016_hold_paths(folder):
    (folder / 'ImageSets' / '2017').rename(folder / 'ImageSets' / '480p')
    lines = [f'/JPEGImages/480p/b/{f:05}.jpg /Annotations/480p/b/{f:05}.png' for f in range(4)]
    (folder / 'ImageSets' / '480p' / 'val.txt').write_text('\n'.join(lines))
    assert read_segmentation(folder, 'val').names == ['b']


@pytest.mark.parametrize('folder', ['VSPW', 'DAVIS'], indirect=True)
@pytest.mark.parametrize('case', ['missing', 'size', 'split', 'odd split', 'no pictures', 'frames'])
def test_damaged_folders(folder, case):
    masks = next(p for p in (folder / 'data' / 'a' / 'mask', folder / 'Annotations' / '480p' / 'a') if p.is_dir())
    if case == 'missing':
        (masks / '00002.png').unlink()
    if case == 'size':
        for f in range(4):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / f'{f:05}.png')
    if case == 'odd split':
        next(folder.rglob('val.txt')).write_text('a zebra')
    if case == 'no pictures':
        for p in folder.rglob('*.jpg'):
            p.unlink()
    says = {'missing': '00002.png is missing', 'size': r'masks of \(8, 8\)', 'split': 'no list test.txt', 'odd split': "'zebra'",
            'no pictures': 'holds no .jpg', 'frames': 'at least 1'}[case]
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        read_segmentation(folder, {'split': 'test', 'odd split': 'val'}.get(case), frames=0 if case == 'frames' else None)[0]


def test_mevis(tmp_path):
    pictures(tmp_path / 'JPEGImages' / 'v')
    said = {'0': {'exp': 'the cat jumps', 'anno_id': [7]}, '1': {'exp': 'both', 'anno_id': [7, 9]}}
    (tmp_path / 'meta_expressions.json').write_text(json.dumps({'videos': {'v': {'expressions': said}}}))
    runs = {}
    for number, value in ((7, 1), (9, 2)):
        masks = (value == LABELS).numpy()
        coded = [encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
        runs[str(number)] = [dict(size=c['size'], counts=c['counts'].decode()) for c in coded[:3]] + [None]
    (tmp_path / 'mask_dict.json').write_text(json.dumps(runs))
    clip = read_segmentation(tmp_path)[0]
    want = torch.zeros_like(LABELS)
    want[LABELS == 1], want[LABELS == 2], want[3] = 7, 9, 0
    assert torch.equal(clip.labels, want) and clip.expressions == [('the cat jumps', [7]), ('both', [7, 9])]


def mevis(folder, masks, said, frames=4):
    "A folder in MeViS's layout with one video, of masks {number: (frames, height, width) bool} and expressions."
    pictures(folder / 'JPEGImages' / 'v')
    told = {str(i): {'exp': text, 'anno_id': numbers} for i, (text, numbers) in enumerate(said)}
    (folder / 'meta_expressions.json').write_text(json.dumps({'videos': {'v': {'expressions': told}}}))
    coded = {str(n): [encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in x] for n, x in masks.items()}
    runs = {n: [dict(size=c['size'], counts=c['counts'].decode()) for c in x][:frames] for n, x in coded.items()}
    (folder / 'mask_dict.json').write_text(json.dumps(runs))


def overlapping():
    "Two objects of 48 and 32 pixels that share 24."
    one, two = torch.zeros(2, 4, 12, 16).bool()
    one[:, :, :4], two[:, 4:8, 2:6] = True, True
    two[:, :4, :4] = True
    return {1: one, 2: two}


def test_objects_of_mevis_may_overlap(tmp_path):
    masks = overlapping()
    assert (masks[1] & masks[2]).any() and not (masks[1] | masks[2]).all()
    mevis(tmp_path, masks, [('the one', [1]), ('the other', [2]), ('both', [1, 2])])
    clip = read_segmentation(tmp_path)[0]
    assert all(torch.equal(clip.objects[n], masks[n]) and torch.equal(clip.mask(n), masks[n]) for n in masks)
    assert [torch.equal(clip.mask(n), want) for (_, n), want in zip(clip.expressions, (masks[1], masks[2], masks[1] | masks[2]))
            ] == [True] * 3
    assert (clip.labels[masks[2]] == 2).all() and (clip.labels[masks[1] & ~masks[2]] == 1).all()
    small = read_segmentation(tmp_path, frames=2, size=(6, 8))[0]
    assert torch.equal(small.mask([1, 2]), (masks[1] | masks[2])[:2, ::2, ::2]) and small.mask(1).dtype == torch.bool
    with pytest.raises(ValueError, match='v has no object 7: there are 1, 2'):
        clip.mask([1, 7])
    flat = Segmented('a', clip.video, clip.labels, {}, [])
    assert torch.equal(flat.mask([1, 2]), masks[1] | masks[2]) and not torch.equal(flat.mask(1), masks[1])


@pytest.mark.parametrize('case, says', [
    ('none', 'mask_dict.json is missing'), ('object', 'v: object 2 has masks of 0 frames'), ('short', 'masks of 3 frames .* has 4'),
    ('size', r'masks of \(6, 8\) pixels for pictures of \(12, 16\)'), ('video', "does not list the video 'w'")])
def test_damaged_mevis(tmp_path, case, says):
    masks = overlapping()
    if case == 'size':
        masks = {n: m[:, ::2, ::2] for n, m in masks.items()}
    mevis(tmp_path, {1: masks[1]} if case == 'object' else masks, [('both', [1, 2])], 3 if case == 'short' else 4)
    if case == 'none':
        (tmp_path / 'mask_dict.json').unlink()
    if case == 'video':
        pictures(tmp_path / 'JPEGImages' / 'w')
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        clips = read_segmentation(tmp_path)
        clips[len(clips) - 1]


@pytest.mark.parametrize('change, says', [
    (lambda t, r: t.pop('videos'), r"'videos' of .*meta_expressions.json must be an object, but is missing"),
    (lambda t, r: t.update(videos=[1]), r"'videos' of .* must be an object, but is list \(\[1\]\)"),
    (lambda t, r: t['videos'].update(v=3), r"'v' in .*meta_expressions.json must be an object, but is int"),
    (lambda t, r: t['videos'].update(v={}), "'expressions' of 'v' in .* must be an object, but is missing"),
    (lambda t, r: t['videos']['v']['expressions'].update({'1': []}), "expression '1' of 'v' in .* must be an object, but"),
    (lambda t, r: t['videos']['v']['expressions']['0'].pop('exp'), "'exp' of expression '0' of 'v' in .*json must be text, "),
    (lambda t, r: t['videos']['v']['expressions']['0'].update(anno_id=0), "'anno_id' of expression '0' .* a list, but is int"),
    (lambda t, r: t['videos']['v']['expressions']['0'].update(anno_id=['x']), "each of 'anno_id' of .* a whole number, but is "),
    (lambda t, r: r.update({'1': {}}), 'object 1 in .*mask_dict.json must be a list, but is dict'),
    (lambda t, r: r['1'].__setitem__(2, 'x'), 'v: object 1, frame 2 in mask_dict.json must be an object, but is str'),
    (lambda t, r: r['1'][2].pop('size'), "'size' of v: object 1, frame 2 .* must be a list, but is missing"),
    (lambda t, r: r['1'][2].update(counts=None), "'counts' of v: object 1, frame 2 .* must be text or a list, but is missing"),
    (lambda t, r: r['1'][2].update(counts=''), r"frame 2 .* is no run-length mask: .* are 0 pixels .* must be 12 x 16"),
    *[(lambda t, r, x=x: r['1'][2].update(counts=x), 'v: object 1, frame 2 in mask_dict.json is no run-length mask')
      for x in ('zz', '04', 'h\xe9', 'P4', [3, 4], [-1, 193])]])
def test_json_of_another_layout(tmp_path, change, says):
    mevis(tmp_path, overlapping(), [('both', [1, 2]), ('one', [1])])
    files = [tmp_path / n for n in ('meta_expressions.json', 'mask_dict.json')]
    told = [json.loads(f.read_text()) for f in files]
    change(*told)
    for f, x in zip(files, told):
        f.write_text(json.dumps(x))
    with pytest.raises(ValueError, match=says):
        read_segmentation(tmp_path)[0]


@pytest.mark.parametrize('text, says', [('{"a": ', 'is not JSON'), ('[1]', r'must be an object, but is list \(\[1\]\)')])
@pytest.mark.parametrize('name', ['meta_expressions.json', 'mask_dict.json', 'label_num_dic_final.json'])
def test_files_that_hold_no_object(tmp_path, name, text, says):
    if name == 'label_num_dic_final.json':
        pictures(tmp_path / 'data' / 'v' / 'origin')
        pictures(tmp_path / 'data' / 'v' / 'mask', LABELS)
    else:
        mevis(tmp_path, overlapping(), [('both', [1, 2])])
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f'{name} {says}'):
        read_segmentation(tmp_path)[0]


def test_names_that_are_no_numbers(tmp_path):
    pictures(tmp_path / 'data' / 'v' / 'origin')
    pictures(tmp_path / 'data' / 'v' / 'mask', LABELS)
    (tmp_path / 'label_num_dic_final.json').write_text(json.dumps(dict(wall='1')))
    assert read_segmentation(tmp_path)[0].names == {1: 'wall'}
    (tmp_path / 'label_num_dic_final.json').write_text(json.dumps(dict(wall='one', door=2)))
    with pytest.raises(ValueError, match="'wall' in .*label_num_dic_final.json must be a whole number, but is str"):
        read_segmentation(tmp_path)[0]


@pytest.mark.parametrize('kind', ['JPEGImages', 'Annotations'])
@pytest.mark.parametrize('folder', ['DAVIS'], indirect=True)
def test_one_picture_of_another_size(folder, kind):
    end = 'jpg' if kind == 'JPEGImages' else 'png'
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / kind / '480p' / 'a' / f'00002.{end}')
    with pytest.raises(ValueError, match=rf'a.00002.{end} is of \(8, 8.*\) pixels, but 00000.{end} of \(12, 16'):
        read_segmentation(folder)[0]


def test_run_lengths_are_those_of_pycocotools():
    masks = torch.rand(40, 12, 16, generator=G) < torch.linspace(0, 1, 40)[:, None, None]
    for m in masks:
        text = encode(np.asfortranarray(m.numpy().astype(np.uint8)))['counts'].decode()
        plain = [len(list(run)) for _, run in groupby([False, *m.T.flatten().tolist()])]
        for counts in (text, [plain[0] - 1, *plain[1:]]):
            assert torch.equal(_decoded(dict(size=[12, 16], counts=counts), (12, 16), 'm'), m)
    big = torch.zeros(480, 854, dtype=torch.bool)
    big[3:400, 100:700] = torch.rand(397, 600, generator=G) < .99
    text = encode(np.asfortranarray(big.numpy().astype(np.uint8)))['counts'].decode()
    assert torch.equal(_decoded(dict(size=[480, 854], counts=text), (480, 854), 'm'), big)


GRID = Grid(4, 3, 4, 4, 1, False)


def planted(video, words):
    "Maps by the words themselves, and a baseline."
    maps = torch.stack([torch.rand(GRID.shape, generator=torch.Generator().manual_seed(sum(map(ord, w)))) for w in words])
    return SimpleNamespace(maps=maps, grid=GRID, baselines=dict(concept=maps.flip(0)),
                           facts=dict(baselines=dict(concept='prompt words')))


@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_a_folder_is_evaluated_by_its_own_names(folder):
    clips = read_segmentation(folder, frames=4)
    found, want = evaluate_segmentation(clips, planted, runs=(2,)), SegmentationScores((2,))
    for clip in clips:
        pred = torch.tensor([1, 2])[segment(planted(None, ['wall', 'door']).maps, GRID)]
        want.add(pred, clip.labels.masked_fill(clip.labels == 3, -1))
    row, want = found.rows['GramCol'], want.result()
    assert row.miou == want.miou and row.iou == {'wall': want.iou[1], 'door': want.iou[2]} and row.vc == want.vc
    assert found.requested == 2 and not found.skipped and set(found.rows) == {'GramCol', 'prompt words'}
    assert found.to_dataframe().iloc[0].to_dict() == dict(method='GramCol', mIoU=want.miou, mVC2=want.vc[2].mean)


@pytest.mark.parametrize('folder', ['DAVIS'], indirect=True)
def test_objects_of_davis_are_classes_by_the_names_they_are_given(folder):
    clips = read_segmentation(folder, frames=4)
    with pytest.raises(ValueError, match=r'a has labels 0, 1, 2, 3, of which 1 are named \(background\).*give names='):
        evaluate_segmentation(clips, planted)
    requested = []
    def listened(video, words): return requested.append(words) or planted(video, words)
    names = dict(a={1: 'dog', 2: 'cat'}, b={1: 'cat', 2: 'dog', 3: 'dog'})
    found = evaluate_segmentation(clips, listened, names)
    assert requested == [['background', 'dog', 'cat'], ['background', 'cat', 'dog']]
    assert set(found.rows['GramCol'].iou) == {'background', 'dog', 'cat'}
    one = evaluate_segmentation(clips, listened, {1: 'dog'})
    assert set(one.rows['GramCol'].iou) == {'background', 'dog'}
    some = evaluate_segmentation(clips, listened, dict(b={1: 'dog'}))
    assert some.requested == 1 and list(some.skipped) == ['a']


@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_what_is_skipped_is_said(folder):
    for kind in ('origin', 'mask'):
        for p in list((folder / 'data' / 'a' / kind).iterdir())[1:]:
            p.unlink()
    found = evaluate_segmentation(read_segmentation(folder, frames=4), planted)
    assert found.requested == 1 and found.skipped == {'a': 'has 1 frames, and 4 were requested'}
    with pytest.raises(ValueError, match='nothing of 2 could be evaluated: a has 1 frames, and 9 were requested; b has 4'):
        evaluate_segmentation(read_segmentation(folder, frames=9), planted)
    with pytest.raises(ValueError, match=r'maps are of \(4, 12, 16\): read_segmentation\(folder, frames=4, size=\(12, 16\)\)'):
        evaluate_segmentation([read_segmentation(folder)[0]], planted)
    with pytest.raises(ValueError, match='there are no clips'):
        evaluate_segmentation([], planted)


@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_a_clip_that_cannot_be_read_is_skipped_and_the_rest_goes_on(folder):
    good = evaluate_segmentation([read_segmentation(folder)[1]._replace(name='b')], planted)
    for p in (folder / 'data' / 'a' / 'mask').iterdir():
        Image.fromarray(np.ones((8, 8), np.uint8)).save(p)
    clips = read_segmentation(folder)
    with pytest.raises(ValueError, match='a: masks of'):
        clips[0]
    found = evaluate_segmentation(clips, planted)
    assert list(found.skipped) == ['a'] and found.skipped['a'].startswith('cannot be read: a: masks of ')
    assert found.requested == 1 and found.rows['GramCol'].iou == good.rows['GramCol'].iou
    b = clips[1]
    odd = b._replace(name='odd', labels=b.labels[:, :4])
    for given in ([b, odd, b], (b, odd, b), map(Segmented._make, (b, odd, b))):
        found = evaluate_segmentation(given, planted)
        assert found.requested == 2 and 'odd: masks of' in found.skipped['clip 1']
    found = evaluate_segmentation((clips[i] for i in (1, 0, 1)), planted)
    assert found.requested == 1 and found.skipped['clip 1'].endswith('a generator ends with it, give a list')
    with pytest.raises(ValueError, match='nothing of 1 could be evaluated: clip 0 cannot be read: odd: masks of'):
        evaluate_segmentation([odd], planted)


@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_a_method_with_one_map_for_all_words_has_no_row_by_classes(folder):
    def same(video, words):
        found = planted(video, words)
        found.baselines['flow'] = found.maps[:1].expand_as(found.maps)
        return found
    found = evaluate_segmentation(read_segmentation(folder), same)
    assert set(found.rows) == {'GramCol', 'prompt words'} and list(found.skipped) == ['flow']
    assert 'one map for all words' in found.skipped['flow'] and found.requested == 2
    with pytest.raises(ValueError, match='GramCol has one map for all words'):
        evaluate_segmentation(read_segmentation(folder), lambda v, w: SimpleNamespace(maps=torch.ones(2, *GRID.shape), grid=GRID))
    clips = [c._replace(expressions=[('a wall', [1])]) for c in read_segmentation(folder)]
    assert set(evaluate_segmentation(clips, same, expressions=True).rows) == {'GramCol', 'prompt words', 'flow'}


@pytest.mark.parametrize('change, says', [
    (lambda words: words[::-1], r"but its maps are of \['door', 'wall'\]: pass the words on as they are, lambda video"),
    (lambda words: words[:1], r"b: maps of \['wall', 'door'\] were requested, one each, but its maps are of \['wall'\]"),
    (lambda words: [*words, 'dog'], "maps are of .*'dog'"), (lambda words: ['wall', 'door[0]', 'door[1]'], 'without pool=None'),
    (None, 'but its GramCol has 3 maps')])
@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_maps_must_be_of_the_words_that_were_requested(folder, change, says):
    def other(video, words):
        if change is None:
            return planted(video, [*words, 'dog'])
        return SimpleNamespace(**vars(planted(video, change(words))), words=change(words))
    clips = [read_segmentation(folder)[1]]
    with pytest.raises(ValueError, match=says):
        evaluate_segmentation(clips, other)
    with pytest.raises(ValueError, match='pass the words on'):
        evaluate_segmentation([clips[0]._replace(expressions=[('wall', [1])])], lambda v, w: planted(v, w * 2), expressions=True)


def test_expressions_are_evaluated_against_the_union_of_their_objects(tmp_path):
    masks = overlapping()
    mevis(tmp_path, masks, [('the one', [1]), ('both', [1, 2]), ('nobody', [])])
    clips = read_segmentation(tmp_path, frames=4)
    found = evaluate_segmentation(clips, planted, expressions=True, runs=(2,))
    truth = {'v #0: the one': masks[1], 'v #1: both': masks[1] | masks[2]}
    for name, inside in truth.items():
        large = upsample(planted(None, [name[6:]]).maps[0], GRID)
        on = large > (large.max() + large.min()) / 2
        each = (on & inside).sum((1, 2)) / (on | inside).sum((1, 2))
        assert found.rows['GramCol'].iou[name] == pytest.approx(float(each.mean()))
    row = found.rows['GramCol']
    assert row.miou == pytest.approx(sum(row.iou.values()) / 2) and found.requested == 2 and row.vc[2].mean == row.vc[2].mean
    assert found.skipped == {'v #2: nobody': 'names no objects'}
    cover = F.avg_pool2d((masks[1] | masks[2]).float()[:, None], 4)[:, 0][None]
    exact = evaluate_segmentation(clips, lambda v, w: SimpleNamespace(maps=cover, grid=GRID), expressions=True)
    both, one = (exact.rows['GramCol'].iou[f'v {name}'] for name in ('#1: both', '#0: the one'))
    assert both > .9 and both > one
    with pytest.raises(ValueError, match='has no expressions'):
        evaluate_segmentation([clips[0]._replace(expressions=[])], planted, expressions=True)


def test_equal_expressions_and_unreadable_ones(tmp_path):
    "Equal expressions of other objects are two; one that has no maps is left out, and what was done before it stays."
    masks = overlapping()
    mevis(tmp_path, masks, [('cat', [1]), ('cat', [2]), ('', [1]), ('cats', [1])])

    def readable(video, words):
        if not all(words):
            raise ValueError("the word '' is blank")
        return planted(video, words)

    found = evaluate_segmentation(read_segmentation(tmp_path), readable, expressions=True)
    each = found.rows['GramCol'].iou
    assert list(each) == ['v #0: cat', 'v #1: cat', 'v #3: cats'] and found.requested == 3
    assert each['v #0: cat'] != each['v #1: cat']
    assert found.rows['GramCol'].miou == pytest.approx(sum(each.values()) / 3)
    assert found.skipped == {'v #2: ': "has no maps: the word '' is blank"}
    clip = read_segmentation(tmp_path)[0]
    clips = [clip._replace(name=n, names={0: 'sky', 1: word}) for n, word in (('a', 'dog'), ('b', ''))]
    found = evaluate_segmentation(clips, readable)
    assert found.requested == 1 and found.skipped == {'b': "has no maps: the word '' is blank"}
    for how in (dict(expressions=True), dict(names={1: ''})):
        with pytest.raises(ValueError, match="could be evaluated: .*the word '' is blank"):
            evaluate_segmentation([clips[1]._replace(expressions=[('', [1])])], readable, **how)


@pytest.mark.parametrize('make, says', [(lambda p: p / 'no', 'there is no folder'), (lambda p: p, 'neither of VSPW')])
def test_other_folders(tmp_path, make, says):
    with pytest.raises((FileNotFoundError, ValueError), match=says):
        read_segmentation(make(tmp_path))


def test_miou_is_scikit_learns():
    pred = torch.where(torch.rand(LABELS.shape, generator=G) < .7, LABELS, torch.randint(0, 4, LABELS.shape, generator=G))
    truth = LABELS.masked_fill(LABELS == 3, -1)
    scores = SegmentationScores(())
    scores.add(pred[:2], truth[:2])
    scores.add(pred[2:], truth[2:])
    known = truth >= 0
    want = jaccard_score(truth[known], pred[known], labels=[0, 1, 2], average=None)
    found = scores.result()
    assert [found.iou[c] for c in range(3)] == pytest.approx(want) and found.iou[3] == 0
    assert found.miou == pytest.approx(float(sum(want)) / 4)


def published(pred, truth, n):
    "VSPW's VC_perclip.py: shares of the windows of a clip."
    shares = []
    for i in range(len(truth) - n):
        stays, same = np.ones(truth[0].shape, bool), np.ones(truth[0].shape, bool)
        for j in range(1, n):
            stays &= truth[i] == truth[i + j]
            same &= pred[i] == pred[i + j]
        with np.errstate(invalid='ignore'):
            shares.append((same & stays).sum() / stays.sum())
    return shares


@pytest.mark.parametrize('n', [1, 2, 4])
def test_video_consistency_is_the_published_one(n):
    "Clips of several lengths, -1 among their labels; a mean over all windows of all clips, NaN left out."
    scores, want = SegmentationScores((n,)), []
    for frames in (n, n + 1, 9, 14):
        truth, pred = torch.randint(-1, 2, (2, frames, 3, 3), generator=G)
        truth[1::2, 0], pred[1::3, :2] = truth[:-1:2, 0][:len(truth[1::2])], pred[0, :2]
        each = published(pred.numpy(), truth.numpy(), n)
        assert video_consistency(pred, truth, n) == pytest.approx([v for v in each if v == v]) and len(each) == frames - n
        scores.add(pred, truth)
        want += each
    assert scores.result().vc[n].mean == pytest.approx(np.nanmean(want))


def test_steady_but_wrong_is_consistent_and_not_correct():
    truth = torch.zeros(9, 4, 4).long()
    truth[:, 0] = -1
    assert video_consistency(1 - truth, truth, 8) == [1.] and video_consistency(truth[:8], truth[:8], 8) == []
    assert video_consistency(1 - truth, truth, 8, correct=True) == [0., 0.]
    assert video_consistency(truth.clamp_min(0), truth, 8, correct=True) == [1., 1.]


def test_strict_video_consistency():
    truth = torch.zeros(6, 4, 4).long()
    truth[3:, 0] = 1                                    # a row changes its class
    assert video_consistency(truth, truth, 2, True) == [1.] * 5 and video_consistency(truth, truth, 7, True) == []
    wrong = truth.clone()
    wrong[5, 3] = 1                                     # a row is wrong in the last frame
    assert video_consistency(wrong, truth, 2, True) == [1.] * 4 + [pytest.approx(12 / 16)]
    assert video_consistency(wrong, truth, 6, True) == [pytest.approx(8 / 12)]
    scores = SegmentationScores((2, 9), correct=True)
    scores.add(wrong, truth)
    assert scores.result().vc[2].mean == pytest.approx((4 + 12 / 16) / 5) and np.isnan(scores.result().vc[9].mean)


def test_segments_are_the_highest_maps():
    grid = Grid(3, 4, 4, 8, 4)
    maps = torch.zeros(2, *grid.shape)
    maps[1, :, :, 2:] = 1
    maps[0, :, :, :2] = 1
    found = segment(maps, grid)
    assert found.shape == (9, 32, 32) and (found[:, :, :15] == 0).all() and (found[:, :, 17:] == 1).all()
    maps[:, 2] = maps[:, 2].flip(0)
    found = segment(maps, grid)
    assert (found[4, :, 20] == 1).all() and (found[5:, :, 20] == 0).all(), 'frames 5 to 8 are those of token frame 2'


@pytest.mark.parametrize('causal', [True, False])
def test_segments_without_a_video_are_those_of_bilinear_maps(causal):
    grid = Grid(3, 4, 5, 8, 4, causal)
    maps = torch.randn(6, *grid.shape, generator=G)
    large = F.interpolate(maps, (32, 40), mode='bilinear', align_corners=False).argmax(0)
    assert torch.equal(segment(maps, grid), large[grid.frame_of(torch.arange(grid.video_frames))])


def test_segments_follow_the_edges_of_a_video():
    "A wall that is brighter on the right, off the borders of tokens, and moves one pixel a frame."
    grid = Grid(3, 4, 4, 8, 4)
    right = (torch.arange(32)[None] >= 10 + torch.arange(9)[:, None])[:, None].expand(9, 32, 32)
    video = right[..., None].expand(-1, -1, -1, 3) * .6 + .2
    share = F.avg_pool2d(right[:, None].float(), 8)[:, 0]
    share = torch.stack([share[a:b + 1].mean(0) for a, b in map(grid.span, range(3))])
    maps = torch.stack([1 - share, share])
    plain, edges = (segment(maps, grid, v) for v in (None, video))
    assert edges.shape == plain.shape == (9, 32, 32) and edges.dtype == torch.int64
    assert (edges != right).float().mean() < (plain != right).float().mean() / 2
    with pytest.raises(ValueError, match='for this grid'):
        segment(maps, grid, video[:8])


@pytest.mark.parametrize('ask, says', [
    (lambda: segment(torch.zeros(2, 3, 4, 5), Grid(3, 4, 4)), 'but must be'),
    (lambda: SegmentationScores().add(LABELS, LABELS[:2]), 'both must be'),
    (lambda: SegmentationScores().result(), 'nothing was added'),
    (lambda: video_consistency(LABELS, LABELS, 0), 'at least 1')])
def test_bad_input(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


@pytest.mark.parametrize('folder', ['VSPW'], indirect=True)
def test_tables_are_results(folder, tmp_path):
    found = evaluate_segmentation(read_segmentation(folder, frames=4), planted, runs=(2,))
    again = SegmentationTable.load(found.save(tmp_path / 'table.safetensors'))
    assert again == found and isinstance(again.rows['GramCol'], Segmentation)
    assert found.to_dataframe()['method'].tolist() == ['GramCol', 'prompt words']
    assert float(found.to_xarray()['mIoU'].sel({'method': 'GramCol'})) == found.rows['GramCol'].miou
    classes = found.rows['GramCol'].to_dataframe()
    assert dict(zip(classes['class'], classes['iou'])) == found.rows['GramCol'].iou

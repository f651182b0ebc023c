"""IMAP's prompt files: what is a thing and what is a motion, and what other JSON says."""
import json
import os
from pathlib import Path

import pytest

from vidlens.words.prompts import MotionPrompt, read_prompts

CLIP = dict(video_path='videos/a_1.mp4', caption=' A dog runs past a tree. ', concepts='dog, lamp post,tree, dog', camera='static',
            object='running, jumping', motion_idx=-1)
PROMPT = dict(caption='A boat sails.', concepts='boat, water', object='sailing')


def write(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f'{name.removeprefix("f")}.json').write_text(text, encoding='utf-8')
    return folder


def test_fields_get_their_right_names(tmp_path):
    found = read_prompts(write(tmp_path, f1=[CLIP, PROMPT]) / '1.json')
    assert found == [MotionPrompt('A dog runs past a tree.', ('dog', 'lamp post', 'tree'), ('running', 'jumping'),
                                  'videos/a_1.mp4', 'static'),
                     MotionPrompt('A boat sails.', ('boat', 'water'), ('sailing',), None, None)]


def test_folders_are_read_by_number(tmp_path):
    write(tmp_path, **{f'f{n}': [PROMPT | dict(caption=str(n))] * n for n in (10, 1, 2)})
    (tmp_path / 'notes.txt').write_text('not a prompt')
    assert [p.caption for p in read_prompts(str(tmp_path))] == ['1'] + ['2'] * 2 + ['10'] * 10


@pytest.mark.parametrize('content, says', [
    ('[{', r'1\.json is not JSON'), (dict(videos=[]), 'holds dict, but must hold a list'), ([[1]], 'entry 0 .* is list'),
    ([PROMPT, dict(caption='x')], r"entry 1 of .*1\.json .* but it has 'caption'"), ([{}], 'it has nothing'),
    ([PROMPT | dict(object=['sailing'])], "'object' is list"), ([PROMPT | dict(caption=None)], "'caption' is NoneType")])
def test_other_json(tmp_path, content, says):
    with pytest.raises(ValueError, match=says):
        read_prompts(write(tmp_path, f1=content))


def test_other_places(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file or folder'):
        read_prompts(tmp_path / 'none')
    with pytest.raises(ValueError, match='holds no .json files'):
        read_prompts(tmp_path)


@pytest.mark.skipif('VIDLENS_DATA' not in os.environ, reason='needs the published files: VIDLENS_DATA=folder')
def test_published_files():
    data = Path(os.environ['VIDLENS_DATA'])
    bench = read_prompts(data / 'mtbench100')
    assert len(bench) == 100 and all(p.objects and p.motions and p.video is None for p in bench)
    files = list((data / 'mevis504').glob('*.json'))
    clips = read_prompts(data / 'mevis504')
    assert len(clips) == (504 if len(files) == 10 else sum(len(json.loads(f.read_text())) for f in files))
    assert all(p.objects and p.motions and p.camera == 'static' and p.video.endswith('.mp4') for p in clips)
    assert clips[0].objects[0] == 'person' and clips[0].motions == ('dancing',)
    assert {'standing', 'walking'} < {m for p in clips for m in p.motions}
    assert not {'standing', 'walking'} & {o for p in clips for o in p.objects}

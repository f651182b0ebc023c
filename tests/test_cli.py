"""The command line: exit status, one sentence for bad input, files whole or not at all."""
import argparse
import csv
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import vidlens
from vidlens import world
from vidlens.cli import main, parse_motion, parser, point, point_or_file, points_of, read_points
from vidlens.core.reports import Section
from vidlens.core.results import load_result
from vidlens.points.matching import Tracks
from vidlens.seam.loading import load
from vidlens.seam.run import fit_video
from vidlens.analysis import Findings, content_words, numbers, sections, write_findings
from vidlens.core.video import probe_video, read_video, write_video


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    "One run of the demo on a real file: a clip of another size and length, written and read again."
    folder = tmp_path_factory.mktemp('demo')
    y, x = torch.meshgrid(torch.arange(90.), torch.arange(120.), indexing='ij')
    frames = [((x - 30 - 2 * t) ** 2 + (y - 45) ** 2 < 200).float()[..., None] * torch.tensor([.9, .1,
                                                                                               .1]) + .2 for t in range(25)]
    write_video(torch.stack(frames).clamp(0, 1), folder / 'clip.mp4')
    status = main(['demo', '--video', str(folder / 'clip.mp4'), '--prompt', 'a red circle moves right',
                   '--num-inference-steps',
                   '6', '--step', '-2', '--words', 'circle', '--points', '0,20,30', '0,40.5,32', '--out', str(folder / 'out'),
                   '--quiet'])
    return status, folder / 'out', folder / 'clip.mp4'


def test_demo_writes_report_numbers_and_pictures(demo):
    status, out, _ = demo
    assert status == 0
    assert {'report.html', 'numbers.json', 'findings.safetensors', 'tracks.csv', 'video.gif', 'tracks.gif',
            'words.gif',
            'check.gif', 'layers.png', 'word_layers.png', 'pca.png', 'curves.png'} == {p.name for p in out.iterdir()}
    page = (out / 'report.html').read_text()
    assert 'Which layer matches points?' in page and 'a red circle moves right' in page
    found = json.loads((out / 'numbers.json').read_text())
    assert found['best layer']['layer'] in range(6) and found['words']['words'] == ['circle']


def test_findings_are_a_result_and_the_csv_agrees(demo):
    _, out, _ = demo
    found = load_result(out / 'findings.safetensors')
    rows = list(csv.DictReader(open(out / 'tracks.csv')))
    assert found.tracks.xy.shape == (2, 17, 2) and len(rows) == 34 and found.maps.words == ['circle']
    assert float(rows[17]['x']) == pytest.approx(40.5) and float(rows[17]['frame']) == 0
    assert float(rows[-1]['y']) == pytest.approx(float(found.tracks.xy[1, -1, 1]), abs=.01)
    assert found.motion.channels.index.tolist() == json.loads((out / 'numbers.json').read_text())['motion channels']['index']


def test_nothing_is_overwritten_without_force(demo, capsys):
    _, out, clip = demo
    before = (out / 'report.html').read_bytes()
    assert main(['demo', '--video', str(clip), '--out', str(out), '--quiet']) == 2
    assert '--force' in capsys.readouterr().err and (out / 'report.html').read_bytes() == before


@pytest.mark.slow
def test_demo_generates_and_prints_json(tmp_path, capsys):
    assert main(['demo', '--num-inference-steps', '4', '--step', '-2', '--json', '--quiet', '--out',
                 str(tmp_path / 'o')]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)['facts']['video'] == 'generated' and said.err == ''


@pytest.mark.parametrize('line, says', [
    (['demo', '--prompt', 'a purple dog moves left'], "does not know 'dog'"),
    (['demo', '--prompt', ' '.join(['red'] * 300)], 'more than the'),
    (['demo', '--words', 'blue'], "'blue' is not in the prompt"),
    (['demo', '--step', '30'], 'step=30 is outside a run of 30 steps'),
    (['demo', '--num-inference-steps', '5', '--step', '-12'], 'step=-12 is outside a run of 5'),
    (['demo', '--num-inference-steps', '0'], 'num_inference_steps=0 must be a whole number of at least 1'),
    (['demo', '--video', 'no-such-clip.mp4'], 'no-such-clip.mp4'),
    (['demo', '--model', './no-such-model'], 'no such folder'),
    (['demo', '--device', 'tpu9'], "'cpu'"),
    (['demo', '--dtype', 'int8'], "use 'float32', 'bfloat16' or 'float16'"),
    (['demo', '--points', '0,500,3'], 'outside the video'),
    (['demo', '--points', 'no-such.csv'], 'no file no-such.csv'),
    (['demo', '--out', 'TAKEN'], '--force'),
])
def test_bad_input_is_one_sentence_and_status_2(line, says, tmp_path, capsys):
    if 'TAKEN' in line:  # any file of the demo, not only the report, is seen before the run
        (tmp_path / 'taken').mkdir()
        (tmp_path / 'taken' / 'tracks.csv').touch()
        line = ['demo', '--out', str(tmp_path / 'taken')]
    else:
        line = [*line, '--out', str(tmp_path / 'o')]
    assert main([*line, '--quiet']) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith('vidlens: ') and said.count('\n') == 1 and 'Traceback' not in said
    assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize('line, says', [
    (['demo', '--points', '1,2'], 'write frame,x,y in pixels'),
    (['demo', '--seed', 'x'], 'invalid int value'),
    (['lab', '--port', '99999'], "'99999' is no port: give 1 to 65535"),
    (['app', '--port', '0'], "'0' is no port"),
    (['fly'], 'invalid choice'),
    ([], 'required'),
])
def test_bad_arguments_have_status_2(line, says, capsys):
    with pytest.raises(SystemExit) as e:
        main(line)
    assert e.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize('text, says', [('a,b\n1,2\n', 'needs t,x,y'), ('t,x,y\n', 'holds no points'),
                                        ('t,x,y\n0,1,red\n', 'line 2')])
def test_bad_csv_names_the_line(text, says, tmp_path):
    (tmp_path / 'p.csv').write_text(text)
    with pytest.raises(ValueError, match=says):
        read_points(tmp_path / 'p.csv')


def test_points_come_from_csv_and_from_the_line(tmp_path):
    (tmp_path / 'p.csv').write_text('t,x,y\n0,1,2\n4,5.5,6\n')
    assert read_points(tmp_path / 'p.csv') == [(0, 1, 2), (4, 5.5, 6)] and point('3,4,5') == (3, 4, 5)
    assert points_of(argparse.Namespace(points=[point_or_file(str(tmp_path / 'p.csv')),
                                                point_or_file('3,4,5')]))[1:] == [
        (4, 5.5, 6), (3, 4, 5)]


def test_every_command_has_the_shared_options():
    commands = next(a for a in parser()._actions if hasattr(a, 'choices') and a.choices).choices
    for name, command in commands.items():
        options = {o for a in command._actions for o in a.option_strings}
        assert {'--model', '--out', '--seed', '--device', '--dtype', '--json', '--force'} <= options, name


def test_interrupt_keeps_what_is_finished(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('vidlens.analysis.imap', stop)
    assert main(['demo', '--num-inference-steps', '4', '--step', '-2', '--quiet', '--out', str(tmp_path / 'o')]) == 130
    assert 'interrupted' in capsys.readouterr().err
    assert (tmp_path / 'o' / 'report.html').exists() and (tmp_path / 'o' / 'tracks.csv').exists()
    assert not (tmp_path / 'o' / 'words.gif').exists()


def test_a_bug_is_a_failure_not_bad_input(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('vidlens.analysis.score', lambda *_, **__: {}['layer'])
    assert main(['demo', '--quiet', '--out', str(tmp_path / 'o')]) == 1
    assert 'failed: KeyError' in capsys.readouterr().err


def test_failure_is_status_1(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError('the disk is full')

    monkeypatch.setattr('vidlens.analysis.score', fail)
    assert main(['demo', '--quiet', '--out', str(tmp_path / 'o')]) == 1
    assert 'failed: RuntimeError: the disk is full' in capsys.readouterr().err


def test_installed_program_says_its_version():
    out = subprocess.run([Path(sys.executable).parent / 'vidlens', '--version'], capture_output=True, text=True,
                         check=True)
    assert out.stdout.strip() == f'vidlens {vidlens.__version__}'


def test_report_of_nothing_but_the_command():
    "An interruption before the first part leaves an honest page."
    found = Findings()
    assert [s.title for s in sections(found, {}, 'vidlens demo')] == ['Again'] and numbers(found) == {'facts': {}}
    assert isinstance(sections(found, {}, 'x')[0], Section)


def test_content_words():
    assert content_words('a red circle and the blue star'.split()) == ['red', 'circle', 'blue', 'star']


def test_write_findings_refuses_a_file_as_folder(tmp_path):
    (tmp_path / 'f').write_text('')
    with pytest.raises(FileExistsError, match='is a file'):
        write_findings(Findings(), tmp_path / 'f')


def test_track_follows_points_of_any_clip(demo, tmp_path, capsys):
    "In the clip's own pixels, at each of its frames, whatever its size and length."
    clip, out = str(demo[2]), tmp_path / 'out'
    ask = ['--points', '0,30,45', '--points', '20,100,12.5', '--layers', '3', '4', '--num-inference-steps', '6',
           '--steps', '-1']
    assert main(['track', clip, *ask, '--out', str(out), '--json', '--quiet']) == 0
    told, xy = json.loads(capsys.readouterr().out), Tracks.load(out / 'tracks.safetensors').xy
    assert xy.shape == (2, 25, 2) and told['points'] == 2 and told['layers'] == [3, 4]
    assert xy[0, 0].tolist() == pytest.approx([30, 45], abs=1e-3) and xy[1, 20].tolist() == pytest.approx([100, 12.5], abs=1e-3)
    assert len(list(csv.DictReader(open(out / 'tracks.csv')))) == 50
    drawn = read_video(out / 'tracks.mp4')
    assert len(drawn) == 25 and drawn.shape[1] >= 90
    assert main(['track', clip, '--out', str(out), '--quiet']) == 2 and '--force' in capsys.readouterr().err


def test_a_large_clip_is_read_small_and_told_large(tmp_path):
    clip = write_video(torch.rand(1, 500, 600, 3).expand(3, -1, -1, -1), tmp_path / 'still.mp4')
    assert main(['track', str(clip), '--points', '1,590,490', '--layers', '4', '--encoding', 'causal', '--out',
                 str(tmp_path / 'out'), '--quiet']) == 0
    xy = Tracks.load(tmp_path / 'out' / 'tracks.safetensors').xy
    assert (xy - torch.tensor([590, 490])).abs().max() < .5, 'a still clip stands still'


@pytest.mark.parametrize('given, says', [
    (['nowhere.mp4'], 'nowhere.mp4'), (['{clip}', '--points', '0,500,3'], 'query 0'),
    (['{clip}', '--layers', '77'], 'layers=[77] is outside'),
    (['{clip}', '--frames', '99'], 'use frames=25, or None for all'),
    (['{clip}', '--grid', '0'], 'size')])
def test_track_refuses_in_one_sentence(demo, tmp_path, capsys, given, says):
    given = [g.format(clip=demo[2]) for g in given]
    assert main(['track', *given, '--num-inference-steps', '4', '--steps', '-1', '--out', str(tmp_path / 'out'),
                 '--quiet']) == 2
    said = capsys.readouterr().err
    assert says in said and said.count('\n') == 1 and not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Four small clips of each of two directions."
    from vidlens.seam.families import tiny
    from vidlens.motion.clips import world_motion

    clips = world_motion(tiny('cogvideox'), ['pan left', 'pan right'], 8, seed=1)
    root = tmp_path_factory.mktemp('ways')
    for i, way in enumerate(clips.labels):
        (root / way).mkdir(exist_ok=True)
        write_video(clips[i].video, root / way / f'{i}.mp4')
    return root


@pytest.mark.parametrize('given', [
    ['{folder}', '--kinds', 'hidden q'],
    ['--world', '--n', '8', '--motions', 'pan left', 'still', '--layers', '0', '--kinds', 'hidden']])
def test_discover_from_a_folder_and_from_the_world(folder, tmp_path, capsys, given):
    from vidlens.motion.pictures import CHANNEL_FILES
    from vidlens.motion.channels import Channels
    from vidlens.motion.sweep import Discovery

    line = ['discover', *(g.format(folder=folder) for g in given), '--model', 'tiny/cogvideox', '--num-inference-steps',
            '4',
            '--steps', '-1', '1', '--noises', '1', '--out', str(tmp_path / 'out'), '--quiet', '--json']
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {*CHANNEL_FILES, 'similarity.png'}
    assert Channels.load(tmp_path / 'out' / 'channels.safetensors').index.tolist() == told['channels'] and told['clips'] == 8
    found = Discovery.load(tmp_path / 'out' / 'discovery.safetensors')
    rows = list(csv.DictReader(open(tmp_path / 'out' / 'table.csv')))
    assert len(rows) == len(found.steps) * len(found.layers) * len(found.kinds) and found.steps == [1, 3]
    assert len(told['directions']) == 2 and told['best']['all'][0] == pytest.approx(found.best('all')['all'].mean)
    assert main(line) == 2 and '--force' in capsys.readouterr().err


@pytest.mark.parametrize('given, says', [
    (['no-such-folder'], "'no-such-folder' is no folder that exists"),
    (['{folder}', '--world'], 'leave --world'), (['{folder}/pan left'], '0 subfolders'),
    (['--n', '6'], 'at least 4'), (['--motions', 'sideways'], "'sideways' is unknown"),
    (['{folder}', '--keep', '900'], 'keep=900'), (['{folder}', '--layers', '77'], '77'),
    (['{folder}', '--steps', '30'], 'outside a run'), (['{folder}', '--kinds', 'z'], "kind 'z'")])
def test_discover_refuses_in_one_sentence(folder, tmp_path, capsys, given, says):
    given = [g.format(folder=folder) for g in given]
    line = ['discover', *given, '--model', 'tiny/cogvideox', '--num-inference-steps', '4', '--noises', '1', '--out',
            str(tmp_path / 'o'), '--quiet']
    assert main(line) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith('vidlens: ') and said.count('\n') == 1 and not (tmp_path / 'o').exists()


CONTROL_FILES = {'before.mp4', 'after.mp4', 'side_by_side.gif', 'motion.json', 'motion.csv'}


def test_control_writes_before_after_and_what_was_measured(tmp_path, capsys):
    "Two regions, each with its own direction and speed; the files hold what json says."
    out = tmp_path / 'out'
    line = ['control', '--prompt', 'a red circle', '--model', 'tiny/cogvideox', '--num-inference-steps', '3', '--out',
            str(out), '--quiet',
            '--json', '--box', '4,8,16,24', '--motion', 'right', '--box', '18,16,30,28.5', '--motion', 'up', '--speed', '1',
            '--speed', '.5', '--seed', '3']
    assert main(line) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.err == '' and {p.name for p in out.iterdir()} == CONTROL_FILES
    assert told['seed'] == 3 and told['num_inference_steps'] == 3
    assert [r['requested'] for r in told['regions']] == [[1, 0], [0, -.5]] and told['regions'][1]['box'] == [18, 16, 30,
                                                                                                             28.5]
    assert told['change']['inside'] > told['change']['outside'] and told['guided'] == [1, 2]
    assert json.loads((out / 'motion.json').read_text()) == {k: v for k, v in told.items() if k != 'files'}
    rows = list(csv.DictReader(open(out / 'motion.csv')))
    assert [(r['motion'], float(r['requested_dy']), int(r['as_requested'])) for r in rows] == [
        (r['motion'], r['requested'][1], int(r['as_requested'])) for r in told['regions']]
    before, after, pair = (read_video(out / n) for n in ('before.mp4', 'after.mp4', 'side_by_side.gif'))
    assert before.shape == after.shape and len(pair) == len(before) and pair.shape[2] > 2 * before.shape[2]
    assert main(line) == 2 and '--force' in capsys.readouterr().err and main([*line, '--force']) == 0


def test_control_moves_the_camera_and_a_region_together(tmp_path):
    out = tmp_path / 'out'
    assert main(['control', '--prompt', 'a red circle', '--model', 'tiny/cogvideox', '--num-inference-steps', '2',
                 '--out', str(out), '--quiet',
                 '--motion', 'pan left', '--motion', 'down', '--box', '8,8,24,24', '--speed', '.5']) == 0
    first, second = json.loads((out / 'motion.json').read_text())['regions']
    assert first['box'] is None and first['requested'] == [.5, 0]
    assert second['box'] == [8, 8, 24, 24] and second['requested'] == [0, .5]


@pytest.mark.parametrize('given, says', [
    (['--motion', 'right', '--motion', 'up', '--box', '4,8,16,24'], '2 motions of regions, but 1 boxes'),
    (['--motion', 'pan left', '--box', '4,8,16,24'], '0 motions of regions, but 1 boxes'),
    (['--motion', 'right', '--speed', '1', '--speed', '2'], '2 speeds for 1'),
    (['--motion', 'right', '--speed', '0'], '--motion still'), (['--motion', 'still', '--speed', '1'], 'no speed'),
    (['--motion', 'sideways'], "'up', 'still', or a velocity (dx, dy)"), (['--motion', 'right', '--box', '4,8,160,24'],
                                                                          'not in a frame'),
    (['--motion', 'right', '--rate', 'nan'], 'must be a number'), (['--motion', 'right', '--num-inference-steps', '0'],
                                                         'at least 1'),
    (['--motion', 'right', '--model', './no-such-model'], 'no such folder')])
def test_control_refuses_in_one_sentence(tmp_path, capsys, given, says):
    line = ['control', '--prompt', 'a red circle', '--model', 'tiny/cogvideox', '--num-inference-steps', '2', '--out',
            str(tmp_path / 'o'), *given]
    assert main([*line, '--quiet']) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith('vidlens: ') and said.count('\n') == 1 and not (tmp_path / 'o').exists()


@pytest.mark.parametrize('line, says', [
    (['--motion', 'right', '--box', '1,2,3'], 'write x0,y0,x1,y1'), (['--box', '1,2,3,4'], '--motion')])
def test_control_needs_boxes_and_motions(line, says, capsys):
    with pytest.raises(SystemExit) as e:
        main(['control', '--prompt', 'a red circle', *line])
    assert e.value.code == 2 and says in capsys.readouterr().err


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    path = tmp_path_factory.mktemp('words') / 'clip.mp4'
    write_video(world.clip('a red circle moves right', seed=1).video, path, fps=8)
    return path


@pytest.mark.parametrize('given', [['{clip}', '--prompt', 'a red circle moves right', '--words', 'red', 'moves right'],
                                   ['{clip}', '--source', 'concepts', '--words', 'red', 'moves right', '--k', '2',
                                    '--edges'],
                                   ['--prompt', 'a red circle moves right', '--words', 'red', 'moves right',
                                    '--steps', '-2', '--baselines', 'cross', 'flow']])
def test_imap_writes_where_when_and_which_way(short, tmp_path, capsys, given):
    from vidlens.words.pictures import WORD_FILES
    from vidlens.words.word_maps import ConceptMaps

    out = tmp_path / 'out'
    line = ['imap', *(g.format(clip=short) for g in given), '--num-inference-steps', '4', '--out', str(out), '--quiet',
            '--json']
    line += [] if '--steps' in line else ['--steps', '-2']
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    made = set() if '{clip}' in given else {'video.mp4'}        # what is in no other file is written, too
    assert {p.name for p in out.iterdir()} == {*WORD_FILES,
                                               'baselines.png'} | made == {Path(p).name for p in told['files']}
    maps = ConceptMaps.load(out / 'maps.safetensors')
    assert maps.words == ['red',
                          'moves right'] and maps.facts['source'] == ('concepts' if '--source' in given else 'prompt')
    rows = list(csv.DictReader(open(out / 'words.csv')))
    assert [r['word'] for r in rows] == maps.words and all(0 <= int(r['start']) <= int(r['end']) <= 16 for r in rows)
    way = maps.displacement().mean
    assert [float(r['dx']) for r in rows] == pytest.approx(way[:, 0].tolist(), abs=1e-3)
    assert told['words'][0]['direction'] == pytest.approx(way[0].tolist()) and told['facts']['steps'] == [2]
    assert main(line) == 2 and '--force' in capsys.readouterr().err


def test_imap_tells_frames_and_pixels_of_the_file(tmp_path, capsys):
    small = world.clip('a red circle moves right', seed=1).video
    large = small.repeat_interleave(3, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for name, video in (('small', small), ('large', large)):
        write_video(video, tmp_path / f'{name}.mp4', fps=8 if name == 'small' else 24, quality=100)
    told = {}
    for name, place in (('small', '16,40,32'), ('large', '50,80,64')):
        out = tmp_path / name
        line = ['imap', str(tmp_path / f'{name}.mp4'), '--prompt', 'a red circle moves right', '--words', 'moves right',
                '--num-inference-steps', '4']
        assert main([*line, '--steps', '-2', '--baselines', 'flow', 'tracks', '--point', place, '--out', str(out),
                     '--json',
                     '--quiet']) == 0
        told[name] = json.loads(capsys.readouterr().out)
        seconds = probe_video(out / 'maps.mp4').seconds
        assert seconds == pytest.approx(17 / 8, rel=.05), 'as long as the file'
    one, other = (told[n]['words'][0] for n in told)
    assert other['start'] == pytest.approx(3 * one['start'], abs=2) and other['end'] == pytest.approx(3 * one['end'],
                                                                                                      abs=2)
    assert other['end_s'] == pytest.approx(one['end_s'], abs=.1)
    assert other['direction'] == pytest.approx([v * 2 * 16 / 50 for v in one['direction']], abs=.05)
    assert told['large']['facts']['point'] == pytest.approx([16, 40, 32]) == told['small']['facts']['point']


def test_imap_takes_all_that_the_call_takes(short, tmp_path, capsys):
    from vidlens.words.heads import HeadChoice
    from vidlens.words.maps import Contrast
    from vidlens.words.word_maps import ConceptMaps, imap

    line = ['--source', 'concepts', '--words', 'red', '--against', 'blue', 'green', '--together', '--normalise',
            'slots', '--k', '2',
            '--by', 'dbi', '--skip', '1', '--threshold', '1e6']
    out = tmp_path / 'out'
    assert main(['imap', str(short), *line, '--num-inference-steps', '4', '--steps', '-2', '--out', str(out),
                 '--quiet']) == 0
    maps = ConceptMaps.load(out / 'maps.safetensors')
    want = dict(against=['blue', 'green'], together=True, normalise='slots', k=2, by='dbi', skip=1, threshold=1e6)
    assert {n: maps.facts[n] for n in want} == want and maps.words == ['red']
    same = imap(load(), fit_video(load(), read_video(short)), 'red', source='concepts', steps=-2, num_inference_steps=4,
                heads=HeadChoice(2, 'dbi', 1e6, 1), contrast=Contrast('slots', against=('blue', 'green'), together=True))
    assert torch.allclose(maps.maps, same.maps, atol=1e-5) and maps.heads == same.heads
    assert main(['imap', str(short), '--prompt', 'a red circle', '--words', 'red', '--normalise', 'none',
                 '--num-inference-steps', '4',
                 '--steps', '-2', '--out', str(out), '--quiet', '--force']) == 0
    assert ConceptMaps.load(out / 'maps.safetensors').facts['normalise'] is None


def test_imap_asks_no_flow_of_one_frame(tmp_path):
    from vidlens.words.word_maps import ConceptMaps

    write_video(world.clip('a red circle moves right', seed=1).video[:1], tmp_path / 'one.mp4', fps=8)
    line = ['imap', str(tmp_path / 'one.mp4'), '--prompt', 'a red circle', '--words', 'red', '--num-inference-steps',
            '4', '--steps', '-2', '--quiet']
    assert main([*line, '--out', str(tmp_path / 'o')]) == 0
    assert ConceptMaps.load(tmp_path / 'o' / 'maps.safetensors').baselines == {}
    assert main([*line, '--out', str(tmp_path / 'p'), '--baselines', 'flow']) == 2


@pytest.mark.parametrize('command, options', [
    ('demo', 'prompt video words points step num_inference_steps seed'),
    ('track', 'video points layers steps num_inference_steps encoding seed'),
    ('imap',
     'video words prompt layers steps num_inference_steps seed source together against normalise k by threshold skip'),
    ('discover', 'clips kinds layers steps num_inference_steps keep noises seed n motions'),
    ('control', 'prompt seed num_inference_steps rate motion speed')])
def test_options_are_named_like_arguments(command, options):
    "So that a message of the call reads the same on the command line; the help says so."
    commands = next(a for a in parser()._actions if hasattr(a, 'choices') and a.choices).choices
    assert set(options.split()) <= {a.dest for a in commands[command]._actions}
    for a in commands[command]._actions:
        assert all(o == f'--{a.dest.replace("_", "-")}' for o in a.option_strings if o.startswith('--')), a.dest
    assert 'layers=[3, 4] is --layers 3 4' in ' '.join(parser().format_help().split())


def test_a_velocity_is_a_motion():
    assert parse_motion('1,-.5') == (1, -.5) and parse_motion('pan left') == 'pan left' and parse_motion('1,2,3') == '1,2,3'


def test_a_file_for_a_folder_is_seen_before_the_model_is_loaded(short, capsys, monkeypatch):
    monkeypatch.setattr('vidlens.seam.loading.load', lambda *_: pytest.fail('loaded'))
    assert main(['discover', str(short)]) == 2 and 'is a file, no folder: give a folder with' in capsys.readouterr().err
    assert main(['imap', str(short), '--prompt', 'a', '--by',
                 'dbi']) == 2 and '--by choose among heads' in capsys.readouterr().err


@pytest.mark.parametrize('quiet', [[], ['--quiet']])
def test_quiet_libraries(quiet, monkeypatch, capsys):
    "What diffusers logs and warns of is progress, too; afterwards it is as it was."
    def noisy(args):
        log = logging.getLogger('diffusers.some.pipeline')
        log.addHandler(handler := logging.StreamHandler(sys.stderr))
        log.warning('a paragraph')
        warnings.warn('another', FutureWarning, stacklevel=1)
        log.removeHandler(handler)
        return {}

    monkeypatch.setattr('vidlens.cli.run_demo', noisy)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        assert main(['demo', *quiet]) == 0
    assert ('a paragraph' in capsys.readouterr().err, len(warned)) == ((False, 0) if quiet else (True, 1))
    assert not logging.root.manager.disable


@pytest.mark.parametrize('module', ['vidlens', 'vidlens.cli'])
def test_python_m(module):
    out = subprocess.run([sys.executable, '-m', module, '--version'], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f'vidlens {vidlens.__version__}'


@pytest.mark.parametrize('kind', ['lab', 'app'])
@pytest.mark.parametrize('given', [['clip.mp4'], ['--video', 'clip.mp4']])
def test_a_video_to_explore_is_given_either_way(kind, given, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr('vidlens.live.serving.serve_command', lambda *a: [])
    monkeypatch.setattr('vidlens.live.serving.explorer_notebook', lambda *a: seen.append(a[2:4]))
    monkeypatch.setattr('vidlens.live.serving.serve', lambda *a: 0)
    monkeypatch.chdir(tmp_path)
    assert main([kind, *given]) == 0 and seen == [(Path('clip.mp4'), '')]
    capsys.readouterr()
    assert main([kind, 'a.mp4', '--video', 'b.mp4']) == 2
    said = capsys.readouterr().err
    assert said == 'vidlens: there are two videos, a.mp4 and --video b.mp4: give one of them\n' and len(seen) == 1


@pytest.mark.parametrize('given, says', [
    ([], 'there is nothing to look for'), (['{clip}'], 'there is nothing to look for'), (['{clip}', '--source',
                                                                                          'concepts'], 'there is nothing'),
    (['{clip}', '--prompt', 'a red circle', '--words', 'star'], "source='concepts'"),
    (['{clip}', '--prompt', 'a red circle', '--baselines', 'daam'], "'daam' is unknown"),
    (['no.mp4', '--prompt', 'a red circle'], 'no.mp4'), (['{clip}', '--prompt', 'a red dragon'], 'dragon'),
    (['{clip}', '--prompt', 'a red circle', '--k', '99'], 'but layer 0 has 4: use k=4 or less\n'),
    (['{clip}', '--prompt', 'circle', '--against', 'circle'], "is subtracted by against=['circle']"),
    (['{clip}', '--prompt', 'a red circle', '--skip', '1'], '--skip choose among heads, but all are read: give --k 5'),
    (['{clip}', '--prompt', 'a red circle', '--together'], '--together is for free words'),
    (['{clip}', '--prompt', 'a red circle', '--baselines', 'moft', '--point', '17,3,3'],
     'frame 17 is outside of the file'),
    (['{clip}', '--prompt', 'a red circle', '--layers', '9'], 'outside')])
def test_imap_refuses_in_one_sentence(short, tmp_path, capsys, given, says):
    line = ['imap', *(g.format(clip=short) for g in given), '--num-inference-steps', '4', '--steps', '-2', '--out',
            str(tmp_path / 'o'), '--quiet']
    assert main(line) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith('vidlens: ') and said.count('\n') == 1 and not (tmp_path / 'o').exists()

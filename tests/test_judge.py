"""The frozen judge: right on true clips, plain about bad input, and made anew from a seed."""
import pytest
import torch

from vidlens import world
from vidlens.bundled.judge import EXAMS, Judge, Seen, SeenObject, agreement, examine, fit_judge, main
from vidlens.bundled.net import read_checkpoint, write_checkpoint

RED = SeenObject('red', 'circle', 'left', 'stops', 'normal', .1)
BLUE = SeenObject('blue', 'star', 'still', 'whole', 'normal', .05)


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def judge():
    return Judge.load()


@pytest.fixture(scope='module')
def tiny():
    return fit_judge(48, path_steps=3, shape_steps=2)


def said(caption):
    return world.parse(caption)


def test_frozen_judge_on_fresh_truth(judge):
    rows = examine(judge, 48, seed=11)
    for kind in ('colour', 'shape', 'motion', 'camera'):
        hits = [right for name, _, right in rows if name == kind]
        assert len(hits) >= 48 and sum(hits) / len(hits) >= .97, (kind, sum(hits), len(hits))


def test_frozen_judge_ships_its_facts(judge):
    exams = judge.facts['exams']
    assert set(exams) == set(EXAMS)
    for kind in ('colour', 'shape', 'motion', 'schedule', 'camera'):
        assert exams['truth'][kind][0] >= .99, (kind, exams['truth'][kind])
    assert judge.facts['classes']['motion'] == 13 and judge.facts['chance']['camera'] == pytest.approx(1 / 9)
    assert len(judge.facts['hash']) == 12


def test_looking_is_deterministic_and_does_not_depend_on_the_chunk(judge):
    video = world.sample(5, seed=21).render()[0]
    assert judge.look(video) == judge.look(video) == judge.look(video, chunk=2)
    assert judge.look(video[:0]) == []


def test_a_swapped_caption_disagrees(judge):
    scenes = world.sample(6, 31, world.Mixture(kind='single', motions=['left', 'up', 'grow', 'spin']))
    seen = judge.look(scenes.render()[0])
    for name, value in (('motion', 'down'), ('shape', 'cross'), ('colour', 'brown'), ('camera', 'zoom in')):
        verdicts = [agreement(s, d)[name] for s, d in zip(seen, scenes.with_(**{name: value}).describe())]
        assert sum(verdicts) == 0, name


def test_noise_and_nothing(judge):
    noise = torch.rand(2, 17, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    grey = torch.full((1, 17, 64, 64, 3), .4)
    flat = torch.tensor([.9, .1, .1]).expand(1, 17, 64, 64, 3)
    black, white = torch.zeros(1, 17, 64, 64, 3), torch.ones(1, 17, 64, 64, 3)
    seen = judge.look(torch.cat([noise, grey, flat, black, white]))
    assert all(len(s.objects) <= 2 for s in seen)
    assert seen[2] == Seen((), 'still')
    assert judge.look(grey) == [Seen((), 'still')]     # nothing in the whole chunk
    wanted = said('a red circle moves left while the camera pans up')
    assert not any(agreement(s, wanted)['motion'] and agreement(s, wanted)['camera'] for s in seen)


def test_things_come_by_falling_area(judge):
    for s in judge.look(world.sample(6, 41, world.Mixture(kind='two')).render()[0]):
        assert [t.area for t in s.objects] == sorted((t.area for t in s.objects), reverse=True)
        assert all(0 < t.area < .5 for t in s.objects)


def test_agreement_of_one_thing():
    found = agreement(Seen((RED,), 'still'), said('a red circle moves left then stops'))
    assert found == {'colour': True, 'shape': True, 'motion': True, 'schedule': True, 'pace': True, 'camera': True,
                     'motions': (True,)}
    found = agreement(Seen((RED,), 'pan left'), said('a red square moves right slowly'))
    assert found == {'colour': True, 'shape': False, 'motion': False, 'schedule': False, 'pace': False,
                     'camera': False, 'motions': (False,)}


def test_agreement_of_two_things():
    caption = 'a blue star stays still and a red circle moves left then stops'
    found = agreement(Seen((RED, BLUE), 'still'), said(caption))
    assert found['motions'] == (True, True) and found['schedule'] is True and found['colour'] is True
    found = agreement(Seen((RED,), 'still'), said(caption))
    assert found['motions'] == (False, True)
    assert not found['colour'] and not found['shape'] and not found['motion'] and found['schedule']
    assert agreement(Seen((), 'still'), said(caption))['motions'] == (False, False)
    assert not agreement(Seen((RED, BLUE), 'still'), said('a red circle moves left'))['colour']


def test_agreement_where_a_question_makes_no_sense():
    still = agreement(Seen((BLUE,), 'still'), said('a blue star stays still'))
    assert still['motion'] is True and still['schedule'] is None and still['pace'] is None
    pan = agreement(Seen((BLUE,), 'pan up'), said('a blue star stays still while the camera pans up'))
    assert pan['motion'] is None and pan['camera'] is True and pan['motions'] == (True,)
    mixed = agreement(Seen((RED,), 'pan up'), said('a red circle moves left then stops while the camera pans up'))
    assert mixed['motion'] is True


def test_agreement_of_objects_of_one_colour():
    other = SeenObject('red', 'star', 'up', 'whole', 'normal', .05)
    caption = said('a red star moves up and a red circle moves left then stops')
    assert agreement(Seen((RED, other), 'still'), caption)['motions'] == (True, True)
    assert agreement(Seen((RED,), 'still'), caption)['motions'] in ((False, False), (False, True))


@pytest.mark.parametrize('videos, message', [
    (torch.zeros(17, 64, 64, 3), r'look\(video\[None\]\)'), (torch.zeros(1, 5, 64, 64, 3), r'\(clips, 17, 64, 64, 3\)'),
    (torch.zeros(1, 17, 64, 64, 3, dtype=torch.uint8), 'videos / 255'),
    (torch.full((1, 17, 64, 64, 3), 2.), 'values from 2 to 2'),
    (torch.full((1, 17, 64, 64, 3), float('nan')), 'must be in')])
def test_bad_clips_are_refused(judge, videos, message):
    with pytest.raises(ValueError, match=message):
        judge.look(videos)


def test_what_is_no_tensor_is_refused(judge):
    with pytest.raises(TypeError, match='must be a tensor'):
        judge.look([[1.]])


def test_training_gives_the_same_judge_for_the_same_seed(tiny, tmp_path):
    again = fit_judge(48, path_steps=3, shape_steps=2)
    tiny.save(tmp_path / 'a'), again.save(tmp_path / 'b')
    a, b = (read_checkpoint(tmp_path / name, 'judge') for name in 'ab')
    assert a[1] == b[1] and a[0].keys() == b[0].keys() and all(torch.equal(v, b[0][k]) for k, v in a[0].items())
    assert (tmp_path / 'a').stat().st_size < 400_000
    video = world.sample(2, seed=1).render()[0]
    back = Judge.load(tmp_path / 'a')
    assert back.look(video) == tiny.look(video) and back.facts == tiny.facts


def test_bad_files_are_refused(tiny, tmp_path):
    path = tmp_path / 'judge.safetensors'
    with pytest.raises(FileNotFoundError, match='there is no judge at'):
        Judge.load(path)
    tiny.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match='damaged'):
        Judge.load(path)
    path.write_bytes(b'not a judge at all')
    with pytest.raises(ValueError, match='damaged'):
        Judge.load(path)


def test_files_with_other_weights_are_refused(tiny, tmp_path):
    path = tmp_path / 'judge.safetensors'
    tiny.save(path)
    tensors, facts = read_checkpoint(path, 'judge')
    write_checkpoint(path, 'dit', tensors, facts)
    with pytest.raises(ValueError, match="a 'judge' checkpoint is needed"):
        Judge.load(path)
    name = 'shape.look.7.weight'
    write_checkpoint(path, 'judge', {k: v for k, v in tensors.items() if k != name}, facts)
    with pytest.raises(ValueError, match=name):
        Judge.load(path)
    write_checkpoint(path, 'judge', tensors | {name: tensors[name] * float('nan')}, facts)
    with pytest.raises(ValueError, match='not finite'):
        Judge.load(path)


def test_too_few_clips_and_unknown_exams(judge):
    with pytest.raises(ValueError, match='at least 48'):
        fit_judge(3)
    with pytest.raises(ValueError, match='choose from truth'):
        examine(judge, 3, 'easy')


def test_the_command(capsys, tmp_path):
    assert main(['--exam', '3', '--seed', '5']) == 0
    out = capsys.readouterr().out
    assert 'motion         13  0.077' in out and 'below .99 in truth' in out
    (tmp_path / 'text').write_text('x')
    for name, message in (('none', 'there is no judge'), ('text', 'text is damaged')):
        assert main(['--file', str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert message in said and 'resume' not in said


def test_objects_larger_than_those_of_the_training(judge):
    captions = ['a purple square moves left', 'a blue square moves up', 'a red circle stays still']
    scenes = world.from_captions(captions, seed=3, knobs=world.Knobs(radius=16))
    assert [s.objects[0].motion for s in judge.look(scenes.render()[0])] == ['left', 'up', 'still']

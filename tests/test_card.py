"""Cards: text slots and their padding, geometry, noise, sites; on stock tokenizers and classes."""
import pytest
import torch
from seam import FAMILIES, KINDS, LAYERS, LENGTH, blocks, call, pipe_of
from torch import nn

from vidlens.seam.card import CARDS, Text, card_of, is_flow, model_of, noise_level, sites
from vidlens.seam.loading import load
from vidlens.seam.run import text_of
from vidlens.seam.families import TINY, tiny


@pytest.fixture(scope='module')
def bundled():
    return load()


# -- text

@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('prompt', ['a cat', 'a red circle', ''])
def test_padding_is_what_the_text_encoder_is_told_to_ignore(family, prompt, monkeypatch):
    pipe, seen = pipe_of(family), []
    text = card_of(pipe).tokens(pipe, prompt, LENGTH[family])
    own = type(pipe.tokenizer).__call__

    def listen(self, *args, **kwargs):
        out = own(self, *args, **kwargs)
        if self is pipe.tokenizer:
            seen.append(torch.as_tensor(out['attention_mask'])[0])
        return out

    monkeypatch.setattr(type(pipe.tokenizer), '__call__', listen)
    call(pipe, prompt, steps=1, guided=False)
    mask = seen[0][-len(text):] if family == 'hunyuanvideo' else seen[0]
    assert len(text) == LENGTH[family] and text.pad.tolist() == [m == 0 for m in mask.tolist()]
    assert text.pad.any() and not text.pad[0] and text.pad.tolist() == sorted(text.pad.tolist())


@pytest.mark.parametrize('family', FAMILIES)
def test_slots(family):
    pipe = pipe_of(family)
    text = card_of(pipe).tokens(pipe, 'a cat saw cats', 40)

    def spelt(slots):
        return ''.join(text.pieces[i] for i in slots).replace('▁', '')

    assert spelt(text.slots('cat')) == 'cat' and spelt(text.slots('cats')) == 'cats'
    assert spelt(text.slots('cat saw')) == 'catsaw' and spelt(text.slots('A CAT')) == 'acat'
    assert not set(text.slots('cat')) & set(text.slots('cats')) and not text.pad[text.slots('cats')].any()
    with pytest.raises(ValueError, match="'ca' is not in the prompt .*choose among a, cat, saw, cats"):
        text.slots('ca')
    for absent in ('dog', 'ats', '', 'cat cats'):
        with pytest.raises(ValueError, match='choose among'):
            text.slots(absent)


def test_slots_of_the_bundled_model(bundled):
    text = text_of(bundled, 'a red circle moves left and a blue circle moves right')
    circles = text.slots('circle')
    assert [text.pieces[i].strip('▁') for i in circles] == ['circle'] * 2
    assert len(text.slots('moves')) == 2 and text.slots('red circle')[1] == circles[0]


def text_in(*pieces, prompt=''):
    pad = torch.tensor([p in ('<pad>', '!') for p in pieces])
    return Text(prompt or ' '.join(p.strip('▁Ġ') for p in pieces), pieces, pad)


def test_slots_in_the_spelling_of_other_tokenizers():
    llama = text_in('A', 'Ġskate', 'board', 'Ġmoves', ',', 'Ġleft', '<|eot_id|>', '!', '!',
                    prompt='A skateboard moves, left')
    assert llama.slots('skateboard') == [1, 2] and llama.slots('moves, left') == [3, 4, 5] and llama.slots('a') == [0]
    clip = text_in('<|startoftext|>', 'a</w>', 'skate', 'board</w>', 'left</w>', '<|endoftext|>', prompt='a skateboard left')
    assert clip.slots('skateboard') == [2, 3] and clip.slots('left') == [4]
    twice = text_in('▁a', '▁cat', '▁and', '▁a', '▁cat', '</s>', '<pad>')
    assert twice.slots('cat') == [1, 4] and twice.slots('a cat') == [0, 1, 3, 4] and len(twice) == 7
    with pytest.raises(ValueError):
        twice.slots('pad')


@pytest.mark.parametrize('family', FAMILIES)
def test_long_prompts_are_refused(family):
    with pytest.raises(ValueError, match=r'more than the \d+ tokens that the model reads.*shorten it'):
        text_of(pipe_of(family), 'word ' * 600)


def test_a_prompt_that_just_fits():
    pipe = pipe_of('cogvideox')   # 16 slots: a letter each, one for the end
    fits, long = 'abcdefghijklmno', 'abcdefghijklmnop'
    assert not text_of(pipe, fits).pad.any() and text_of(pipe, fits[:-1]).pad.sum() == 1
    with pytest.raises(ValueError, match='more than the 16 tokens'):
        text_of(pipe, long)


# -- geometry

@pytest.mark.parametrize('family', FAMILIES)
def test_the_grid_is_what_the_transformer_makes_of_the_latents(family):
    pipe, seen = pipe_of(family), {}

    def keep(m, args, kwargs):
        seen['latents'] = kwargs['hidden_states'].shape

    undo = [pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True), blocks(pipe)[0].register_forward_hook(
        lambda m, a, out: seen.update(tokens=(out[0] if isinstance(out, tuple) else out).shape[1]))]
    call(pipe, steps=1)
    for handle in undo:
        handle.remove()
    card = card_of(pipe)
    grid = card.grid(pipe, 5, 32, 32)
    assert grid == card.grid_of_latents(pipe, tuple(seen['latents'])) and grid.n == seen['tokens']
    assert (grid.video_frames, grid.height, grid.width) == (5, 32, 32)


@pytest.mark.parametrize('family', FAMILIES)
def test_sites(family):
    pipe = pipe_of(family)
    rows, modules = sites(pipe), dict(pipe.transformer.named_modules())
    assert len(rows) == card_of(pipe).n_layers(pipe.transformer) == LAYERS[family] == len(blocks(pipe))
    for row in rows:
        attn = modules[row['path']]
        assert row['kinds'] == KINDS[family] and row['heads'] * row['channels'] == attn.to_q.out_features
    assert not any('refiner' in row['path'] for row in rows)


def test_finding_cards():
    assert {card_of(pipe_of(f)).name for f in FAMILIES} == {c.name for c in CARDS.values()} - {'AnimateDiff'}
    assert model_of(pipe_of('wan')) is pipe_of('wan').transformer and card_of(pipe_of('wan').transformer).name == 'Wan'
    with pytest.raises(TypeError, match='no card for Linear; cards exist for CogVideoX .*CARDS'):
        card_of(nn.Linear(2, 2))
    with pytest.raises(TypeError, match='str is neither .*vidlens.load'):
        card_of('wan')


# -- noise

@pytest.mark.parametrize('family', FAMILIES)
def test_noise_level_is_what_the_scheduler_adds(family):
    sch = pipe_of(family).scheduler
    sch.set_timesteps(10)
    x, noise = torch.ones(1, 1), torch.zeros(1, 1)
    for t in sch.timesteps[1:]:
        s = noise_level(sch, float(t))
        at = t.reshape(1)
        shown = sch.add_noise(x, noise, at) if hasattr(sch, 'add_noise') else sch.scale_noise(x, at, noise)
        signal = 1 - s if is_flow(sch) else (1 - s * s) ** .5
        assert abs(float(shown) - signal) < 2e-3
    assert is_flow(sch) == (family != 'cogvideox') and noise_level(None, 3.) != noise_level(None, 3.)


# -- tiny

@pytest.mark.parametrize('family', FAMILIES)
def test_tiny_is_seeded_and_leaves_the_global_generator_alone(family):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = (tiny(family, seed=i).transformer.state_dict() for i in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, pipe_of(family).transformer.state_dict()[k]) for k, x in a.items())
    assert any(not torch.equal(x, b[k]) for k, x in a.items()) and set(TINY) == {*FAMILIES, 'animatediff'}

"""Files in and out, against known frames and against Pillow: never against vidlens itself."""
import hashlib
import logging
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vidlens.core.files import whole_file
from vidlens.core.video import (as_video, fit_points, probe_video, read_video, resize, strip, take_frames, video_bytes,
                                write_video)

DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'
CLIPS = {  # name: frames, height, width, fps, as the publishers state them
    'apple.mp4': (50, 720, 1296, 10), 'bear.mp4': (82, 480, 854, 30), 'bmx-trees.mp4': (24, 480, 720, 10),
    'cat.mp4': (87, 480, 368, 20), 'goose.mp4': (16, 512, 640, 5), 'rallye.mp4': (24, 480, 720, 10)}
real = pytest.mark.skipif(not DATA.is_dir(), reason='the real clips are not here: put them into ../shared/data')
A, B, C = (200, 30, 60), (20, 180, 90), (240, 240, 30)


def quarters(n=6, h=48, w=64):
    "Flat areas of known colour: A on top, B below left, C below right; a white bar as wide as the frame's number + 1."
    a = np.zeros((n, h, w, 3), np.uint8)
    a[:, :h // 2], a[:, h // 2:, :w // 2], a[:, h // 2:, w // 2:] = A, B, C
    for i in range(n):
        a[i, :4, :8 * (i + 1)] = 255
    return a


def encode(path, arrays, codec='libx264', pix='yuv420p', times=None, rotate=None, tag=None, base=1000, fmt='rgb24', options=None):
    "A file made with PyAV alone; `times` in units of 1/base second."
    times = times if times is not None else [i * 100 for i in range(len(arrays))]
    with av.open(str(path), 'w', options=options or {}) as box:
        s = box.add_stream(codec, rate=10, options={'crf': '4'} if '264' in codec else {})
        s.width, s.height, s.pix_fmt = arrays.shape[2], arrays.shape[1], pix
        s.codec_context.time_base = Fraction(1, base)
        if tag:
            s.codec_context.colorspace, s.codec_context.color_range = tag, 1
        if rotate:
            s.set_display_rotation(rotate)
        for a, t in zip(arrays, times):
            f = av.VideoFrame.from_ndarray(a, fmt)
            if tag:
                f = f.reformat(format=pix, dst_colorspace=tag)
            f.pts, f.time_base = t, Fraction(1, base)
            box.mux(s.encode(f))
        box.mux(s.encode())
    return path


def near(pixel, colour, tolerance=5):
    return np.abs(np.asarray(pixel) * 255 - np.asarray(colour)).max() <= tolerance


def bar(video):
    "Which frame of quarters() this is: the width of its white bar over 8, less one."
    return [round(float((f[1, :, 1] > .8).sum()) / 8) - 1 for f in video]


def smooth(n=6, h=48, w=64):
    y, x = np.meshgrid(np.arange(h) / h, np.arange(w) / w, indexing='ij')
    return torch.tensor(np.stack([np.stack([x, y, (x + y + t / n) / 3], -1) for t in range(n)]), dtype=torch.float32)


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean()))


# Containers

@pytest.mark.parametrize('name, codec, pix', [
    ('a.mp4', 'libx264', 'yuv420p'), ('a.mov', 'libx264', 'yuv444p'), ('a.mkv', 'ffv1', 'yuv420p'),
    ('a.avi', 'mpeg4', 'yuv420p'), ('a.webm', 'libvpx-vp9', 'yuv420p'), ('ten.mp4', 'libx264', 'yuv420p10le'),
    ('deep.mkv', 'ffv1', 'gbrp16le')])
def test_containers(tmp_path, name, codec, pix):
    p = encode(tmp_path / name, quarters(), codec, pix, *([list(range(6)), None, None, 10] if name == 'a.avi' else []))
    v = read_video(p)
    assert v.shape == (6, 48, 64, 3) and v.dtype == torch.float32 and 0 <= v.min() and v.max() <= 1
    assert bar(v) == list(range(6))
    assert near(v[3, 15, 32], A) and near(v[3, 40, 10], B) and near(v[3, 40, 50], C)
    facts = probe_video(p)
    assert (facts.frames, facts.height, facts.width, facts.fps, facts.variable) == (6, 48, 64, 10, False)


def test_more_than_8_bits_are_kept(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 65535, 640).astype(np.uint16)[None, None, :, None], (2, 16, 640, 3))
    v = read_video(encode(tmp_path / 'd.mkv', np.ascontiguousarray(ramp), 'ffv1', 'gbrp16le', fmt='rgb48le'))
    assert len(v[0, 0].unique()) > 600
    assert (v[0, 0, :, 0] - torch.linspace(0, 1, 640)).abs().max() < 1 / 255


def test_grey(tmp_path):
    grey = np.stack([np.full((32, 32), 40 * i, np.uint8) for i in range(1, 6)])
    v = read_video(encode(tmp_path / 'g.mkv', grey, 'ffv1', 'gray', fmt='gray'))
    assert v.shape == (5, 32, 32, 3) and [round(float(f.mean()) * 255) for f in v] == [40, 80, 120, 160, 200]


def test_alpha_in_a_container(tmp_path):
    a = np.zeros((2, 32, 32, 4), np.uint8)
    a[:, :, :16] = (255, 0, 0, 255)
    p = encode(tmp_path / 'alpha.mkv', a, 'ffv1', 'bgra', fmt='rgba')
    assert near(read_video(p)[0, 5, 25], (255, 255, 255), 1) and near(read_video(p)[0, 5, 5], (255, 0, 0), 1)
    assert near(read_video(p, background='#0000ff')[0, 5, 25], (0, 0, 255), 1)


@pytest.mark.parametrize('tag', [1, 5])
def test_colour_tags_are_obeyed(tmp_path, tag):
    v = read_video(encode(tmp_path / 'c.mp4', quarters(), tag=tag))
    assert near(v[0, 15, 32], A, 6) and near(v[0, 40, 50], C, 6)


@pytest.mark.parametrize('degrees, top_left', [(90, C), (180, C), (-90, B), (270, B)])
def test_rotation_flag(tmp_path, degrees, top_left):
    "FFmpeg counts counter-clockwise: 90 brings the right edge, of colours A and C, to the top."
    p = encode(tmp_path / 'r.mp4', quarters(), rotate=degrees)
    v, facts = read_video(p), probe_video(p)
    turned = np.rot90(quarters(), degrees // 90, axes=(1, 2))
    assert v.shape == turned.shape and (facts.height, facts.width) == turned.shape[1:3]
    assert (v[0] - torch.tensor(turned[0].copy()) / 255).abs().mean() < .01
    assert facts.rotation % 360 == -degrees % 360


def test_variable_frame_rate(tmp_path):
    times = [0, 100, 500, 600, 1200, 1300]
    p = encode(tmp_path / 'v.mkv', quarters(), times=times)
    assert bar(read_video(p)) == list(range(6))
    shown = [max(i for i, t in enumerate(times) if t <= k * 100) for k in range(14)]
    assert bar(read_video(p, fps=10)) == shown
    assert bar(read_video(p, fps=10, start=3, every=4, frames=2)) == shown[3::4][:2]
    assert bar(read_video(p, fps=5)) == shown[::2]
    assert probe_video(p).variable


def test_up_and_down_in_rate(tmp_path):
    p = encode(tmp_path / 'u.mp4', quarters())
    assert bar(read_video(p, fps=20)) == [i // 2 for i in range(12)]
    assert bar(read_video(p, fps=2.5)) == [0, 4]


@pytest.mark.parametrize('frames, start, every', [(None, 0, 1), (2, 1, 2), (1, 5, 1), (None, 2, 3), (3, 0, 2)])
def test_selection_is_slicing(tmp_path, frames, start, every):
    p = encode(tmp_path / 's.mp4', quarters())
    assert bar(read_video(p, frames, start, every)) == list(range(6))[start::every][:frames]


def test_decodes_no_more_than_needed(tmp_path):
    "A file whose later part is destroyed reads well up to there."
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    p = encode(tmp_path / 'n.mkv', noise, 'ffv1', 'bgr0')
    whole = read_video(p, frames=3)
    data = p.read_bytes()
    p.write_bytes(data[:len(data) // 2])
    assert torch.equal(read_video(p, frames=3), whole)
    with pytest.raises(ValueError, match='is cut off: .* of about 40 frames|breaks off'):
        read_video(p, frames=40)


def test_pixel_aspect_is_told(tmp_path):
    with av.open(str(tmp_path / 'p.mp4'), 'w') as box:
        s = box.add_stream('libx264', rate=10)
        s.width, s.height, s.pix_fmt, s.codec_context.sample_aspect_ratio = 64, 48, 'yuv420p', Fraction(4, 3)
        box.mux(s.encode(av.VideoFrame.from_ndarray(quarters()[0], 'rgb24')))
        box.mux(s.encode())
    assert probe_video(tmp_path / 'p.mp4').pixel_aspect == pytest.approx(4 / 3, abs=1e-3)


# Images and folders

def test_animated_gif_with_alpha_and_delays(tmp_path):
    frames = []
    for i in range(4):
        f = Image.new('RGBA', (20, 10), (0, 0, 0, 0))
        f.paste((255, 0, 0, 255), (4 * i, 0, 4 * i + 4, 10))
        frames.append(f)
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:], duration=[100, 300, 100, 100],
                   disposal=2)
    v = read_video(tmp_path / 'a.gif')
    assert v.shape == (4, 10, 20, 3)
    for i in range(4):
        assert near(v[i, 5, 4 * i + 1], (255, 0, 0), 1) and near(v[i, 5, (4 * i + 9) % 20], (255, 255, 255), 1)
    timed = read_video(tmp_path / 'a.gif', fps=10, background='black')
    assert len(timed) == 6 and torch.equal(timed[1], timed[3]) and near(timed[0, 5, 15], (0, 0, 0), 1)


@pytest.mark.parametrize('suffix, mode', [
    ('.png', 'RGB'), ('.png', 'L'), ('.png', 'RGBA'), ('.png', 'P'), ('.jpg', 'RGB'), ('.webp', 'RGB'), ('.bmp', 'RGB'),
    ('.tiff', 'CMYK'), ('.png', 'I;16')])
def test_still_images(tmp_path, suffix, mode):
    im = Image.fromarray(quarters()[0])
    im = Image.fromarray(np.full((48, 64), 32768, np.uint16)) if mode == 'I;16' else im.convert(mode)
    im.save(tmp_path / f'x{suffix}')
    v = read_video(tmp_path / f'x{suffix}')
    with Image.open(tmp_path / f'x{suffix}') as saved:
        want = np.full((48, 64, 3), .5) if mode == 'I;16' else np.asarray(saved.convert('RGB')) / 255
    assert v.shape == (1, 48, 64, 3) and np.abs(v[0].numpy() - want).mean() < .01
    assert probe_video(tmp_path / f'x{suffix}').frames == 1


def test_phone_photo_orientation(tmp_path):
    im = Image.fromarray(quarters()[0])
    exif = im.getexif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    im.save(tmp_path / 'e.jpg', exif=exif, quality=95)
    v = read_video(tmp_path / 'e.jpg')
    assert v.shape == (1, 64, 48, 3) and near(v[0, 5, 5], B, 8)


def test_folder_in_natural_order(tmp_path):
    for i in (0, 1, 2, 10, 9):
        Image.new('RGB', (8, 6), (20 * i, 0, 0)).save(tmp_path / f'frame{i}.png')
    (tmp_path / 'notes.txt').write_text('not a frame')
    v = read_video(tmp_path)
    assert [round(float(f[0, 0, 0]) * 255) for f in v] == [0, 20, 40, 180, 200]
    assert len(read_video(tmp_path, every=2)) == 3 and probe_video(tmp_path).frames == 5


# Sizes

@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
@pytest.mark.parametrize('src, dst', [((48, 64), (32, 32)), ((49, 37), (31, 64)), ((20, 90), (60, 60)),
                                      ((30, 30), (45, 80))])
def test_points_follow_resize(src, dst, fit):
    "A soft spot is found where fit_points says, in both directions of scale."
    h, w = src
    y, x = np.meshgrid(np.arange(h) + .5, np.arange(w) + .5, indexing='ij')
    centre = np.array([w / 2 + 2.3, h / 2 - 1.6])
    spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 18).astype(np.float32)
    v = resize(torch.tensor(spot)[None], *dst, fit)[0, ..., 0].double()
    Y, X = torch.meshgrid(torch.arange(dst[0]) + .5, torch.arange(dst[1]) + .5, indexing='ij')
    m = (v - .05).clamp(0)
    found = torch.stack([(m * X).sum(), (m * Y).sum()]) / m.sum()
    assert (found - fit_points(centre, src, dst, fit)).abs().max() < .12
    assert torch.allclose(fit_points(fit_points(centre, src, dst, fit), src, dst, fit, back=True).double(),
                          torch.tensor(centre), atol=1e-4)


def test_resize_agrees_with_pillow():
    v = smooth(1, 60, 80)
    ours = resize(v, 24, 32, 'stretch')[0, ..., 0]
    pil = np.asarray(Image.fromarray(v[0, ..., 0].numpy()).resize((32, 24), Image.Resampling.BICUBIC))
    assert np.abs(ours.numpy() - pil).max() < .01


def test_resize_details():
    v = as_video(quarters())
    assert torch.equal(resize(v, 48, 64), v) and resize(v[0], 24, 24).shape == (24, 24, 3)
    assert near(resize(v, 80, 64, 'pad', fill='#ff0000')[0, 0, 0], (255, 0, 0), 1)
    assert resize(v, 200, 30).shape == (6, 200, 30, 3) and resize(v, 1, 1, 'pad').shape == (6, 1, 1, 3)
    assert torch.equal(take_frames(v, 3, 'even'), v[[0, 2, 5]]) and torch.equal(take_frames(v, 2), v[:2])


# Writing

@pytest.mark.parametrize('suffix, floor', [('.mp4', 33), ('.webm', 33), ('.gif', 33), ('.webp', 33)])
def test_round_trip(tmp_path, suffix, floor):
    v = (smooth() + as_video(quarters())) / 2
    p = write_video(v, tmp_path / f'a{suffix}', fps=12.5)
    back = read_video(p)
    assert back.shape == v.shape and psnr(back, v) > floor
    assert abs(float((back - v).mean())) < .004, 'colours must not drift'
    assert probe_video(p).fps == pytest.approx(12.5, rel=.02)


@pytest.mark.parametrize('h, w', [(47, 63), (1, 1), (48, 33), (2, 300)])
def test_odd_sizes(tmp_path, h, w):
    v = smooth(3, h, w)
    for suffix in ('.gif', '.webp', '.png'):
        write_video(v, tmp_path / f'a{suffix}', quality=100)
    assert torch.equal(read_video(tmp_path / 'a.webp'), (v * 255).round() / 255)
    assert read_video(tmp_path / 'a.gif').shape[1:] == v.shape[1:]
    back = read_video(write_video(v, tmp_path / 'a.mp4'))
    assert back.shape[1:3] == (h + h % 2, w + w % 2) and (h < 10 or psnr(back[:, :h, :w], v) > 30)


def test_one_frame_grey_and_uint8(tmp_path):
    assert read_video(write_video(smooth(1), tmp_path / 'one.mp4')).shape == (1, 48, 64, 3)
    assert read_video(write_video(smooth(1), tmp_path / 'one.gif')).shape == (1, 48, 64, 3)
    grey = (smooth()[..., 2] * 255).round().to(torch.uint8)
    for i, v in enumerate((grey, grey[..., None], grey.numpy(), grey.float() / 255)):
        back = read_video(write_video(v, tmp_path / f'{i}.webp', quality=100))
        assert torch.equal(back[..., 1] * 255, grey.float())


def test_gif_against_pillow(tmp_path):
    p = write_video(as_video(quarters()), tmp_path / 'a.gif', fps=8)
    with Image.open(p) as im:
        assert im.n_frames == 6 and im.info['loop'] == 0
        shown = []
        for i in range(6):
            im.seek(i)
            shown.append(im.info['duration'])
            assert np.abs(np.asarray(im.convert('RGB')).astype(int) - quarters()[i]).max() <= 2
    assert set(shown) <= {120, 130} and sum(shown) == 750


def test_strip_and_scale(tmp_path):
    v = as_video(quarters())
    write_video(v, tmp_path / 's.png', columns=3)
    im = np.asarray(Image.open(tmp_path / 's.png'))
    assert im.shape == (96, 192, 3) and (im[48:, 64:128] == quarters()[4]).all()
    assert strip(v, 3, scale=2, gap=4).size == (3 * 128 + 8, 96) and strip(torch.rand(9, 256, 256)).size[1] == 128
    with Image.open(write_video(v, tmp_path / 'b.gif', scale=3)) as big:
        assert big.size == (192, 144)


def test_written_colours_are_tagged(tmp_path):
    with av.open(str(write_video(smooth(), tmp_path / 'a.mp4'))) as box:
        context = box.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (6, 1, 'yuv420p')


def test_interrupted_write_leaves_nothing(tmp_path):
    old = write_video(smooth(), tmp_path / 'a.gif').read_bytes()
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), whole_file(tmp_path / 'a.gif', force=True) as part:
            part.write_bytes(b'half')
            raise error
    assert os.listdir(tmp_path) == ['a.gif'] and (tmp_path / 'a.gif').read_bytes() == old
    write_video(smooth(2), tmp_path / 'a.gif', force=True)
    assert len(read_video(tmp_path / 'a.gif')) == 2


def test_same_bytes_twice():
    digests = {hashlib.sha256(video_bytes(smooth(), kind)).hexdigest() for kind in ('gif', 'webp') for _ in range(2)}
    assert len(digests) == 2


# Files that are not whole

FAST = {'movflags': '+faststart'}


@pytest.fixture(scope='module')
def noise():
    return np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)


def cut(path, share=.5):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    return path


def uneven(n): return np.cumsum([700 if i % 7 == 0 else 100 for i in range(n)]).tolist()


@pytest.mark.parametrize('name, codec', [('a.mp4', 'libx264'), ('a.mov', 'libx264'), ('a.mkv', 'libx264'), ('a.webm', 'libvpx-vp9'),
                                         ('a.avi', 'mpeg4')])
@pytest.mark.parametrize('times', [None, uneven(60)], ids=['even', 'uneven'])
def test_a_cut_off_video_is_no_shorter_one(tmp_path, noise, name, codec, times, base=1000):
    if name == 'a.avi':  # has no times
        times, base = range(60), 10
    p = encode(tmp_path / name, noise, codec, times=times, base=base, options=FAST if name[-3:] in ('mp4', 'mov') else None)
    assert len(read_video(p, size=8)) == 60
    told = p.stat().st_size
    cut(p)
    with pytest.raises(ValueError, match=rf'is cut off: .* of (about )?[56]\d frames are there, in {told // 2} of {told} ') as e:
        read_video(p, size=8)
    there = int(str(e.value).split('frames=')[1].split(')')[0])
    assert 20 < there < 40 and len(read_video(p, frames=there, size=8)) == there
    with pytest.raises(ValueError, match=r'frames=9\) to take what is there'):
        read_video(p, start=there - 17, every=2, size=8)
    with pytest.raises(ValueError, match='is cut off'):
        read_video(p, frames=59, size=8)


def test_files_that_do_not_tell_or_end_in_more_are_read(tmp_path, noise):
    with av.open(str(tmp_path / 'live.mkv'), 'w', options={'live': '1'}) as box:
        s = box.add_stream('libx264', rate=10)
        s.width, s.height, s.pix_fmt = 64, 48, 'yuv420p'
        for a in noise[:20]:
            box.mux(s.encode(av.VideoFrame.from_ndarray(a, 'rgb24')))
        box.mux(s.encode())
    assert 5 < len(read_video(cut(tmp_path / 'live.mkv'))) < 20
    p = encode(tmp_path / 'a.mp4', noise[:9], options=FAST)
    whole = p.read_bytes()
    for more in (bytes(100), b'\xff' * 100, b'\0\0\1\0free' + bytes(20)):  # the last: a box cut off that holds no frame
        p.write_bytes(whole + more)
        assert len(read_video(p)) == 9


@pytest.mark.parametrize('suffix, says', [('png', 'frame 0'), ('jpg', 'frame 0'), ('gif', ''), ('apng', r'frames=\d\) reads')])
def test_a_cut_off_image_is_named(tmp_path, noise, suffix, says):
    frames = [Image.fromarray(a) for a in noise[:6]]
    many = {'save_all': True, 'append_images': frames[1:]} if suffix in ('gif', 'apng') else {}
    (tmp_path / 'frames').mkdir()
    p = tmp_path / 'frames' / f'2.{suffix}'
    frames[0].save(p, **({'format': 'png'} if suffix == 'apng' else {}), **many)
    cut(p)
    for read in (read_video, probe_video)[:1 if suffix == 'gif' else 2]:  # a GIF's times are told without its pixels
        with pytest.raises(ValueError, match=rf'2\.{suffix} breaks off.*{says}'):
            read(p)
    if suffix == 'png':
        frames[0].save(tmp_path / 'frames' / '1.png')
        with pytest.raises(ValueError, match=r'2\.png breaks off in frame 0'):
            read_video(tmp_path / 'frames')


def test_a_clip_or_sample_is_a_video(tmp_path):
    from types import SimpleNamespace
    made = SimpleNamespace(video=smooth(), prompt='a ramp')
    assert torch.equal(as_video(made), smooth()) and resize(made, 24, 32).shape == (6, 24, 32, 3)
    assert len(read_video(write_video(made, tmp_path / 'a.mp4'))) == 6
    with pytest.raises(TypeError, match='is a SimpleNamespace'):
        as_video(SimpleNamespace(video=None))


# Messages: each says what was found, what was expected, and the call that mends it

def call(name, folder):
    v = smooth()
    clip = folder / 'clip.mp4'
    return {
        'missing': lambda: read_video(folder / 'clop.mp4'),
        'no folder': lambda: read_video(folder / 'no' / 'clip.mp4'),
        'no images': lambda: read_video(folder / 'empty'),
        'text': lambda: read_video(folder / 'notes.mp4'),
        'nothing inside': lambda: read_video(folder / 'zero.mp4'),
        'sound only': lambda: read_video(folder / 'sound.wav'),
        'a tensor': lambda: read_video(v),
        'bad image': lambda: read_video(folder / 'frames'),
        'too many': lambda: read_video(clip, frames=9),
        'too many by start': lambda: read_video(clip, frames=5, start=3),
        'start beyond': lambda: read_video(clip, start=6),
        'every': lambda: read_video(clip, every=0),
        'size': lambda: read_video(clip, size=(0, 64)),
        'size words': lambda: read_video(clip, size='64x64'),
        'fit': lambda: read_video(clip, size=32, fit='squash'),
        'fps': lambda: read_video(clip, fps=-1),
        'folder fps': lambda: read_video(folder / 'mixed', fps=8),
        'mixed sizes': lambda: read_video(folder / 'mixed'),
        'background': lambda: read_video(clip, background='whitish'),
        'exists': lambda: write_video(v, clip),
        'suffix': lambda: write_video(v, folder / 'x.wmv'),
        'no out folder': lambda: write_video(v, folder / 'no' / 'x.mp4'),
        'out is folder': lambda: write_video(v, folder / 'dir.mp4'),
        'range': lambda: write_video(v * 2 - 1, folder / 'x.mp4'),
        'range 255': lambda: write_video(v * 255, folder / 'x.mp4'),
        'nan': lambda: write_video(v / 0 * 0, folder / 'x.mp4'),
        'channels first': lambda: write_video(v.movedim(-1, 1), folder / 'x.mp4'),
        'batch': lambda: write_video(v[None], folder / 'x.mp4'),
        'alpha': lambda: write_video(torch.rand(2, 8, 8, 4), folder / 'x.mp4'),
        'int64': lambda: write_video((v * 255).long(), folder / 'x.mp4'),
        'no frames': lambda: write_video(v[:0], folder / 'x.mp4'),
        'gif fps': lambda: write_video(v, folder / 'x.gif', fps=60),
        'quality': lambda: write_video(v, folder / 'x.mp4', quality=101),
        'scale': lambda: write_video(v, folder / 'x.mp4', scale=1.5),
        'points': lambda: fit_points([1, 2, 3], (8, 8), (4, 4)),
        'take': lambda: take_frames(v, 7),
    }[name]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    f = tmp_path_factory.mktemp('files')
    encode(f / 'clip.mp4', quarters())
    (f / 'notes.mp4').write_text('words ' * 99)
    (f / 'zero.mp4').touch()
    for d in ('empty', 'frames', 'mixed', 'dir.mp4'):
        (f / d).mkdir()
    (f / 'empty' / 'a.txt').touch()
    (f / 'frames' / '1.png').write_text('no png')
    for i in (1, 2):
        Image.new('RGB', (8 * i, 8)).save(f / 'mixed' / f'{i}.png')
    with av.open(str(f / 'sound.wav'), 'w') as box:
        s = box.add_stream('pcm_s16le', rate=8000, layout='mono')
        a = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), 's16', 'mono')
        a.sample_rate = 8000
        box.mux(s.encode(a))
        box.mux(s.encode())
    return f


@pytest.mark.parametrize('name, error, parts', [
    ('missing', FileNotFoundError, ['clop.mp4 does not exist', 'clip.mp4']),
    ('no folder', FileNotFoundError, ['does not exist either']),
    ('no images', ValueError, ['holds no images', '.txt']),
    ('text', ValueError, ['not a video or image', '.webm']),
    ('nothing inside', ValueError, ['empty (0 bytes)']),
    ('sound only', ValueError, ['no video stream', 'audio']),
    ('a tensor', TypeError, ['file name', 'as_video(x)']),
    ('bad image', ValueError, ['1.png is not an image']),
    ('too many', ValueError, ['has 6 frames', 'frames=9', 'use frames=6']),
    ('too many by start', ValueError, ['has 6 frames', 'use frames=3', 'smaller start']),
    ('start beyond', ValueError, ['start=6', 'start=0 to 5']),
    ('every', ValueError, ['every=0', 'at least 1']),
    ('size', ValueError, ['size=(0, 64)', 'size=(480, 720)']),
    ('size words', ValueError, ["size='64x64'", '(height, width)']),
    ('fit', ValueError, ["'squash'", "'crop'", "'pad'", "'stretch'"]),
    ('fps', ValueError, ['fps=-1', 'fps=8']),
    ('folder fps', ValueError, ['no times', 'leave fps out']),
    ('mixed sizes', ValueError, ['frame 1 is 8x16', '8x8', 'size=(8, 8)']),
    ('background', ValueError, ['whitish', "'white'"]),
    ('exists', FileExistsError, ['exists', 'force=True']),
    ('suffix', ValueError, ["'.wmv'", '.mp4, .webm, .gif', 'x.mp4']),
    ('no out folder', FileNotFoundError, ['mkdir -p']),
    ('out is folder', IsADirectoryError, ['is a folder', 'file name inside']),
    ('range', ValueError, ['from -1', '(video + 1) / 2']),
    ('range 255', ValueError, ['video / 255']),
    ('nan', ValueError, ['not finite', 'frame 0', 'nan_to_num']),
    ('channels first', ValueError, ['(6, 3, 48, 64)', 'video.movedim(1, -1)']),
    ('batch', ValueError, ['(1, 6, 48, 64, 3)', 'video[0]']),
    ('alpha', ValueError, ['video[..., :3]']),
    ('int64', TypeError, ['torch.int64', 'video.to(torch.uint8)']),
    ('no frames', ValueError, ['(0, 48, 64, 3)', 'no frame']),
    ('gif fps', ValueError, ['fps=60', '<= 50', '.webp']),
    ('quality', ValueError, ['quality=101', '0 to 100']),
    ('scale', ValueError, ['scale=1.5', 'whole number']),
    ('points', ValueError, ['(3,)', '(x, y)']),
    ('take', ValueError, ['n=7', 'use 1 to 6']),
])
def test_messages(folder, name, error, parts):
    before = sorted(os.listdir(folder))
    with pytest.raises(error) as caught:
        call(name, folder)()
    assert type(caught.value) is error, 'our own message, not that of a library below'
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert sorted(os.listdir(folder)) == before, 'a failed call leaves no file'


def test_odd_display_matrix_is_told(tmp_path, caplog):
    p = encode(tmp_path / 'r.mp4', quarters(1), rotate=30)
    with caplog.at_level(logging.WARNING, 'vidlens'):
        assert read_video(p).shape == (1, 48, 64, 3)
    assert 'quarter turn' in caplog.text


# Real clips

@real
@pytest.mark.parametrize('name', CLIPS)
def test_real_clips(name):
    n, h, w, fps = CLIPS[name]
    f = probe_video(DATA / name)
    assert (f.frames, f.height, f.width, f.fps, f.variable) == (n, h, w, fps, False)
    v = read_video(DATA / name, frames=5, every=2, size=(60, 90))
    assert v.shape == (5, 60, 90, 3) and .1 < v.mean() < .9 and (v[0] - v[4]).abs().mean() > .001


@real
def test_real_clip_whole_and_resampled():
    v = read_video(DATA / 'goose.mp4', size=(64, 80))
    assert len(v) == 16 and len(read_video(DATA / 'bear.mp4', fps=5, size=32)) == 14
    assert read_video(DATA / 'scene1.jpg', size=64).shape == (1, 64, 64, 3)

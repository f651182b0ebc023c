"""A trace whose verbs are methods, as the tests of traces call them."""


from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidlens.live.worker import Job
from vidlens.motion.channels import Channels, motion_features, remove_content, similarity
from vidlens.points.attention import HeadStatistics, head_statistics
from vidlens.points.score_tables import ScoreTable
from vidlens.points.matching import Tracks, query_points
from vidlens.points.scoring import Scoring, score, text_mask
from vidlens.points.tracking import point_map, track
from vidlens.seam.choices import Wanted
from vidlens.seam.tape import Tape
from vidlens.seam.traces import Reader, Trace, trace
from vidlens.words.heads import HeadTable
from vidlens.words.selection import score_heads
from vidlens.words.word_maps import ConceptMaps, Contrast, head_maps, imap


_QUESTIONS = dict(match='q k', track='q k', score='q k', statistics='q k', features='hidden', similar='hidden', concepts='concepts')


class Engine(Trace):
    "A trace whose questions are methods."

    @property
    def run(self) -> dict[str, Any]:
        return self.generation

    def layers_for(self, question: str = 'q k') -> list[int]:
        "The layers that can answer a question, or that show kinds."
        spoken = 'xq xk xo' if self.text == 'cross' else 'q k o'
        return super().layers_for(_QUESTIONS.get(question, spoken if question in ('heads', 'words') else question))

    def tape(self, step: int = -12, layers: Wanted = None, job: Job | None = None) -> Tape:
        "As of a trace; the job may stop it."
        with self.under(job) if job else nullcontext():
            return super().tape(step, layers)

    def prepare(self, step: int = -12, job: Job | None = None) -> bool:
        "As of a trace; the job may stop it."
        with self.under(job) if job else nullcontext():
            return super().prepare(step)

    def match(self, point: Sequence[float], step: int = -12, layer: int = -1, heads: Any = None,
              symmetric: bool = False) -> Tensor:
        "`point_map`."
        return point_map(self, point=point, step=step, layer=layer, heads=heads, symmetric=symmetric)

    def track(self, points: Any, step: int = -12, layer: int = -1, heads: Any = None) -> Tracks:
        "`track`."
        return track(self, points=points, steps=step, layers=layer, heads=heads)

class _Engine(Engine):
    "More questions."

    def features(self, step: int = -12, layer: int = -1) -> Tensor:
        "Output of a block: (frames, rows, cols, channels) float32."
        found: list[Tensor] = []
        self.read(Reader(lambda site, x: found.append(site.grid.unflatten(x[0].float())), 'hidden', layer), steps=step)
        return found[0]

    def similar(self, point: Sequence[float], step: int = -12, layer: int = -1, channels: Channels | None = None) -> Tensor:
        "How similar everything moves to a point (t, x, y) px: (frames, rows, cols)."
        x = self.features(step, layer)
        frame, xy = query_points([tuple(point)], self.grid, False, x.device)
        row, col = self.grid_of(layer).nearest(xy)
        m = remove_content(x) if channels is None else motion_features(x, channels)
        return similarity(m, int(frame), int(row), int(col)).cpu()

    def score(self, step: int = -12, layers: Wanted = None, job: Job | None = None, points: Any = None) -> ScoreTable:
        "`score`."
        with self.under(job):
            return score(self, layers=layers, steps=step, scoring=Scoring(queries=points))

    def statistics(self, step: int = -12, layers: Wanted = None, sample: int | None = 64, seed: int = 0,
                   job: Job | None = None) -> dict[str, Tensor]:
        "Where attention among video tokens goes, by name: (layers, heads) float32, see `head_statistics`."
        found, valid = list[HeadStatistics](), text_mask(self.pipe, self.prompt)

        def see(site, q: Tensor, k: Tensor) -> None:
            found.append(head_statistics(q[0], k[0], site.grid, sample, text='last' if self.text == 'last' else 'first',
                                         valid=valid, seed=seed))
        with self.under(job):
            self.read(Reader(see, 'q k', layers, 'all'), steps=step)
        names = [f.name for f in fields(HeadStatistics) if f.name not in ('sink_at', 'text')]  # as in tables of scores
        return {n: pad_sequence([getattr(x, n).cpu() for x in found], True, torch.nan) for n in names}

    def heads(self, step: int = -12, by: Sequence[str] = ('chi', 'fisher', 'dbi'), layers: Wanted = None,
              job: Job | None = None) -> HeadTable:
        "`score_heads`."
        with self.under(job):
            return score_heads(self, by=by, layers=layers, steps=step)

    def words(self, words: Any = (), step: int = -12, layers: Wanted = None, k: int | None = None, normalise: str | None = 'empty',
              job: Job | None = None, heads: Any = None, baselines: Any = (), source: str | None = None, together: bool = False,
              against: Sequence[str] = ()) -> ConceptMaps:
        "`imap`."
        with self.under(job):
            return imap(self, words=words, steps=step, layers=layers, heads=heads if k is None else k,
                        contrast=Contrast(normalise, together=together, against=tuple(against)), baselines=baselines, source=source)

    def word_heads(self, words: str, step: int = -12, layer: int = -1, normalise: str | None = 'empty', source: str | None = None,
                   together: bool = False, job: Job | None = None) -> Tensor:
        "`head_maps`."
        with self.under(job):
            return head_maps(self, words, step=step, layer=layer, contrast=Contrast(normalise, together=together), source=source)

def job_callback(job: Job | None, num_inference_steps: int) -> Callable[[int, int], None] | None:
    "`on_step` of a generation that reports to a job, and may be stopped by it."
    return None if job is None else lambda i, n: job.step(i, num_inference_steps, 'steps')


def clip_to_hold(pipe, video: Any = None, prompt: str = '', **options: Any) -> Any:
    "The clip that a trace would be of; raises what `trace` raises, and generates nothing."
    t = hold(pipe, video, prompt, make=False, **options)
    return t.clip if t.clip.video is not None else None


def hold(pipe, video: Any = None, prompt: str = '', *, job: Job | None = None, make: bool = True, num_inference_steps: int = 30,
         seed: int = 0, budget: Any = '2 GiB', dtype: Any = None, **generation: Any) -> _Engine:
    "A trace whose video is there."
    found = trace(pipe, video, prompt, num_inference_steps=num_inference_steps, seed=seed, budget=budget, dtype=dtype,
                  generation=generation or None)
    found.__class__ = _Engine
    if make:
        with found.under(job):
            found.make()
    return found

"""One of several values, a number in a range: what is accepted, and what the messages say."""
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from vidlens.core.checks import listed, number, one_of


@pytest.mark.parametrize('value, values', [('a', ('a', 'b')), (None, ('a', None)), (1, [1, 2]), (True, (True, False, 'edges')),
                                           ('k', {'k': 0}), (2, range(3)), ('a', iter('ab'))])
def test_one_of_returns_the_value(value, values):
    assert one_of('x', value, values) is value


@pytest.mark.parametrize('value, values, message', [
    ('c', ('a', 'b'), "x='c' is unknown: use 'a' or 'b'"), (1, (True, False), 'x=1 is unknown: use True or False'),
    (1., (1, 2, 3), r'x=1.0 is unknown: use 1, 2 or 3'), ('None', (None,), "x='None' is unknown: use None"),
    (np.zeros(3), ('a',), 'is unknown'), (torch.zeros(3), (None, 'a'), 'is unknown'), (['a'], ('a',), r"x=\['a'\] is unknown")])
def test_one_of_says_what_works(value, values, message):
    with pytest.raises(ValueError, match=message):
        one_of('x', value, values)


def test_listed():
    assert [listed(v) for v in (['a'], ('a', 'b'), (1, 'b', None))] == ["'a'", "'a' or 'b'", "1, 'b' or None"]


@pytest.mark.parametrize('value, whole, result', [
    (3, True, 3), (3, False, 3.), (np.int64(3), True, 3), (np.float32(.5), False, .5), (torch.tensor(3), True, 3),
    (torch.tensor(.5), False, .5), (np.array(2), True, 2), (Fraction(1, 2), False, .5)])
def test_number_becomes_pythons_own(value, whole, result):
    found = number('x', value, 0, 10, whole)
    assert found == result and type(found) is (int if whole else float)


@pytest.mark.parametrize('value, options, message', [
    (-1, dict(low=0, whole=True), 'x=-1 must be a whole number of at least 0'),
    (11, dict(high=10), 'x=11 must be a number of at most 10'),
    (2, dict(low=0, high=1), 'x=2 must be a number from 0 to 1'), (2.5, dict(whole=True), 'x=2.5 must be a whole number'),
    (True, {}, 'x=True must be a number'), ('3', {}, "x='3' must be a number"), (None, {}, 'x=None must be'),
    (math.nan, {}, 'x=nan must be'),
    (math.inf, {}, 'x=inf must be'), (torch.ones(1), {}, 'must be a number'), (3j, {}, 'must be a number'),
    (0, dict(low=1, example='x=8'), r'x=0 must be a number of at least 1: for example x=8$')])
def test_number_says_what_works(value, options, message):
    with pytest.raises(ValueError, match=message):
        number('x', value, **options)

"""The grammar of spaces and their points by hand; random search against grid search."""

import dataclasses
import enum

import numpy as np
import pytest

from dlx.config import Config as Base
from dlx.config import Group
from dlx.errors import ConfigError
from dlx.study.search.grammar import parse
from dlx.study.search.sampling import Plan


class Kind(enum.Enum):
  PLAIN = 1
  GATED = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge(Group):
  rate: float = 0.5  # A rate.
  features: tuple[int, ...] = (8,)  # Widths.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Base):
  lr: float = 0.1  # A rate.
  decay: float | None = None  # Off by default.
  width: int = 64  # Units.
  features: tuple[int, ...] = (32,)  # Widths.
  model: str = 'mlp'  # mlp or cnn.
  kind: Kind = Kind.PLAIN  # A kind.
  flag: bool = False  # Whether.
  judge: Judge = Judge()  # A group.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('lr', above=0)


def space(*texts, **fields):
  return parse([f'config.{text}' for text in texts], Config(**fields))


def values(text):
  """All values of one field, in order."""
  found = space(text)
  (name,) = found.dimensions
  return [found.values(point)[name] for point in found.points()]


@pytest.mark.parametrize(
  ('text', 'wanted'),
  [
    ('lr=1e-3,3e-3', [1e-3, 3e-3]),
    ('lr=lin(0.5,1.5,3)', [0.5, 1.0, 1.5]),
    ('lr=log(1e-4,1e-1,4)', [1e-4, 1e-3, 1e-2, 1e-1]),
    ('width=log(10,100,3)', [10, 32, 100]),  # 31.62 rounded.
    ('width=lin(1,3,9)', [1, 2, 3]),  # Rounded, and equal ones dropped.
    ('width=int(2,4)', [2, 3, 4]),
    ('features=32|64,64', [(32,), (64, 64)]),
    ('decay=none,0.1', [None, 0.1]),
    ('decay=log(0.1,10,3)', [0.1, 1.0, 10.0]),
    ('kind=GATED,PLAIN', [Kind.GATED, Kind.PLAIN]),
    ('flag=true,false', [True, False]),
    ('model=a,b|c', ['a,b', 'c']),
    ('judge.features=1,2|3', [(1, 2), (3,)]),
  ],
)
def test_values_of_a_field(text, wanted):
  found = values(text)
  assert [type(x) for x in found] == [type(x) for x in wanted]
  rounded = type(wanted[-1]) is float and wanted[0] is not None
  assert found == (pytest.approx(wanted, rel=1e-15) if rounded else wanted)


def test_the_last_field_changes_fastest_and_conditions_hold():
  found = space(
    'lr=1,2 if config.model=mlp', 'model=mlp,cnn', 'width=3,4 if config.model=cnn|rnn'
  )
  assert list(found.dimensions) == ['model', 'lr', 'width']
  points = [found.values(point) for point in found.points()]
  assert points == [
    {'model': 'mlp', 'lr': 1.0},
    {'model': 'mlp', 'lr': 2.0},
    {'model': 'cnn', 'width': 3},
    {'model': 'cnn', 'width': 4},
  ]
  # What is not varied stands as it does in the config.
  config = found.config(list(found.points())[2], seed=7)
  assert (config.lr, config.width, config.seed) == (0.1, 3, 7)
  # On a field that is fixed, and on one that is not varied in every trial itself.
  assert len(list(space('lr=1,2 if config.flag=true', flag=True).points())) == 2
  chain = space(
    'lr=1,2 if config.width=3', 'width=3,4 if config.flag=true', 'flag=true,false'
  )
  assert len(list(chain.points())) == 4  # (true, 3, 1), (true, 3, 2), (true, 4), false.


def test_fields_of_groups():
  found = space('judge.rate=0.1,0.2', 'judge.features=1|2')
  config = found.config(list(found.points())[3])
  assert config.judge == Judge(rate=0.2, features=(2,))


def test_draws_lie_in_their_ranges_and_depend_on_the_seed_alone():
  found = space('lr=loguniform(1e-4,1)', 'width=int(1,3)', 'judge.rate=uniform(-1,1)')
  drawn = [found.draw(5, i) for i in range(2000)]
  assert drawn[7] == found.draw(5, 7) != found.draw(6, 7)
  lr = np.log10([d['lr'] for d in drawn])
  assert -4 <= lr.min() < -3.9 and -0.1 < lr.max() <= 0
  # Means of 2000 draws: -2 with a standard error of 4 / sqrt(12 * 2000) = 0.026.
  assert abs(lr.mean() + 2) < 0.13
  assert abs(np.mean([d['judge.rate'] for d in drawn])) < 0.065
  counts = np.bincount([d['width'] for d in drawn], minlength=4)
  assert counts[0] == 0 and (abs(counts[1:] - 2000 / 3) < 5 * 21).all()
  # A field more changes nothing of the others.
  wider = space('lr=loguniform(1e-4,1)', 'flag=true,false')
  assert wider.draw(5, 7)['lr'] == drawn[7]['lr']


def test_random_search_of_a_finite_space_takes_no_point_twice():
  found = space('lr=log(1e-4,1,5)', 'width=int(1,4)')
  plan = Plan('random', found, seed=1)
  points = [tuple(plan.params(i).items()) for i in range(plan.most)]
  assert plan.most == len(set(points)) == 20
  grid = [tuple(Plan('grid', found, 0).params(i).items()) for i in range(20)]
  assert points != grid and set(points) == set(grid)


@pytest.mark.parametrize(
  ('texts', 'told'),
  [
    ((), '--sweep is missing: give --sweep=config.FIELD=RANGE'),
    (('lr',), 'must be config.FIELD=RANGE'),
    (('rate=1,2',), 'config.rate is no field; must be config.NAME, NAME one of seed'),
    (('judge.rat=1,2',), 'did you mean config.judge.rate?'),
    (('judge=1,2',), 'config.judge is no field'),
    (('lr=0.1',), 'must be two values or more'),
    (('features=32,64',), 'separate tuples by |, or give a value to all runs by'),
    (('lr=0.1,0.1',), 'a value stands there twice'),
    (('lr=0.1,fast',), "'fast' cannot be config.lr, which must be a finite number"),
    (('lr=lin(1,2)',), 'must be lin(A,B,N) of numbers, A below B and N a whole'),
    (('lr=log(1,2,1)',), 'N a whole number from 2 on'),
    (('lr=log(1,2,2.5)',), 'N a whole number from 2 on'),
    (('lr=lin(2,1,3)',), 'A below B'),
    (('lr=uniform(0,inf)',), 'must be uniform(A,B) of numbers, A below B.'),
    (('lr=loguniform(0,1)',), 'loguniform has no logarithm of 0; A must be above 0'),
    (('lr=int(1,2)',), 'int(A,B) is for fields of whole numbers'),
    (('width=int(1,2.5)',), 'int(A,B) is for fields of whole numbers'),
    (('width=uniform(1,2)',), 'config.width must be a whole number: give int(A,B)'),
    (('model=lin(1,2,3)',), 'config.model must be text: give a list of values'),
    (('lr=1,2', 'lr=3,4'), 'config.lr is swept twice'),
    (('lr=1,2 if model',), 'the condition must be config.FIELD=VALUE'),
    (('lr=1,2 if config.modl=a',), 'did you mean config.model?'),
    (('lr=1,2 if config.flag=perhaps',), "'perhaps' cannot be config.flag"),
    (('lr=1,2 if config.model=cnn',), 'its condition never holds, as config.model is'),
    (('lr=1,2 if config.width=3', 'width=4,5'), 'config.width is 4 or 5'),
    (('lr=1,2 if config.judge.rate=1', 'judge.rate=uniform(0,1)'), 'is not allowed'),
    (
      ('lr=1,2 if config.width=3', 'width=3,4 if config.lr=1'),
      'the conditions of config.lr, config.width go round in a circle',
    ),
  ],
)
def test_what_is_refused_in_one_line(texts, told):
  with pytest.raises(ConfigError) as error:
    space(*texts)
  assert told in str(error.value) and '\n' not in str(error.value)


def test_a_grid_needs_an_end():
  with pytest.raises(ConfigError, match=r'config.lr=uniform\(...\), which has no end'):
    Plan('grid', space('lr=uniform(0.1,1)'), 0)
  with pytest.raises(ConfigError, match='more than 100000 points are not allowed'):
    Plan('grid', space('width=int(1,1000)', 'batch_size=int(1,1000)'), 0)
  with pytest.raises(ConfigError, match='cmaes needs two or more fields of numbers'):
    Plan('cmaes', space('lr=uniform(0.1,1)', 'model=a,b'), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nine(Base):
  a: float = 0.5  # Relevant.
  b: float = 0.5  # Relevant.
  c: float = 0.5  # Not, as all that follow.
  d: float = 0.5  # Not.
  e: float = 0.5  # Not.
  f: float = 0.5  # Not.
  g: float = 0.5  # Not.
  h: float = 0.5  # Not.
  i: float = 0.5  # Not.


def test_random_search_beats_grid_where_few_fields_matter():
  # Bergstra and Bengio 2012 (JMLR 13), figure 1: of 512 = 2**9 points a grid tries 4
  # different pairs of the two fields that matter, random search 512.
  name = 'abcdefghi'
  grid = parse([f'config.{x}=lin(0.25,0.75,2)' for x in name], Nine())
  draws = parse([f'config.{x}=uniform(0,1)' for x in name], Nine())
  points = [grid.values(p) for p in Plan('grid', grid, 0).space.grid()]
  assert len(points) == 512
  rng = np.random.default_rng(0)
  wins, lost = 0, []
  for seed in range(20):
    at = rng.uniform(0, 1, 2)  # Where the function is least.
    loss = lambda p, at=at: (p['a'] - at[0]) ** 2 + (p['b'] - at[1]) ** 2
    plan = Plan('random', draws, seed)
    random = min(loss(plan.params(i)) for i in range(len(points)))
    wins += random < min(map(loss, points))
    lost.append(random)
  # The nearest of n points of the unit square: squared distance 1 / (pi n) on average;
  # of the 4 of the grid 1 / 24, exactly: at the centres of quarters.
  assert wins >= 19
  assert np.mean(lost) < 5 / (np.pi * 512)

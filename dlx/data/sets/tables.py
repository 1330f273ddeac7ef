"""Tables of numbers: wine, breast cancer, diabetes (embedded), california housing.

Any other name is that of a set of the user's own, by its card.

Whatever is fitted to the data (means, standard deviations, medians of missing numbers)
is fitted to the training split alone.
"""

import dataclasses
import functools
from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import files, housing
from dlx.data.sets import cards, registry, scikit
from dlx.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class TabularData:
  """What is known of a table before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: source of `features` f32 [F] and of `label` int32 [] (classes) or `target`
      f32 [] (regression).
    test: likewise.
    num_features: F.
    num_classes: None for regression.
    feature_names: F names.
    target_name: what is predicted.
    target_mean: of the raw training targets; None for classes.
    target_std: likewise; with `scale_target` an error in the unit of the target is this
      times the error of the model.
    feature_mean: of the features of the training split as measured, medians in place of
      missing numbers.
    feature_std: likewise; features as measured, less the mean, over this are those of
      the sources.
    baseline: least squares with an intercept, fitted to the training split, on the test
      split: `rmse` in the unit of the target, or `accuracy` (argmax over one-hot
      targets).
  """

  name: str
  train: Source
  test: Source
  num_features: int
  num_classes: int | None
  feature_names: tuple[str, ...]
  target_name: str
  target_mean: float | None
  target_std: float | None
  feature_mean: tuple[float, ...]
  feature_std: tuple[float, ...]
  baseline: Mapping[str, float]


class _Spec(NamedTuple):
  size: int
  num_test: int
  num_classes: int | None
  feature_names: tuple[str, ...]
  target_name: str
  baseline: Mapping[str, float]
  target_mean: float | None = None
  target_std: float | None = None
  feature_mean: tuple[float, ...] = ()
  feature_std: tuple[float, ...] = ()


_MEASURED = tuple(
  'radius texture perimeter area smoothness compactness concavity concave_points '
  'symmetry fractal_dimension'.split()
)
# One fifth of the rows is the test split. Targets and baselines were measured on these
# splits (SPLIT_SEED); the tests measure them again.
_SPECS = {
  'wine': _Spec(
    size=178,
    num_test=36,
    num_classes=3,
    feature_names=tuple(
      'alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids '
      'nonflavanoid_phenols proanthocyanins color_intensity hue '
      'od280/od315_of_diluted_wines proline'.split()
    ),
    target_name='cultivar',
    baseline={'accuracy': 36 / 36},
    feature_mean=(
      *(13.022113, 2.3357746, 2.3776761, 19.678873, 99.014085, 2.2955634),
      *(2.0292958, 0.36556338, 1.5985211, 5.0152817, 0.95307042, 2.6135915),
      *(750.91549,),
    ),
    feature_std=(
      *(0.81478056, 1.1296387, 0.27228471, 3.4167531, 13.523056, 0.61422633),
      *(1.0058271, 0.12047748, 0.58186072, 2.3261516, 0.21768625, 0.69952634),
      *(324.10389,),
    ),
  ),
  'breast_cancer': _Spec(
    size=569,
    num_test=114,
    num_classes=2,
    feature_names=tuple(
      f'{kind}_{what}' for kind in ('mean', 'error', 'worst') for what in _MEASURED
    ),
    target_name='benign',
    baseline={'accuracy': 109 / 114},
    feature_mean=(
      *(14.140697, 19.228791, 92.049341, 657.65912, 0.096481319, 0.10411895),
      *(0.0879233, 0.049102765, 0.18107209, 0.062719121, 0.40483516, 1.2142176),
      *(2.876167, 40.688165, 0.0070836462, 0.025322899, 0.0310979, 0.011803042),
      *(0.020546941, 0.0037420969, 16.277292, 25.59178, 107.36505, 883.72044),
      *(0.1324649, 0.2541871, 0.26981634, 0.11492534, 0.28976549, 0.083952527),
    ),
    feature_std=(
      *(3.5968867, 4.3531301, 24.786859, 362.72095, 0.013877104, 0.052037005),
      *(0.076900064, 0.038878749, 0.027068173, 0.0069751908, 0.28499672, 0.56452017),
      *(2.1018611, 47.723195, 0.0030800384, 0.017143392, 0.025883646, 0.006039016),
      *(0.0083395738, 0.0022729458, 4.9120463, 6.2160101, 34.185837, 584.49924),
      *(0.022726548, 0.15544589, 0.20335626, 0.066569024, 0.060597474, 0.017711081),
    ),
  ),
  'diabetes': _Spec(
    size=442,
    num_test=89,
    num_classes=None,
    feature_names=('age', 'sex', 'bmi', 'bp', 's1', 's2', 's3', 's4', 's5', 's6'),
    target_name='progression after one year',
    baseline={'rmse': 58.5171712773158},
    target_mean=151.60623229461757,
    target_std=78.29877162645866,
    feature_mean=(
      *(48.74787535410765, 1.4872521246458923, 26.31133144475921, 94.45509915014166),
      *(188.77337110481585, 114.87507082152973, 49.72946175637394, 4.081756373937678),
      *(4.641743626062319, 91.21529745042493),
    ),
    feature_std=(
      *(13.330465321367448, 0.4998374652564122, 4.535586289165012, 13.66519302257663),
      *(34.23969292145007, 30.071760284992354, 12.818233913978418, 1.3021848180729623),
      *(0.5373494602764322, 11.912290103352257),
    ),
  ),
  housing.NAME: _Spec(
    size=housing.NUM_ROWS,
    num_test=4128,
    num_classes=None,
    feature_names=housing.FEATURES,
    target_name=housing.TARGET,
    baseline={'rmse': 69669.08763539212},
    target_mean=207249.89589389536,
    target_std=115688.00717448475,
    feature_mean=(
      *(-119.56300811530973, 35.6247825823643, 28.61906492248062, 2640.1403221899227),
      *(537.8886870155038, 1425.437742248062, 499.3533187984496, 3.8762983406008167),
    ),
    feature_std=(
      *(2.0051905828809478, 2.136487217272946, 12.600617136728097, 2186.827325475388),
      *(422.2721664358597, 1143.0281424989157, 382.4712471410941, 1.906725680034298),
    ),
  ),
}


def tabular(
  name: str, standardize: bool = True, scale_target: bool = False
) -> TabularData:
  """A table by name; reads nothing.

  Args:
    name: of the kind tables, or that of a set of the user's own.
    standardize: features minus the mean, over the standard deviation, of the training
      split; False: as measured.
    scale_target: likewise for the target of a regression.

  Raises:
    ConfigError: unknown name, or scale_target where the target is a class.
  """
  card = registry.check(name, 'tables')
  classes = card.facts.get('classes') if card else _SPECS[name].num_classes
  if scale_target and classes is not None:
    raise ConfigError(f'scale_target=True is not allowed for {name}: it has classes.')
  if card is not None:
    return _own(card, standardize, scale_target)
  spec = _SPECS[name]
  shape = jax.ShapeDtypeStruct
  shapes = {'features': shape((len(spec.feature_names),), np.float32)}
  if spec.num_classes is None:
    shapes['target'] = shape((), np.float32)
  else:
    shapes['label'] = shape((), np.int32)
  sizes = {'train': spec.size - spec.num_test, 'test': spec.num_test}
  train, test = (
    Source(
      name,
      split,
      shapes,
      size,
      functools.partial(_read, name, split, standardize, scale_target),
    )
    for split, size in sizes.items()
  )
  return TabularData(
    name=name,
    train=train,
    test=test,
    num_features=len(spec.feature_names),
    num_classes=spec.num_classes,
    feature_names=spec.feature_names,
    target_name=spec.target_name,
    target_mean=spec.target_mean,
    target_std=spec.target_std,
    feature_mean=spec.feature_mean,
    feature_std=spec.feature_std,
    baseline=spec.baseline,
  )


def _own(card: cards.Card, standardize: bool, scale_target: bool) -> TabularData:
  facts, shape = card.facts, jax.ShapeDtypeStruct
  classes, names = facts.get('classes'), tuple(facts['feature_names'])
  median, mean, std = (np.array(facts[k], float) for k in ('median', 'mean', 'std'))
  shapes = {'features': shape((len(names),), np.float32)}
  if classes is None:
    shapes['target'] = shape((), np.float32)
  else:
    shapes['label'] = shape((), np.int32)

  def source(raw: Source) -> Source:
    def read(data_dir: Any) -> Loaded:
      loaded = raw.read(data_dir)
      rows = np.asarray(loaded.data['features'])
      rows = np.where(np.isnan(rows), median, rows)
      data = dict(loaded.data)
      data['features'] = (rows - mean) / std if standardize else rows
      if scale_target:
        target = np.asarray(data['target']) - facts['target_mean']
        data['target'] = target / facts['target_std']
      cast = {k: np.asarray(x).astype(shapes[k].dtype) for k, x in data.items()}
      return Loaded(cast, loaded.origin)

    held = None if raw.held is None else source(raw.held)
    return dataclasses.replace(raw, shapes=shapes, read=read, held=held)

  return TabularData(
    name=card.name,
    train=source(cards.source(card, 'train')),
    test=source(cards.source(card, 'test')),
    num_features=len(names),
    num_classes=None if classes is None else len(classes),
    feature_names=names,
    target_name=facts['target_name'],
    target_mean=facts.get('target_mean'),
    target_std=facts.get('target_std'),
    feature_mean=tuple(facts['mean']),
    feature_std=tuple(facts['std']),
    baseline=facts['baseline'],
  )


def fill(rows: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, int]:
  """Rows [N, F] with nan replaced by the median of `train`, and how many there were.

  Raises:
    DataError: a column without a number in `train`, which has no median.
  """
  absent = np.isnan(rows)
  if not absent.any():
    return rows, 0
  empty = np.isnan(train).all(axis=0)
  if empty.any():
    raise DataError(
      f'column {empty.argmax()} (from 0): no number in the training rows, so that what '
      'is missing cannot be filled: leave the column out.'
    )
  return np.where(absent, np.nanmedian(train, axis=0), rows), int(absent.sum())


def standardized(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
  """Rows [N, F] minus the mean of `train`, over its standard deviation.

  A column that is constant in `train`, to a few units in the last place, is divided
  by 1.
  """
  # Not by its deviation, which is that of the numbers from a rounded mean: above 0.
  spread = train.max(axis=0) - train.min(axis=0)
  constant = spread <= 8 * np.finfo(train.dtype).eps * np.abs(train).max(axis=0)
  return (rows - train.mean(axis=0)) / np.where(constant, 1, train.std(axis=0))


def _read(
  name: str, split: str, standardize: bool, scale_target: bool, data_dir: Any
) -> Loaded:
  spec = _SPECS[name]
  if name == housing.NAME:
    table = housing.read(data_dir)
    if table is None:
      raise files.missing(
        name,
        split,
        housing.WANTED,
        data_dir,
        tfds=False,
        note='Or use an embedded table: dataset=diabetes.',
      )
    features, target = table.features, table.target
    origin = {
      'name': name,
      'split': split,
      'kind': 'raw',
      'path': str(table.record['file']),
      'size': spec.size,
      'files': [table.record],
    }
  else:
    features, target = scikit.table(name)
    origin = scikit.origin(name, split, spec.size)
  classes = None if spec.num_classes is None else target
  indices = scikit.split_indices(len(target), spec.num_test, classes)
  rows, train = features[indices[split]], features[indices['train']]
  rows, filled = fill(rows, train)
  if filled:
    origin['filled_with_median'] = filled
  if standardize:
    rows = standardized(rows, fill(train, train)[0])
  data: dict[str, np.ndarray] = {'features': rows.astype(np.float32)}
  target = target[indices[split]]
  if spec.target_mean is not None and spec.target_std is not None:
    origin |= {'target_mean': spec.target_mean, 'target_std': spec.target_std}
    if scale_target:
      target = (target - spec.target_mean) / spec.target_std
    data['target'] = target.astype(np.float32)
  else:
    data['label'] = target.astype(np.int32)
  return Loaded(data, origin | {'size': len(rows)})

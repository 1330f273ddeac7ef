"""A run opened again: its config, its figures, its weights, and what its model can do.

  run = dlx.open('runs/cnn')
  run.metrics['test/accuracy'], run.config.lr
  run.predict(image='seven.png')

Opening reads config.json alone; JAX starts when something of the model is asked for. No
data and no mesh of the training are needed, and nothing is written in the workdir.
"""

import functools
import os
from typing import TYPE_CHECKING, Any, Callable, Mapping

from etils import epath

from dlx.errors import ConfigError, DataError
from dlx.run import kept
from dlx.run.records.config_file import read_run
from dlx.run.records.json_files import is_remote, read_json, write_json

if TYPE_CHECKING:
  from dlx.experiment import Config, Experiment, Field, Function
  from dlx.state import PyTree, TrainState

MOST_ROWS = 256  # Computed at once; more are cut.
LEAST_LENGTH = 8  # Tokens, of rows that may be filled up.
VOCABULARY = 'vocabulary.json'
_FORMS = ('marks', 'characters')  # Of a Vocab, beside its words.


class Run:
  """A run in its workdir, which may have been moved; see `dlx.open`.

  Each function of the experiment is a method: `run.predict(image=...)`. Inputs and
  options are given by name. An input is one example, and then so is the answer, or many
  with a leading axis or in a list; one example beside many is the same for all.

    run.predict(image='a.png')                a file, a PIL picture, an array, or a list
    run.predict(image=picture, resize=True)   of another size than the model's
    run.generate(prompt='To be', num_tokens=200, temperature=0.8)
    run.sample(8, label=3, seed=0)            8 rows, each with a seed of its own

  A single output is returned as it is, several by name; where a text goes in, tokens
  that come out are a text. A seed that is left out is 0, and one seed for many rows
  gives each another one. Programs are compiled for 1, 2, 4, ... rows, and for 8, 16,
  32, ... tokens where rows may be filled up (`Field.pad`), and kept; what fills up a
  batch is cut away. ConfigError: an input that cannot be, one line.

  Attributes:
    workdir: its path, from the root.
    record: config.json.
  """

  def __init__(
    self,
    workdir: Any,
    *,
    step: int | str = 'latest',
    exp: Any = None,
    trust: bool = False,
    data_dir: Any = None,
  ):
    path = os.path.expanduser(os.fspath(workdir))
    self.record = read_run(path)
    # Much is read later, perhaps from another folder.
    self.workdir = path if is_remote(path) else os.path.abspath(path)
    self._asked, self._exp, self._trust = step, exp, trust
    self._data_dir = data_dir
    self._programs: dict[Any, Callable] = {}
    self._vocabularies: dict[Any, Any] = {}

  def __repr__(self) -> str:
    return f'<run of {self.record["experiment"]} in {self.workdir}>'

  def __dir__(self):
    return [*super().__dir__(), *(self.functions if self._may_run else ())]

  def __getattr__(self, name: str) -> Callable[..., Any]:
    if name.startswith('_'):
      raise AttributeError(name)
    if name not in self.functions:
      raise AttributeError(
        f'{self!r} has no {name}: its functions are {", ".join(self.functions)}.'
      )
    return functools.partial(self.call, name)

  @functools.cached_property
  def config(self) -> 'Config | Mapping[str, Any]':
    """The Config; of a fork that is not trusted what config.json says, by name."""
    return self._code[1] if self._may_run else self.record['config']

  @functools.cached_property
  def metrics(self) -> Mapping[str, Any]:
    """The last figures by "split/name": of result.json, else of metrics.jsonl."""
    path = epath.Path(self.workdir)
    if (path / 'result.json').exists():
      return read_json(path / 'result.json')['metrics']
    from dlx.run.records.metrics_file import MetricsFile

    lines = MetricsFile(path).read()
    return {f'{x["split"]}/{k}': v for x in lines for k, v in x['metrics'].items()}

  @functools.cached_property
  def step(self) -> int:
    """Of the checkpoint: the newest, or the best, when it was first asked for."""
    from dlx.run.reopen import step_of

    return step_of(self._opened[0], self.workdir, self._asked)

  @functools.cached_property
  def state(self) -> 'TrainState':
    """All of the checkpoint, the optimiser's part too, on the default device."""
    return self._read()

  @property
  def params(self) -> 'PyTree':
    """What the functions use: the average where the run keeps one. See `state`."""
    return self._used.averaged

  @property
  def experiment(self) -> 'Experiment':
    """What `build` makes of the config."""
    return self._opened[1]

  @property
  def functions(self) -> 'Mapping[str, Function]':
    """By name, what the model can do, with inputs, outputs and options."""
    return self.experiment.functions

  def call(
    self, what: str, n: int | None = None, /, *, resize: bool = False, **given: Any
  ) -> Any:
    """A function by its name: `run.call('predict', image=x)` is `run.predict(image=x)`.

    Args:
      what: one of `functions`.
      n: rows, where no input says how many; None: one, without an axis of rows.
      resize: whether pictures of another size are brought to that of the model.
      given: inputs and options by name.

    Raises:
      ConfigError: an input or option that is unknown, missing or cannot be.
    """
    found, single = self._answers(what, n, resize, given)
    if single:
      found = {name: value[0] for name, value in found.items()}
    return found if len(found) > 1 else next(iter(found.values()))

  def outputs(
    self, what: str, n: int | None = None, /, *, resize: bool = False, **given: Any
  ) -> dict[str, Any]:
    """All outputs of `call` by name, with an axis of rows also for one example."""
    return self._answers(what, n, resize, given)[0]

  def function(self, what: str) -> 'Function':
    """One of `functions`. Raises ConfigError where there is none of the name."""
    if what not in self.functions:
      raise ConfigError(
        f'{what} is no function of {self.record["experiment"]}: must be one of '
        f'{", ".join(self.functions)}.'
      )
    return self.functions[what]

  # How it is done.

  @functools.cached_property
  def _may_run(self) -> bool:
    if self._trust or self._exp is not None:
      return True
    return kept.refusal(self.record, self.workdir) is None

  @functools.cached_property
  def _code(self) -> 'tuple[Any, Config]':
    """The module of the experiment, and the config."""
    from dlx.config_json import config_from_json

    found = kept.module(self.record, self.workdir, self._exp, self._trust)
    return found, config_from_json(found.Config, self.record['config'], added=[])

  @functools.cached_property
  def _opened(self) -> 'tuple[Config, Experiment]':
    import jax

    from dlx.data.sets import cards
    from dlx.train.early_stopping import with_early_stopping

    found, config = self._code
    wide = 'float64' in (config.compute_dtype, config.param_dtype)
    if wide and not jax.config.jax_enable_x64:
      raise ConfigError(
        f'{self.workdir} is a run in float64: needs '
        "jax.config.update('jax_enable_x64', True) first."
      )
    with cards.recall(self.record.get('data') or {}):  # Sets of the user's own.
      return config, with_early_stopping(found.build(config), config)

  @functools.cached_property
  def _used(self) -> 'TrainState':
    """What functions read; none reads the optimiser's state."""
    return self._read(without=('opt_state',))

  def _read(self, **options) -> 'TrainState':
    from dlx.run.reopen import unplaced

    config, experiment = self._opened
    return unplaced(experiment, config, self.workdir, step=self.step, **options)

  def _answers(
    self, what: str, n: int | None, resize: bool, given: Mapping[str, Any]
  ) -> tuple[dict[str, Any], bool]:
    """Outputs with an axis of rows, and whether one example without it was given."""
    from dlx.run.given import check_option, described, read

    function = self.function(what)
    if unknown := sorted(set(given) - set(function.inputs) - set(function.options)):
      options = ', '.join(f'{k}={v}' for k, v in function.options.items())
      raise ConfigError(
        f'{what}: {unknown[0]} is not allowed: must be one of '
        f'{described(function.inputs)}{options and f"; or an option: {options}"}.'
      )
    options = {k: v for k, v in given.items() if k in function.options}
    for name, value in options.items():
      check_option(name, function.options[name], value)
    rows = {}
    for name, field in function.inputs.items():
      value = given.get(name, 0 if field.kind == 'seed' else field.default)
      if value is None:
        raise ConfigError(
          f'{what}: {name} is missing: give {described({name: field})}.'
        )
      words = self._vocabulary(field, needed=_is_text(value))
      rows[name] = read(name, field, value, vocabulary=words, resize=resize)
    if function.of_graph:
      found = self._run(what, options, {k: x.rows[0] for k, x in rows.items()})
      return found, False
    found = self._in_rows(what, options, rows, n)
    if any(_is_text(given.get(name)) for name in function.inputs):
      fields = function.outputs
      found = {name: self._text(fields[name], x) for name, x in found.items()}
    return found, n is None and not any(x.many for x in rows.values())

  def _in_rows(self, what: str, options, rows: Mapping[str, Any], n: int | None):
    """Outputs of all rows, those of one size together."""
    import numpy as np

    from dlx.run.given import spread

    counts = {name: len(x.rows) for name, x in rows.items() if x.many}
    if len({*counts.values(), *([] if n is None else [n])}) > 1:
      told = ', '.join(f'{name} has {count}' for name, count in counts.items())
      asked = '' if n is None else f', and {n} rows are asked for'
      raise ConfigError(f'{what}: {told}{asked}: all must have equally many rows.')
    if n is not None and n < 1:
      raise ConfigError(f'{what}: {n} rows are not allowed: must be 1 or more.')
    total = next(iter(counts.values()), n or 1)
    fields, wide = self.functions[what].inputs, {}
    for name, x in rows.items():
      values = x.rows
      if not x.many and total > 1:
        seeds = fields[name].kind == 'seed'
        values = spread(values[0], total) if seeds else [values[0]] * total
      wide[name] = [_filled_up(row, fields[name]) for row in values]
    groups: dict[Any, list[int]] = {}
    for i in range(total):
      shapes = tuple(np.shape(x[i]) for x in wide.values())
      groups.setdefault(shapes, []).append(i)
    found: list[Any] = [None] * total
    for places in groups.values():
      for start in range(0, len(places), MOST_ROWS):
        part = places[start : start + MOST_ROWS]
        chosen = {name: np.stack([x[i] for i in part]) for name, x in wide.items()}
        # The last row again, up to a power of two.
        fill = (1 << (len(part) - 1).bit_length()) - len(part)
        chosen = {
          name: np.concatenate([x, np.repeat(x[-1:], fill, 0)])
          for name, x in chosen.items()
        }
        made = self._run(what, options, chosen)
        for place, i in enumerate(part):
          found[i] = {name: x[place] for name, x in made.items()}
    return {name: _together([row[name] for row in found]) for name in found[0]}

  def _run(self, what: str, options: Mapping[str, Any], inputs: Mapping[str, Any]):
    import jax
    import numpy as np

    key = what, repr(sorted(options.items()))
    if key not in self._programs:
      call = self.functions[what].call
      self._programs[key] = jax.jit(lambda state, x: call(state, x, **options))
    try:
      found = self._programs[key](self._used, inputs)
    except ConfigError:
      raise
    except ValueError as error:  # It was traced before the run: sizes of these inputs.
      raise ConfigError(f'{what}: {error}') from error
    return {name: np.asarray(x) for name, x in found.items()}

  def _vocabulary(self, field: 'Field', needed: bool = True) -> Any:
    """Of the workdir, where one was kept there, else as the experiment says.

    None: it has none, or it lies in data that are not there and is not needed.
    """
    if field.vocabulary is None:
      return None
    if field.vocabulary not in self._vocabularies:
      path = epath.Path(self.workdir) / VOCABULARY
      if path.exists():
        from dlx.data.text.vocabulary import Vocab

        kept_words = read_json(path)
        forms = {name: bool(kept_words.get(name)) for name in _FORMS}
        found = Vocab(tuple(kept_words.get('words', ())), **forms)
      else:
        try:
          found = field.vocabulary(self._data_dir)
        except DataError:
          if needed:
            raise
          return None
      self._vocabularies[field.vocabulary] = found
    return self._vocabularies[field.vocabulary]

  def _text(self, field: 'Field', rows: Any) -> Any:
    """Tokens as texts; all else as it is."""
    if field.kind != 'tokens' or field.vocabulary is None:
      return rows
    words = self._vocabulary(field)
    return [words.decode(row) for row in rows]


def keep_vocabulary(experiment: 'Experiment', workdir: Any, data_dir: Any):
  """Writes the words that were read from training texts, where `Run` finds them.

  Args:
    experiment: that was trained.
    workdir: of the run.
    data_dir: where its data lie.
  """
  path = epath.Path(os.path.expanduser(os.fspath(workdir))) / VOCABULARY
  fields = [field for f in experiment.functions.values() for field in f.inputs.values()]
  read = next((f.vocabulary for f in fields if f.vocabulary is not None), None)
  if read is None or path.exists():
    return
  found = read(data_dir)
  words = getattr(found, 'words', None)
  if words is not None:
    forms = {name: True for name in _FORMS if getattr(found, name, False)}
    write_json(path, {'words': words, **forms})


def _is_text(value: Any) -> bool:
  if isinstance(value, (list, tuple)) and value:
    return all(isinstance(x, str) for x in value)
  return isinstance(value, str)


def _filled_up(row: Any, field: 'Field') -> Any:
  """Tokens up to the next power of two, where the field says by what."""
  import numpy as np

  if field.pad is None:
    return row
  wanted = max(LEAST_LENGTH, 1 << (len(row) - 1).bit_length())
  return np.pad(row, (0, wanted - len(row)), constant_values=field.pad)


def _together(rows: list[Any]) -> Any:
  """An array of equal rows, else a list."""
  import numpy as np

  return np.stack(rows) if len({np.shape(row) for row in rows}) == 1 else rows

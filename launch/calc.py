"""Calculates what a model costs, layer by layer, before it is trained.

  python -m launch.calc --exp=cnn --config.dense=256
  python -m launch.calc --exp=dcgan --function=sample --batch_size=64 --json
  python -m launch.calc conv --input=32x32x3 --kernel=5 --padding=2 --features=10
  python -m launch.calc pool --input=32x32x10 --kernel=2
  python -m launch.calc dense --input=224x224x3 --units=1000
  python -m launch.calc stack --input=32x32x1 conv:5,features=6 pool:2 dense:120

Of an experiment: output, receptive field (size, stride, offset: unit 0 begins there;
what is below 0 is padding), parameters, state (statistics, frozen weights), floating-
point operations of a call (a multiply-add is two; products with padding are none) and
bytes. Nothing is compiled, no data is read. With a word in front it is arithmetic
without a model, which WORD --help explains. Exit status 2: bad input, one line on
stderr.
"""

import json
import math
import sys
from typing import Any, Sequence

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, config_flags, paths

_ARITHMETIC = """Arithmetic of layers, without a model.

  python -m launch.calc conv --input=32x32x3 --kernel=5 --padding=2 --features=10
  python -m launch.calc pool --input=32x32x10 --kernel=2
  python -m launch.calc dense --input=224x224x3 --units=1000
  python -m launch.calc stack --input=32x32x1 conv:5,features=6 pool:2 dense:120

A layer of a stack is KIND:NAME=VALUE,...; KIND is conv (kernel, features, stride,
padding, dilation, groups, bias), pool (kernel, stride, padding, dilation), global_pool
or dense (features, bias). A number alone is the kernel, of dense the features. `dense`
is shown beside the convolution of as many features.
"""
_WORDS = ('conv', 'pool', 'dense', 'stack')
# The flags that each word reads, beside --input and --json.
_READS = {
  'conv': ('kernel', 'features', 'stride', 'padding', 'dilation', 'groups', 'bias'),
  'pool': ('kernel', 'stride', 'padding', 'dilation'),
  'dense': ('units', 'bias'),
  'stack': (),
}
_ALTERNATIVE = 3  # Kernel of the convolution that a dense layer is compared with.


def define(values: flags.FlagValues):
  """The flags of an experiment's table."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  flags.DEFINE_string('exp', None, 'A name in experiments/, or a path.', **own)
  function = 'Which function of the model; its first where none is named.'
  flags.DEFINE_string('function', None, function, **own)
  flags.DEFINE_integer('batch_size', 1, 'Rows of the call.', lower_bound=1, **own)
  sizes = 'What inputs leave open, NAME=SIZE by comma, e.g. length=128.'
  flags.DEFINE_list('sizes', [], sizes, **own)
  flags.DEFINE_boolean('json', False, 'Print JSON in place of the table.', **own)
  paths.define(values, 'data_dir', None, 'Folder of sets of your own, for their cards.')


def define_arithmetic(values: flags.FlagValues):
  """The flags of conv, pool, dense and stack; texts, as in a layer of a stack."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  for name, help_ in (
    ('input', 'Shape of one example, e.g. 32x32x3.'),
    ('kernel', 'Of windows, N or HxW.'),
    ('stride', 'Of windows, N or HxW; 1, of a pool the kernel.'),
    ('padding', 'Of windows: same, valid, N or HxW on either side; valid.'),
    ('dilation', 'Inputs from one tap to the next, N or HxW; 1.'),
    ('features', 'Output channels of a convolution.'),
    ('groups', 'Of channels that do not see each other; 1.'),
    ('units', 'Outputs of a dense layer.'),
  ):
    flags.DEFINE_string(name, None, help_, **own)
  flags.DEFINE_boolean('bias', None, 'One a feature or unit; true.', **own)
  flags.DEFINE_boolean('json', False, 'Print JSON in place of the table.', **own)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  if any(word in _WORDS for word in argv[1:2]):
    return _arithmetic(argv[1], [argv[0], *argv[2:]])
  return _of_experiment(argv)


def _of_experiment(argv: list[str]) -> int:
  from launch import plan
  from launch.machine import devices

  devices.use_cpu_without_accelerator()
  values, found = command_line.parse(argv, define, __doc__ or '')
  config = config_flags.build(found.config_class, values).resolved()
  sizes = _open_sizes(values.sizes)
  plan.use_x64(config)
  from dlx.inspect import layers

  built = found.build(config)
  table = layers.table(built, values.function, batch=values.batch_size, sizes=sizes)
  step = layers.train_flops(built).total
  if values.json:
    told = {**_table_as_json(found.short, table), 'train_step_flops': step}
    print(json.dumps(told, indent=1))
    return 0
  shapes = ', '.join(f'{k} {_shape(v)}' for k, v in table.input.items())
  print(f'{found.short} {table.function}: {shapes}\n')
  rows = [
    (
      row.name,
      _shape(row.output),
      row.dtype,
      *([_reach(row.reach) if row.output else ''] if table.axes else []),
      f'{row.parameters:,}',
      in_bytes(row.parameter_bytes),
      f'{row.state:,}',
      f'{row.flops:,}',
      in_bytes(row.activation_bytes),
    )
    for row in table.rows
  ]
  sums = [
    (in_bytes if column.endswith('bytes') else '{:,}'.format)(table.total(column))
    for column in _COLUMNS
  ]
  field = ('field',) if table.axes else ()
  total = ('total', '', '', *('' for _ in field), *sums)
  _print(('layer', 'output', 'dtype', *field, *_COSTS), [*rows, total], left=3)
  if table.axes:
    print(f'field: size/stride@offset along {" x ".join(table.axes)}; {_ALL}')
  print(f'a training step, batch and gradients: {step:,} FLOPs, as launch.plan counts')
  if table.open_loops:
    print(f'loops of unknown length, counted once: {table.open_loops}')
  return 0


_ALL = 'all: every unit sees the whole input'
_COSTS = ('parameters', 'bytes', 'state', 'FLOPs', 'activations')
_COLUMNS = ('parameters', 'parameter_bytes', 'state', 'flops', 'activation_bytes')


def in_bytes(n: int) -> str:
  """1536 -> '1.5 KiB'."""
  from dlx.run import describe

  return describe.in_bytes(n)


def _open_sizes(given: Sequence[str]) -> dict[str, int]:
  found = {}
  for part in given:
    name, _, size = part.partition('=')
    if not size.isdecimal() or not int(size):
      raise ConfigError(
        f'--sizes={part} is not allowed: must be NAME=SIZE, e.g. length=128.'
      )
    found[name] = int(size)
  return found


def _table_as_json(experiment: str, table: Any) -> dict[str, Any]:
  rows = [
    {
      **row._asdict(),
      'reach': dict(zip(table.axes, map(_reach_as_json, row.reach), strict=True)),
    }
    for row in table.rows
  ]
  total = {column: table.total(column) for column in _COLUMNS}
  return {'experiment': experiment, **table._asdict(), 'rows': rows, 'total': total}


def _reach_as_json(reach: Any) -> dict[str, Any] | None:
  if reach is None:
    return None
  return {'size': reach.size, 'stride': reach.stride, 'offset': reach.low}


def _reach(reach: Sequence[Any]) -> str:
  """Size, stride and offset by axis, once where all are equal."""
  told = ['all' if r is None else f'{r.size}/{r.stride}@{r.low}' for r in reach]
  return told[0] if len(set(told)) == 1 else ' x '.join(told)


def _shape(shape: Sequence[int]) -> str:
  return 'x'.join(map(str, shape))


def _arithmetic(word: str, argv: list[str]) -> int:
  values, words = command_line.parse_words(argv, define_arithmetic, _ARITHMETIC)
  from dlx.inspect import sizes

  given = {
    f.name: f.value
    for f in values.get_flags_for_module('launcher')
    if f.present and f.value is not None
  }
  as_json = given.pop('json', False)
  shape = given.pop('input', None)
  if shape is None:
    raise ConfigError('--input is missing: say the shape of one example, 32x32x3.')
  shape = sizes.parse_shape(shape)
  if others := sorted(given.keys() - set(_READS[word])):
    reads = ', '.join(f'--{name}' for name in ('input', *_READS[word], 'json'))
    raise ConfigError(f'--{others[0]} is not read by {word}: it reads {reads}.')
  if word == 'stack':
    if not words:
      raise ConfigError('stack: name its layers, e.g. conv:3,features=64 pool:2.')
    layers = [sizes.parse_layer(text) for text in words]
    return _show(words, shape, sizes.stack(layers, shape), as_json)
  command_line.refuse_words(words)
  texts = {k: str(v).lower() if k == 'bias' else v for k, v in given.items()}
  if 'units' in texts:
    texts['features'] = texts.pop('units')
  elif word == 'dense':
    raise ConfigError('--units is missing: say the number of outputs.')
  layer = sizes.layer_of(word, texts)
  costs, names = [sizes.cost(layer, shape)], [word]
  if word == 'dense' and len(shape) == 3:
    kernel = (_ALTERNATIVE, _ALTERNATIVE)
    conv = layer._replace(kind='conv', kernel=kernel, padding=sizes.SAME)
    costs.append(sizes.cost(conv, shape))
    names.append(f'conv {_shape(kernel)}, as many features')
  return _show(names, shape, costs, as_json, together=word == 'stack')


def _show(names, shape, costs, as_json: bool, together: bool = True) -> int:
  """Prints layers; with a total where they stand one behind the other."""
  columns = ('weights', 'biases', 'parameters', 'flops', 'flops_with_padding')
  total = {column: sum(getattr(x, column) for x in costs) for column in columns}
  if as_json:
    rows = [
      {
        'layer': name,
        **x._asdict(),
        'parameters': x.parameters,
        'reach': None if x.reach is None else [*map(_reach_as_json, x.reach)],
      }
      for name, x in zip(names, costs, strict=True)
    ]
    found = {'input': shape, 'inputs': math.prod(shape), 'layers': rows}
    print(json.dumps(found | ({'total': total} if together else {}), indent=1))
    return 0
  print(f'input {_shape(shape)}: {math.prod(shape):,} numbers\n')
  rows = [
    (
      name,
      _shape(x.output),
      _reach(x.reach or (None,)),
      *(f'{getattr(x, column):,}' for column in columns),
    )
    for name, x in zip(names, costs, strict=True)
  ]
  if together and len(costs) > 1:
    rows.append(('total', '', '', *(f'{n:,}' for n in total.values())))
  shown = ('weights', 'biases', 'parameters', 'FLOPs', 'with padding')
  _print(('layer', 'output', 'field', *shown), rows, left=2)
  print(f'field: size/stride@offset; {_ALL}. FLOPs: a multiply-add is 2')
  return 0


def _print(head: Sequence[str], rows: Sequence[Sequence[str]], left: int):
  """A table as wide as it needs to be: a number is never cut."""
  from rich import box, console, measure, table

  shown = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
  for i, name in enumerate(head):
    shown.add_column(name, justify='left' if i < left else 'right', no_wrap=True)
  for row in rows:
    shown.add_row(*row)
  out = console.Console(markup=False, highlight=False)
  options = out.options.update(width=10_000)
  out.width = measure.Measurement.get(out, options, shown).maximum
  out.print(shown)


if __name__ == '__main__':
  sys.exit(main(sys.argv))

"""Copies of experiments with one fault each, made by replacing lines.

`python -m tests.launch.planted_faults DIR` examines all of them and some healthy
experiments by launch.doctor, each in a process of its own, but for those whose JSON
lies in DIR, and prints the confusion table of launch/diagnosis/README.md.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
CNN = 'vision/cnn.py'
GPT = 'transformers/char_gpt.py'
GAN = 'generative/gan.py'
DCGAN = 'generative/dcgan.py'
TWO_PLAYERS = ('gan', 'dcgan')  # Examined by --gan, too.
HEALTHY = ('cnn', 'mlp', 'char_gpt', 'gcn', 'tabular', 'vae', *TWO_PLAYERS)

DATA = '  data = images.images(config.dataset)\n'
MODEL = '  model = CNN(\n'
LOSS = """    loss=lambda logits, batch: losses.softmax_cross_entropy(
      logits,
      batch.get('target', batch['label']),  # Soft where examples are mixed.
      label_smoothing=config.label_smoothing,
    ),
"""
CLASSIFIER = '  classifier = image_classifier(\n'
TX = '    tx=optim.adamw(\n'
IMPORTS = 'from dlx import experiment, losses, optim\n'
RATE = '  lr: float = 3e-3'

SHUFFLED = """

def shuffled(source):
  def read(data_dir):
    found = source.read(data_dir)
    label = np.random.default_rng(0).permutation(found.data['label'])
    return found._replace(data={**found.data, 'label': label})

  return dataclasses.replace(source, read=read)
"""
LEAKING = """

def joined(train, test):
  def read(data_dir):
    found, more = train.read(data_dir), test.read(data_dir).data
    both = {k: np.concatenate([x, more[k]]) for k, x in found.data.items()}
    return found._replace(data=both)

  return dataclasses.replace(train, read=read, size=train.size + test.size)
"""
DYING = """

def dying(make):
  def made(*args, **options):
    built = make(*args, **options)

    def init(key):
      state = built.init(key)
      hidden = state.params['hidden']
      hidden = {**hidden, 'bias': hidden['bias'] - 100}
      return state._replace(params={**state.params, 'hidden': hidden})

    return built._replace(init=init)

  return made
"""
ROOTED = """

class Rooted(CNN):
  def __call__(self, x_BHWC, *, train):
    logits, features = self.forward(x_BHWC, train)
    return logits + jnp.sqrt(features[:, :1] - 1000)
"""
EVALUATED = """

class Evaluated(CNN):
  def __call__(self, x_BHWC, *, train):
    return self.forward(x_BHWC, False)[0]
"""
SUMMED = """

def summed(loss):
  def total(logits, batch):
    losses_B = loss(logits, batch)
    return jnp.full_like(losses_B, losses_B.sum())

  return total
"""
FROZEN = """

def without(make):
  mask = lambda params: jax.tree_util.tree_map_with_path(
    lambda path, x: 'conv_1' in jax.tree_util.keystr(path), params
  )
  still = optax.masked(optax.set_to_zero(), mask)
  return lambda *args, **options: optax.chain(make(*args, **options), still)
"""
SLOW = """

class Slow(ShuffledStream):
  def get(self, data, step, rows):
    time.sleep(0.2)
    return super().get(data, step, rows)
"""


class Fault(NamedTuple):
  """One fault.

  Attributes:
    parent: experiment, below experiments/.
    edits: (lines, what stands in their place): each is there exactly once.
    finding: that names it.
    fix: a word of its fix.
    imports: lines before the imports of dlx.
    added: at the end of the file.
    checks: those that find it, for a quick test.
    gan: whether they are of --gan.
  """

  parent: str
  edits: tuple[tuple[str, str], ...]
  finding: str
  fix: str
  imports: str = ''
  added: str = ''
  checks: str = ''
  gan: bool = False


def _of_gpt(scale: str) -> tuple[tuple[str, str], ...]:
  start = '    num_layers=size.num_layers,\n'
  return ((start, f'{start}    init_scale={scale},\n'),)


MOVE = '    new = steps.update(tx, grads, *reversed(old))\n'
JUDGED = '    found = config.game.critic(real_B, fake_B)\n'
MADE = (
  '      make = lambda p, z=z_BZ, y=label_B: play(generator, p, old, z, known(y))\n'
)
SAMPLED = '    image = generator.apply(variables, z_BZ, known(label_B), train=False)\n'
GENERATED = """\
      generator.apply({'params': params}, z_BZ, known(label_B), train=False)
"""
_players = functools.partial(Fault, checks='players', gan=True)
_samples = functools.partial(Fault, checks='samples', gan=True)

FAULTS = {
  'rate x 100': Fault(
    CNN, ((RATE, '  lr: float = 3e-1'),), 'rate_too_high', '--config.lr', checks='rate'
  ),
  'rate / 100': Fault(
    CNN, ((RATE, '  lr: float = 3e-5'),), 'rate_too_low', '--config.lr', checks='rate'
  ),
  'shuffled labels': Fault(
    CNN,
    (
      (DATA, f'{DATA}  data = dataclasses.replace(data, train=shuffled(data.train))\n'),
    ),
    'labels_shuffled',
    'labels are put together',
    'import numpy as np\n\n',
    SHUFFLED,
    'labels',
  ),
  'unnormalised input': Fault(
    CNN,
    (
      (
        DATA,
        f'{DATA}  data = dataclasses.replace(data, max_value=1, mean=(0.0,), '
        'std=(1.0,))\n',
      ),
    ),
    'inputs_not_scaled',
    'mean 0 and deviation 1',
    checks='inputs',
  ),
  'dead ReLUs': Fault(
    CNN,
    ((CLASSIFIER, '  classifier = dying(image_classifier)(\n'),),
    'dead_units',
    'biases of 0',
    added=DYING,
    checks='units',
  ),
  'vanishing initialisation': Fault(
    GPT, _of_gpt('1e-7'), 'gradient_vanishing', 'larger weights', checks='gradients'
  ),
  'exploding initialisation': Fault(
    GPT, _of_gpt('2.0'), 'gradient_exploding', 'smaller weights', checks='gradients'
  ),
  'NaN in one layer': Fault(
    CNN,
    ((MODEL, '  model = Rooted(\n'),),
    'not_finite',
    'in its range',
    'import jax.numpy as jnp\n\n',
    ROOTED,
    'finite',
  ),
  'sum in place of a mean': Fault(
    CNN,
    (
      (
        LOSS,
        LOSS.replace('loss=lambda', 'loss=summed(lambda').replace(
          '\n    ),', '\n    )),'
        ),
      ),
    ),
    'sum_in_place_of_mean',
    'Mean the loss',
    'import jax.numpy as jnp\n\n',
    SUMMED,
    'loss',
  ),
  'leak of the test set': Fault(
    CNN,
    (
      (
        DATA,
        f'{DATA}  train = joined(data.train, data.test)\n'
        '  data = dataclasses.replace(data, train=train)\n',
      ),
    ),
    'leak',
    'Remove them',
    'import numpy as np\n\n',
    LEAKING,
    'data',
  ),
  'a frozen layer': Fault(
    CNN,
    ((TX, '    tx=without(optim.adamw)(\n'),),
    'frozen_layer',
    'mask of what is frozen',
    'import jax\nimport optax\n\n',
    FROZEN,
    'gradients',
  ),
  'batch norm in evaluation mode': Fault(
    CNN,
    ((MODEL, '  model = Evaluated(\n'),),
    'batch_norm_in_evaluation_mode',
    'train=True',
    added=EVALUATED,
    checks='gradients',
  ),
  'a stalled input pipeline': Fault(
    CNN,
    (
      (
        '    model=model,\n',
        '    model=model,\n    train_data=Slow(\n'
        '      data.train, config.batch_size, config.seed, num_workers=0\n    ),\n',
      ),
    ),
    'input_stalls',
    'stream_workers',
    'import time\n\nfrom dlx.data.batches.streamed import ShuffledStream\n',
    SLOW,
    'time',
  ),
  'generator frozen': _players(
    DCGAN,
    (
      (
        "    sums |= update('g', params, opt_state, grads, state.step)\n",
        "    sums |= update('g', dict(params), opt_state, grads, state.step)\n",
      ),
    ),
    'player_frozen',
    'Apply the update of the generator',
  ),
  'rate of the discriminator x 100': _players(
    GAN,
    (
      (
        MOVE,
        '    fast = optim.adam(optim.cosine(100 * config.lr, config.num_steps))\n'
        "    own = fast if player == 'd' else tx\n"
        f'{MOVE.replace("tx", "own")}',
      ),
    ),
    'players_rates_apart',
    'lower that of the discriminator',
  ),
  'real and fake swapped': _players(
    DCGAN,
    ((JUDGED, JUDGED.replace('real_B, fake_B', 'fake_B, real_B')),),
    'real_and_fake_swapped',
    'real images first',
  ),
  'saturated loss of the generator': _players(
    GAN,
    (
      (
        '  game: GameConfig = GameConfig()\n',
        "  game: GameConfig = GameConfig(loss='minimax', real_label=1.0)\n",
      ),
      ('  dropout: float = 0.3 ', '  dropout: float = 0.0 '),
      # Told from samples at a glance: the discriminator wins.
      (
        "      params['d'], 2 * image - 1, fake, label_B, dropout\n",
        "      params['d'], 16 * image, fake, label_B, dropout\n",
      ),
    ),
    'generator_gradient_vanishing',
    'non_saturating',
  ),
  'noise that is ignored': _samples(
    GAN,
    ((GENERATED, GENERATED.replace('z_BZ', '0 * z_BZ')),),
    'noise_ignored',
    'multiplied by 0',
  ),
  'a discriminator of one unit': _samples(
    GAN,
    (
      (
        '  discriminator_features: tuple[int, ...] = (512, 256) ',
        '  discriminator_features: tuple[int, ...] = (1,) ',
      ),
      ('  dropout: float = 0.3 ', '  dropout: float = 0.0 '),
      ('  lr: float = 5e-4 ', '  lr: float = 5e-3 '),
    ),
    'mode_collapse',
    'stronger or slower discriminator',
  ),
  'labels that the generator does not get': _samples(
    DCGAN,
    (
      (MADE, MADE.replace('known(y)', 'known(0 * y)')),
      (SAMPLED, SAMPLED.replace('known(label_B)', 'known(0 * label_B)')),
    ),
    'asked_class_ignored',
    'the same label',
  ),
}


def written(name: str, folder: pathlib.Path) -> pathlib.Path:
  """The copy with a fault, as a file in a folder."""
  fault = FAULTS[name]
  text = (ROOT / 'experiments' / fault.parent).read_text(encoding='utf-8')
  for old, new in fault.edits:
    assert text.count(old) == 1, (name, old)
    text = text.replace(old, new)
  start = 'import dataclasses\n'
  if fault.imports:
    text = text.replace(start, f'{start}\n{fault.imports}', 1)
  stem = 'fault_' + ''.join(c if c.isalnum() else '_' for c in name.lower())
  path = folder / f'{stem}.py'
  # What `build` uses may stand behind it.
  path.write_text(text + fault.added, encoding='utf-8')
  return path


def options(name: str) -> tuple[str, ...]:
  """Flags with which a fault or a healthy experiment is examined."""
  gan = FAULTS[name].gan if name in FAULTS else name in TWO_PLAYERS
  return ('--gan',) if gan else ()


def examined(exp: str, out: pathlib.Path, *flags: str) -> tuple[int, dict]:
  """(exit status, what --out holds) of launch.doctor in a process of its own.

  Its programs are optimised as those of users are.
  """
  command = [sys.executable, '-m', 'launch.doctor', f'--exp={exp}', f'--out={out}']
  own = {k: v for k, v in os.environ.items() if k != 'JAX_DISABLE_MOST_OPTIMIZATIONS'}
  done = subprocess.run([*command, *flags], capture_output=True, text=True, env=own)
  assert done.returncode in (0, 1), done.stderr
  return done.returncode, json.loads(out.read_text())


def main(folder: pathlib.Path):
  """Examines what was not yet and prints the table."""
  rows = []
  for name in (*HEALTHY, *FAULTS):
    exp = str(written(name, folder)) if name in FAULTS else name
    out = folder / f'{pathlib.Path(exp).stem}.json'
    if not out.exists():
      examined(exp, out, *options(name))
    hits = {f['name']: f['severity'] for f in json.loads(out.read_text())['findings']}
    print(name, hits, file=sys.stderr, flush=True)
    rows.append((name, hits))
  print('| planted | named by | also found |\n| --- | --- | --- |')
  for name, hits in rows:
    own = FAULTS[name].finding if name in FAULTS else None
    other = ', '.join(f'`{k}` ({v})' for k, v in hits.items() if k != own) or 'nothing'
    named = 'no fault' if own is None else f'`{own}`' if own in hits else 'NOT FOUND'
    print(f'| {name if own else f"`{name}`"} | {named} | {other} |')


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))

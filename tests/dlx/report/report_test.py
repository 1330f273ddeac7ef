"""Tests for dlx/report/ and launch/report.py."""

import base64
import html
import html.parser
import io
import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized
from etils import epath
import numpy as np
from PIL import Image

from dlx import report
from dlx.errors import DataError
from dlx.run.records.json_files import read_json, write_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.run.records.reporter import Reporter

EVIL = '"><script>alert(1)</script>\'&<img src=x onerror=alert(2)>'
VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Html(html.parser.HTMLParser):
  """Elements and text of a page; fails on elements that are not closed in order."""

  def __init__(self, source):
    super().__init__()
    self.stack, self.tags, self.attributes, self.words = [], [], [], []
    self.feed(source)
    self.close()
    assert not self.stack, self.stack

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, k, v) for k, v in attrs]
    if tag not in VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, k, v) for k, v in attrs]

  def handle_endtag(self, tag):
    assert self.stack and self.stack[-1] == tag, (self.stack, tag)
    self.stack.pop()

  def handle_data(self, data):
    if self.stack and self.stack[-1] not in ('style', 'script'):
      self.words.append(data)

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())


def write_run(workdir, *, finished=True, members=False, figures=True, name='cnn'):
  """A workdir as the loop leaves it."""
  workdir = epath.Path(workdir)
  (workdir / 'figures').mkdir(parents=True, exist_ok=True)
  write_json(
    workdir / 'config.json',
    {
      'experiment': name,
      'argv': ['launch/train.py', '--config.lr=0.01', '--exp=' + name],
      'config': {
        'dataset': 'digits',
        'seed': 3,
        'num_steps': 100,
        'lr': 0.01,
        'model': {'width': 8},
        'clip_norm': None,
      },
      'metrics': {'accuracy': {'title': 'Accuracy', 'better': 'higher', 'unit': '%'}},
      'headline': ['test/accuracy'],
      'git': {'commit': 'abc123', 'dirty': True},
      'mesh': {'data': 4},
      'warm_start': None,
      'versions': {'jax': '9.9'},
    },
  )
  with MetricsFile(workdir) as metrics:
    for step in range(1, 101 if finished else 41):
      loss = [1 / step, 2 / step] if members else 1 / step
      metrics.write(step, 'train', {'loss': loss}, {'seconds': {'total': step / 2}})
      if step % 20 == 0:
        metrics.write(step, 'test', {'loss': 2 / step, 'accuracy': 1 - 1 / step}, {})
  if figures:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(
      os.fspath(workdir / 'figures' / 'confusion_matrix.png')
    )
  if finished:
    write_json(
      workdir / 'result.json',
      {
        'experiment': name,
        'metrics': {'test/accuracy': 0.99, 'train/loss': 0.01},
        'dataset': {'test': {'name': 'digits', 'kind': 'embedded', 'size': 360}},
        'step': 100,
        'num_steps': 100,
        'examples_per_second': 5678.9,
        'threads': 2,
        'seconds': {
          'total': 20.0,
          'compile': 5.0,
          'train': 12.0,
          'eval': 2.0,
          'other': 1.0,
          'input': 0.0,
          'save': 0.0,
          'sessions': 2,
        },
        'device': {'kind': 'H200', 'count': 8, 'platform': 'gpu'},
        'xla_flags': '--x',
        'versions': {'jax': '9.9'},
        'git': None,
        'fingerprint': 'f00d',
        'finished': True,
      },
    )
  return workdir


class RenderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(self.enterContext(tempfile.TemporaryDirectory())) / 'run7'

  def render(self, **kwargs):
    write_run(self.workdir, **kwargs)
    path = report.render(self.workdir)
    self.assertEqual(path, self.workdir / 'report.html')
    return path.read_text()

  def test_a_finished_run(self):
    source = self.render()
    got = Html(source)
    for part in (
      'cnn',
      'digits 100 steps seed 3 8 × H200 run7',
      'finished',
      'Accuracy, test 99.00 %',
      'wall time 20 s',
      'examples per second 5,679',
      'Curves',
      'Figures',
      'Confusion matrix',
      'compile 5.00 s 25.0 %',
      'train 12.00 s 60.0 %',
      'summed over 2 sessions',
      'model.width 8',
      'abc123 + uncommitted changes',
      'f00d',
      'jax 9.9',
      'data=4',
      'digits, 360 examples, embedded',
      '--config.lr=0.01',
      'XLA_FLAGS --x',
    ):
      self.assertIn(part, got.text)
    self.assertNotIn('unfinished', got.text)
    # Train and test on the same axes: one loss chart with two lines in its legend.
    self.assertRegex(got.text, r'loss train 0\.01 test 0\.02 linear log')

  def test_nothing_is_loaded_from_elsewhere(self):
    source = self.render()
    got = Html(source)
    for tag, key, value in got.attributes:
      if key in ('src', 'href', 'action', 'data', 'srcset', 'poster'):
        self.assertStartsWith(value, 'data:image/png;base64,', (tag, key))
    self.assertNotIn('link', got.tags)
    self.assertNotRegex(source, r'@import|url\(|import\(|fetch\(|XMLHttpRequest')
    addresses = set(re.findall(r'https?://[^\s"\'<)]+', source))
    self.assertEqual(addresses, {'http://www.w3.org/2000/svg'})  # A name, not a place.
    self.assertIn("default-src 'none'", source)

  def test_figures_are_inside(self):
    source = self.render()
    (data,) = re.findall(r'base64,([^"]+)"', source)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    self.assertEqual(image.size, (6, 4))

  def test_every_figure_has_its_own_name(self):
    write_run(self.workdir)
    for name in ('samples', 'samples-100', 'layer_1000'):
      image = Image.new('L', (5, 5))
      image.save(os.fspath(self.workdir / 'figures' / f'{name}.png'))
    shown = [name for name, _ in report.read(self.workdir).figures]
    self.assertEqual(
      shown, ['confusion_matrix', 'layer_1000', 'samples', 'samples-100']
    )

  @parameterized.parameters(
    ({'read': 2.0}, 'steps waited for no input'),
    ({'read': 2.0, 'input': 4.0}, '25 % of the time of the steps was waiting'),
    ({'input': 4.0}, None),  # Written when reading counted as input.
  )
  def test_whether_the_steps_waited_for_input(self, seconds, told):
    write_run(self.workdir)
    result = read_json(self.workdir / 'result.json')
    result['seconds'] |= seconds
    write_json(self.workdir / 'result.json', result)
    text = Html(report.render(self.workdir).read_text()).text
    if told is None:
      self.assertNotIn('of the steps', text)
    else:
      self.assertIn(told, text)

  def test_an_unfinished_run_says_so(self):
    got = Html(self.render(finished=False, figures=False))
    for part in (
      'unfinished, step 40 of 100',
      'This run has not finished',
      'Accuracy, test 97.50 %',
      'wall time 20 s',
    ):
      self.assertIn(part, got.text)
    for part in ('Figures', 'Where the time went', 'fingerprint'):
      self.assertNotIn(part, got.text)

  def test_the_wall_time_of_an_unfinished_run_is_what_the_reporter_writes(self):
    self.workdir.mkdir()
    reporter = Reporter(
      self.workdir, 100, members=(), step=None, evaluated=-1, terminal=False
    )
    loss = {'loss': np.float32(1)}
    reporter.write(10, 'train', loss, {'train': 3.0, 'total': 7.5}, 80.0)
    reporter.close()
    self.assertEqual(report.read(self.workdir).seconds, 7.5)

  def test_a_run_under_way_says_where_its_time_went_and_on_what(self):
    write_run(self.workdir, finished=False)
    config = read_json(self.workdir / 'config.json')
    device = {'kind': 'cpu', 'count': 1, 'platform': 'cpu'}
    write_json(self.workdir / 'config.json', {**config, 'device': device, 'threads': 2})
    with MetricsFile(self.workdir) as metrics:
      spent = {'compile': 1.0, 'train': 3.0, 'total': 4.0}
      metrics.write(41, 'train', {'loss': 1.0}, {'seconds': spent})
    got = Html(report.render(self.workdir).read_text())
    for part in (
      '1 × cpu, 2 threads',
      'wall time 4 s',
      'compile 1.00 s 25.0 %',
      'train 3.00 s 75.0 %',
    ):
      self.assertIn(part, got.text)

  @parameterized.parameters(
    # Losses fall: by 'max' the first evaluation is the best, by 'min' the last.
    ('max', 1, 'for 1 evaluation; the weights of step 20 are put back', 20),
    ('min', 2, 'for 2 evaluations; the weights of step 100 are put back', 100),
  )
  def test_a_run_that_stopped_early_says_why_and_with_what_weights(
    self, mode, patience, said, step
  ):
    write_run(self.workdir)
    config = read_json(self.workdir / 'config.json')
    config['config'] |= {'early_stop_metric': 'test/loss', 'early_stop_mode': mode}
    config['config'] |= {'early_stop_patience': patience}
    write_json(self.workdir / 'config.json', config)
    result = read_json(self.workdir / 'result.json')
    more = {'stopped_early': True, 'num_steps': 900}
    write_json(self.workdir / 'result.json', result | more)
    source = report.render(self.workdir).read_text()
    self.assertIn(
      f'Stopped early at step 100: test/loss has not improved {said}', Html(source).text
    )
    self.assertIn('stopped early, step 100 of 900', Html(source).text)
    self.assertEqual(report.page.put_back(report.read(self.workdir)), step)
    self.assertIn('>put back</text>', source)
    write_json(self.workdir / 'result.json', result)
    self.assertNotIn('put back', report.render(self.workdir).read_text())

  def test_a_result_that_is_not_final(self):
    write_run(self.workdir)
    result = read_json(self.workdir / 'result.json')
    write_json(self.workdir / 'result.json', result | {'finished': False, 'step': 60})
    self.assertIn(
      'unfinished, step 60 of 100', Html(report.render(self.workdir).read_text()).text
    )

  def test_a_run_that_has_only_begun(self):
    self.workdir.mkdir()
    write_json(self.workdir / 'config.json', {'experiment': '/a/b/my_fork.py'})
    source = report.render(self.workdir).read_text()
    got = Html(source)
    self.assertIn('<h1>my_fork</h1>', source)
    self.assertIn('unfinished, step 0', got.text)

  def test_everything_is_escaped(self):
    self.workdir.mkdir()
    evil_file = '"><b>x'
    (self.workdir / 'figures').mkdir()
    Image.new('L', (2, 2)).save(
      os.fspath(self.workdir / 'figures' / f'{evil_file}.png')
    )
    write_json(
      self.workdir / 'config.json',
      {
        'experiment': EVIL,
        'argv': [EVIL],
        'config': {EVIL: EVIL, 'dataset': EVIL},
        'defaults': {EVIL: 'x' + EVIL},
        'mesh': {EVIL: EVIL},
        'warm_start': EVIL,
      },
    )
    write_json(
      self.workdir / 'result.json',
      {
        'experiment': EVIL,
        'metrics': {EVIL: 1.0},
        'fingerprint': EVIL,
        'xla_flags': EVIL,
        'dataset': {EVIL: {EVIL: EVIL, 'name': EVIL}, 'x': EVIL},
        'git': EVIL,
        'device': {'kind': EVIL, 'platform': EVIL, 'count': EVIL},
        'threads': EVIL,
        'versions': {EVIL: EVIL},
        'seconds': {'total': 1.0, 'train': 1.0, EVIL: 2.0},
      },
    )
    with MetricsFile(self.workdir) as metrics:
      for step in (1, 2, 3):
        metrics.write(step, EVIL, {EVIL: 1.0 * step}, {})
    source = report.render(self.workdir).read_text()
    got = Html(source)
    self.assertEqual(
      got.tags.count('script'), 2
    )  # One chart's data and the page's own.
    self.assertEqual([a for a in got.attributes if a[1].startswith('on')], [])
    self.assertNotIn('<script>alert', source)
    self.assertNotIn('<img src=x', source)
    self.assertNotIn('<b>x', source)

  def test_members_are_a_mean_and_a_band(self):
    source = self.render(members=True)
    self.assertIn('class="band"', source)
    self.assertIn('line: mean of members, band: all of them', source)
    loss = report.lines(MetricsFile(self.workdir).read())['loss'][0]
    self.assertEqual(
      (loss.points[1], loss.low[1], loss.high[1]), ((2, 0.75), (2, 0.5), (2, 1.0))
    )

  def test_the_command_can_be_pasted_and_goes_on(self):
    """The program is no path of a file; what was asked of one start is left out."""
    write_run(self.workdir)
    config = read_json(self.workdir / 'config.json')
    argv = ['/a/launch/train.py', '--exp=cnn', '--stop_at=3', '--stop_at', '4']
    argv += ['--fresh', '--trace_steps=1:2', "--config.name=it's", '--workdir', 'a b']
    write_json(self.workdir / 'config.json', config | {'argv': argv})
    source = report.render(self.workdir).read_text()
    (pasted,) = re.findall('<pre><code>(.*?)</code><button', source)
    pasted = html.unescape(re.sub('<[^>]+>', '', pasted))
    self.assertEqual(
      shlex.split(pasted),
      ['python', '-m', 'launch.train', '--exp=cnn', "--config.name=it's"]
      + ['--workdir', 'a b'],
    )

  def test_values_that_are_not_finite(self):
    self.workdir.mkdir()
    with MetricsFile(self.workdir) as metrics:
      for step, value in enumerate([3.0, 2.0, math.nan, 1.0, math.inf]):
        metrics.write(step, 'train', {'loss': value, 'lost': math.nan}, {})
    source = report.render(self.workdir).read_text()
    self.assertIn('2 values not finite', Html(source).text)
    self.assertNotRegex(source, r'd="[^"]*(nan|inf)')
    for data in re.findall(r'<script type="application/json">(.*?)</script>', source):
      self.assertNotIn('NaN', data)  # JSON.parse would refuse it.
      json.loads(data)

  def test_fields_that_differ_are_marked(self):
    write_run(self.workdir)
    source = report.render(self.workdir).read_text()
    marked = re.findall(r'<tr class=changed><th>([^<]+)', source)
    self.assertEqual(marked, ['lr'])  # By the command line.
    config = read_json(self.workdir / 'config.json')
    config['defaults'] = config['config'] | {'seed': 0, 'model': {'width': 4}}
    write_json(self.workdir / 'config.json', config)
    source = report.render(self.workdir).read_text()
    marked = re.findall(
      r'<tr class=changed><th>([^<]+)</th><td>([^<]+)</td>'
      r'<td class="was">([^<]+)',
      source,
    )
    self.assertEqual(marked, [('seed', '3', '0'), ('model.width', '8', '4')])

  def test_no_workdir(self):
    with self.assertRaisesRegex(DataError, 'neither config.json nor metrics.jsonl'):
      report.render(self.workdir)
    self.workdir.mkdir()
    (self.workdir / 'config.json').write_text('[1]')
    with self.assertRaisesRegex(DataError, 'holds no JSON object'):
      report.render(self.workdir)
    self.assertFalse((self.workdir / 'report.html').exists())


class LauncherTest(absltest.TestCase):
  def launch(self, *args):
    return subprocess.run(
      [sys.executable, '-m', 'launch.report', *args],
      capture_output=True,
      text=True,
      check=False,
    )

  def test_writes_the_page(self):
    workdir = write_run(self.enterContext(tempfile.TemporaryDirectory()))
    done = self.launch(f'--workdir={workdir}')
    self.assertEqual((done.returncode, done.stderr), (0, ''))
    self.assertEqual(done.stdout, f'wrote {workdir}/report.html\n')
    self.assertTrue((workdir / 'report.html').exists())

  def test_bad_input_is_one_line_and_status_2(self):
    empty = self.enterContext(tempfile.TemporaryDirectory())
    damaged = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (damaged / 'config.json').write_text('{')
    for args, what in (
      ([], '--workdir is missing'),
      ([f'--workdir={empty}/x'], 'is no folder'),
      ([f'--workdir={empty}'], 'neither config.json nor metrics.jsonl'),
      ([f'--workdir={damaged}'], 'config.json is not JSON'),
      (['--wrkdir=x'], "Unknown command line flag 'wrkdir'"),
      ([f'--workdir={empty}', 'more'], "'more' belongs to no flag"),
    ):
      with self.subTest(what):
        done = self.launch(*args)
        self.assertEqual((done.returncode, done.stdout), (2, ''))
        self.assertIn(what, done.stderr)
        self.assertEqual(done.stderr.count('\n'), 1, done.stderr)

  def test_imports_no_plotting_and_no_framework(self):
    code = (
      'import sys; import dlx.report; print(sorted({"jax", "matplotlib", "torch", '
      '"tensorflow", "tensorboard"} & set(sys.modules)))'
    )
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    self.assertEqual(out.stdout.strip(), b'[]')


if __name__ == '__main__':
  absltest.main()

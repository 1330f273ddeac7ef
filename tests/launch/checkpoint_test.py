"""Tests for launch/checkpoint.py, on real checkpoints."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import jax.numpy as jnp

from dlx.run.checkpoint import files
from dlx.run.checkpoint.checkpointer import Checkpointer
from launch import checkpoint
from tests.dlx.run.checkpoint import elsewhere_test
from tests.dlx.run.checkpoint.faults_test import make_state


def write_run(workdir, steps=(1, 2, 3), changed=None):
  """A workdir with checkpoints, the first of them the best."""
  workdir = epath.Path(workdir)
  checkpointer = Checkpointer(
    workdir / 'checkpoints', best_metric='test/loss', best_mode='min'
  )
  for step in steps:
    state, window = make_state(step)
    if changed is not None:
      state = state._replace(params={**state.params, 'w': changed})
    checkpointer.save(step, state, window, {'test/loss': 0.25 * step})
  checkpointer.close()
  config = {'best_metric': 'test/loss', 'best_mode': 'min'}
  (workdir / 'config.json').write_text(json.dumps({'config': config}))


def snapshot(folder):
  """Every file and folder, with its bytes and the time it was changed."""
  return {
    str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
    for p in sorted(pathlib.Path(folder).rglob('*'))
  }


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(mock.patch.dict(os.environ))
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    self.workdir.mkdir()

  def run_main(self, *words):
    """(exit status, stdout, stderr); nothing under the workdir may change."""
    before = snapshot(self.workdir)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      status = checkpoint.main(['checkpoint', *map(str, words)])
    self.assertEqual(snapshot(self.workdir), before, words)
    return status, out.getvalue(), err.getvalue()

  def payload(self, step):
    files = (self.workdir / 'checkpoints' / str(step) / 'arrays').rglob('d/*')
    return max(files, key=lambda p: p.stat().st_size)

  def flip(self, step, at=3000):
    data = bytearray(self.payload(step).read_bytes())
    data[at] ^= 8
    self.payload(step).write_bytes(data)

  def test_sound_run(self):
    write_run(self.workdir)
    shutil.copytree(
      self.workdir / 'checkpoints' / '2', self.workdir / 'checkpoints' / '9.corrupt'
    )
    (self.workdir / 'checkpoints' / '6.orbax-checkpoint-tmp').mkdir()
    status, out, _ = self.run_main('ls', self.workdir)
    self.assertEqual(status, 0)
    self.assertIn('6.orbax-checkpoint-tmp  0 bytes  the next start cleans it\n', out)
    self.assertRegex(out, r'\n1 .* kB +sound +best test/loss 0.25\n2 .* sound\n')
    self.assertRegex(
      out, r'\n3 .* sound +newest\n(6.*\n)?9\.corrupt .* was set aside\n'
    )
    status, out, _ = self.run_main('verify', self.workdir)
    self.assertEqual((status, out), (0, '1: sound\n2: sound\n3: sound\n'))
    status, out, _ = self.run_main('inspect', self.workdir, '--step=1')
    self.assertEqual(status, 0)
    # 1, 2, ..., 6: sqrt(91), 3.5; bfloat16 0, 1, 2, 3: sqrt(14).
    self.assertRegex(out, r'state/params/w +float32 +\(2, 3\) +24 +9.5394 +3.5\n')
    self.assertRegex(out, r'state/params/narrow +bfloat16 +\(4,\) +8 +3.7417 +1.5\n')
    self.assertIn('14 leaves, 12.1 kB\ntest/loss 0.25\n', out)
    status, out, _ = self.run_main('inspect', self.workdir, '--nonorms')
    self.assertNotIn('3.5\n', out)
    self.assertIn('--norms', out)

  @parameterized.parameters(
    ('ls', r'(?s)^step .*\n2 (?!.*\n3 )'),  # Neither 3 nor a stack trace.
    ('inspect', r'checkpoints/4, digest'),
    ('verify', r'^1: sound\n2: sound\n$'),
  )
  def test_beside_a_run_that_removes_what_is_looked_at(self, command, told):
    write_run(self.workdir)
    (self.workdir / 'config.json').write_text('{"config": {}}')
    folder, real = self.workdir / 'checkpoints', files.read_meta

    def meanwhile(path):  # The run saves 4 and drops 3.
      if path.name == '3' and path.exists():
        (folder / '3').rename(folder / '4')
      return real(path)

    out = io.StringIO()
    with mock.patch.object(files, 'read_meta', meanwhile):
      with contextlib.redirect_stdout(out):
        status = checkpoint.main(['checkpoint', command, str(self.workdir)])
    self.assertEqual(status, 0)
    self.assertRegex(out.getvalue(), told)

  @parameterized.parameters(
    (('inspect', 'RUN'), 0, r'checkpoints/4, digest(?s:.*)\d leaves, '),
    (
      ('inspect', 'RUN', '--step=3'),
      2,
      'has no checkpoint of step 3: there are 1, 2, 4',
    ),
    (('diff', 'RUN', 'OTHER'), 1, r'(?m)^1 of \d+ leaves differ between .*/4 and '),
    (('diff', 'RUN', '2', '3'), 2, 'no checkpoint of step 3: there are 1, 2, 4'),
    (('verify', 'RUN', '--step=3'), 0, '^3: removed by the run meanwhile\n$'),
  )
  def test_beside_a_run_that_removes_what_is_being_read(self, words, status, told):
    write_run(self.workdir)
    other = self.workdir.with_name('other')
    if 'OTHER' in words:
      write_run(other, steps=(3,), changed=make_state(3)[0].params['w'] + 1)
    folder, real = self.workdir / 'checkpoints', files.read_leaves

    def meanwhile(path, *args):  # The run saves 4 and drops 3.
      if str(path) == str(folder / '3') and path.exists():
        path.rename(folder / '4')
      return real(path, *args)

    places = {'RUN': str(self.workdir), 'OTHER': str(other)}
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(files, 'read_leaves', meanwhile):
      with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = checkpoint.main(['checkpoint', *(places.get(w, w) for w in words)])
    self.assertEqual(found, status, err.getvalue())
    self.assertRegex(out.getvalue() + err.getvalue(), told)
    self.assertLess(err.getvalue().count('\n'), 2)

  def test_damage_is_named(self):
    write_run(self.workdir)
    self.flip(2)
    status, out, _ = self.run_main('verify', self.workdir)
    self.assertEqual(status, 1)
    self.assertRegex(
      out,
      r'^1: sound\n2: DAMAGED, 1 part\(s\)\n'
      r'  (window/rough|state/ema/noise) has checksum \w{16}, saved was \w{16}\n'
      r'3: sound\n$',
    )
    self.assertEqual(self.run_main('verify', self.workdir, '--step=3')[0], 0)
    # Files that are gone, and metadata that was written over.
    self.payload(3).unlink()
    meta = self.workdir / 'checkpoints' / '1' / 'meta' / 'metadata'
    meta.write_text(meta.read_text().replace('float32', 'float16', 1))
    status, out, _ = self.run_main('verify', self.workdir)
    self.assertEqual(status, 1)
    self.assertIn('1: DAMAGED, 1 part(s)\n  meta/metadata does not match its dig', out)
    # Orbax puts the two long leaves into one file or two, as it comes.
    self.assertRegex(out, r'3: DAMAGED, [12] part\(s\)\n  \w+/.+ cannot be read')
    status, out, _ = self.run_main('ls', self.workdir)
    self.assertEqual(status, 0)
    self.assertRegex(out, r'\n1 .* damaged: meta/metadata does not match its digest')
    for words in (('--step=1',), ('--step=2',), ('--step=3',)):
      status, _, err = self.run_main('inspect', self.workdir, *words)
      self.assertEqual(status, 2)
      self.assertRegex(err, r'^error: .*checkpoints/\d is damaged: [^\n]+\n$')

  def test_differences(self):
    write_run(self.workdir)
    other = self.workdir / 'other'
    w = jnp.arange(6.0).reshape(2, 3) + 3
    write_run(other, steps=(3,), changed=w.at[1, 0].set(8.0))
    status, out, _ = self.run_main('diff', self.workdir, other)
    self.assertEqual(status, 1)
    # 3 + 3 there, 8 here: 2, of 8 a quarter.
    line = 'state/params/w  float32[2,3], 1 of 6 differ, by at most 2 (relative 0.25)'
    self.assertTrue(out.startswith(line + '\n1 of 14 leaves differ between'), out)
    self.assertIn('; most of all state/params/w, by 2\n', out)
    status, out, _ = self.run_main('diff', self.workdir, 1, 2)
    self.assertEqual((status, len(out.splitlines())), (1, 5), out)
    status, out, _ = self.run_main('diff', self.workdir, self.workdir, '--step=2')
    self.assertEqual(status, 0)
    self.assertTrue(out.startswith('0 of 14 leaves differ'))
    narrow = self.workdir / 'narrow'
    write_run(narrow, steps=(3,), changed=w[0].astype(jnp.bfloat16))
    _, out, _ = self.run_main('diff', self.workdir, narrow)
    self.assertIn('state/params/w  float32[2,3] and bfloat16[3]\n', out)

  def test_written_by_eight_devices_in_float64(self):
    done = elsewhere_test.start(8, 'save', self.workdir)
    self.assertIsNone(elsewhere_test.result(done))
    status, out, _ = self.run_main('verify', self.workdir)
    self.assertEqual((status, out), (0, '1: sound\n2: sound\n'))
    status, out, _ = self.run_main('inspect', self.workdir)
    self.assertRegex(out, r'state/params/kernel +float64 +\(16, 24\) +3,072 +\d')
    status, out, _ = self.run_main('diff', self.workdir, 1, 2)
    self.assertEqual(status, 1)
    self.assertRegex(out, r'state/rng +another random key\n')

  @parameterized.parameters(
    ((), 'the first word must be one of ls, inspect, verify, diff'),
    (('show', 'RUN'), "'show' is not allowed: the first word must be"),
    (('ls',), 'give ls WORKDIR'),
    (('diff', 'RUN'), 'give diff A B or diff WORKDIR STEP STEP'),
    (('diff', 'RUN', 'a', 'b'), "'a' is no step"),
    (('diff', 'RUN', '1', '2', '--step=1'), '--step=1 is not allowed beside the steps'),
    (('ls', 'RUN/nowhere'), 'nowhere holds no checkpoints'),
    (('inspect', 'RUN', '--step=7'), 'no checkpoint of step 7: there are 1'),
    (('inspect', 'RUN', '--step=x'), 'step'),
    (('verify', 'RUN', '--stop=1'), "Unknown command line flag 'stop'"),
  )
  def test_bad_input_is_one_line(self, words, expected):
    write_run(self.workdir, steps=(1,))
    words = [word.replace('RUN', str(self.workdir)) for word in words]
    status, out, err = self.run_main(*words)
    self.assertEqual((status, out), (2, ''))
    self.assertRegex(err, r'^error: [^\n]+\n$')
    self.assertIn(expected, re.sub(r'\s+', ' ', err))

  def test_help(self):
    status, out, _ = self.run_main('--help')
    self.assertEqual(status, 0)
    self.assertIn('python -m launch.checkpoint verify WORKDIR', out)


if __name__ == '__main__':
  absltest.main()

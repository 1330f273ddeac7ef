"""Tests for dlx/run/checkpoint/checkpointer.py and fingerprint.py, on real files."""

import errno
import json
import math
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
import chex
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError, StorageError
from dlx.run.at import NotFinite
from dlx.run.checkpoint import checksums
from dlx.run.checkpoint import files as checkpoint_files
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.state import Mean, create


def make_state(offset=0.0, impl='threefry2x32'):
  """Every kind of leaf: floats of three widths, ints, bools, empty, typed key."""
  params = {
    'w': jnp.arange(6.0).reshape(2, 3) + offset,
    'narrow': jnp.arange(4).astype(jnp.bfloat16),
    'none': jnp.zeros((0, 3)),
  }
  state = create(
    params,
    {'count': jnp.int32(3)},
    jax.random.key(7, impl=impl),
    model_state={'mask': jnp.array([True, False]), 'u8': jnp.uint8(200)},
  )
  return state, {'loss': Mean(jnp.float32(1.5 + offset), jnp.float32(2.0))}


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path) / 'checkpoints'
    self.notes = []

  def open(self, **kwargs):
    checkpointer = Checkpointer(self.folder, note=self.notes.append, **kwargs)
    self.addCleanup(checkpointer.close)
    return checkpointer

  def save(self, *steps, **kwargs):
    checkpointer = self.open(**kwargs)
    for step in steps:
      checkpointer.save(step, *make_state(step), {})
    checkpointer.wait()
    return checkpointer

  @parameterized.parameters('threefry2x32', 'rbg', 'unsafe_rbg')
  def test_restores_every_kind_of_leaf_to_the_bit(self, impl):
    state, window = make_state(impl=impl)
    checkpointer = self.open()
    checkpointer.save(5, state, window, {'test/loss': 0.5})
    checkpointer.wait()
    got = self.open().restore(abstract(state), abstract(window))
    self.assertEqual((got.step, got.metrics), (5, {'test/loss': 0.5}))
    self.assertEqual(
      checksums.fingerprint((got.state, got.window)),
      checksums.fingerprint((state, window)),
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(got.state, state)

  def test_nothing_there(self):
    self.assertIsNone(self.open().restore(*map(abstract, make_state())))

  def test_newest_ones_are_kept(self):
    self.assertEqual(self.save(1, 2, 3, 4, keep=2).steps(), [3, 4])

  @parameterized.parameters(('max', [2, 4]), ('min', [3, 4]))
  def test_best_is_kept_also_by_the_next_session(self, mode, kept):
    values = {1: 0.5, 2: 0.9, 3: 0.1}
    kwargs = {'keep': 1, 'best_metric': 'test/accuracy', 'best_mode': mode}
    checkpointer = self.open(**kwargs)
    for step, value in values.items():
      checkpointer.save(step, *make_state(step), {'test/accuracy': value})
    checkpointer.wait()
    later = self.open(**kwargs)
    later.save(4, *make_state(4), {'test/accuracy': 0.5})
    later.wait()
    self.assertEqual(later.steps(), kept)
    self.assertEqual(later.best(), kept[0])

  def test_a_step_is_replaced(self):
    checkpointer = self.save(3)
    state, window = make_state(100.0)
    checkpointer.save(3, state, window, {})
    checkpointer.wait()
    got = checkpointer.restore(abstract(state), abstract(window))
    chex.assert_trees_all_equal(got.state.params, state.params)

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_nothing_that_is_not_finite_is_saved(self, value):
    state, window = make_state()
    state = state._replace(params={**state.params, 'w': jnp.array([1.0, value])})
    checkpointer = self.open()
    with self.assertRaisesRegex(
      NotFinite, r'state/params/w is not finite after step 8'
    ):
      checkpointer.save(8, state, window, {})
    self.assertEqual(list(self.folder.iterdir()), [])

  def payloads(self, step):
    """Files of array data of a checkpoint, largest first."""
    files = [
      p
      for p in pathlib.Path(self.folder / str(step)).rglob('*')
      if p.is_file() and '/d/' in str(p)
    ]
    return sorted(files, key=lambda p: -p.stat().st_size)

  def test_flipped_bit_is_found_set_aside_and_the_one_before_taken(self):
    checkpointer = self.save(1, 2)
    for file in self.payloads(2):
      data = bytearray(file.read_bytes())
      data[len(data) // 2] ^= 4
      file.write_bytes(bytes(data))
    got = checkpointer.restore(*map(abstract, make_state()))
    self.assertEqual(got.step, 1)
    chex.assert_trees_all_equal(got.state.params, make_state(1)[0].params)
    self.assertIn('Checkpoint 2 is corrupt', self.notes[0])
    self.assertIn('2.corrupt', self.notes[0])
    self.assertTrue((self.folder / '2.corrupt').exists())
    checkpointer.save(2, *make_state(2), {})
    checkpointer.wait()
    self.assertEqual(self.open().restore(*map(abstract, make_state())).step, 2)

  def test_silent_bit_flip_is_found_by_its_checksum(self):
    # Orbax reads these bytes without a word: what it gives is changed after the read.
    checkpointer = self.save(4)
    meta = self.folder / '4' / 'meta' / 'metadata'
    saved = json.loads(meta.read_text())
    name = 'state/params/w'
    flipped = int(saved['checksums'][name], 16) ^ 1
    saved['checksums'][name] = f'{flipped:016x}'
    saved['digest'] = checkpoint_files.digest(saved)
    meta.write_text(json.dumps(saved))
    self.assertIsNone(checkpointer.restore(*map(abstract, make_state())))
    self.assertIn('state/params/w has checksum', self.notes[0])

  @parameterized.parameters('truncated', 'emptied', 'meta')
  def test_half_written_checkpoint_is_set_aside(self, how):
    checkpointer = self.save(1, 2)
    if how == 'truncated':
      for file in self.payloads(2):
        file.write_bytes(file.read_bytes()[:10])
    elif how == 'emptied':
      shutil.rmtree(self.folder / '2' / 'arrays')
    else:
      (self.folder / '2' / 'meta' / 'metadata').write_text('{"step": 2')
    self.assertEqual(checkpointer.restore(*map(abstract, make_state())).step, 1)
    self.assertTrue((self.folder / '2.corrupt').exists())

  def test_second_corrupt_one_of_a_step_gets_another_name(self):
    for i in range(2):
      checkpointer = self.save(2)
      (self.folder / '2' / 'meta' / 'metadata').write_text('')
      self.assertIsNone(checkpointer.restore(*map(abstract, make_state())), i)
    names = {p.name for p in self.folder.iterdir()}
    self.assertEqual(names, {'2.corrupt', '2.corrupt-1'})

  def test_temporaries_of_a_dead_process_are_removed(self):
    self.save(1)
    (self.folder / '2.orbax-checkpoint-tmp').mkdir()
    (self.folder / '1.removed').mkdir()
    self.assertEqual(self.open().steps(), [1])
    self.assertEqual([p.name for p in self.folder.iterdir()], ['1'])

  def test_a_replacement_that_was_killed_leaves_the_former(self):
    # As a kill does between make_room and the end of the new save.
    self.save(1, 2)
    checkpoint_files.make_room(self.folder, 2)
    (self.folder / '2.orbax-checkpoint-tmp').mkdir()
    self.assertEqual(checkpoint_files.steps(self.folder), [1])
    self.assertEqual(self.open().restore(*map(abstract, make_state())).step, 2)
    # And between the end of the new one and drop_replaced.
    shutil.copytree(self.folder / '1', self.folder / '2.replaced')
    got = self.open().restore(*map(abstract, make_state()))
    chex.assert_trees_all_equal(got.state.params, make_state(2)[0].params)
    self.assertEqual({p.name for p in self.folder.iterdir()}, {'1', '2'})

  def test_a_failed_replacement_keeps_the_former(self):
    checkpointer = self.save(2, keep=1)
    with mock.patch.object(
      checkpointer._orbax, 'save', side_effect=OSError(errno.ENOSPC, 'No space left')
    ):
      with self.assertRaisesRegex(
        StorageError,
        r'checkpoints: checkpoint 2 could not be saved \(the disk is full\): mend that',
      ):
        checkpointer.save(2, *make_state(7), {})
    got = self.open().restore(*map(abstract, make_state()))
    chex.assert_trees_all_equal(got.state.params, make_state(2)[0].params)

  def test_best_is_no_nan(self):
    checkpointer = self.open(keep=1, best_metric='test/loss')
    for step, value in ((1, math.nan), (2, 0.5), (3, 0.1)):
      checkpointer.save(step, *make_state(step), {'test/loss': value})
    checkpointer.wait()
    self.assertEqual((checkpointer.steps(), checkpointer.best()), ([2, 3], 2))

  @parameterized.parameters(
    (
      PermissionError(errno.EACCES, 'Permission denied'),
      StorageError,
      'cannot be read',
    ),
    (
      ValueError('PERMISSION_DENIED: Error opening local file'),
      StorageError,
      'it is left as it is; mend that and give the same command',
    ),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 17179869184 bytes'),
      jax.errors.JaxRuntimeError,
      'RESOURCE_EXHAUSTED',
    ),
    (MemoryError('no'), MemoryError, 'no'),
  )
  def test_what_is_not_damage_sets_nothing_aside(self, error, kind, text):
    checkpointer = self.save(1, 2)
    handler = checkpointer._ocp.StandardCheckpointHandler
    with mock.patch.object(handler, 'restore', side_effect=error):
      with self.assertRaisesRegex(kind, text):
        checkpointer.restore(*map(abstract, make_state()))
    self.assertEqual(checkpointer.steps(), [1, 2])
    self.assertEqual(self.notes, [])

  def test_read_only_changes_nothing(self):
    self.save(1, 2)
    (self.folder / '3.orbax-checkpoint-tmp').mkdir()
    (self.folder / '2' / 'meta' / 'metadata').write_text('')
    got = self.open(read_only=True).restore(*map(abstract, make_state()))
    self.assertEqual(got.step, 1)
    self.assertRegex(self.notes[0], r'meta/metadata is no JSON.*left where it is')
    names = {p.name for p in self.folder.iterdir()}
    self.assertEqual(names, {'1', '2', '3.orbax-checkpoint-tmp'})

  def test_all_corrupt(self):
    checkpointer = self.save(1)
    (self.folder / '1' / 'meta' / 'metadata').unlink()
    self.assertIsNone(checkpointer.restore(*map(abstract, make_state())))
    self.assertEqual(
      self.notes,
      [
        'Checkpoint 1 is corrupt (meta/metadata is missing); set aside as 1.corrupt, '
        'there is none before it.'
      ],
    )

  def test_several_leaves_that_differ_are_named(self):
    checkpointer = self.save(1)
    state, window = make_state()
    other = state._replace(
      params={**state.params, 'w': jnp.zeros((2, 4)), 'v': jnp.zeros(3)},
      opt_state={},
      model_state={'u8': jnp.uint8(2)},
    )
    with self.assertRaisesRegex(
      ConfigError,
      r'model_state/mask is \[.bool., \[2\]\] there and missing here, '
      r'state/opt_state/count .* there and missing here, state/params/v is missing '
      r'there and .*, and 1 more; use the code',
    ):
      checkpointer.restore(abstract(other), abstract(window))

  def test_another_program_is_refused_not_set_aside(self):
    checkpointer = self.save(1)
    state, window = make_state()
    other = state._replace(params={**state.params, 'w': jnp.zeros((2, 4))})
    with self.assertRaisesRegex(ConfigError, r'params/w is .*2, 3.* there and .*2, 4'):
      checkpointer.restore(abstract(other), abstract(window))
    narrow = state._replace(
      params={**state.params, 'w': jnp.zeros((2, 3), jnp.bfloat16)}
    )
    with self.assertRaisesRegex(ConfigError, 'float32.* there and .*bfloat16'):
      checkpointer.restore(abstract(narrow), abstract(window))
    self.assertEqual(checkpointer.steps(), [1])

  def test_restored_state_can_be_donated(self):
    state, window = make_state()
    checkpointer = self.save(0)
    got = checkpointer.restore(abstract(state), abstract(window)).state
    moved = jax.jit(lambda s: s._replace(step=s.step + 1), donate_argnums=0)(got)
    self.assertEqual(int(moved.step), 1)
    self.assertTrue(got.params['w'].is_deleted())


class FingerprintTest(parameterized.TestCase):
  def test_any_bit_changes_it(self):
    state, _ = make_state()
    base = checksums.fingerprint(state)
    self.assertEqual(checksums.fingerprint(make_state()[0]), base)
    changed = [
      state._replace(params={**state.params, 'w': -state.params['w']}),
      state._replace(params={**state.params, 'w': state.params['w'].astype('float16')}),
      state._replace(params={**state.params, 'w': state.params['w'].reshape(3, 2)}),
      state._replace(params={**state.params, 'v': state.params['w']}),
      state._replace(rng=jax.random.key(8)),
      state._replace(rng=jax.random.key(7, impl='rbg')),
      state._replace(stop=jnp.array(True)),
    ]
    self.assertLen({base, *map(checksums.fingerprint, changed)}, len(changed) + 1)

  def test_zero_and_minus_zero_differ(self):
    prints = {checksums.fingerprint({'x': jnp.array(x)}) for x in (0.0, -0.0)}
    self.assertLen(prints, 2)

  @parameterized.parameters('float32', 'bfloat16', 'float16', 'int32', 'uint8', 'bool')
  def test_checksum_sees_every_single_bit_and_every_swap(self, dtype):
    host = np.asarray(jnp.arange(12).reshape(3, 4).astype(dtype))
    check = jax.jit(checksums.checksum)
    text = lambda x: tuple(np.asarray(check(x)).tolist())
    raw = host.view(np.uint8)
    seen = {text(host)}
    bits = 1 if dtype == 'bool' else 8
    for at in range(raw.size):
      for bit in range(bits):
        one = raw.copy().reshape(-1)
        one[at] ^= 1 << bit
        seen.add(text(one.view(host.dtype).reshape(3, 4)))
    self.assertLen(seen, 1 + raw.size * bits)
    swapped = host.copy().reshape(-1)
    swapped[[0, 1]] = swapped[[1, 0]]
    self.assertNotEqual(text(host), text(swapped.reshape(3, 4)))


if __name__ == '__main__':
  absltest.main()

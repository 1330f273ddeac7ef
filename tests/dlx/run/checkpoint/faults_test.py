"""What a disk may do to a checkpoint: bits, lengths, files, the disk itself.

Every fault is found or harmless: either the bits restored are those that were saved, or
the checkpoint is set aside with a message and the one before is restored.
"""

import contextlib
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dlx.run.checkpoint import files
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.checkpoint.checksums import fingerprint
from tests.dlx.run.checkpoint import checkpointer_test
from tests.dlx.run.checkpoint.checkpointer_test import abstract


def make_state(step=0):
  """Every kind of leaf, and two that are long enough for payload files of their own."""
  state, window = checkpointer_test.make_state(float(step))
  noise = np.random.default_rng(step).normal(size=(2, 1500)).astype(np.float32)
  return state._replace(ema={'noise': jnp.array(noise[0])}), {
    **window,
    'rough': jnp.array(noise[1]),
  }


class OnDisk(parameterized.TestCase):
  """Checkpoints of steps 1 and 2, and an untouched copy of the second."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.folder = self.root / 'checkpoints'
    self.notes = []
    self.checkpointer = Checkpointer(epath.Path(self.folder), note=self.notes.append)
    self.addCleanup(self.checkpointer.close)
    self.prints = {}
    for step in (1, 2):
      self.checkpointer.save(step, *make_state(step), {'test/loss': 0.5})
      self.checkpointer.wait()
      self.prints[step] = fingerprint(make_state(step))
    self.target = [abstract(tree) for tree in make_state()]
    shutil.copytree(self.folder / '2', self.root / 'pristine')
    self.names = sorted(
      str(p.relative_to(self.folder / '2'))
      for p in (self.folder / '2').rglob('*')
      if p.is_file()
    )

  def outcome(self, told):
    """'harmless' or 'found', and fails on anything else; mends step 2 afterwards."""
    self.notes.clear()
    got = self.checkpointer.restore(*self.target)
    self.assertIsNotNone(got, told)
    self.assertEqual(fingerprint((got.state, got.window)), self.prints[got.step], told)
    aside, self.last = self.folder / '2.corrupt', list(self.notes)
    if got.step == 2:
      self.assertEqual(self.notes, [], told)
      self.assertEqual(got.metrics, {'test/loss': 0.5}, told)
    else:
      self.assertLen(self.notes, 1, told)
      self.assertRegex(self.notes[0], r'^Checkpoint 2 is corrupt \(.+\); set aside')
      self.assertNotIn('\n', self.notes[0])
      shutil.rmtree(aside)
    shutil.rmtree(self.folder / '2', ignore_errors=True)
    shutil.copytree(self.root / 'pristine', self.folder / '2')
    return 'harmless' if got.step == 2 else 'found'

  def count(self, outcomes):
    """How often each outcome was, printed for -s."""
    total = {kind: outcomes.count(kind) for kind in ('found', 'harmless')}
    print(self.id(), total)
    return total


class FaultsTest(OnDisk):
  def test_undamaged_is_harmless(self):
    self.assertEqual(self.outcome('nothing done'), 'harmless')

  # 3 x 80: the full count is always run.
  def test_flipped_bits(self):
    self.flip_bits(seed=0, count=len(self.names))

  @parameterized.parameters(0, 1, 2)
  @pytest.mark.slow  # Below: a mark on the parameters themselves is lost.
  def test_many_flipped_bits(self, seed):
    self.flip_bits(seed, count=80)

  def flip_bits(self, seed, count):
    rng = np.random.default_rng(seed)
    # Every file in turn, so that small ones are hit as often as the payload.
    order = [self.names[i % len(self.names)] for i in range(count)]
    outcomes = {name: [] for name in self.names}
    for name in order:
      path = self.folder / '2' / name
      data = bytearray(path.read_bytes())
      at, bit = int(rng.integers(len(data))), int(rng.integers(8))
      data[at] ^= 1 << bit
      path.write_bytes(data)
      outcomes[name].append(self.outcome(f'{name}: bit {bit} of byte {at}'))
    total = self.count(sum(outcomes.values(), []))
    self.assertEqual(sum(total.values()), count)
    # The metadata has no bit that does not count.
    self.assertEqual(set(outcomes['meta/metadata']), {'found'})

  def test_flipped_bits_of_the_payload_are_found_by_the_checksums(self):
    # Orbax gives these back without a word.
    name = max(self.names, key=lambda n: (self.folder / '2' / n).stat().st_size)
    self.assertIn('/d/', name)
    rng, told = np.random.default_rng(4), []
    for _ in range(16):
      path = self.folder / '2' / name
      data = bytearray(path.read_bytes())
      at = int(rng.integers(len(data)))
      data[at] ^= 1 << int(rng.integers(8))
      path.write_bytes(data)
      self.outcome(f'{name}: byte {at}')  # A few bits pad what is compressed.
      told += self.last
    self.assertGreater(sum('has checksum' in note for note in told), 3)

  def test_truncated(self):
    self.truncate(lambda i, sizes: sizes[i % 3 : i % 3 + 1])

  @pytest.mark.slow
  def test_truncated_anywhere(self):
    self.truncate(lambda i, sizes: sizes)

  def truncate(self, some_of):
    rng = np.random.default_rng(3)
    outcomes = []
    for i, name in enumerate(self.names):
      data = (self.folder / '2' / name).read_bytes()
      for size in some_of(i, (0, int(rng.integers(len(data))), len(data) - 1)):
        (self.folder / '2' / name).write_bytes(data[:size])
        outcomes.append(self.outcome(f'{name}: {size} of {len(data)} bytes'))
    self.assertGreater(self.count(outcomes)['found'], len(outcomes) / 9)

  def test_deleted_files(self):
    outcomes = {}
    for name in self.names:
      (self.folder / '2' / name).unlink()
      outcomes[name] = self.outcome(f'{name} is gone')
    self.count(list(outcomes.values()))
    self.assertEqual(outcomes['meta/metadata'], 'found')
    self.assertEqual(outcomes['arrays/manifest.ocdbt'], 'found')

  def test_deleted_folders(self):
    for name in ('meta', 'arrays', 'arrays/d', 'arrays/ocdbt.process_0'):
      shutil.rmtree(self.folder / '2' / name)
      self.outcome(f'{name}/ is gone')


class StoreTest(OnDisk):
  """A store that cannot rename: what is moved is copied and deleted."""

  def setUp(self):
    super().setUp()
    refuses = mock.patch.object(
      type(epath.Path(self.folder)), 'rename', side_effect=NotImplementedError
    )
    self.enter_context(refuses)
    self.enter_context(mock.patch.object(files, 'is_remote', lambda path: True))
    # As in such stores, a file says that a checkpoint is finished.
    said = lambda path: (path / '_CHECKPOINT_METADATA').exists()
    self.enter_context(mock.patch.object(ocp.utils, 'is_checkpoint_finalized', said))

  def all_files(self):
    return {
      str(p.relative_to(self.folder)): p.read_bytes()
      for p in self.folder.rglob('*')
      if p.is_file()
    }

  def test_set_aside_whole(self):
    before = self.all_files()
    aside = files.set_aside(epath.Path(self.folder), 2)
    self.assertEqual(aside.name, '2.corrupt')
    moved = {name.replace('2/', '2.corrupt/', 1): x for name, x in before.items()
             if name.startswith('2/')}  # fmt: skip
    kept = {name: x for name, x in before.items() if name.startswith('1/')}
    self.assertEqual(self.all_files(), {**kept, **moved})

  def test_removed(self):
    files.remove(epath.Path(self.folder), 1)
    self.assertEqual({p.name for p in self.folder.iterdir()}, {'2'})

  def test_killed_while_it_is_moved(self):
    kind = type(epath.Path(self.folder))
    left, write, unlink = [0], kind.write_bytes, kind.unlink

    def count():
      left[0] -= 1
      if left[0] < 0:
        raise KeyboardInterrupt

    def counted_write(path, data):
      count()
      return write(path, data)

    def counted_unlink(path):
      count()
      return unlink(path)

    def piece_by_piece(path):
      for inner in sorted(path.iterdir(), key=lambda p: not p.is_dir()):
        piece_by_piece(inner) if inner.is_dir() else counted_unlink(inner)
      pathlib.Path(path).rmdir()

    counted = dict(
      write_bytes=counted_write, unlink=counted_unlink, rmtree=piece_by_piece
    )
    for most in range(40):
      left[0], finished = most, False
      with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(kind, **counted))
        with contextlib.suppress(KeyboardInterrupt):
          files.make_room(epath.Path(self.folder), 2)
          finished = True
      files.clean(epath.Path(self.folder))
      self.assertEqual(files.steps(self.folder), [1, 2], f'killed after {most}')
      self.assertEqual(self.outcome(f'killed after {most}'), 'harmless')
      if finished:
        break
    self.assertTrue(finished)
    # As many files are written as deleted.
    self.assertEqual(most, 2 * len(self.names))


if __name__ == '__main__':
  absltest.main()

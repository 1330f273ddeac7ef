"""What a program calls is read from it, kept with the run; what changes is told."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest
import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from dlx.run import calls
from dlx.run.loop import fit
from dlx.run.records import agreement
from tests.dlx.run import kinds

X = jax.ShapeDtypeStruct((8, 128), jnp.float32)


def foreign(x):
  """A call of a library that need not be there, as nothing is compiled."""
  return jax.ffi.ffi_call('dlx_test_call', X)(x)


class CallsTest(absltest.TestCase):
  def test_calls_are_counted_where_they_stand(self):
    twice = lambda x: foreign(foreign(x) + 1)
    self.assertEqual(calls.of(jax.jit(twice).lower(X)), {'dlx_test_call': 2})
    loop = lambda x: jax.lax.fori_loop(0, 5, lambda _, y: foreign(y), x)
    self.assertEqual(calls.of(jax.jit(loop).lower(X)), {'dlx_test_call': 1})
    self.assertEqual(calls.of(jax.jit(jnp.sin).lower(X)), {})

  def test_only_those_of_the_platform(self):
    either = lambda x: jax.lax.platform_dependent(x, cuda=foreign, default=jnp.sin)
    self.assertEqual(calls.of(jax.jit(either).lower(X)), {})

  def test_kernels_have_the_name_of_their_function(self):
    def double_kernel(x_ref, o_ref):
      o_ref[...] = 2 * x_ref[...]

    run = lambda x: pl.pallas_call(double_kernel, out_shape=X)(x)
    lowered = jax.jit(run).trace(X).lower(lowering_platforms=('tpu',))
    self.assertEqual(calls.of(lowered), {'tpu_custom_call:double_kernel': 1})


class RecordTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def fit(self, **options):
    config = kinds.Small(num_steps=4)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
      fit(kinds.classifier(config), config, self.workdir, **options)
    return told.getvalue()

  def record(self, **fields):
    """What config.json holds; with fields: after these are put there."""
    path = self.workdir / 'config.json'
    found = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(found))
    return found

  def test_what_was_called_is_kept_and_another_is_told(self):
    self.fit(stop_at=2)
    self.assertEqual(self.record()['calls'], {'0': {}})  # XLA does it all.
    self.record(calls={'0': {'dlx_onednn_conv': 6}})
    said = 'calls of dlx_onednn_conv in the program were 6, are 0. Bits may differ.'
    told = self.fit()
    self.assertIn(f'Other than at the start: {said}', told)
    self.assertEqual(self.record()['calls'], {'0': {'dlx_onednn_conv': 6}})

  def test_the_same_is_not_told(self):
    self.fit(stop_at=2)
    self.assertNotIn('Other than', self.fit())

  def test_a_run_of_before_this_was_recorded(self):
    self.fit(stop_at=2)
    record = self.record()
    del record['calls'], record['processor']
    (self.workdir / 'config.json').write_text(json.dumps(record))
    self.assertNotIn('Other than', self.fit())
    self.assertNotIn('calls', self.record())

  def test_another_processor_is_told(self):
    self.fit(stop_at=2)
    processor = self.record()['processor']
    self.assertEqual(set(processor), {'vendor', 'model', 'instruction_sets'})
    self.record(processor=processor | {'instruction_sets': 'avx'})
    here = processor['instruction_sets']
    told = self.fit()
    self.assertIn(f'processor instruction_sets was avx, is {here}', told)


class AgreementTest(absltest.TestCase):
  def test_calls(self):
    former = {'a': 2, 'b': 1}
    self.assertEqual(agreement.calls(former, former), [])
    self.assertEqual(
      agreement.calls(former, {'b': 1, 'c': 3}),
      [
        'calls of a in the program were 2, are 0',
        'calls of c in the program were 0, are 3',
      ],
    )

  def test_the_processor_counts_on_a_cpu_alone(self):
    then = {'processor': {'vendor': 'intel'}}
    now = {'threads': 2, 'xla_flags': '', 'versions': {}, 'jax': {}}
    now |= {'processor': {'vendor': 'amd'}}
    told = lambda platform: [
      text
      for text in agreement.environment(then, now | {'device': {'platform': platform}})
      if 'processor' in text
    ]
    self.assertEqual(told('cpu'), ['processor vendor was intel, is amd'])
    self.assertEqual(told('cuda'), [])


if __name__ == '__main__':
  absltest.main()

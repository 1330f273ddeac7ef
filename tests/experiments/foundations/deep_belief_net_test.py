"""The deep belief net: contrastive divergence by hand, its phases, what is learnt."""

from absl.testing import absltest
import jax
import numpy as np

from experiments.foundations import deep_belief_net as dbn

EACH, END = 250, 700  # Steps of a machine, and of the run.


def sigmoid(z):
  return 1 / (1 + np.exp(-z))


class DeepBeliefNetTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    rbm = dbn.Machines(num_steps=EACH, weight_decay=0.0)
    config = dbn.Config(features=(48, 24), rbm=rbm, num_steps=END, dropout=0.0)
    cls.built = built = dbn.build(config)
    cls.arrays = arrays = built.train_data.load().data

    @jax.jit
    def advance(state, n):
      one = lambda _, s: built.train_step(s, built.train_data.get(arrays, s.step))[0]
      return jax.lax.fori_loop(0, n, one, state)

    cls.states = {0: built.init(jax.random.key(0))}
    for step in (1, EACH - 1, EACH, EACH + 1, 2 * EACH - 1, 2 * EACH, 2 * EACH + 1,
                 END - 1, END):  # fmt: skip
      last = max(cls.states)
      cls.states[step] = advance(cls.states[last], step - last)

  def changed(self, step):
    """Parts of the parameters that step `step` changes."""
    before, after = self.states[step].params, self.states[step + 1].params
    same = lambda a, b: bool((np.asarray(a) == np.asarray(b)).all())
    return [
      name
      for name in before
      if not all(jax.tree.leaves(jax.tree.map(same, before[name], after[name])))
    ]

  def test_one_part_learns_at_a_time_and_the_machines_stay(self):
    for step, name in (
      (0, 'rbm_0'),
      (EACH - 1, 'rbm_0'),
      (EACH, 'rbm_1'),
      (2 * EACH - 1, 'rbm_1'),
      (2 * EACH, 'net'),
      (END - 1, 'net'),
    ):
      self.assertEqual(self.changed(step), [name], step)
    phases = ('rbm_0', 0), ('rbm_1', EACH), ('labels', 2 * EACH)
    self.assertEqual(self.built.phases, phases)

  def test_first_step_is_contrastive_divergence_by_hand(self):
    state, after = self.states[0], self.states[1]
    batch = self.built.train_data.get(self.arrays, 0)
    v = np.asarray(batch['image'], np.float64).reshape(100, -1) / 16
    kernel = np.asarray(state.params['rbm_0']['kernel'], np.float64)
    h = sigmoid(v @ kernel)
    key = jax.random.fold_in(state.rng, 0)
    drawn = np.asarray(jax.random.bernoulli(key, h.astype(np.float32)))
    made = sigmoid(drawn @ kernel.T)
    then = sigmoid(made @ kernel)
    for name, slope in (
      ('kernel', v.T @ h - made.T @ then),
      ('visible', (v - made).sum(0)),
      ('hidden', (h - then).sum(0)),
    ):
      moved = after.params['rbm_0'][name] - state.params['rbm_0'][name]
      np.testing.assert_allclose(moved, 0.1 * slope / 100, atol=1e-6)

  def test_the_net_begins_with_the_weights_of_the_machines(self):
    params = self.states[
      2 * EACH + 1
    ].params  # One step of Adam moves by the rate at most.
    for k in (0, 1):
      layer, machine = params['net'][f'hidden_{k}'], params[f'rbm_{k}']
      far = abs(np.asarray(layer['kernel'] - machine['kernel'])).max()
      self.assertLess(far, 1.01e-3)
      far = abs(np.asarray(layer['bias'] - machine['hidden'])).max()
      self.assertLess(far, 1.01e-3)
    before = self.states[2 * EACH].params['net']['hidden_0']['kernel']
    self.assertGreater(abs(np.asarray(before - params['rbm_0']['kernel'])).max(), 0.01)

  def test_reconstruction_errors_fall_and_labels_are_learnt(self):
    test = self.built.evals['test']
    batch = test.data.get(test.data.load().data, 0)
    score = jax.jit(lambda state: test.summarize(test.step(state, batch)))
    start, first, second, end = (
      score(self.states[step]) for step in (0, EACH, 2 * EACH, END)
    )
    self.assertLess(first['reconstruction_0'], 0.7 * start['reconstruction_0'])
    self.assertLess(second['reconstruction_1'], 0.7 * first['reconstruction_1'])
    for k in (0, 1):
      name = f'reconstruction_{k}'
      self.assertEqual(float(end[name]), float(second[name]))
    self.assertLess(second['accuracy'], 0.3)
    self.assertGreater(end['accuracy'], 0.6)


if __name__ == '__main__':
  absltest.main()

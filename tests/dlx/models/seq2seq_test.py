"""Recurrent encoder-decoders: a loop in NumPy, PyTorch, padding, caches, counts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers.recurrent.cells import CELLS
from dlx.models.seq2seq import ATTENTIONS, Seq2Seq, flops_per_pair, take
from dlx.sampling import beam_search, generate

SIZE = 11
SOURCE = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
INPUT = np.array([[0, 7, 8, 2], [0, 3, 5, 9]])
PAIR = {'source': SOURCE, 'input': INPUT}
TOLERANCE = 1e-6  # Sums of up to 24 products of size 1.
FORMS = {
  'none': {},
  'bahdanau': {'bidirectional': True, 'num_layers': 2},
  'dot': {'num_layers': 2},
  'general': {'bidirectional': True},
  'dot, fed': {'input_feeding': True, 'bidirectional': True},
  'general, fed': {'input_feeding': True, 'num_layers': 2},
}


@functools.cache
def made(form, cell='lstm', **fields):
  fields = {'embedding': 5, 'features': 8, **FORMS[form], **fields}
  attention = form.partition(',')[0]
  model = Seq2Seq(SIZE, cell=CELLS[cell], attention=attention, **fields)
  init = jax.jit(lambda k: model.init(k, PAIR, train=False))
  # Larger weights than the initial ones, of which no bias is 0.
  rng = np.random.default_rng(0)
  move = lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype)
  return model, jax.tree.map(move, init(jax.random.key(0)))


@functools.cache
def logits_of(form):
  model, variables = made(form)
  return jax.jit(lambda pair: model.apply(variables, pair, train=False))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def lstm(w, x, state):
  h, c = state
  z = x @ w['input_kernel'] + w['input_bias'] + h @ w['hidden_kernel']
  i, f, g, o = np.split(z + w['hidden_bias'], 4)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return sigmoid(o) * np.tanh(c), c


def by_hand(form, params, source, given):
  """Logits [T, V] and weights [T, S] of one pair, token by token, float64."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  model, _ = made(form)
  source = source[source != 0]
  memory, states = p['source_embedding']['embedding'][source], []
  for layer in range(model.num_layers):
    outputs, last = [], []
    for side in ('forward', 'backward')[: 1 + model.bidirectional]:
      w = p['encoder'][f'{side}_{layer}']
      state = (np.zeros(len(w['hidden_kernel'])),) * 2
      order = list(range(len(source)))[:: 1 if side == 'forward' else -1]
      h_S = [None] * len(order)
      for s in order:
        state = lstm(w, memory[s], state)
        h_S[s] = state[0]
      outputs.append(np.stack(h_S))
      last.append(state)
    memory = np.concatenate(outputs, -1)
    states.append(tuple(np.concatenate(x) for x in zip(*last)))
  kind, _, fed = form.partition(', ')

  def look(s):
    if kind == 'bahdanau':
      keys = memory @ p['key_kernel'] + s @ p['query_kernel']
      scores = np.tanh(keys) @ p['score_kernel'][:, 0]
    elif kind == 'general':
      scores = memory @ p['key_kernel'] @ s
    else:
      scores = memory @ s
    return softmax(scores) @ memory, softmax(scores)

  read = lambda *x: np.tanh(np.concatenate(x) @ p['read_kernel'] + p['read_bias'])
  logits, weights, vector = [], [], np.zeros(model.features)
  for token in given:
    y = x = p['target_embedding']['embedding'][token]
    context = weight = None
    if kind == 'bahdanau':
      context, weight = look(states[-1][0])
      x = np.concatenate([y, context])
    elif fed:
      x = np.concatenate([y, vector])
    for i in range(model.num_layers):
      states[i] = lstm(p[f'decoder_{i}'], x, states[i])
      x = states[i][0]
    if kind == 'none':
      out = x
    elif kind == 'bahdanau':
      out = read(context, x, y)
    else:
      context, weight = look(x)
      out = vector = read(context, x)
    logits.append(out @ p['head']['kernel'] + p['head']['bias'])
    weights.append(weight)
  return np.stack(logits), None if kind == 'none' else np.stack(weights)


@pytest.mark.parametrize('form', FORMS)
def test_equals_the_loop_and_padding_changes_nothing(form):
  model, variables = made(form)
  found = logits_of(form)(PAIR)
  maps = None
  if form != 'none':
    maps = model.apply(variables, PAIR, method='cross_attention')[0, :, 0]
    np.testing.assert_array_equal(maps[1, :, 3:], 0)
  for b in range(2):
    logits, weights = by_hand(form, variables['params'], SOURCE[b], INPUT[b])
    np.testing.assert_allclose(found[b], logits, atol=5 * TOLERANCE)
    if maps is not None:
      own = maps[b, :, : weights.shape[1]]
      np.testing.assert_allclose(own, weights, atol=TOLERANCE)
  alone = {'source': SOURCE[1:, :3], 'input': INPUT[1:]}
  alone = model.apply(variables, alone, train=False)
  np.testing.assert_allclose(found[1], alone[0], atol=TOLERANCE)


@pytest.mark.parametrize('form', ['none', 'bahdanau', 'general', 'general, fed'])
def test_token_by_token_equals_teacher_forcing(form):
  model, variables = made(form)
  apply = functools.partial(model.apply, variables)
  extend = jax.jit(lambda token, state: apply(token, state, method='extend'))
  state = apply(SOURCE, 4, method='start')
  shapes = jax.tree.map(jnp.shape, state)
  parts = []
  for piece in np.split(INPUT, [2, 3], 1):
    logits, state = extend(piece, state)
    parts.append(logits)
  assert jax.tree.map(jnp.shape, state) == shapes
  both = np.concatenate(parts, 1)
  np.testing.assert_allclose(both, logits_of(form)(PAIR), atol=5 * TOLERANCE)


# Of the form without feeding PyTorch's gradients are looked at below.
@pytest.mark.parametrize('form', ['bahdanau', 'general, fed'])
def test_gradients_are_those_of_differences(form):
  model, variables = made(form)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    model = model.clone(dtype=jnp.float64, param_dtype=jnp.float64)
    loss = jax.jit(lambda v: jnp.sin(model.apply(v, PAIR, train=False)).sum())
    slopes = jax.jit(jax.grad(loss))(wide)
    rng = np.random.default_rng(1)
    way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), wide)
    at = lambda t: float(loss(jax.tree.map(lambda x, d: x + t * d, wide, way)))
    wanted = (at(1e-5) - at(-1e-5)) / 2e-5
    both = jax.tree.map(lambda g, d: (g * d).sum(), slopes, way)
    terms = np.array(jax.tree.leaves(both))
    np.testing.assert_allclose(terms.sum(), wanted, atol=1e-6 * np.abs(terms).sum())
    # Of the tables only the rows of tokens that occur, padding is none.
    table = slopes['params']['source_embedding']['embedding']
    occurs = np.isin(np.arange(SIZE), SOURCE[SOURCE != 0])
    np.testing.assert_array_equal(np.abs(table).max(1) > 0, occurs)


def test_later_tokens_change_no_logits_before_them():
  for form in ('bahdanau', 'general', 'general, fed'):
    other = {**PAIR, 'input': np.where(np.arange(4) == 2, 6, INPUT)}
    a, b = logits_of(form)(PAIR), logits_of(form)(other)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert np.abs(a[:, 2:] - b[:, 2:]).max((0, 2)).min() > 1e-4


@pytest.mark.parametrize('form', ['bahdanau', 'general, fed'])
def test_a_beam_of_one_is_greedy_and_beams_score_their_tokens(form):
  model, variables = made(form)
  apply = functools.partial(model.apply, variables)
  step = lambda token, state: apply(token, state, method='extend')
  begin, steps, end = jnp.zeros((2, 1), jnp.int32), 5, 10

  @jax.jit
  def run(source):
    start = apply(source, steps, method='start')
    greedy = generate(
      step, start, begin, steps, jax.random.key(0), context=9, temperature=0
    )
    search = lambda k: beam_search(
      step, take, start, begin, steps, beams=k, end=end, length_penalty=0.0
    )
    return greedy, search(1), search(3)

  greedy, one, three = run(SOURCE)
  cut = lambda row: [*itertools.takewhile(lambda x: x != end, np.asarray(row))]
  for row, wanted in zip(one.tokens_BKT[:, 0], greedy):
    assert cut(row) == cut(wanted)
  for b in range(2):
    best = three.tokens_BKT[b, 0]
    given = np.concatenate([[0], best[:-1]])[None]
    log = jax.nn.log_softmax(
      logits_of(form)({'source': SOURCE[b:][:1], 'input': given})
    )
    length = min(len(cut(best)) + 1, steps)
    wanted = log[0, np.arange(length), best[:length]].sum()
    np.testing.assert_allclose(three.scores_BK[b, 0], wanted, rtol=1e-5)


def test_tokens_out_of_range_are_nan_and_an_empty_source_is_not():
  for form in ('bahdanau', 'dot'):
    odd = np.array([[SIZE, 1, 4, 1, 5], [0, 0, 0, 0, 0]])
    found = logits_of(form)({**PAIR, 'source': odd})
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
  model, variables = made('dot')
  pair = {'source': np.zeros((1, 3), int), 'input': INPUT[:1]}
  assert not model.apply(variables, pair, method='cross_attention').any()


def test_dropout_in_training_alone():
  for form in ('general', 'general, fed'):
    model, variables = made(form)
    model = model.clone(dropout=0.5)
    apply = jax.jit(
      lambda train, seed, model=model, variables=variables: model.apply(
        variables, PAIR, train=train, rngs={'dropout': jax.random.key(seed)}
      ),
      static_argnums=0,
    )
    np.testing.assert_allclose(apply(False, 0), logits_of(form)(PAIR), atol=TOLERANCE)
    assert (apply(True, 0) != apply(True, 1)).mean() > 0.9


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('form', FORMS)
def test_parameters_and_operations(form):
  model, variables = made(form, embedding=6, features=10)
  p = variables['params']
  e, h, sides = 6, 10, 1 + model.bidirectional
  each = h // sides
  of_cell = lambda inputs, own: 4 * own * (inputs + own + 2)
  layers = model.num_layers
  fed = h if 'fed' in form or form == 'bahdanau' else 0
  wanted = sides * (of_cell(e, each) + (layers - 1) * of_cell(h, each))
  assert count(p['encoder']) == wanted
  decoder = of_cell(e + fed, h) + (layers - 1) * of_cell(h, h)
  assert count([p[f'decoder_{i}'] for i in range(layers)]) == decoder
  attention = {'none': 0, 'bahdanau': 2 * h * h + h, 'dot': 0, 'general': h * h}
  kind = form.partition(',')[0]
  read = 0 if kind == 'none' else (2 * h + (e if kind == 'bahdanau' else 0)) * h + h
  tables, head = 2 * SIZE * e, (h + 1) * SIZE
  assert count(p) == wanted + decoder + attention[kind] + read + tables + head
  # Of the products: all kernels, by the tokens that they meet, and the attention's.
  kernels = lambda *names: sum(
    x.size
    for path, x in jax.tree_util.tree_leaves_with_path(p)
    if any(n in jax.tree_util.keystr(path) for n in names)
    and 'kernel' in jax.tree_util.keystr(path)
  )
  of_source = kernels('encoder', 'key_kernel')
  of_target = kernels('decoder', 'query_kernel', 'read_kernel', 'head')
  looks = 0 if kind == 'none' else 2 * h
  wanted = 6 * (5 * of_source + 4 * of_target + 5 * 4 * looks)
  assert flops_per_pair(model, 5, 4) == wanted


def test_narrow_arithmetic_gives_wide_logits():
  for form in ('bahdanau', 'general'):
    model, _ = made(form)
    model = model.clone(dtype='bfloat16')
    found, variables = jax.eval_shape(
      lambda m=model: m.init_with_output(jax.random.key(0), PAIR, train=False)
    )
    assert found.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype('float32')}


def test_another_cell():
  model, variables = made('general, fed', 'gru')
  found = model.apply(variables, PAIR, train=False)
  assert found.shape == (2, 4, SIZE) and np.isfinite(found).all()


@pytest.mark.parametrize('form', ['dot', 'general, fed'])
def test_parameters_of_a_cell_of_its_own_count(form):
  model, variables = made(form, 'peephole')

  def logits(params):
    return model.apply({'params': params}, PAIR, train=False)

  slopes = jax.jit(jax.grad(lambda params: jnp.sin(logits(params)).sum()))
  found = slopes(variables['params'])
  for name in ('decoder_0', 'decoder_1'):
    for own in CELLS['peephole'].own:
      assert (np.abs(found[name][own]) > 1e-6).all(), (name, own)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'attention': 'luong'}, 'attention=luong is not allowed: must be one of none, b'),
    ({'features': 9, 'bidirectional': True}, 'features=9 is not allowed: must be even'),
    ({'attention': 'none', 'input_feeding': True}, 'input_feeding=True is not allowed'),
    ({'attention': 'bahdanau', 'input_feeding': True}, 'must be dot or general'),
  ],
)
def test_refused(fields, message):
  fields = {'features': 8, **fields}
  model = Seq2Seq(SIZE, 5, cell=CELLS['gru'], **fields)
  with pytest.raises(ConfigError, match=message):
    jax.eval_shape(lambda: model.init(jax.random.key(0), PAIR, train=False))


def test_no_map_without_attention():
  model, variables = made('none')
  assert ATTENTIONS[0] == 'none'
  with pytest.raises(ConfigError, match='attention=none gives no weights'):
    model.apply(variables, PAIR, method='cross_attention')


def test_equals_torch():
  torch = pytest.importorskip('torch')
  F = torch.nn.functional
  model, variables = made('general')
  p = jax.tree.map(lambda x: torch.tensor(np.asarray(x)), variables['params'])
  leaves = [x.requires_grad_() for x in jax.tree.leaves(p)]

  def lstm(weights, inputs, features):
    """Outputs and last states by torch's own LSTM, with one set of weights a side."""
    net = torch.nn.LSTM(
      inputs, features, batch_first=True, bidirectional=len(weights) > 1
    )
    own = {}
    for side, w in zip(('', '_reverse'), weights):
      own |= {
        f'weight_ih_l0{side}': w['input_kernel'].T,
        f'weight_hh_l0{side}': w['hidden_kernel'].T,
        f'bias_ih_l0{side}': w['input_bias'],
        f'bias_hh_l0{side}': w['hidden_bias'],
      }
    return lambda *args: torch.func.functional_call(net, own, args)

  source, given = torch.tensor(SOURCE), torch.tensor(INPUT)
  lengths = (source != 0).sum(1)
  encoder = lstm([p['encoder']['forward_0'], p['encoder']['backward_0']], 5, 4)
  packed = torch.nn.utils.rnn.pack_padded_sequence(
    F.embedding(source, p['source_embedding']['embedding']), lengths, batch_first=True
  )
  memory, (h, c) = encoder(packed)
  memory, _ = torch.nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
  side_by_side = lambda x: torch.cat([x[0], x[1]], -1)[None].contiguous()
  decoder = lstm([p['decoder_0']], 5, 8)
  x = F.embedding(given, p['target_embedding']['embedding'])
  out, _ = decoder(x, (side_by_side(h), side_by_side(c)))
  scores = out @ (memory @ p['key_kernel']).transpose(1, 2)
  scores = scores.masked_fill((source == 0)[:, None], -torch.inf)
  context = scores.softmax(-1) @ memory
  both = torch.cat([context, out], -1)
  out = torch.tanh(both @ p['read_kernel'] + p['read_bias'])
  logits = out @ p['head']['kernel'] + p['head']['bias']
  np.testing.assert_allclose(
    logits_of('general')(PAIR), logits.detach(), atol=5 * TOLERANCE
  )
  torch.sin(logits).sum().backward()
  loss = lambda v: jnp.sin(model.apply(v, PAIR, train=False)).sum()
  slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(variables))
  for ours, theirs in zip(slopes, leaves, strict=True):
    np.testing.assert_allclose(ours, theirs.grad, atol=2e-5, rtol=1e-4)


if __name__ == '__main__':
  pytest.main([__file__])

"""Every loss that torch has, or that its parts give, over shapes and options."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses
from tests.dlx import sweeps
from tests.dlx.sweeps import Sweep, many

torch = pytest.importorskip(
  'torch', reason='torch is not installed: pip install .[reference]'
)
f = torch.nn.functional

ROWS = ((1, 2), (7, 3), (4, 19))
ANY = ((5,), (1, 1), (3, 4), (2, 3, 1, 5))


def normal(rng, *shape):
  return 2 * rng.normal(size=shape)


def of_logits(rng, *shape):
  return normal(rng, *shape), rng.integers(0, shape[1], shape[0])


def simplex(rng, *shape):
  return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def with_soft(rng, *shape):
  return normal(rng, *shape), simplex(rng, *shape)


def with_shares(rng, *shape):
  return normal(rng, *shape), rng.uniform(size=shape)


def with_answers(rng, *shape):
  return normal(rng, *shape), rng.integers(0, 2, shape)


def two(rng, *shape):
  return normal(rng, *shape), normal(rng, *shape)


def of_rows(values):
  """The mean over all axes but the first."""
  return values.flatten(1).mean(1) if values.ndim > 1 else values


def cross_entropy(x, target, smoothing=0.0, weighted=False, ignored=None):
  weight = np.linspace(0, 2, x.shape[1]) if weighted else None
  return losses.softmax_cross_entropy(
    x, target, smoothing, ignore=ignored,
    class_weight_K=None if weight is None else np.asarray(weight, x.dtype),
  )  # fmt: skip


def torch_cross_entropy(x, target, smoothing=0.0, weighted=False, ignored=None):
  weight = torch.linspace(0, 2, x.shape[1], dtype=x.dtype) if weighted else None
  return f.cross_entropy(
    x, target, weight, reduction='none', label_smoothing=smoothing,
    ignore_index=-100 if ignored is None else ignored,
  )  # fmt: skip


SMOOTHED = tuple(
  {'smoothing': s, 'weighted': w} for s in (0.0, 0.1, 0.9) for w in (False, True)
)


def torch_sigmoid(x, target, pos_weight=1.0):
  values = f.binary_cross_entropy_with_logits(
    x, target, pos_weight=torch.tensor(pos_weight, dtype=x.dtype), reduction='none'
  )
  return of_rows(values)


def torch_softmax_focal(x, label, gamma, weighted=False):
  log = f.log_softmax(x, 1).gather(1, label[:, None])[:, 0]
  loss = -((1 - log.exp()) ** gamma) * log
  if weighted:
    loss = loss * torch.linspace(0, 2, x.shape[1], dtype=x.dtype)[label]
  return loss


def torch_sigmoid_focal(x, target, gamma, alpha=None):
  """torchvision's `sigmoid_focal_loss`."""
  p, t = torch.sigmoid(x), target.to(x.dtype)
  loss = f.binary_cross_entropy_with_logits(x, t, reduction='none')
  loss = loss * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
  if alpha is not None:
    loss = loss * (alpha * t + (1 - alpha) * (1 - t))
  return of_rows(loss)


def torch_multiclass_hinge(x, label, margin=1.0):
  own = x.gather(1, label[:, None])[:, 0]
  others = x.masked_fill(f.one_hot(label, x.shape[1]).bool(), -math.inf)
  return f.relu(margin + others.amax(1) - own)


def torch_pairs(one, two_, same, margin=1.0):
  d = (one - two_).norm(dim=1)
  return torch.where(same == 1, d**2, f.relu(margin - d) ** 2) / 2


def torch_triplet(anchor, near, far, margin=1.0, squared=False):
  return f.triplet_margin_with_distance_loss(
    anchor, near, far, margin=margin, reduction='none',
    distance_function=lambda a, b: (a - b).norm(dim=1) ** (2 if squared else 1),
  )  # fmt: skip


def torch_kl(mean, log_var):
  normal_ = torch.distributions.Normal
  one = normal_(torch.zeros((), dtype=mean.dtype), torch.ones((), dtype=mean.dtype))
  of = torch.distributions.kl_divergence(normal_(mean, (log_var / 2).exp()), one)
  return of.sum(1)


def torch_distillation(student, teacher, label, temperature=4.0, alpha=1.0):
  soft = f.kl_div(
    f.log_softmax(student / temperature, 1),
    f.log_softmax(teacher.detach() / temperature, 1),
    log_target=True,
    reduction='none',
  ).sum(1)
  hard = f.cross_entropy(student, label, reduction='none')
  return alpha * temperature**2 * soft + (1 - alpha) * hard


def torch_info_nce(query, key, negative, temperature):
  own = (query * key).sum(1, keepdim=True)
  logits = torch.cat([own, query @ negative.T], 1) / temperature
  return f.cross_entropy(logits, torch.zeros(len(query)).long(), reduction='none')


def torch_in_batch(query, key, temperature):
  own = torch.arange(len(query))
  return f.cross_entropy(query @ key.T / temperature, own, reduction='none')


def torch_both_ways(one, two_, temperature):
  ways = torch_in_batch(one, two_, temperature), torch_in_batch(two_, one, temperature)
  return sum(ways) / 2


def torch_nt_xent(one, two_, temperature):
  z, n = torch.cat([one, two_]), len(one)
  logits = (z @ z.T / temperature).masked_fill(torch.eye(2 * n).bool(), -math.inf)
  return f.cross_entropy(logits, (torch.arange(2 * n) + n) % (2 * n), reduction='none')


def torch_discriminator(real, fake, kind, real_label=1.0):
  if kind == 'hinge':
    return f.relu(1 - real) + f.relu(1 + fake)
  if kind == 'least_squares':
    of = lambda x, t: f.mse_loss(x, torch.full_like(x, t), reduction='none') / 2
  else:
    of = lambda x, t: f.binary_cross_entropy_with_logits(
      x, torch.full_like(x, t), reduction='none'
    )
  return of(real, real_label) + of(fake, 0.0)


def torch_generator(fake, kind):
  log = f.logsigmoid
  return {
    'minimax': lambda x: log(-x),
    'non_saturating': lambda x: -log(x),
    'least_squares': lambda x: (x - 1) ** 2 / 2,
    'hinge': lambda x: -x,
  }[kind](fake)


def torch_ctc(logits, label, steps, lengths, blank=0):
  log = f.log_softmax(logits, 2).transpose(0, 1)
  return f.ctc_loss(log, label, steps, lengths, blank=blank, reduction='none')


def of_ctc(rng, *shape):
  """T steps, K classes, at most N labels, of which none is the blank, 0 or K - 1."""
  b, t, k, n = shape
  lengths = rng.integers(0, n + 1, b)
  return normal(rng, b, t, k), rng.integers(1, k - 1, (b, n)), np.full(b, t), lengths


def torch_coral(source, target):
  apart = torch.atleast_2d(torch.cov(source.T)) - torch.atleast_2d(torch.cov(target.T))
  return (apart**2).sum() / (4 * source.shape[1] ** 2)


def torch_slope(critic, x):
  """Gradient by x, itself with a gradient by what the critic is made of."""
  x = x.detach().requires_grad_()
  return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0].flatten(1)


def torch_wasserstein(real, fake, kernel, mix):
  m = mix.detach().reshape(-1, 1)
  critic = lambda x: torch.tanh(x @ kernel).sum(1)
  slope = torch_slope(critic, m * real + (1 - m) * fake)
  return (slope.norm(dim=1) - 1) ** 2


def of_critic(rng, *shape):
  """Real and fake rows, a kernel, shares of the real ones."""
  b, d = shape
  return normal(rng, b, d), normal(rng, b, d), normal(rng, d, 3), rng.uniform(size=b)


def wasserstein(real, fake, kernel, mix):
  real, fake, mix = map(jax.lax.stop_gradient, (real, fake, mix))
  critic = lambda x: jnp.tanh(x @ kernel).sum(1)
  return losses.wasserstein_penalty(critic, real, fake, mix)


SWEEPS: dict[str, Sweep] = {
  'softmax_cross_entropy': Sweep(
    of_logits, cross_entropy, torch_cross_entropy, (*SMOOTHED, *many('ignored', 0, 1)),
    ROWS,
  ),
  'softmax_cross_entropy_soft': Sweep(
    with_soft, cross_entropy, torch_cross_entropy, SMOOTHED, ROWS
  ),
  'sigmoid_binary_cross_entropy': Sweep(
    with_shares, losses.sigmoid_binary_cross_entropy, torch_sigmoid,
    many('pos_weight', 1.0, 0.0, 0.25, 7.0), ANY,
  ),
  'binary_cross_entropy': Sweep(
    lambda rng, *shape: (rng.uniform(0.1, 0.9, shape), rng.uniform(size=shape)),
    losses.binary_cross_entropy,
    lambda p, t: of_rows(f.binary_cross_entropy(p, t, reduction='none')),
    shapes=ANY,
  ),
  'squared_error': Sweep(
    two, losses.squared_error,
    lambda p, t: of_rows(f.mse_loss(p, t, reduction='none')), shapes=ANY,
  ),
  'absolute_error': Sweep(
    two, losses.absolute_error,
    lambda p, t: of_rows(f.l1_loss(p, t, reduction='none')), shapes=ANY,
  ),
  'huber': Sweep(
    two, losses.huber,
    lambda p, t, delta: of_rows(f.huber_loss(p, t, 'none', delta)),
    many('delta', 0.1, 1.0, 3.0), ANY,
  ),
  'smooth_l1': Sweep(
    two, losses.smooth_l1,
    lambda p, t, beta: of_rows(f.smooth_l1_loss(p, t, reduction='none', beta=beta)),
    many('beta', 0.1, 1.0, 3.0), ANY,
  ),
  'softmax_focal': Sweep(
    of_logits,
    lambda x, label, gamma, weighted=False: losses.softmax_focal(
      x, label, gamma,
      np.linspace(0, 2, x.shape[1]).astype(x.dtype) if weighted else None,
    ),
    torch_softmax_focal,
    (*many('gamma', 0.0, 1.0, 2.0, 5.0), {'gamma': 2.0, 'weighted': True}), ROWS,
  ),
  'sigmoid_focal': Sweep(
    with_answers, losses.sigmoid_focal, torch_sigmoid_focal,
    tuple({'gamma': g, 'alpha': a} for g in (0.0, 1.0, 2.0, 5.0) for a in (None, 0.25)),
    ANY,
  ),
  'hinge': Sweep(
    with_answers, losses.hinge,
    lambda x, t, power: of_rows(f.relu(1 - (2 * t - 1) * x) ** power),
    many('power', 1, 2), ANY,
  ),
  'multiclass_hinge': Sweep(
    of_logits, losses.multiclass_hinge, torch_multiclass_hinge,
    many('margin', 0.25, 1.0, 4.0), ROWS,
  ),
  'pair_contrastive': Sweep(
    lambda rng, *shape: (*two(rng, *shape), rng.integers(0, 2, shape[0])),
    losses.pair_contrastive, torch_pairs, many('margin', 0.5, 2.0, 20.0),
  ),
  'triplet': Sweep(
    lambda rng, *shape: (*two(rng, *shape), normal(rng, *shape)),
    losses.triplet, torch_triplet,
    tuple({'margin': m, 'squared': s} for m in (0.2, 5.0) for s in (False, True)),
  ),
  'gaussian_kl': Sweep(two, losses.gaussian_kl, torch_kl),
  'distillation': Sweep(
    lambda rng, *shape: (*two(rng, *shape), rng.integers(0, shape[1], shape[0])),
    losses.distillation, torch_distillation,
    tuple({'temperature': t, 'alpha': a} for t in (0.5, 4.0) for a in (0.0, 0.3, 1.0)),
    ROWS,
  ),
  'info_nce': Sweep(
    lambda rng, *shape: (*two(rng, *shape), normal(rng, 5, shape[1])),
    lambda *args, temperature: losses.info_nce(*args, temperature).loss_B,
    torch_info_nce, many('temperature', 0.5, 3.0),
  ),
  'in_batch_info_nce': Sweep(
    two, lambda *args, temperature: losses.in_batch_info_nce(*args, temperature).loss_B,
    torch_in_batch, many('temperature', 0.5, 3.0),
  ),
  'symmetric_info_nce': Sweep(
    two,
    lambda *args, temperature: losses.symmetric_info_nce(*args, temperature).loss_B,
    torch_both_ways, many('temperature', 0.5, 3.0),
  ),
  'nt_xent': Sweep(
    two, lambda *args, temperature: losses.nt_xent(*args, temperature).loss_B,
    torch_nt_xent, many('temperature', 0.5, 3.0),
  ),
  'discriminator_loss': Sweep(
    two,
    lambda real, fake, kind, **label: losses.discriminator_loss(
      kind, real, fake, **label
    ),
    torch_discriminator,
    (
      *many('kind', *losses.KINDS),
      {'kind': 'non_saturating', 'real_label': 0.9},
      {'kind': 'least_squares', 'real_label': 0.7},
    ),
    ((1,), (11,)),
  ),
  'generator_loss': Sweep(
    lambda rng, *shape: (normal(rng, *shape),),
    lambda fake, kind: losses.generator_loss(kind, fake), torch_generator,
    many('kind', *losses.KINDS), ((1,), (11,)),
  ),
  'wasserstein_critic': Sweep(
    two, losses.wasserstein_critic, lambda real, fake: fake - real, shapes=((1,), (11,))
  ),
  'wasserstein_penalty': Sweep(
    of_critic, wasserstein, torch_wasserstein, shapes=((1, 4), (6, 5))
  ),
  'ctc': Sweep(
    of_ctc, losses.ctc, torch_ctc, tuple({'blank': b} for b in (0, 3)),
    ((1, 3, 4, 1), (5, 9, 4, 4)),
  ),
  'coral': Sweep(
    lambda rng, *shape: (normal(rng, *shape), normal(rng, 5, shape[1])),
    losses.coral, torch_coral, shapes=((2, 1), (6, 3), (9, 7)),
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', sorted(SWEEPS))
def test_values_and_gradients(name):
  sweeps.run(torch, SWEEPS[name])

r"""Two-dimensional convolution, forward and backward by hand, with the derivation.

Images x [N, H, W, C] are padded by zeros, and a kernel w [K, L, C, D] slides over them
in steps of a stride s. As in all of deep learning the kernel is not flipped: this is a
cross-correlation. With p the padded image, output pixel (i, j) of channel d is

  y[n, i, j, d] = b[d] + sum_klc p[n, i s + k, j s + l, c] w[k, l, c, d]          (1)

Seen from one place (k, l) of the kernel, (1) is a product of matrices: all pixels that
this place meets, P_kl[n, i, j, c] = p[n, i s + k, j s + l, c], are a slice of p with
steps of s, and y = b + sum_kl P_kl w[k, l]. So K L matrix products are a convolution.

Backward. Write dA for dL/dA of a loss L, of the shape of A. By the chain rule an array
collects dy through every output that it enters:

  b[d] enters y[n, i, j, d] at every n, i, j, with slope 1:

    db[d] = sum_nij dy[n, i, j, d]                                                (2)

  w[k, l, c, d] enters y[n, i, j, d] with slope P_kl[n, i, j, c]:

    dw[k, l, c, d] = sum_nij P_kl[n, i, j, c] dy[n, i, j, d] = (P_kl^T dy)[c, d]  (3)

  p[n, a, b, c] enters y[n, i, j, d] wherever a = i s + k and b = j s + l, with slope
  w[k, l, c, d]. One place of the kernel after the other, dy w[k, l]^T is added to the
  slice that P_kl was read from:

    dP_kl[n, i, j, c] = sum_d dy[n, i, j, d] w[k, l, c, d]                        (4)

  and dx is dp without the padding. Two places of the kernel meet the same pixel, so
  (4) adds. Pixels that no window reaches, as a stride may leave at the end, keep 0.

Dimensions: (H + padding - K) // s + 1 rows of output, and columns likewise.

  >>> import numpy as np
  >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
  >>> w, b = np.ones((2, 2, 1, 1)), np.zeros(1)
  >>> conv2d(x, w, b, stride=2)[0, :, :, 0]
  array([[10., 18.],
         [42., 50.]])
  >>> conv2d(x, w, b, padding=((1, 0), (0, 0)))[0, 0, :, 0]
  array([1., 3., 5.])

The gradient of the sum of all outputs: how many windows a pixel lies in, and the sum of
what each place of the kernel meets.

  >>> dx, dw, db = conv2d_backward(x, w, np.ones((1, 3, 3, 1)))
  >>> dx[0, :, :, 0]
  array([[1., 2., 2., 1.],
         [2., 4., 4., 2.],
         [2., 4., 4., 2.],
         [1., 2., 2., 1.]])
  >>> dw[:, :, 0, 0], db
  (array([[45., 54.],
         [81., 90.]]), array([9.]))
"""

import numpy as np


def pair(value):
  """(rows, columns) from a number for both, or from two.

  >>> pair(2), pair((2, 3))
  ((2, 2), (2, 3))
  """
  return (value, value) if isinstance(value, int) else tuple(value)


def pad(x, padding):
  """Zeros around the pixels of x [N, H, W, C]; padding as in `conv2d`."""
  rows, columns = (pair(side) for side in pair(padding))
  return np.pad(x, ((0, 0), rows, columns, (0, 0)))


def output_size(padded, kernel, stride):
  """How often a kernel fits along one axis.

  >>> output_size(padded=7, kernel=3, stride=2)
  3
  """
  if padded < kernel:
    raise ValueError(f'A kernel of {kernel} does not fit into {padded} padded pixels.')
  return (padded - kernel) // stride + 1


def places(shape, kernel, stride):
  """Of each place (k, l) of a kernel, the pixels that it meets, as slices.

  Args:
    shape: of the padded images [N, H, W, C].
    kernel: its shape [K, L, C, D].
    stride: as in `conv2d`.
  """
  strides = pair(stride)
  counts = [output_size(*axis) for axis in zip(shape[1:3], kernel, strides)]
  for kl in np.ndindex(kernel[:2]):
    # The last one is at (count - 1) s + k, and the end of a slice is left out.
    ends = (k + (n - 1) * s + 1 for k, n, s in zip(kl, counts, strides))
    yield kl, (slice(None), *map(slice, kl, ends, strides))


def conv2d(x, w, b, stride=1, padding=0):
  """Convolves images x [N, H, W, C] with a kernel w [K, L, C, D], by (1).

  Args:
    b: added to each channel, [D].
    stride: a number, or one for rows and one for columns.
    padding: zeros at each side: a number, (rows, columns) or ((top, bottom), (left,
      right)).

  Returns:
    [N, rows, columns, D].
  """
  p = pad(x, padding)
  return b + sum(p[pixels] @ w[kl] for kl, pixels in places(p.shape, w.shape, stride))


def conv2d_backward(x, w, dy, stride=1, padding=0):
  """(dx, dw, db) from dy, the gradient by the output of `conv2d` of the same numbers.

  Returns:
    In the shapes of x, w and b, by (4), (3) and (2).
  """
  p = pad(x, padding)
  dp, dw = np.zeros_like(p), np.zeros_like(w)
  for kl, pixels in places(p.shape, w.shape, stride):
    dw[kl] = np.einsum('nijc,nijd->cd', p[pixels], dy, optimize=True)
    dp[pixels] += dy @ w[kl].T
  top, left = (pair(side)[0] for side in pair(padding))
  dx = dp[:, top : top + x.shape[1], left : left + x.shape[2]]
  return dx, dw, dy.sum((0, 1, 2))

"""A CNN or a ResNet with one kind of head, `hidden` and `head`, as transfer has it."""

import dataclasses
from typing import Any

from dlx.config import Group, check_choice
from dlx.errors import ConfigError
from dlx.models.cnn import CNN
from dlx.models.resnet import ResNet, cifar_resnet

NETS = ('cnn', 'resnet')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head(Group):
  """What lies behind the trunk: layers `hidden` and `head`."""

  pool: bool = False  # Whether a CNN's hidden layer reads the mean over positions.
  dense: int | None = 128  # Width of the hidden dense layer; None: none (resnet).
  dropout: float = 0.3  # Probability that a unit of the hidden dense layer is dropped.
  new: bool = True  # Whether the hidden layer begins anew too, not only the output.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('dense', least=1)
    self.bounds('dropout', least=0, below=1)

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the layers that begin anew on another task."""
    return ('hidden', 'head') if self.new else ('head',)


def net(
  name: str,
  head: Head,
  num_outputs: int,
  *,
  features: tuple[int, ...],
  depth: int,
  width: int,
  **dtypes: Any,
) -> CNN | ResNet:
  """A net of NETS; the head of a ResNet reads the mean over positions in any case.

  Args:
    name: cnn or resnet.
    head: behind the trunk.
    num_outputs: K.
    features: channels of the blocks of a CNN.
    depth: layers of a ResNet without `hidden`, 6 n + 2.
    width: channels of its first stage.
    dtypes: dtype and param_dtype.

  Raises:
    ConfigError: another name or depth, a CNN without `hidden`.
  """
  check_choice('net', name, NETS)
  fields = {'num_outputs': num_outputs, **dtypes}
  if name == 'resnet':
    fields |= {'dense': head.dense, 'dense_dropout': head.dropout}
    return cifar_resnet(depth, width=width, **fields)
  if head.dense is None:
    raise ConfigError(
      'head.dense=None is not allowed for cnn: must be a width, e.g. 128.'
    )
  return CNN(features, head.dense, dropout=head.dropout, pool=head.pool, **fields)

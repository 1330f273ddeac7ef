"""The softmax that a traced function ends in, where it does."""

from dlx.inspect.maps.traced import Found

# Operations behind which a value is the same but for its shape or dtype.
_SAME = ('convert_element_type', 'reshape', 'squeeze', 'copy', 'stop_gradient')


def before_softmax(found: Found, output: int) -> int | None:
  """The operation whose first operand are the logits of an output that is a softmax.

  Args:
    found: see `records`.
    output: the place of the output among the leaves of the outputs.

  Returns:
    None: it is no softmax, or its logits cannot be found.
  """
  by_number = {record.number: record for record in found.records}
  source = found.sources[output]
  while source is not None and by_number[source].primitive in _SAME:
    source = by_number[source].sources[0]
  if source is None:
    return None
  for wanted in ('div', 'exp', 'sub'):
    if source is None or by_number[source].primitive != wanted:
      return None
    last, source = source, by_number[source].sources[0]
  return last

"""Topics of `topics.py`: attention, positions, and what they are seen to do."""

from tests.house.topic import Topic, part, run

ATTENTION: dict[str, tuple[Topic, ...]] = {
  'Attention': (
    part(
      'Attention of several heads, cross attention, caches',
      *('layers/attention/multihead', 'layers/attention/ring_cache'),
      tests='layers/attention/multihead layers/attention/forms',
    ),
    part(
      'Positions: rotary, ALiBi, relative biases, windows',
      *('layers/attention/positions', 'layers/attention/rotary'),
      tests='layers/attention/positions layers/attention/rotary models/gpt_positions',
    ),
    run(
      'What "it" looks at',
      'transformers/attention_toy',
      'attention-toy',
      test='transformers/attention_toy',
    ),
    run(
      'A symbol so many steps back',
      'transformers/delayed_copy',
      'delayed-copy',
      test='transformers/delayed_copy',
    ),
    run(
      'Which positions hold past the length of training',
      'transformers/positions',
      'positions-absolute',
      test='transformers/delayed_copy',
    ),
  )
}

"""Files tokenizer.json, written by hand."""

import json

import pytest


def characters(known: str) -> bytes:
  """Each of these is a token, from 1 on; 0 is any other. Skips without the library."""
  pytest.importorskip('tokenizers')
  vocab = {'[UNK]': 0} | {c: i for i, c in enumerate(known, 1)}
  every = {'type': 'Split', 'pattern': {'Regex': r'[\s\S]'}, 'behavior': 'Isolated'}
  empty = dict.fromkeys(('truncation', 'padding', 'normalizer', 'post_processor'))
  return json.dumps(
    {
      **{'version': '1.0', **empty, 'added_tokens': [], 'decoder': {'type': 'Fuse'}},
      'pre_tokenizer': {**every, 'invert': False},
      'model': {'type': 'WordLevel', 'vocab': vocab, 'unk_token': '[UNK]'},
    }
  ).encode()

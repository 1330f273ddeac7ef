"""Tests for dlx/run/records/json_files.py."""

import json
import os
import pathlib
import tempfile

from absl.testing import absltest, parameterized
from etils import epath
import ml_dtypes
import numpy as np

from dlx.errors import DataError
from dlx.run.records.json_files import flat, plain, read_json, write_json


class PlainTest(parameterized.TestCase):
  @parameterized.parameters(np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
  def test_floats_read_back_to_the_same_bits(self, dtype):
    for x in np.asarray([0.1, 1 / 3, 1e-7, 3e4, -0.0], dtype):
      text = json.dumps(plain(x))
      self.assertEqual(np.asarray(json.loads(text), dtype).tobytes(), x.tobytes())

  def test_types(self):
    tree = {
      'i': np.int32(3),
      'b': np.bool_(True),
      'v': np.array([1, 2], np.float32),
      'n': None,
      't': (1, 'x'),
      'p': pathlib.Path('/a'),
      'z': np.array(2),
    }
    got = plain(tree)
    self.assertEqual(
      json.dumps(got),
      json.dumps(
        {
          'i': 3,
          'b': True,
          'v': [1.0, 2.0],
          'n': None,
          't': [1, 'x'],
          'p': '/a',
          'z': 2,
        }
      ),
    )
    self.assertIs(type(got['b']), bool)

  @parameterized.parameters((object(),), ({'a': {1}},), (b'x',))
  def test_refuses_what_has_no_plain_form(self, value):
    with self.assertRaisesRegex(TypeError, 'has no plain JSON form'):
      plain(value)


class FlatTest(absltest.TestCase):
  def test_names_are_dotted(self):
    tree = {'a': 1, 'b': {'c': None, 'd': {'e': (2,)}}, 'f': {}}
    self.assertEqual(flat(tree), {'a': 1, 'b.c': None, 'b.d.e': (2,)})
    self.assertEqual(flat(None), {})


class JsonTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def test_round_trip(self):
    path = self.folder / 'a.json'
    value = {'b': np.float32(0.5), 'a': ['ä', '\udc80', (1, None)]}
    write_json(path, value)
    self.assertEqual(read_json(path), {'b': 0.5, 'a': ['ä', '\udc80', [1, None]]})
    self.assertEqual(path.read_text().splitlines()[1], '  "b": 0.5,')
    self.assertEqual([p.name for p in self.folder.iterdir()], ['a.json'])

  def test_what_is_not_finite_is_json_and_reads_back(self):
    path = self.folder / 'a.json'
    value = {
      'm': {'test/loss': np.float32(np.nan), 'v': [1.0, -np.inf, np.inf]},
      's': 1,
    }
    write_json(path, value)

    def never(word):
      raise AssertionError(f'{word} is no JSON')

    strict = json.loads(path.read_text(), parse_constant=never)
    self.assertEqual(strict['m'], {'test/loss': None, 'v': [1.0, None, None]})
    self.assertEqual(
      strict['not_finite'],
      [
        [['m', 'test/loss'], 'NaN'],
        [['m', 'v', 1], '-Infinity'],
        [['m', 'v', 2], 'Infinity'],
      ],
    )
    got = read_json(path)
    self.assertEqual(got['m'].pop('v'), [1.0, -np.inf, np.inf])
    self.assertTrue(np.isnan(got['m'].pop('test/loss')))
    self.assertEqual(got, {'m': {}, 's': 1})
    path.write_text('{"m": NaN}')  # Of a run before.
    self.assertTrue(np.isnan(read_json(path)['m']))
    path.write_text('{"not_finite": [[["m", "x"], "NaN"]]}')
    with self.assertRaisesRegex(DataError, 'not_finite names what is not there'):
      read_json(path)

  def test_a_failed_write_leaves_the_old_file(self):
    path = self.folder / 'a.json'
    write_json(path, {'a': 1})
    with self.assertRaises(TypeError):
      write_json(path, {'a': object()})
    os.chmod(self.folder, 0o500)
    self.addCleanup(os.chmod, self.folder, 0o700)
    if os.geteuid():
      with self.assertRaises(OSError):
        write_json(path, {'a': 2})
    self.assertEqual(read_json(path), {'a': 1})

  def test_damaged(self):
    (self.folder / 'a.json').write_text('{"a": ')
    with self.assertRaisesRegex(DataError, 'a.json is not JSON .*another workdir'):
      read_json(self.folder / 'a.json')


if __name__ == '__main__':
  absltest.main()

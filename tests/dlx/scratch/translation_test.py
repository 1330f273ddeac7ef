"""Each column of the table runs in its library and has the results that stand there."""

import doctest

import pytest

from dlx.scratch import translation


def run(library):
  """Failures and number of the examples of a column, alone in a namespace."""
  names = {'show': translation.show}
  text = translation.examples(library)
  test = doctest.DocTestParser().get_doctest(text, names, library, None, None)
  found = doctest.DocTestRunner().run(test)
  return found.failed, found.attempted


def test_jax():
  failed, attempted = run('jax')
  assert attempted > len(list(translation.rows()))
  assert failed == 0


def test_torch():
  pytest.importorskip('torch')
  assert run('torch')[0] == 0


def test_tensorflow():
  pytest.importorskip('tensorflow')
  assert run('tf')[0] == 0


def test_rows_are_whole():
  subjects = [subject for subject, *_ in translation.rows()]
  assert len(set(subjects)) == len(subjects) >= 16
  for _, _, codes in translation.rows():
    assert list(codes) == list(translation.BEFORE)


def test_a_wrong_result_is_found(monkeypatch, capsys):
  monkeypatch.setattr(
    translation, 'TABLE', translation.TABLE.replace('gradient = 6.0', 'gradient = 6.1')
  )
  assert run('jax')[0] == 1
  assert 'jax.grad' in capsys.readouterr().out

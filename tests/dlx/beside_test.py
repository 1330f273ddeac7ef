"""dlx finds its own packages, whatever else has their names."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from dlx import __main__, beside

REPO = pathlib.Path(__file__).resolve().parents[2]
FOUND = 'import importlib.util as u; print(*(u.find_spec(n).origin for n in {}))'


def run(cwd, *args: str, **environ: str) -> str:
  """What a Python that starts in `cwd` prints; the code of dlx is found last."""
  done = subprocess.run(
    [sys.executable, *args], cwd=cwd, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': str(REPO), **environ},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture
def shadows(tmp_path):
  """A folder whose packages have the names of ours, and end whoever imports them."""
  for name in ('experiments', 'kernels'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').write_text('raise SystemExit(3)')
    (tmp_path / name / 'mine.py').write_text('')
  (tmp_path / 'dlx').mkdir()  # As of a clone beside which one stands.
  (tmp_path / 'launch').mkdir()
  return tmp_path


def test_a_folder_of_scripts_called_launch(shadows):
  assert '  cnn ' in run(shadows, '-m', 'launch.train', '--list')


def test_a_package_called_launch(shadows):
  (shadows / 'launch' / '__init__.py').write_text('raise SystemExit(3)')
  assert '  cnn ' in run(shadows, '-m', 'dlx', 'train', '--list')


def test_ours_come_first_and_others_behind(shadows):
  names = (
    'experiments.vision',
    'kernels.attention',
    'experiments.mine',
    'kernels.mine',
  )
  found = run(shadows, '-c', f'import launch; {FOUND.format(names)}').split()
  assert found == [
    str(REPO / 'experiments' / 'vision' / '__init__.py'),
    str(REPO / 'kernels' / 'attention' / '__init__.py'),
    str(shadows / 'experiments' / 'mine.py'),
    str(shadows / 'kernels' / 'mine.py'),
  ]


def test_commands_are_named_and_their_status_is_that_of_python_m(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['dlx'])
  assert __main__.main() == 0
  said = capsys.readouterr().out.splitlines()
  names = [x.split()[1] for x in said if x.startswith('dlx ') and 'NAME' not in x]
  assert {'train', 'evaluate', 'report'} <= set(names) and 'checks' not in names
  assert 'dlx train       Trains an experiment; ' in '\n'.join(said)

  monkeypatch.setattr(sys, 'argv', ['dlx', 'trian'])
  assert __main__.main() == 2
  error = capsys.readouterr().err
  assert error.startswith('error: trian is no command. Did you mean train? Must be one')

  # Another test may have imported it, which runpy warns of.
  monkeypatch.delitem(sys.modules, 'launch.report', raising=False)
  monkeypatch.setattr(sys, 'argv', ['dlx', 'report', '--workdir=/nowhere/at/all'])
  with pytest.raises(SystemExit) as left:
    __main__.main()
  assert left.value.code == 2
  assert 'error: --workdir=/nowhere/at/all is no folder' in capsys.readouterr().err


@pytest.fixture
def beside_toy(tmp_path, monkeypatch):
  """The folder beside dlx is HERE, with packages `toy_kernels`; another is in THERE."""
  for place, other in (('here', 'ours'), ('there', 'theirs')):
    folder = tmp_path / place / 'toy_kernels'
    folder.mkdir(parents=True)
    for name in ('__init__', 'both', other):
      (folder / f'{name}.py').write_text(f'PLACE = {place!r}\n')
  monkeypatch.setattr(beside, 'ROOT', str(tmp_path / 'here'))
  monkeypatch.setattr(sys, 'path', [str(tmp_path / 'there'), *sys.path])
  yield
  for name in [n for n in sys.modules if n.startswith('toy_kernels')]:
    del sys.modules[name]


def test_both_packages_of_one_name_are_of_use(beside_toy):
  beside.claim('toy_kernels')
  import toy_kernels  # type: ignore[import-not-found]
  from toy_kernels import both, ours, theirs  # type: ignore[import-not-found]

  assert (toy_kernels.PLACE, both.PLACE) == ('here', 'here')
  assert (ours.PLACE, theirs.PLACE) == ('here', 'there')


def test_one_that_was_imported_before_stays_and_gains_ours(beside_toy):
  import toy_kernels  # type: ignore[import-not-found]

  beside.claim('toy_kernels')
  from toy_kernels import ours, theirs  # type: ignore[import-not-found]

  assert toy_kernels.PLACE == 'there' and sys.modules['toy_kernels'] is toy_kernels
  assert (ours.PLACE, theirs.PLACE) == ('here', 'there')


def test_a_name_that_lies_not_beside_dlx_is_left_alone(beside_toy):
  beside.claim('toy_no_such_package')
  assert 'toy_no_such_package' not in sys.modules


def test_an_editable_install_is_a_folder_of_the_search_path(tmp_path):
  """A finder, setuptools' other way, comes after folders without any code in them."""
  pytest.importorskip('setuptools.build_meta')
  copy, wheels = tmp_path / 'copy', tmp_path / 'wheels'
  wheels.mkdir()
  for name in ('dlx', 'launch', 'tests'):
    (copy / name).mkdir(parents=True)
    (copy / name / '__init__.py').write_text('')
  for name in ('setup.py', 'README.md', 'LICENSE'):
    shutil.copy(REPO / name, copy)
  code = (
    'import sys; from setuptools import build_meta as b; b.build_editable(sys.argv[1])'
  )
  run(copy, '-c', code, str(wheels))
  (wheel,) = wheels.iterdir()
  with zipfile.ZipFile(wheel) as file:
    (pth,) = [n for n in file.namelist() if n.endswith('.pth')]
    assert file.read(pth).decode().strip() == str(copy)
    (scripts,) = [n for n in file.namelist() if n.endswith('entry_points.txt')]
    assert 'dlx = dlx.__main__:main' in file.read(scripts).decode()

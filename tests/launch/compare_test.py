"""launch.compare: what it prints and writes, what it refuses, what it never runs."""

import csv
import json
import subprocess
import sys

import pytest

import dlx
from dlx.run import tables
from launch import compare
from tests.dlx.report.report_test import Html
from tests.dlx.study.planted import plant

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>|[a](b)\x1b[31m'


@pytest.fixture
def two_groups(tmp_path):
  for lr, values in ((0.1, (0.5, 0.6, 0.7)), (0.2, (0.8, 0.9))):
    for seed, accuracy in enumerate(values):
      curve = {10: 3.0 - lr, 20: 2.0 + seed}
      workdir = tmp_path / 'runs' / f'lr{lr}_{seed}'
      plant(workdir, seed=seed, accuracy=accuracy, config={'lr': lr}, curve=curve)
  return tmp_path / 'runs'


def run(*args):
  return compare.main(['compare', *map(str, args)])


def test_tables_on_the_terminal(two_groups, capsys):
  assert run(f'{two_groups}/*') == 0
  said = capsys.readouterr()
  assert said.err == ''
  rows = [' '.join(line.split()) for line in said.out.splitlines()]
  assert '1 lr=0.1 (baseline) 3 60.0 ± 10.0 5.8 1 0' in rows
  assert "Welch's t interval." in rows
  assert any(row.startswith('2 lr=0.2 test/accuracy (%) +25.0 7.6 [') for row in rows)
  assert '1 lr=0.1 60.0 ± 10.0 11.0 ± 1.0 5.0 ± 1.0 1000 500 2e+05' in rows


def test_files(two_groups, tmp_path, capsys):
  out = tmp_path / 'made' / 'here'
  plant(two_groups / 'open', finished=False)
  assert run(two_groups, f'--out={out}', '--interval=bootstrap', '--band=range') == 0
  said = capsys.readouterr()
  assert '/open is left out: not finished' in said.err
  assert said.out.splitlines()[-1] == f'wrote {out / "report.html"}'
  tree = json.loads((out / 'table.json').read_text())
  assert tree['groups'][1]['metrics']['test/accuracy']['mean'] == pytest.approx(0.85)
  assert 'open is left out' in tree['cautions'][-1]
  rows = list(csv.DictReader((out / 'table.csv').read_text().splitlines()))
  assert [row['label'] for row in rows] == ['lr=0.1', 'lr=0.2']
  assert '| 2 | lr=0.2 | 2 | 85.0 ± 7.1 |' in (out / 'table.md').read_text()
  page = Html((out / 'report.html').read_text())
  for part in (
    'mlp: 2 groups of 5 runs',
    'Bootstrap percentile interval of 10000 resamples, seed 0.',
    'band: least to largest of the runs',
    'open is left out: not finished',
  ):
    assert part in page.text
  pictures = [path.stem for path in (out / 'figures').glob('*.png')]
  assert page.tags.count('img') == len(pictures)  # The curve is drawn, one is the zoom.
  assert 'curves_test_loss' in pictures


def test_what_lies_in_a_workdir_is_text(tmp_path, capsys):
  mark = tmp_path / 'executed'
  for i in range(2):
    record = {
      'experiment': f'{EVIL}{i}',
      'metrics': {'loss': {'title': EVIL, 'unit': EVIL, 'better': 'lower'}},
      'headline': ['test/loss', EVIL],
      'versions': {EVIL: str(i)},
    }
    workdir = tmp_path / 'runs' / f'{i}<b>$x$'
    plant(workdir, record=record, config={EVIL: EVIL + str(i)})
    (workdir / 'source').mkdir()
    (workdir / 'source' / 'mlp.py').write_text(f'open({str(mark)!r}, "w")')
  out = tmp_path / 'out'
  assert run(tmp_path / 'runs', f'--out={out}') == 0
  said = capsys.readouterr()
  assert '\x1b' not in said.out + said.err
  assert not mark.exists()
  source = (out / 'report.html').read_text()
  page = Html(source)
  assert '<script>alert' not in source and '<img src=x' not in source
  assert not [name for _, name, _ in page.attributes if name.startswith('on')]
  text = (out / 'table.md').read_text()
  assert '<script>' not in text and '[a](b)' not in text


@pytest.mark.parametrize(
  ('args', 'said'),
  [
    ([], 'No run is named'),
    (['RUNS/none'], 'no folder of a run is there'),
    (['RUNS', '--confidence=95'], '--confidence=95.0 is not allowed'),
    (['RUNS', '--interval=t'], 'welch'),
    (['RUNS', '--baseline=lr=3'], r'--baseline=lr=3 is not allowed: must be one of 1'),
    (['RUNS', '--metrics=test/f1'], '--metrics=test/f1 is not allowed'),
    (['RUNS', '--by=lrr'], 'Did you mean lr?'),
    (['RUNS', '--cost=money'], 'train_seconds'),
    (['RUNS', '--out=RUNS/lr0.1_0/config.json'], 'no folder'),
    (['RUNS/open'], 'No run is left to compare'),
  ],
)
def test_bad_input_is_one_line(two_groups, capsys, args, said):
  plant(two_groups / 'open', finished=False)
  args = [arg.replace('RUNS', str(two_groups)) for arg in args]
  assert run(*args) == 2
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith('error: ') and said in last


def test_unfinished_runs_on_demand(tmp_path, capsys):
  plant(tmp_path / 'a', finished=False, curve={10: 4.0})
  assert run(tmp_path, '--unfinished') == 0
  assert 'Not finished, taken as they are: a.' in capsys.readouterr().out


def test_help_imports_nothing_heavy():
  code = (
    'import sys; from launch import compare; compare.main(["compare", "--help"]); '
    'sys.exit(bool({"jax", "numpy", "rich", "matplotlib"} & set(sys.modules)))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0 and '--baseline' in done.stdout


def test_a_real_run_knows_its_costs(tmp_path, capsys, monkeypatch):
  from experiments.foundations import softmax_regression

  build = softmax_regression.build
  bare = lambda config: build(config)._replace(figures={})
  monkeypatch.setattr(softmax_regression, 'build', bare)
  fields = dict(num_steps=3, batch_size=16, log_every_steps=1)
  dlx.train('softmax_regression', workdir=tmp_path / 'run', **fields)
  capsys.readouterr()
  assert run(tmp_path, f'--out={tmp_path / "out"}') == 0
  (group,) = json.loads((tmp_path / 'out' / 'table.json').read_text())['groups']
  assert group['metrics']['test/accuracy']['count'] == 1
  assert group['costs']['parameters']['mean'] == 64 * 10 + 10
  # Three steps: logits and the gradient of the weights, two operations a multiply-add.
  assert group['costs']['flops']['mean'] == 3 * 2 * (2 * 16 * 64 * 10)


def test_markdown_escapes_what_it_holds():
  table = tables.Table('<b>', ['a|b', 'n'], [['x\ny', '`1`']], 'note *')
  text = tables.markdown(table)
  assert text.splitlines()[0] == '## \\<b\\>'
  assert '| a\\|b | n |' in text and '| x y | \\`1\\` |' in text
  assert text.endswith('note \\*')

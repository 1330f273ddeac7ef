"""Comparisons of planted workdirs: groups, numbers and cautions are known by hand."""

import json
import math
import os
import pathlib

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from dlx.errors import ConfigError, DataError
from dlx.run.records.json_files import write_json
from dlx.study.comparison import cautions, differences, drawn, groups, tables, workdirs
from tests.dlx.study.planted import plant


class Planted(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.base = pathlib.Path(self.create_tempdir().full_path)

  def plant(self, name, **given):
    return plant(self.base / name, **given)

  def two_groups(self):
    """Accuracies 0.5, 0.6, 0.7 at a rate of 0.1, and 0.8, 0.9 at one of 0.2."""
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
      self.plant(f'a{seed}', seed=seed, accuracy=accuracy, loss=3.0 + seed)
    for seed, accuracy in enumerate((0.8, 0.9)):
      given = dict(config={'lr': 0.2}, result={'parameters': 700})
      self.plant(f'b{seed}', seed=seed, accuracy=accuracy, loss=1.0 + seed, **given)

  def compare(self, by=None, unfinished=False, **choices):
    found = workdirs.find([str(self.base)], unfinished=unfinished)
    grouped = groups.group(found.runs, by)
    return differences.compare(grouped, differences.Choices(by=by, **choices))

  def said(self, **given):
    return '\n'.join(cautions.cautions(self.compare(**given)))


class FindTest(Planted):
  def test_workdirs_folders_and_patterns(self):
    self.two_groups()
    base = str(self.base)
    for words in ([base], [f'{base}/*'], [f'{base}/a*', f'{base}/b0', f'{base}/b1']):
      names = [run.name for run in workdirs.find(words).runs]
      self.assertEqual(names, ['a0', 'a1', 'a2', 'b0', 'b1'])

  def test_a_folder_whose_name_is_a_pattern_is_taken_by_its_name(self):
    self.plant('run[1]')
    self.assertLen(workdirs.find([str(self.base / 'run[1]')]).runs, 1)

  def test_named_twice_counts_once(self):
    path = str(self.plant('a'))
    os.symlink(path, self.base / 'b')
    self.assertLen(workdirs.find([path, path + '/', str(self.base)]).runs, 1)

  def test_a_copy_is_left_out(self):
    for name in 'ab':
      self.plant(name, result={'fingerprint': 'ffff'})
    found = workdirs.find([str(self.base)])
    self.assertLen(found.runs, 1)
    self.assertRegex(found.left_out[0], r'/b is left out: the same bits as .*/a')

  def test_of_a_study_the_runs_count_and_not_the_programs(self):
    write_json(self.base / 'study.json', {'runs': {}})
    self.plant('runs/x=1-0', seed=0)
    self.plant('together/1', accuracy=[0.1, 0.2])
    self.assertEqual([r.name for r in workdirs.find([str(self.base)]).runs], ['x=1-0'])

  def test_broken_and_unfinished_ones_are_named(self):
    self.plant('fine')
    self.plant('open', finished=False)
    (self.plant('broken') / 'result.json').write_text('{')
    (self.plant('list') / 'config.json').write_text('[1]')
    (self.plant('empty') / 'config.json').write_text('')
    found = workdirs.find([str(self.base)])
    self.assertEqual([run.name for run in found.runs], ['fine'])
    told = '\n'.join(found.left_out)
    for part in (
      r'/broken is left out: .*result.json is not JSON',
      r'/empty is left out: .*config.json is not JSON',
      r'/list is left out: .*config.json holds no JSON object',
      r'/open is left out: not finished, at step 100',
    ):
      self.assertRegex(told, part)
    self.assertLen(workdirs.find([str(self.base)], unfinished=True).runs, 2)

  def test_what_is_nothing_is_one_error(self):
    for word in (str(self.base / 'none*'), str(self.base)):
      with self.assertRaisesRegex(ConfigError, 'no folder of a run is there'):
        workdirs.find([word])

  @parameterized.parameters(
    {'config': 7},
    {'metrics': [1], 'headline': 5},
    {'data': 'x', 'device': 'gpu', 'versions': None, 'git': []},
    {'experiment': None, 'source': {'sha256': 3}, 'init_from': 'there'},
  )
  def test_a_config_of_other_kinds_is_data_that_says_nothing(self, **record):
    self.plant('a', record=record)
    found = workdirs.find([str(self.base)])
    self.assertLen(found.runs, 1)
    compared = self.compare()
    self.assertNotEmpty(tables.tables(compared))
    cautions.cautions(compared)

  @parameterized.parameters(
    {'metrics': {'test/loss': 'low', 'test/accuracy': True}},
    {'seconds': [1], 'step': 'last', 'parameters': None, 'flops_per_step': 'many'},
    {'metrics': {'test/loss': 10**400, 'test/accuracy': -(10**400)}},
    {'together': {'members': -3}, 'fingerprint': 4, 'dataset': 9},
  )
  def test_a_result_of_other_kinds_too(self, **result):
    self.plant('a', result=result)
    compared = self.compare()
    self.assertNotEmpty(tables.tables(compared))
    cautions.cautions(compared)

  def test_lines_of_metrics_that_are_no_lines(self):
    path = self.plant('a', finished=False)
    with open(path / 'metrics.jsonl', 'a') as file:
      for line in (
        {'step': 'x', 'split': 'test', 'metrics': {'loss': 1}},
        {'step': 3, 'split': 5, 'metrics': {'loss': 1}},
        {'step': 4, 'split': 'test', 'metrics': [1]},
        {'step': 10**400, 'split': 'test', 'metrics': {'loss': {'a': 1}}},
      ):
        file.write(json.dumps(line) + '\n')
    run = workdirs.read(path)
    self.assertEqual(run.curves, {'test/loss': [(50.0, 2.0), (100.0, 1.0)]})
    self.assertEqual(run.step, 100)

  def test_no_metric_at_all(self):
    path = self.base / 'a'
    path.mkdir()
    write_json(path / 'config.json', {'experiment': 'mlp'})
    with self.assertRaisesRegex(DataError, 'reports no metric'):
      workdirs.read(path)


class GroupTest(Planted):
  def labels(self, by=None):
    runs = workdirs.find([str(self.base)]).runs
    return {g.label: [r.name for r in g.runs] for g in groups.group(runs, by)}

  def test_runs_that_differ_in_the_seed_alone_are_a_group(self):
    self.two_groups()
    expected = {'lr=0.1': ['a0', 'a1', 'a2'], 'lr=0.2': ['b0', 'b1']}
    self.assertEqual(self.labels(), expected)

  def test_fields_that_decide_nothing_split_no_group(self):
    self.plant('a')
    self.plant('b', seed=1, config={'log_every_steps': 50})
    self.assertEqual(self.labels(), {'mlp': ['a', 'b']})
    self.assertIn('differ in log_every_steps (10, 50), which decide no', self.said())

  def test_by_fields(self):
    self.two_groups()
    self.plant('c', seed=7, config={'lr': 0.2, 'num_steps': 50})
    self.assertEqual(self.labels(['num_steps'])['num_steps=50'], ['c'])
    told = self.said(by=['num_steps'])
    self.assertIn('Runs of group 1 differ in lr (0.1, 0.2): its spread is not', told)
    self.assertLen(self.labels(['seed']), 4)
    with self.assertRaisesRegex(ConfigError, '--by=num_step .*Did you mean num_steps'):
      self.labels(['num_step'])

  def test_by_folder_two_studies(self):
    for study in ('one', 'two'):
      self.plant(f'{study}/x')
    self.assertEqual(self.labels(), {'mlp': ['x', 'x']})
    self.assertEqual(list(self.labels(['folder'])), ['folder=one', 'folder=two'])

  def test_other_data_of_one_config_is_another_group(self):
    self.plant('a')
    self.plant('b', record={'data': {'test': {'name': 'digits', 'size': 100}}})
    self.assertEqual(self.labels(), {'mlp': ['a'], 'mlp (2)': ['b']})
    self.assertIn('Other data: test.size 360 (group 1), 100 (group 2)', self.said())

  def test_the_package_that_a_set_comes_with_splits_no_group(self):
    for name in 'ab':
      data = {'test': {'name': 'digits', 'package': f'scikit-learn {name}'}}
      self.plant(name, seed=ord(name), record={'data': data})
    self.assertEqual(self.labels(), {'mlp': ['a', 'b']})
    self.assertIn('test.package scikit-learn a (group 1)', self.said())

  def test_of_several_experiments_the_label_says_which(self):
    self.two_groups()
    self.plant('c', record={'experiment': 'cnn'}, config={'dense': 8})
    expected = ['mlp, lr=0.1', 'mlp, lr=0.2', 'cnn']
    self.assertEqual(list(self.labels()), expected)

  def test_a_fork_that_was_edited_between_two_runs_is_two_groups(self):
    for name in 'ab':
      source = {'main': 'fork', 'sha256': {'fork': name * 64}}
      record = {'experiment': f'/home/{name}/my_mlp.py', 'source': source}
      self.plant(name, record=record)
    self.assertLen(self.labels(), 2)
    self.assertTrue(all(label.startswith('source=') for label in self.labels()))

  def test_own_fields_lead_in_a_label_of_bounded_length(self):
    more = {f'size_{i}': i for i in range(4)}
    self.plant('a', config={'num_steps': 5, **more})
    self.plant('b', config={k: v + 1 for k, v in more.items()})
    label = next(iter(self.labels()))
    self.assertEqual(label, 'size_0=0, size_1=1, size_2=2 and 2 more')


class NumbersTest(Planted):
  def test_quality_by_hand(self):
    self.two_groups()
    found = self.compare()
    self.assertEqual(found.metrics, ['test/accuracy', 'test/loss'])
    first = found.quality['test/accuracy'][1]
    self.assertEqual(first.count, 3)
    self.assertAlmostEqual(first.mean, 0.6, places=15)
    self.assertAlmostEqual(first.sd, 0.1, places=15)
    self.assertAlmostEqual(first.error, 0.1 / math.sqrt(3), places=15)
    self.assertEqual(found.quality['test/loss'][2].mean, 1.5)

  def test_costs_by_hand(self):
    self.two_groups()
    found = self.compare()
    self.assertEqual(found.costs['seconds'][1][:3], (3, 11.0, 1.0))
    self.assertEqual(found.costs['train_seconds'][2].mean, 4.5)
    self.assertEqual(found.costs['parameters'][2].mean, 700)
    self.assertEqual(found.costs['flops'][1].mean, 200_000)  # 100 steps of 2000.

  def test_the_difference_is_welchs(self):
    self.two_groups()
    found = self.compare(baseline='lr=0.1', confidence=0.9)
    (one,) = [d for d in found.differences if d.metric == 'test/accuracy']
    self.assertAlmostEqual(one.difference, 0.25, places=14)
    theirs = stats.ttest_ind([0.8, 0.9], [0.5, 0.6, 0.7], equal_var=False)
    np.testing.assert_allclose(one.interval[2:4], theirs.confidence_interval(0.9))
    self.assertEqual(tables.verdict(found, one), 'better')
    mirrored = self.compare(baseline='2').differences[0]
    self.assertAlmostEqual(mirrored.difference, -0.25, places=14)

  def test_runs_with_the_same_seed_are_paired(self):
    for lr, losses in ((0.1, (1.0, 2.0, 3.0)), (0.2, (0.5, 1.6, 2.4))):
      for seed, loss in enumerate(losses):
        self.plant(f'{lr}_{seed}', seed=seed, loss=loss, config={'lr': lr})
    self.plant('alone', seed=9, loss=7.0, config={'lr': 0.2})
    found = self.compare(metrics=['test/loss'], confidence=0.9)
    (one,) = found.differences
    self.assertEqual(one.pairs, 3)
    theirs = stats.ttest_rel([0.5, 1.6, 2.4], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(one.paired[2:4], theirs.confidence_interval(0.9))
    self.assertEqual(tables.verdict(found, one), 'undecided')
    (row,) = tables.paired(found).rows
    self.assertEqual(row[:5], ['2', 'lr=0.2', 'test/loss (nats)', '3', '-0.500'])
    self.assertEqual(row[-1], 'better')
    tree = tables.as_json(found, [])
    self.assertEqual(tree['differences'][0]['paired']['method'], 'paired t interval')

  def test_seeds_that_occur_twice_or_in_one_group_alone_are_not_paired(self):
    for seed in range(2):
      self.plant(f'a{seed}', seed=seed)
      self.plant(f'b{seed}', seed=seed + 2, config={'lr': 0.2})
      self.plant(f'c{seed}', seed=0, config={'lr': 0.3}, accuracy=0.1 * seed)
    found = self.compare(metrics=['test/accuracy'])
    self.assertEqual([(d.pairs, d.paired) for d in found.differences], [(0, None)] * 2)
    self.assertNotIn('same seed', ' '.join(t.title for t in tables.tables(found)))

  def test_a_loss_that_falls_is_better_and_zero_within_is_undecided(self):
    for name, lr, losses in (
      ('a', 0.1, (1.0, 1.1)),
      ('b', 0.2, (0.1, 0.11)),
      ('c', 0.3, (1.0, 1.2)),
    ):
      for seed, loss in enumerate(losses):
        self.plant(f'{name}{seed}', seed=seed, loss=loss, config={'lr': lr})
    found = self.compare(metrics=['test/loss'], confidence=0.8)
    told = [tables.verdict(found, d) for d in found.differences]
    self.assertEqual(told, ['better', 'undecided'])
    told = self.said(confidence=0.8, metrics=['test/loss'])
    self.assertIn('2 intervals of 80 % each, not corrected', told)

  def test_the_bootstrap_names_itself(self):
    self.two_groups()
    found = self.compare(method='bootstrap', seed=5)
    note = tables.differences(found).note
    self.assertEqual(note, 'Bootstrap percentile interval of 10000 resamples, seed 5.')
    self.assertIn('too narrow', self.said(method='bootstrap'))

  def test_single_runs_have_no_interval(self):
    self.plant('a')
    self.plant('b', config={'lr': 0.2}, accuracy=0.75)
    found = self.compare()
    self.assertEqual(found.differences[0].interval, None)
    self.assertEqual(found.differences[0].difference, 0.25)
    self.assertIn('One run alone in groups 1, 2: no spread', self.said())

  def test_unknown_metric_and_baseline(self):
    self.two_groups()
    with self.assertRaisesRegex(ConfigError, '--metrics=test/f1 .*test/accuracy'):
      self.compare(metrics=['test/f1'])
    with self.assertRaisesRegex(ConfigError, r'--baseline=3 .* 2 \(lr=0.2\)'):
      self.compare(baseline='3')

  def test_bands_at_shared_steps(self):
    self.plant('a', seed=0, curve={10: 1.0, 20: 4.0, 30: 0.0})
    self.plant('b', seed=1, curve={10: 3.0, 20: 2.0})
    (band,) = self.compare(spread='range').bands['test/loss'].values()
    self.assertEqual(
      [band.step.tolist(), band.mean.tolist(), band.low.tolist(), band.high.tolist()],
      [[10, 20], [2, 3], [1, 2], [3, 4]],
    )

  def test_members_of_one_program_share_its_costs(self):
    for seed in (0, 1):
      of = {'together': {'members': 2}, 'seconds': {'total': 30.0}}
      self.plant(f'a{seed}', seed=seed, result=of)
    found = self.compare()
    self.assertEqual(found.costs['seconds'][1].mean, 15.0)
    self.assertEqual(found.costs['parameters'][1].mean, 250)
    self.assertIn('One program trained several runs of group 1', self.said())


class CautionTest(Planted):
  def test_nothing_is_said_where_all_is_well(self):
    self.plant('a0', seed=0)
    self.plant('a1', seed=1)
    for seed in (0, 1):
      self.plant(f'b{seed}', seed=seed, config={'lr': 1.0})
    found = self.compare(metrics=['test/loss'])
    self.assertEqual(cautions.cautions(found), [])

  def test_each_is_a_line(self):
    self.plant('a0', seed=0, accuracy=None)
    self.plant('a1', seed=0, loss=math.nan, result={'step': 60, 'stopped_early': True})
    self.plant('a2', seed=2, accuracy=[0.2, 0.4], record={'versions': {'jax': '8'}})
    told = self.said()
    for line in (
      'test/accuracy is missing in a0: means are of the others.',
      'test/loss is not finite in a1: means are of the others and flatter groups',
      'Unequal lengths: steps 60 (group 1), 100 (group 1)',
      'Early stopping ended a1.',
      'a0, a1 of group 1 have the same seed, 0',
      'test/accuracy: of each run the mean over its members.',
      'Other machines or versions: jax 9.9 (group 1), 8 (group 1)',
    ):
      self.assertIn(line, told)
    self.assertLen(told.splitlines(), 7)
    found = self.compare()
    self.assertAlmostEqual(found.quality['test/accuracy'][1].mean, 0.4)
    self.assertIn('(n=2)', tables.results(found).rows[0][3])

  def test_a_run_that_diverged_counts_for_no_mean(self):
    self.plant('a0', seed=0, loss=1.0)
    self.plant('a1', seed=1, loss=2.0, result={'diverged': True})
    lost = self.plant('a2', seed=2, finished=False) / 'diverged.json'
    write_json(lost, {'error': 'NaN', 'seconds': 6.0})
    found = self.compare()
    self.assertEqual(found.costs['seconds'][1].low, 6.0)
    self.assertEqual(found.quality['test/loss'][1][:2], (1, 1.0))
    self.assertIn('test/loss is not finite in a1, a2', self.said())

  def test_metrics_that_are_declared_in_other_ways(self):
    self.plant('a')
    other = {'loss': {'title': 'Squared error', 'better': 'lower', 'unit': ''}}
    self.plant('b', config={'lr': 1.0}, record={'metrics': other})
    self.assertIn('test/loss is not declared alike by all groups', self.said())

  def test_a_cost_that_is_not_known(self):
    self.plant('a', result={'parameters': None})
    self.plant('b', config={'lr': 1.0})
    told = self.said(cost='parameters')
    self.assertIn('No parameters known of group 1: not in the figure', told)


class TablesTest(Planted):
  def test_cells_by_hand(self):
    self.two_groups()
    found = self.compare()
    first = tables.results(found)
    self.assertEqual(first.columns[3:5], ['test/accuracy (%)', 'se'])
    self.assertEqual(
      first.rows[0][:5], ['1', 'lr=0.1 (baseline)', '3', '60.0 ± 10.0', '5.8']
    )
    self.assertEqual(tables.fields(found).rows, [['1', '0.1'], ['2', '0.2']])
    lead = tables.lead(found)
    for line, metric, value in (
      (lead[0], 'test/accuracy (%)', '85.0 ± 7.1; +25.0 against group 1 ['),
      (lead[1], 'test/loss (nats)', '1.50 ± 0.71; -2.50 against group 1 ['),
    ):
      self.assertStartsWith(line, f'Best {metric}: group 2 (lr=0.2), {value}')

  def test_json_and_csv_are_unrounded_and_read_back(self):
    self.two_groups()
    found = self.compare()
    tree = json.loads(json.dumps(tables.as_json(found, ['careful'])))
    self.assertEqual(tree['cautions'], ['careful'])
    self.assertAlmostEqual(tree['groups'][0]['metrics']['test/accuracy']['mean'], 0.6)
    self.assertEqual(tree['groups'][1]['fields'], {'lr': 0.2})
    self.assertLen(tree['groups'][0]['runs'], 3)
    head, first, _ = tables.as_csv(found).splitlines()
    row = dict(zip(head.split(','), first.split(','), strict=True))
    mean = tree['groups'][0]['metrics']['test/accuracy']['mean']
    self.assertEqual(float(row['test/accuracy mean']), mean)
    self.assertEqual(row['field lr'], '0.1')

  def test_a_formula_stays_text(self):
    self.plant('a', config={'note': '=1+1'})
    self.plant('b', config={'note': -1})
    lines = tables.as_csv(self.compare()).splitlines()
    self.assertIn(",'=1+1,", lines[1])
    self.assertIn(',-1,', lines[2])

  @parameterized.parameters(
    (0.012345, 0.0012, '+0.0123'),
    (-1.85, 0.61, '-1.85'),
    (5.0, None, '+5'),
    (3.0, 1e-12, '+3'),
  )
  def test_digits_follow_the_error(self, value, error, expected):
    self.assertEqual(tables.signed(value, error), expected)


class DrawnTest(Planted):
  def test_the_baseline_and_the_best_are_drawn(self):
    for i in range(9):
      self.plant(f'a{i}', accuracy=i / 10, config={'lr': float(i)})
    chosen = [g.number for g in drawn.chosen(self.compare())]
    self.assertEqual(chosen, [1, 5, 6, 7, 8, 9])
    chosen = [g.number for g in drawn.chosen(self.compare(baseline='3'))]
    self.assertEqual(chosen, [3, 5, 6, 7, 8, 9])

  def points(self, figure):
    return [line for line in figure.axes[0].lines if line.get_marker() in ('o', 's')]

  def test_figures_hold_the_numbers(self):
    self.two_groups()
    found = self.compare(cost='parameters')
    figures = drawn.draw(found)
    differ = ['differences_test_accuracy', 'differences_test_loss']
    self.assertEqual([*figures], ['cost_and_quality', *differ, 'curves_test_loss'])
    points = self.points(figures['cost_and_quality'])
    places = [point.get_xydata().round(9).tolist() for point in points]
    self.assertEqual(places, [[[500, 60]], [[700, 85]]])
    faces = [point.get_markerfacecolor() for point in points]
    self.assertNotIn('white', faces)  # Both are best.
    curve = figures['curves_test_loss'].axes[0].lines[0]
    self.assertEqual(curve.get_xydata().tolist(), [[50, 2], [100, 1]])
    legend = figures['curves_test_loss'].legends[0].get_texts()
    self.assertEqual([t.get_text() for t in legend], ['1: lr=0.1', '2: lr=0.2'])

  def test_a_group_that_another_beats_is_hollow(self):
    self.plant('a', accuracy=0.9)
    self.plant('b', accuracy=0.8, config={'lr': 1.0}, result={'parameters': 600})
    figure = drawn.draw(self.compare(cost='parameters'))['cost_and_quality']
    first, second = (point.get_markerfacecolor() for point in self.points(figure))
    self.assertEqual(second, 'white')
    self.assertNotEqual(first, 'white')

  def test_nothing_to_draw(self):
    self.plant('a', curve={100: 1.0})
    self.assertEqual(drawn.draw(self.compare()), {})


if __name__ == '__main__':
  absltest.main()

"""Records of runs that one program trained: each member has the numbers of its own."""

from dlx.run.records import history
from dlx.run.records.metrics_file import MetricsFile
from dlx.study import apart


def test_a_member_has_its_own_numbers_and_groups(tmp_path):
  both = tmp_path / 'both'
  both.mkdir()
  lines = MetricsFile(both)
  time = {'seconds': {'total': 1.0}}
  groups = {'norms': {'a': [0.5, 0.25], 'shared': 7.0}}
  lines.write(1, 'train', {'loss': [1.0, 2.0]}, time, groups)
  lines.close()
  (line,) = MetricsFile(both).read()
  joint = apart.Joint(both, {}, {'metrics': {}, 'seconds': {}}, [line], [False, False])
  joint.write(tmp_path / 'second', 1, {})
  found = history.of_training(MetricsFile(tmp_path / 'second').read())
  assert found['metrics'] == {'loss': [2]}
  assert found['groups'] == {'norms': {'a': [0.25], 'shared': [7]}}

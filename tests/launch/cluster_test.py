"""The files of launch/cluster: linted, and run, the cluster's programs being stubs."""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

from absl.testing import absltest, parameterized
import pytest
import yaml

from launch import train
from launch.flags import command_line, config_flags

ROOT = pathlib.Path(__file__).parents[2]
CLUSTER = ROOT / 'launch' / 'cluster'
SCRIPTS = ('local.sh', 'slurm.sbatch', 'tpu_vm.sh')
FORK = pathlib.Path(__file__).with_name('fork_for_kills.py')
# Of the clusters' programs: writes down how it was called, one JSON list a line.
STUB = """#!{python}
import json, os, pathlib, sys
log = pathlib.Path(os.environ['STUB_LOG'])
name = pathlib.Path(sys.argv[0]).name
with log.open('a') as f:
  f.write(json.dumps([name, *sys.argv[1:]]) + '\\n')
print(os.environ.get('STUB_PRINTS_' + name, ''), end='')
statuses = os.environ.get('STUB_STATUS_' + name, '0').split()
calls = sum(json.loads(line)[0] == name for line in log.open())
sys.exit(int(statuses[min(calls, len(statuses)) - 1]))
"""
# It also runs the command, as the hosts would, in the folder of the test.
GCLOUD = """
for arg in sys.argv:
  if arg.startswith('--command='):
    import subprocess
    sys.exit(subprocess.run(['bash', '-c', arg[len('--command='):]]).returncode)
"""


def flags_of(argv):
  """Values and Config that launch.train makes of a command; raises where it refuses."""
  values, found = command_line.parse(['train', *argv], train.define, '')
  return values, config_flags.build(found.config_class, values)


class StubbedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.bin = self.folder / 'bin'
    self.bin.mkdir()
    self.log = self.folder / 'calls'
    self.log.touch()

  def stub(self, name, folder=None, before_exit=''):
    path = (folder or self.bin) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = STUB.format(python=sys.executable)
    path.write_text(text.replace('statuses =', before_exit + '\nstatuses =', 1))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path

  def run_script(self, name, *args, **env):
    return subprocess.run(
      ['bash', str(CLUSTER / name), *args],
      cwd=self.folder,
      env={
        **os.environ,
        'PATH': f'{self.bin}:{os.environ["PATH"]}',
        'STUB_LOG': str(self.log),
        **env,
      },
      capture_output=True,
      text=True,
      timeout=60,
    )

  def calls(self, name):
    lines = map(json.loads, self.log.read_text().splitlines())
    return [line[1:] for line in lines if line[0] == name]


class LintTest(parameterized.TestCase):
  @parameterized.parameters(*SCRIPTS)
  def test_shellcheck(self, name):
    beside = pathlib.Path(sys.executable).with_name('shellcheck')
    linter = str(beside) if beside.exists() else shutil.which('shellcheck')
    if linter is None:
      self.skipTest('shellcheck is not installed; it comes with .[test]')
    done = subprocess.run(
      [linter, str(CLUSTER / name)], capture_output=True, text=True, timeout=60
    )
    self.assertEqual((done.returncode, done.stdout), (0, ''))

  def test_all_are_tested(self):
    names = {p.name for p in CLUSTER.iterdir()}
    self.assertEqual(names, {*SCRIPTS, 'jobset.yaml'})
    for name in SCRIPTS:
      self.assertTrue(os.access(CLUSTER / name, os.X_OK), name)
      self.assertLess(len((CLUSTER / name).read_text().splitlines()), 60)


class LocalTest(StubbedTest):
  def command(self, *more):
    return [
      str(CLUSTER / 'local.sh'),
      '2',
      f'--exp={FORK}',
      f'--workdir={self.folder}/run',
      f'--compile_cache={self.folder}/cache',
      '--config.num_steps=150',
      '--config.save_every_steps=50',
      *more,
    ]

  def start(self, *more):
    return subprocess.Popen(
      self.command(*more),
      env={
        **os.environ,
        'PYTHON': sys.executable,
        'LOGS': f'{self.folder}/logs',
        'DEVICES': '2',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      cwd=self.folder,
    )

  @pytest.mark.slow  # multihost_test.py interrupts two in the fast tier.
  def test_two_processes_are_interrupted_and_end(self):
    process = self.start()
    lines = self.folder / 'run' / 'metrics.jsonl'
    while process.poll() is None and not (lines.exists() and lines.read_text()):
      time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # To the script alone.
    out, _ = process.communicate(timeout=240)
    self.assertEqual(process.returncode, 42, out[-3000:])
    self.assertIn('interrupted at step', out)
    process = self.start()
    out, _ = process.communicate(timeout=240)
    self.assertEqual(process.returncode, 0, out[-3000:])
    self.assertIn('Going on from step', out)
    result = json.loads((self.folder / 'run' / 'result.json').read_text())
    self.assertEqual(result['processes'], 2)
    self.assertEqual(result['device']['count'], 4)
    self.assertTrue((self.folder / 'logs' / '1.log').exists())

  def test_the_cause_is_the_exit_status(self):
    python = self.stub('python')
    for statuses, expected in (('0 0', 0), ('43 1', 1), ('137 43', 43), ('42 42', 42)):
      self.log.write_text('')
      done = self.run_script(
        'local.sh', '2', '--exp=a b', PORT='1234', STUB_STATUS_python=statuses
      )
      self.assertEqual(done.returncode, expected, statuses)
    self.assertTrue(python.exists())
    common = ['-m', 'launch.train', '--multihost', '--coordinator=localhost:1234']
    self.assertCountEqual(
      self.calls('python'),
      [
        [*common, '--num_processes=2', f'--process_id={i}', '--exp=a b'] for i in (0, 1)
      ],
    )

  @parameterized.parameters([()], [('--exp=cnn',)], [('0', '--exp=cnn')], [('2',)])
  def test_usage(self, args):
    done = self.run_script('local.sh', *args)
    self.assertEqual(done.returncode, 2)
    self.assertStartsWith(done.stderr, 'usage: launch/cluster/local.sh N --exp=')


class SlurmTest(StubbedTest):
  ARGS = ('--exp=cnn', '--workdir=/shared/a b')

  def submit(self, status, state='RUNNING', restarts=None):
    for name in ('srun', 'squeue', 'scontrol'):
      self.stub(name)
    env = {'SLURM_RESTART_COUNT': restarts} if restarts else {}
    return self.run_script(
      'slurm.sbatch',
      *self.ARGS,
      SLURM_JOB_ID='77',
      SLURM_SUBMIT_DIR=str(self.folder),
      STUB_STATUS_srun=str(status),
      STUB_PRINTS_squeue=state,
      **env,
    )

  @parameterized.parameters(
    (0, False), (1, False), (2, False), (42, True), (43, True), (134, True), (137, True)
  )
  def test_goes_back_to_the_queue(self, status, requeued):
    done = self.submit(status)
    self.assertEqual(done.returncode, status, done.stderr)
    self.assertEqual(self.calls('scontrol'), [['requeue', '77']] if requeued else [])
    (call,) = self.calls('srun')
    at = call.index('python')
    self.assertEqual(
      call[at:], ['python', '-m', 'launch.train', '--multihost', *self.ARGS]
    )
    self.assertTrue(flags_of(call[at + 3 :])[0].multihost)

  def test_cancelled_or_too_often_it_does_not(self):
    self.assertEqual(self.submit(42, state='COMPLETING').returncode, 42)
    self.assertEqual(self.submit(43, restarts='100').returncode, 43)
    self.assertEqual(self.calls('scontrol'), [])

  def test_directives(self):
    text = (CLUSTER / 'slurm.sbatch').read_text()
    found = dict(re.findall(r'^#SBATCH --([a-z-]+)(?:=(\S+))?$', text, re.MULTILINE))
    self.assertIn('requeue', found)
    self.assertEqual(found['open-mode'], 'append')
    self.assertRegex(found['signal'], r'^TERM@\d+$')  # To the processes, not the shell.
    # JAX gives every task of Slurm one GPU.
    self.assertEqual(found['ntasks-per-node'], found['gpus-per-node'])
    # sbatch reads them up to the first command.
    self.assertLess(text.rindex('#SBATCH'), text.index('\nset -'))


class TpuVmTest(StubbedTest):
  ARGS = ('--exp=cnn', "--workdir=gs://bucket/it's $HOME")

  def hosts(self, verb, *args, **env):
    """Runs the script; gcloud runs the command in a folder that stands for a host."""
    self.stub('gcloud', before_exit=GCLOUD)
    self.stub('python', self.folder / 'dlx' / '.venv' / 'bin')
    return self.run_script('tpu_vm.sh', verb, 'pod', 'us-a', *args, **env)

  def test_starts_anew_until_it_ends(self):
    done = self.hosts('run', *self.ARGS, STUB_STATUS_python='42 43 134 0', PROJECT='p')
    self.assertEqual(done.returncode, 0, done.stderr)
    command = ['-m', 'launch.train', '--multihost', *self.ARGS]
    self.assertEqual(self.calls('python'), [command] * 4)
    self.assertTrue(flags_of(command[2:])[0].multihost)
    (call,) = self.calls('gcloud')
    self.assertEqual(call[:5], ['compute', 'tpus', 'tpu-vm', 'ssh', 'pod'])
    self.assertEqual(call[5:8], ['--zone=us-a', '--worker=all', '--project=p'])

  @parameterized.parameters(1, 2)
  def test_what_would_fail_again_is_not_started_again(self, status):
    done = self.hosts('run', *self.ARGS, STUB_STATUS_python=f'42 {status} 0')
    self.assertEqual(done.returncode, status)
    self.assertLen(self.calls('python'), 2)

  def test_stop_ends_the_process_and_its_loop(self):
    self.stub('gcloud', before_exit=GCLOUD)
    python = self.stub('python', self.folder / 'dlx' / '.venv' / 'bin')
    # Leaves with 42 upon SIGTERM.
    wait = 'import signal\nsignal.sigwait([signal.SIGTERM])\n'
    text = python.read_text().replace('import json', f'{BLOCK}import json', 1)
    python.write_text(text.replace('sys.exit(int', wait + 'sys.exit(int', 1))
    env = {
      **os.environ,
      'PATH': f'{self.bin}:{os.environ["PATH"]}',
      'STUB_LOG': str(self.log),
      'STUB_STATUS_python': '42',
    }
    running = subprocess.Popen(
      ['bash', str(CLUSTER / 'tpu_vm.sh'), 'run', 'pod', 'us-a', *self.ARGS],
      cwd=self.folder,
      env=env,
      stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not self.calls('python') and time.monotonic() < until:
      time.sleep(0.02)
    self.assertEqual(self.run_script('tpu_vm.sh', 'stop', 'pod', 'us-a').returncode, 0)
    self.assertEqual(running.wait(timeout=60), 42)
    self.assertLen(self.calls('python'), 1)

  def test_setup_copies_what_is_committed(self):
    for name in ('git', 'gcloud'):
      self.stub(name)
    done = self.run_script('tpu_vm.sh', 'setup', 'pod', 'us-a')
    self.assertEqual(done.returncode, 0, done.stderr)
    (archive,) = self.calls('git')
    self.assertEqual(archive[:2], ['archive', '--format=tar.gz'])
    copy, install = self.calls('gcloud')
    self.assertEqual(copy[3], 'scp')
    self.assertEqual(copy[4], archive[2].removeprefix('--output='))
    self.assertEqual(copy[5:], ['pod:dlx.tar.gz', '--zone=us-a', '--worker=all'])
    self.assertIn('-c constraints.txt -e ".[tpu]"', install[-1])

  @parameterized.parameters([()], [('run', 'pod')], [('walk', 'pod', 'us-a')])
  def test_usage(self, args):
    self.stub('gcloud')
    done = self.run_script('tpu_vm.sh', *args)
    self.assertEqual(done.returncode, 2)
    self.assertStartsWith(done.stderr, 'usage: launch/cluster/tpu_vm.sh')
    self.assertEqual(self.calls('gcloud'), [])


BLOCK = 'import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n'


class JobSetTest(parameterized.TestCase):
  """The fields that are used, by the API's reference; no schema file is at hand."""

  FIELDS = {
    '': {'apiVersion', 'kind', 'metadata', 'spec'},
    'spec': {'failurePolicy', 'replicatedJobs'},
    'failurePolicy': {'maxRestarts', 'rules'},
    'job': {'name', 'replicas', 'template'},
    'batch': {
      'parallelism',
      'completions',
      'backoffLimit',
      'podFailurePolicy',
      'template',
    },
    'pod': {
      'restartPolicy',
      'terminationGracePeriodSeconds',
      'nodeSelector',
      'containers',
    },
    'container': {'name', 'image', 'command', 'args', 'resources'},
  }

  def setUp(self):
    super().setUp()
    self.whole = yaml.safe_load((CLUSTER / 'jobset.yaml').read_text())
    self.spec = self.whole['spec']
    (self.job,) = self.spec['replicatedJobs']
    self.batch = self.job['template']['spec']
    self.pod = self.batch['template']['spec']
    (self.container,) = self.pod['containers']

  def test_fields(self):
    self.assertEqual(self.whole['apiVersion'], 'jobset.x-k8s.io/v1alpha2')
    self.assertEqual(self.whole['kind'], 'JobSet')
    for name, part in (
      ('', self.whole),
      ('spec', self.spec),
      ('failurePolicy', self.spec['failurePolicy']),
      ('job', self.job),
      ('batch', self.batch),
      ('pod', self.pod),
      ('container', self.container),
    ):
      self.assertEqual(set(part), self.FIELDS[name], name)
    for name in (self.whole['metadata']['name'], self.job['name']):
      self.assertRegex(name, r'^[a-z]([a-z0-9-]*[a-z0-9])?$')

  def test_hosts_and_chips_make_the_topology(self):
    topology = self.pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
    x, y = map(int, topology.split('x'))
    chips = self.container['resources']['limits']['google.com/tpu']
    self.assertEqual(self.batch['parallelism'] * chips, x * y)
    self.assertEqual(self.batch['completions'], self.batch['parallelism'])
    self.assertEqual(self.batch['backoffLimit'], 0)  # One process alone cannot return.

  def test_what_is_started_again(self):
    self.assertEqual(self.pod['restartPolicy'], 'Never')  # podFailurePolicy needs it.
    (rule,) = self.batch['podFailurePolicy']['rules']
    self.assertEqual(rule['action'], 'FailJob')
    codes = rule['onExitCodes']
    self.assertEqual(codes['containerName'], self.container['name'])
    self.assertEqual(codes['operator'], 'In')
    self.assertEqual(codes['values'], [1, command_line.BAD_INPUT])
    self.assertNotIn(train.STATUS['interrupted'], codes['values'])
    (rule,) = self.spec['failurePolicy']['rules']
    self.assertEqual(rule['action'], 'FailJobSet')
    self.assertEqual(rule['onJobFailureReasons'], ['PodFailurePolicy'])
    self.assertGreater(self.spec['failurePolicy']['maxRestarts'], 10)

  def test_the_command_is_one_that_launch_train_takes(self):
    self.assertEqual(self.container['command'], ['python', '-m', 'launch.train'])
    values, config = flags_of(self.container['args'])
    self.assertTrue(values.multihost)
    self.assertStartsWith(values.workdir, 'gs://')
    self.assertGreater(config.num_steps, 0)
    from dlx.run import sharding

    hosts = self.batch['parallelism']
    chips = hosts * self.container['resources']['limits']['google.com/tpu']
    self.assertEqual(sharding.parse_mesh(values.mesh, chips), {'data': 4, 'fsdp': 4})


if __name__ == '__main__':
  absltest.main()

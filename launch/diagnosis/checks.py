"""The checks of launch.doctor, from the ground up: each leans on those before it.

What is wrong early explains what goes wrong later, so findings are listed in this
order. Every check gives a `Report`, and says so where the experiment cannot be asked.
"""

import functools
import os
import pathlib
import platform
from typing import Any, Callable, Mapping, NamedTuple

import jax

from dlx.errors import ConfigError
from dlx.inspect import (
  beginning,
  examples,
  gradients,
  learning,
  places,
  players,
  rate_finder,
  samples,
  timing,
  units,
)
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Run, Subject, shortened
from dlx.run.experiments_by_name import Found
from launch import checks
from launch.diagnosis import room

OVERFIT_STEPS, OVERFIT_ROWS = 300, 16
GAME = 3  # Short runs that one of two players is long: samples take shape late.


class Patient:
  """An experiment while it is examined: measurements that several checks share.

  Attributes:
    found: the experiment.
    config: of the run that is planned.
    steps: of short runs.
    data_dir: see `Dataset.load`.
    reports: of the checks so far, by name.
  """

  def __init__(self, found: Found, config: Any, steps: int, data_dir: Any = None):
    self.found, self.config, self.data_dir = found, config, data_dir
    self.steps = min(steps, config.num_steps)
    self.reports: dict[str, Report] = {}

  @functools.cached_property
  def subject(self) -> Subject:
    """With a schedule as long as the short run, and its learning rate reported."""
    own = shortened(self.config, num_steps=self.steps, curves=True)
    return Subject(self.found.build, own, self.data_dir)

  @functools.cached_property
  def run(self) -> Run:
    """The short run on the data as they are."""
    return self.subject.run(self.steps)

  @functools.cached_property
  def game(self) -> tuple[Subject, Run]:
    """A run of two players, GAME times as long as the short one, and its subject."""
    steps = min(GAME * self.steps, self.config.num_steps)
    if steps == self.steps:
      return self.subject, self.run
    own = shortened(self.config, num_steps=steps, curves=True)
    subject = Subject(self.found.build, own, self.data_dir)
    return subject, subject.run(steps)

  def has(self, name: str) -> bool:
    """Whether a check has found an error so far."""
    report = self.reports.get(name, Report())
    return any(f.severity == 'error' for f in report.findings)


def environment(patient: Patient) -> Report:
  """Devices, and settings of JAX that make every run slow."""
  del patient
  device, findings = jax.devices()[0], []
  said = (
    f'Python {platform.python_version()}, jax {jax.__version__}, '
    f'{jax.device_count()} x {device.device_kind}'
  )
  if device.platform == 'cpu':
    said += f', {len(os.sched_getaffinity(0))} CPUs'
    if any(pathlib.Path('/dev').glob('nvidia[0-9]*')):
      findings.append(
        Finding(
          'accelerator_not_used',
          'warning',
          'There is an NVIDIA device, and JAX computes on the CPU.',
          "pip install -e '.[cuda13]', and leave JAX_PLATFORMS unset.",
        )
      )
  for name in ('jax_disable_jit', 'jax_debug_nans', 'jax_disable_most_optimizations'):
    if getattr(jax.config, name, False):
      findings.append(
        Finding(
          'slow_setting',
          'note',
          f'{name.upper()} is set: runs are slower than they need be.',
        )
      )
  return Report(findings, said)


def data(patient: Patient) -> Report:
  """Labels, duplicates, leaks, balance, constants."""
  return examples.report(patient.subject)


def finite(patient: Patient) -> Report:
  """A short run stays finite; else the tensor, operation and line."""
  return learning.finite(patient.subject, patient.run)


def inputs(patient: Patient) -> Report:
  """The scale of what the first layer reads."""
  return beginning.inputs(patient.subject)


def first_loss(patient: Patient) -> Report:
  """The first loss against that of guessing."""
  return beginning.report(patient.subject, patient.run)


def gradient(patient: Patient) -> Report:
  """Labels of gradients by tensor; what stands still."""
  return gradients.report(patient.subject, patient.run)


def rate(patient: Patient) -> Report:
  """The range test."""
  return rate_finder.report(patient.subject, patient.run)


def dead(patient: Patient) -> Report:
  """Dead units over a data set, after the short run."""
  return units.report(patient.subject, patient.run.last)


def overfit(patient: Patient) -> Report:
  """One repeated batch is learnt, to the floor that the experiment states."""
  own = shortened(patient.config, num_steps=OVERFIT_STEPS, batch_size=OVERFIT_ROWS)
  try:
    least = checks.overfitted(patient.found.build, own, patient.data_dir)
  except checks.Failed as failed:
    finding = Finding(
      'one_batch_not_learnt',
      'error',
      str(failed),
      'Mend what stands above; else look for a loss that does not reach the '
      'parameters, a model that is too small, or too much regularisation.',
      'overfit train_step loss',
    )
    return Report([finding])
  if least is None:
    why = patient.subject.experiment.overfit or 'the experiment says nothing of it'
    return skipped(str(why))
  return Report((), f'down to {least:.3g}')


def labels(patient: Patient) -> Report:
  """True against shuffled labels."""
  learns = not patient.has('overfit')
  return learning.labels_matter(patient.subject, patient.run, learns)


def generalisation(patient: Patient) -> Report:
  """Training against test."""
  return learning.generalisation(patient.subject, patient.run)


def time(patient: Patient) -> Report:
  """Shares of input, compilation and steps."""
  return timing.report(patient.subject, patient.run, patient.config.num_steps)


def memory(patient: Patient) -> Report:
  """The largest batch that fits on this device."""
  return room.report(patient.found.build, patient.config, patient.data_dir)


def two_players(patient: Patient) -> Report:
  """The balance of two players."""
  subject, run = patient.game
  if not run.finite:
    return learning.finite(subject, run)
  return players.report(subject, run)


def sampled(patient: Patient) -> Report:
  """Diversity, copies and classes of samples."""
  subject, run = patient.game
  if not run.finite:
    return skipped('the run of two players did not stay finite')
  return samples.report(subject, run.last)


class Check(NamedTuple):
  """One check.

  Attributes:
    title: for people.
    ask: of a patient.
    trains: whether it needs a run that stays finite.
  """

  title: str
  ask: Callable[[Patient], Report]
  trains: bool = False


CHECKS: Mapping[str, Check] = {
  'environment': Check('environment', environment),
  'data': Check('data', data),
  'finite': Check('finite values', finite),
  'inputs': Check('scale of the inputs', inputs),
  'loss': Check('first loss', first_loss, True),
  'gradients': Check('gradients', gradient, True),
  'rate': Check('learning rate', rate, True),
  'units': Check('dead units', dead, True),
  'overfit': Check('one batch is learnt', overfit, True),
  'labels': Check('labels matter', labels, True),
  'generalisation': Check('training and test', generalisation, True),
  'time': Check('time', time),
  'memory': Check('largest batch', memory),
}


# What --gan adds.
GAN: Mapping[str, Check] = {
  'players': Check('two players', two_players),
  'samples': Check('samples', sampled),
}


def table(patient: Patient, gan: bool) -> Mapping[str, Check]:
  """The checks there are.

  Args:
    patient: the experiment.
    gan: whether to ask what is asked of two players, too.

  Raises:
    ConfigError: `gan`, and there are no two players.
  """
  if not gan:
    return CHECKS
  experiment = patient.subject.experiment
  if not players.plays(experiment) and samples.source(experiment) is None:
    raise ConfigError(
      f'--gan is not allowed: {patient.found.short} declares no metrics '
      f'{", ".join(players.READ)}, and makes no samples of seeds; leave it out.'
    )
  return {**CHECKS, **GAN}


def chosen(names: list[str] | None, known: Mapping[str, Check]) -> list[str]:
  """The checks that --checks names, in their order; all where it names none.

  Args:
    names: of --checks.
    known: see `table`.

  Raises:
    ConfigError: an unknown name.
  """
  for name in names or ():
    if name not in known:
      raise ConfigError(
        f'--checks={name} is not allowed: must be of {", ".join(known)}'
        f'{f"; {name} with --gan" if name in GAN else ""}.'
      )
  return [name for name in known if not names or name in names]


def ask(patient: Patient, name: str, check: Check) -> Report:
  """Asks one check; its report, with the lines of findings, is kept in the patient."""
  if check.trains and not patient.run.finite:
    report = skipped('the short run did not stay finite')
  else:
    report = check.ask(patient)
  module = patient.found.module
  found = [
    one._replace(where=one.where or places.find(module, one.about))
    for one in report.findings
  ]
  patient.reports[name] = report._replace(findings=found)
  return patient.reports[name]

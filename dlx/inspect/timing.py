"""Where the time of a run goes: input, compilation, steps."""

from dlx.data.dataset import Streamed
from dlx.inspect.findings import Finding, Report
from dlx.inspect.subject import Run, Subject

STALLED, SLOW = 0.5, 0.25  # Shares of the time of the steps that is waiting for input.


def report(subject: Subject, run: Run, planned_steps: int) -> Report:
  """Seconds a step by kind, and whether input is what the steps wait for.

  Args:
    subject: whose train step was compiled for `run`.
    run: a short run.
    planned_steps: of the run that is planned, whose time is estimated.
  """
  count = max(1, len(run.metrics) - 1)
  streamed = isinstance(subject.experiment.train_data, Streamed)
  # Batches of resident data are gathered inside the step.
  waited = run.seconds['input'] / count if streamed else 0.0
  total = run.seconds['step'] / count + waited
  share = waited / total if total else 0.0
  compiling, planned = subject.compile_seconds, planned_steps * total
  input_ = (
    f'waiting for its batch {1e3 * waited:.3g} ms of them'
    if streamed
    else ('no waiting for batches, which lie on the device')
  )
  said = (
    f'a step {1e3 * total:.3g} ms, {input_}; compiling the step {compiling:.1f} s; '
    f'{planned_steps:,} steps about {planned:.0f} s without evaluations'
  )
  kinds = {
    'input': planned * share,
    'compile': compiling,
    'step': planned * (1 - share),
  }
  whole = sum(kinds.values()) or 1.0
  table = [('part', 'seconds', 'share')]
  table += [(k, f'{x:.1f}', f'{x / whole:.0%}') for k, x in kinds.items()]
  tables = {f'Estimated time of {planned_steps:,} steps': table}
  if share < SLOW:
    return Report((), said, tables=tables)
  finding = Finding(
    'input_stalls',
    'error' if share > STALLED else 'warning',
    f'{share:.0%} of the time of a step is waiting for its batch: '
    f'{1e3 * waited:.3g} of {1e3 * total:.3g} ms.',
    '--config.stream_workers=4 reads in processes; prepare what `get` does once '
    '(launch.data), and --config.stream=false keeps what fits on the device.',
    'stream train_data data',
  )
  return Report([finding], said, tables=tables)

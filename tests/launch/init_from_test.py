"""`--init_from` by the command: a new head on the layers of another run."""

from launch import train

TINY = (
  *('train', '--exp=mlp', '--compile_cache=off', '--config.features=8'),
  *('--config.num_steps=4', '--config.batch_size=16', '--config.log_every_steps=2'),
  *('--config.eval_every_steps=4', '--config.save_every_steps=2'),
)


def test_a_run_begins_with_another_and_goes_on_when_that_is_gone(tmp_path, capfd):
  source, moved = tmp_path / 'source', tmp_path / 'moved'
  assert train.main([*TINY, f'--workdir={source}']) == 0
  capfd.readouterr()

  # What is longer than a schedule says how a new run begins, and changes nothing.
  longer = [*TINY, f'--workdir={source}', '--config.num_steps=6']
  assert train.main(longer) == 2
  said = capfd.readouterr().err
  command = f'launch.train {" ".join(TINY[1:])} --config.num_steps=6'
  new = f'--workdir={source}_longer --init_from={source}'
  assert f'begins by python -m {command} {new}\n' in said, said

  asked = (f'--init_from={source}:2', '--init_skip=head/*')
  argv = [*TINY, f'--workdir={tmp_path / "new"}', *asked, '--config.seed=1']
  assert train.main([*argv, '--stop_at=3']) == 0
  said = capfd.readouterr().err
  assert f'--init_from={source}:2, parameters of mlp\n' in said
  assert 'taken: 5 arrays, 544 numbers\n' in said  # 64 x 8, and 4 x 8 of the norm.
  heads = 'params/head/bias (skipped), params/head/kernel (skipped)'
  assert f'newly made: 2 arrays, 90 numbers: {heads}\n' in said
  source.rename(moved)
  other = [word.replace(':2', ':4') for word in argv]
  for wrong in (other, [word.replace('head/*', 'head/bias') for word in argv]):
    assert train.main(wrong) == 2
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and 'leave it out to go on' in said, said
  assert train.main(argv) == 0  # Nothing is read of what is gone.
  assert 'begun from' in (tmp_path / 'new' / 'report.html').read_text()

"""Raw files: lookup, gzip, archives, checksums, and the error for missing data."""

import gzip
import hashlib
import io
import pathlib
import tarfile

from etils import epath
import pytest

from dlx.data.formats import expansion, files
from dlx.errors import DataError

PAYLOAD = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
  monkeypatch.delenv(files.ENVIRONMENT, raising=False)


def write(path: pathlib.Path, content: bytes) -> epath.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return epath.Path(path)


def error(function, *args, **kwargs) -> str:
  with pytest.raises(DataError) as caught:
    function(*args, **kwargs)
  text = str(caught.value)
  assert '\n' not in text
  return text


class TestRoot:
  def test_the_argument_wins_over_the_environment(self, tmp_path, monkeypatch):
    assert files.root() is None
    monkeypatch.setenv(files.ENVIRONMENT, '/from/environment')
    assert str(files.root()) == '/from/environment'
    assert str(files.root(tmp_path)) == str(tmp_path)
    assert str(files.root(epath.Path(tmp_path))) == str(tmp_path)

  def test_an_empty_value_is_unset(self, monkeypatch):
    monkeypatch.setenv(files.ENVIRONMENT, '')
    assert files.root('') is None
    monkeypatch.setenv(files.ENVIRONMENT, '/from/environment')
    assert str(files.root('')) == '/from/environment'

  def test_a_bucket_stays_a_bucket(self):
    found = files.folders('gs://bucket/data', ('mnist',))
    assert [str(f) for f in found] == [
      'gs://bucket/data/mnist',
      'gs://bucket/data/mnist/raw',
    ]

  def test_a_folder_of_the_sets_own_name_counts(self):
    found = [str(f) for f in files.folders('/data/mnist', ('mnist',))]
    assert found[0] == '/data/mnist'
    assert '/data/mnist' not in [
      str(f) for f in files.folders('/data/other', ('mnist',))
    ]

  @pytest.mark.parametrize(
    ('written', 'name'),
    [
      ('Cora', 'cora'),
      ('CIFAR10', 'cifar10'),
      ('CIFAR-10', 'cifar10'),
      ('SST-2', 'sst2'),
    ],
  )
  def test_the_spelling_of_a_folder_does_not_matter(self, tmp_path, written, name):
    (tmp_path / written / 'raw').mkdir(parents=True)
    (tmp_path / f'{name}_other').mkdir()
    found = [str(f) for f in files.folders(tmp_path, (name,))]
    wanted = [tmp_path / name, tmp_path / name / 'raw']
    wanted += [tmp_path / written, tmp_path / written / 'raw']
    assert found == [str(f) for f in wanted]
    assert files.folders(tmp_path / written, (name,))[0] == tmp_path / written

  def test_listing_of_nothing_is_empty(self, tmp_path):
    write(tmp_path / 'file', b'')
    assert files.listing(epath.Path(tmp_path)) == {'file'}
    assert files.listing(epath.Path(tmp_path / 'nowhere')) == frozenset()
    assert files.listing(epath.Path(tmp_path / 'file')) == frozenset()


class TestRead:
  def test_plain_and_gzip_give_the_same_bytes_and_sum(self, tmp_path):
    sha256 = hashlib.sha256(PAYLOAD).hexdigest()
    known = files.Known(len(PAYLOAD), sha256)
    for level in (None, 1, 9):
      content = PAYLOAD if level is None else gzip.compress(PAYLOAD, level)
      path = write(tmp_path / f'f{level}', content)
      payload, record = files.read(path, known)
      assert payload == PAYLOAD
      assert record == {
        'file': str(path),
        'bytes': len(PAYLOAD),
        'sha256': sha256,
        'verified': True,
      }
      assert files.read(path)[1]['verified'] is False

  def test_gzip_of_two_members_and_padding(self, tmp_path):
    content = gzip.compress(b'one') + gzip.compress(b'two') + bytes(7)
    assert files.read(write(tmp_path / 'f', content))[0] == b'onetwo'

  def test_truncated_gzip_names_file_expected_and_found(self, tmp_path):
    raw = gzip.compress(PAYLOAD, 0)
    path = write(tmp_path / 'f.gz', raw[: len(raw) // 2])
    text = error(files.read, path, expected=lambda payload: len(PAYLOAD))
    assert str(path) in text and 'truncated' in text
    assert f'expected {len(PAYLOAD)} bytes' in text
    assert f'({len(raw) // 2} in the file)' in text
    known = files.Known(len(PAYLOAD), 'unused')
    assert f'expected {len(PAYLOAD)} bytes' in error(files.read, path, known)
    assert 'expected more' in error(files.read, path)

  @pytest.mark.parametrize(('more', 'what'), [(-3, 'truncated'), (2, 'too long')])
  def test_a_plain_file_of_another_size_than_its_header_says(
    self, tmp_path, more, what
  ):
    n = len(PAYLOAD) + more
    path = write(tmp_path / 'f', (PAYLOAD + b'!!')[:n])
    text = error(files.read, path, expected=lambda payload: len(PAYLOAD))
    assert f'{path}: {what}: expected {len(PAYLOAD)} bytes, found {n} bytes' in text

  def test_gzip_that_lacks_its_checksum_alone_is_truncated(self, tmp_path):
    path = write(tmp_path / 'f.gz', gzip.compress(PAYLOAD)[:-1])
    assert 'truncated' in error(files.read, path)

  def test_a_flipped_bit_in_gzip_is_found(self, tmp_path):
    raw = bytearray(gzip.compress(PAYLOAD, 0))
    raw[len(raw) // 2] ^= 1
    path = write(tmp_path / 'f.gz', bytes(raw))
    assert 'damaged' in error(files.read, path)

  def test_a_file_of_another_content_names_both_sums(self, tmp_path):
    path = write(tmp_path / 'f', PAYLOAD[:-1] + b'!')
    known = files.Known(len(PAYLOAD), hashlib.sha256(PAYLOAD).hexdigest())
    text = error(files.read, path, known)
    assert str(path) in text and known.sha256 in text
    assert hashlib.sha256(PAYLOAD[:-1] + b'!').hexdigest() in text

  def test_unreadable(self, tmp_path):
    assert 'cannot be read' in error(files.read, epath.Path(tmp_path / 'nowhere'))


def archive(path: pathlib.Path, members: dict[str, bytes]) -> epath.Path:
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w:gz', compresslevel=0) as tar:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return write(path, stream.getvalue())


class TestExpansion:
  """Small files that would become very large."""

  @pytest.fixture(autouse=True)
  def small(self, monkeypatch):
    monkeypatch.setattr(expansion, 'LARGE', 10_000)

  def test_gzip_is_unpacked_up_to_the_limit(self, tmp_path):
    path = write(tmp_path / 'a.gz', gzip.compress(bytes(100_000)))
    assert path.stat().length < 200
    payload, problem = files.gunzip(path.read_bytes())
    assert len(payload) <= expansion.most(path.stat().length) + 1 < 100_000
    assert problem == 'not unpacked any further'
    assert 'a.gz: not unpacked any further: expected more' in error(files.read, path)

  def test_members_of_gzip_count_together(self, tmp_path):
    several = gzip.compress(bytes(9_000)) * 3
    assert files.gunzip(several)[1] == 'not unpacked any further'
    assert files.gunzip(gzip.compress(bytes(10_000)))[1] is None

  def test_what_is_large_and_does_not_expand_is_read(self, tmp_path):
    noise = b''.join(
      hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(900)
    )
    assert files.gunzip(gzip.compress(noise)) == (noise, None)

  def test_a_member_of_an_archive(self, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
      member = tarfile.TarInfo('x')
      member.size = 100_000
      archive.addfile(member, io.BytesIO(bytes(100_000)))
    path = write(tmp_path / 'a.tar.gz', buffer.getvalue())
    told = error(files.read_archive, path, ['x'])
    assert "its member 'x' brings it to more than" in told and '\n' not in told
    assert 'brings it' in error(files.read_archive, path, ['y'])  # Passed over.


class TestArchive:
  def test_members_are_found_below_any_folder(self, tmp_path):
    members = {'folder/a': b'first', 'folder/b': PAYLOAD, 'folder/c': b'third'}
    path = archive(tmp_path / 'x.tar.gz', members)
    found = files.read_archive(path, ('c', 'b'))
    assert found == {'b': PAYLOAD, 'c': b'third'}
    assert sorted(p.name for p in tmp_path.iterdir()) == ['x.tar.gz']

  def test_lacking_member(self, tmp_path):
    path = archive(tmp_path / 'x.tar.gz', {'folder/a': b'first'})
    text = error(files.read_archive, path, ('a', 'b'))
    assert str(path) in text and 'expected 2 files, found 1' in text
    assert 'without b' in text

  @pytest.mark.parametrize('keep', [0, 100, 6000])
  def test_truncated(self, tmp_path, keep):
    path = archive(tmp_path / 'x.tar.gz', {'folder/a': PAYLOAD, 'folder/b': PAYLOAD})
    path.write_bytes(path.read_bytes()[:keep])
    text = error(files.read_archive, path, ('a', 'b'))
    assert str(path) in text and f'{keep} bytes' in text and 'expected 2 files' in text

  @pytest.mark.parametrize(
    ('name', 'kind', 'says'),
    [
      ('../a', tarfile.REGTYPE, "'../a' lies outside"),
      ('folder/../../a', tarfile.REGTYPE, 'lies outside'),
      ('/etc/a', tarfile.REGTYPE, "'/etc/a' lies outside"),
      ('folder/a', tarfile.SYMTYPE, "'folder/a' is a link"),
      ('folder/a', tarfile.LNKTYPE, 'is a link'),
      ('folder/a', tarfile.FIFOTYPE, 'is a link or a device'),
    ],
  )
  def test_members_that_lead_elsewhere(self, tmp_path, name, kind, says):
    with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, '/etc/hostname'
      tar.addfile(info)
    text = error(files.read_archive, epath.Path(tmp_path / 'x.tar'), ('a',))
    assert says in text and '\n' not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ['x.tar']


class TestMissing:
  def test_all_three_remedies_on_one_line(self, tmp_path):
    for where, phrase in (
      (None, 'neither --data_dir nor DLX_DATA_DIR is set'),
      (tmp_path, f'looked in {tmp_path}'),
      (tmp_path / 'x', f'{tmp_path / "x"} does not exist'),
    ):
      text = str(files.missing('mnist', 'train', 'two files', where, note='Or this.'))
      assert '\n' not in text
      for part in (
        'mnist (train)',
        phrase,
        '--data_dir',
        'DLX_DATA_DIR',
        'two files in DIR/mnist',
        'TFDS set prepared as array_record',
        "pip install 'dlx[tfds]'",
        'network',
        'Or this.',
      ):
        assert part in text

  def test_a_set_that_tfds_lacks_says_so(self):
    text = str(files.missing('cora', 'graph', 'files', None, tfds=False))
    assert 'do not help' in text and "pip install 'dlx[tfds]'" in text

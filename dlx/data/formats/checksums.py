"""Sizes and sha256 sums of published files, uncompressed.

A sum of the uncompressed bytes holds for a file however it was compressed again. Each
was measured on files whose published sum (of the compressed file or of the batch) had
been checked before. Sets that are not listed here get structural checks alone.
"""

from dlx.data.formats.files import Known

FILES = {
  'mnist': {
    'train-images-idx3-ubyte': Known(
      47040016, 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db'
    ),
    'train-labels-idx1-ubyte': Known(
      60008, '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5'
    ),
    't10k-images-idx3-ubyte': Known(
      7840016, '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7'
    ),
    't10k-labels-idx1-ubyte': Known(
      10008, 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'
    ),
  },
  'cifar10': {
    'data_batch_1': Known(
      30730000, 'cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5'
    ),
    'data_batch_2': Known(
      30730000, 'a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed'
    ),
    'data_batch_3': Known(
      30730000, 'bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67'
    ),
    'data_batch_4': Known(
      30730000, '014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48'
    ),
    'data_batch_5': Known(
      30730000, '755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add'
    ),
    'test_batch': Known(
      30730000, '8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b'
    ),
  },
  'cora': {
    'ind.cora.allx': Known(
      257305, '9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543'
    ),
    'ind.cora.ally': Known(
      47959, '2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71'
    ),
    'ind.cora.graph': Known(
      59847, '58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d'
    ),
    'ind.cora.test.index': Known(
      5000, '297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875'
    ),
    'ind.cora.tx': Known(
      148025, 'b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a'
    ),
    'ind.cora.ty': Known(
      28135, '41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad'
    ),
    'ind.cora.x': Known(
      22119, '23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab'
    ),
    'ind.cora.y': Known(
      4054, '94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1'
    ),
  },
  'sst2': {
    'stsa.binary.train': Known(
      738844, '71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338'
    ),
    'stsa.binary.dev': Known(
      94400, '02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1'
    ),
    'stsa.binary.test': Known(
      193562, '6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b'
    ),
    'glue_train.tsv': Known(
      3806081, '48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1'
    ),
  },
  'tiny_shakespeare': {
    'input.txt': Known(
      1115394, '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'
    )
  },
  'multi30k': {
    'train.en': Known(
      1801238, '460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6'
    ),
    'train.de': Known(
      2110398, '2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72'
    ),
    'val.en': Known(
      63297, '1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227'
    ),
    'val.de': Known(
      75981, '660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660'
    ),
    'test_2016_flickr.en': Known(
      62076, '399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182'
    ),
    'test_2016_flickr.de': Known(
      70649, '4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16'
    ),
  },
}

# md5 of the pickles of CIFAR-10's python form, as published beside the archive. The
# sums above are of the binary form, which a python batch can be written as.
CIFAR10_PICKLES_MD5 = {
  'data_batch_1': 'c99cafc152244af753f735de768cd75f',
  'data_batch_2': 'd4bba439e000b95fd0a9bffe97cbabec',
  'data_batch_3': '54ebc095f3ab1f0389bbae665268c751',
  'data_batch_4': '634d18415352ddfa80567beed471001a',
  'data_batch_5': '482c414d41f54cd18b22e5b47cb7c3cb',
  'test_batch': '40351d587109b95175f43aff81a1287e',
}


def known(name: str, file: str) -> Known | None:
  """What the published file of a set holds; None: not known."""
  return FILES.get(name, {}).get(file)

"""What is read of the processor, from texts of the kernel's form."""

import pytest

from kernels import processor

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse avx2 avx512f avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu
"""
AMD = """vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu avx avx2 fma
"""
ARM = """processor\t: 0
Features\t: fp asimd atomics sve bf16 i8mm
CPU implementer\t: 0x41
"""


@pytest.mark.parametrize(
  ('text', 'vendor', 'sets', 'kind'),
  [
    (INTEL, 'intel', 'avx2 avx512f avx512_bf16 amx_bf16 amx_int8', 'intel_amx'),
    (
      INTEL.replace('amx', 'x'),
      'intel',
      'avx2 avx512f avx512_bf16',
      'intel_avx512_bf16',
    ),
    (AMD, 'amd', 'avx2', 'amd_avx2'),
    (ARM, 'arm', 'asimd sve bf16', 'arm_bf16'),
    ('', 'unknown', '', 'unknown_unknown'),
  ],
)
def test_vendor_and_sets(text, vendor, sets, kind):
  found = processor.parse(text)
  assert found.vendor == vendor
  assert found.instruction_sets == tuple(sets.split())
  assert found.kind == kind


def test_the_model_is_named():
  assert processor.parse(INTEL).model.startswith('Intel(R) Xeon(R) Platinum 8481C')
  assert processor.parse(AMD).model == 'AMD EPYC'
  assert processor.processor().model

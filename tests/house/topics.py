"""What dlx covers, area by area: topic, code, test and figure, as tables.

`python -m tests.house.topics` writes it into experiments/README.md anew. Figures come
from the results of the areas, so that none is written twice.
"""

import pathlib
import re

from tests.house.topic import Topic, lesson, part, run
from tests.house.topics_attention import ATTENTION
from tests.house.topics_sequences import SEQUENCES

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / 'experiments' / 'README.md'
BEGIN = '<!-- Made by python -m tests.house.topics: -->\n'
END = '<!-- end -->\n'


AUGMENTATIONS = ('randaugment', 'mixup', 'erasing', 'lighting')
AREAS: dict[str, tuple[Topic, ...]] = {
  'From scratch': (
    lesson(
      'Tensors: creation, arithmetic, shapes, slices',
      *('strides', 'tensors', 'creation'),
      test='tensors',
    ),
    lesson(
      'PyTorch, TensorFlow and JAX side by side', 'translation', test='translation'
    ),
    lesson('Broadcasting by strides', 'broadcasting', test='broadcasting'),
    lesson('Automatic differentiation', 'local_derivatives', 'tape', test='tape'),
    lesson(
      'Chain rule, local derivatives, finite differences',
      'computation_graph',
      test='computation_graph',
    ),
    lesson('Multinomial sampling', 'multinomial', test='multinomial'),
    lesson('Gradient rules of your own', 'custom_gradients', test='custom_gradients'),
    lesson('Why a nonlinearity', 'linear_stack', test='linear_stack'),
    lesson('Perceptron and its bound on mistakes', 'perceptron', test='perceptron'),
    lesson('Multilayer perceptron, backward by hand', 'network', test='network'),
    lesson('Convolution, backward by hand', 'convolution', test='convolution'),
    lesson('Optimisers written out', 'optimizers', test='optimizers'),
  ),
  'First nets': (
    run(
      'Perceptron learning rule',
      'foundations/perceptron',
      *('perceptron-0.1', 'perceptron-0.02'),
      test='foundations/perceptron',
    ),
    run('XOR', 'foundations/xor', 'xor', test='foundations/xor'),
    run(
      'Perceptron of several layers, in NumPy',
      'foundations/numpy_mlp',
      'numpy-mnist',
      test='foundations/numpy_mlp',
    ),
    run('Perceptron of several layers, in Flax', 'foundations/mlp', 'mlp-mnist'),
    run('Softmax regression', 'foundations/softmax_regression', 'softmax-mnist'),
    run(
      "scikit-learn's learners: forest, boosting, logistic regression, perceptron",
      'foundations/classical',
      'classical-forest / boosting / logistic / mlp / tree',
      test='foundations/classical',
    ),
    part('Trees as arrays', 'models/trees', 'models/estimators', tests='models/trees'),
    run(
      'Deep or classical, by the number of examples',
      'foundations/deep_vs_classical',
      'deep-vs-classical',
      test='foundations/deep_vs_classical',
    ),
    run(
      'Tips, each with and without', 'foundations/tips', 'tips', test='foundations/tips'
    ),
    run(
      'One hidden layer fits a function',
      'foundations/curve',
      'curve-sine / bump',
      test='foundations/curve',
    ),
    run(
      'Universal approximation',
      'foundations/universal_approximation',
      'universal-approximation',
    ),
    run(
      'Deep belief net',
      'foundations/deep_belief_net',
      'belief-mnist',
      test='foundations/deep_belief_net',
    ),
    run('Depth or width', 'foundations/depth_or_width', 'depth-or-width'),
    run('Regression on a table', 'tables/house_prices', 'house-california'),
    part(
      'Parameters, operations, sizes and receptive fields by layer',
      *('inspect/layers', 'inspect/sizes', 'inspect/receptive_field'),
      tests='inspect/layers inspect/sizes inspect/receptive_field',
    ),
  ),
  'Layers and losses': (
    part('Activations', 'layers/activations', tests='layers/activations'),
    part('Initialisation', 'layers/initialisers', tests='layers/initialisers'),
    part(
      'Batch, layer, group, instance and RMS norm',
      'layers/normalisation',
      tests='layers/normalisation layers/normalisation_identities',
    ),
    part(
      'Dropout and its relatives, DropNorm',
      *('layers/dropout', 'layers/drop_norm'),
      tests='layers/dropout',
    ),
    part('SplitLinear', 'layers/split_linear', tests='layers/dropout'),
    run(
      'Hidden layers of parts by name',
      'foundations/hidden_blocks',
      'hidden-blocks',
      test='foundations/hidden_blocks',
    ),
    run(
      'What batch norm saves',
      'foundations/batch_norm_speed',
      'batch-norm-speed',
      test='foundations/batch_norm_speed',
    ),
    run('SELU over 30 layers', 'foundations/self_normalising', 'self-normalising'),
    run('DropNorm beside norms and dropout', 'foundations/drop_norm', 'drop-norm'),
    run(
      'SplitLinear beside dense layers',
      'foundations/split_linear',
      'split-linear',
      test='foundations/split_linear',
    ),
    part('Mean and variance by layer', 'tasks/signal', tests='tasks/signal'),
    part(
      'Cross entropy and distances',
      *('losses/classification', 'losses/regression'),
      tests='losses/classification losses/weights',
    ),
    part(
      'Cross entropy and Dice of pixels',
      'losses/segmentation',
      tests='losses/segmentation',
    ),
    part('Losses of heat maps and boxes', 'losses/detection', tests='losses/detection'),
    part('Focal loss', 'losses/focal', tests='losses/focal'),
    part(
      'Hinge, contrastive and triplet loss', 'losses/margins', tests='losses/margins'
    ),
    run(
      'A distance that is learnt from pairs',
      'self_supervised/siamese',
      'siamese-mnist',
      test='self_supervised/siamese',
    ),
    part(
      'NT-Xent, InfoNCE, CLIP',
      'losses/contrastive',
      tests='losses/contrastive losses/sharded',
    ),
    part('Losses of two players', 'losses/adversarial', tests='losses/adversarial'),
    part('Wasserstein with penalty', 'losses/wasserstein', tests='losses/wasserstein'),
    part(
      'Alignment without labels (CTC)', 'losses/alignment', tests='losses/alignment'
    ),
  ),
  'Training': (
    run(
      'Batch, mini-batch and stochastic descent',
      'foundations/gradient_descent',
      'descent-mini / one / all',
      test='foundations/gradient_descent',
    ),
    run(
      'The three at their best rates, and the noise of a gradient',
      'foundations/gradient_descent_variants',
      'gradient-descent-variants',
    ),
    part(
      'Optimisers by name, with the rate to try first',
      *('optim/names', 'optim/optimizers', 'optim/variants'),
      tests='optim/optimizers optim/rates optim/variants',
    ),
    run(
      'Optimisers side by side',
      'foundations/optimizer_race',
      'optimizer-race-mnist',
      test='foundations/optimizer_race',
    ),
    run('Schedules side by side', 'foundations/schedules', 'schedules'),
    run(
      'L1, L2, decay and early stopping side by side',
      'foundations/regularization',
      'regularization',
    ),
    run(
      'A class of one example in a hundred',
      'foundations/focal_imbalance',
      'imbalance-mnist-focal / weighted / plain',
      test='foundations/focal_imbalance',
    ),
    part('Schedules of the learning rate', 'optim/schedules', tests='optim/schedules'),
    part('A rate that falls on a plateau', 'train/plateau', tests='train/plateau'),
    part('Early stopping', 'train/early_stopping', tests='train/early_stopping'),
    part('L1 and L2', *('optim/sparsity', 'losses/penalties'), tests='optim/sparsity'),
    part('Sharpness-aware steps', 'train/sharpness', tests='train/sharpness'),
    run(
      'Rates, many at once', 'foundations/learning_rate_sweep', 'learning-rate-sweep'
    ),
    run('How much dropout', 'foundations/dropout_rate', 'dropout-rate'),
    run('Larger batches', 'foundations/batch_size_scaling', 'batch-size-scaling'),
    run('16 bits', 'foundations/mixed_precision', 'mixed-precision'),
    run('Augmentation', 'vision/augmentation', 'augmentation'),
    part(
      'RandAugment, mixup and CutMix, erasing, changes of light',
      *(f'data/images/{name}' for name in AUGMENTATIONS),
      tests=' '.join(f'data/images/{name}' for name in AUGMENTATIONS),
    ),
    run(
      'Vanishing gradients', 'foundations/vanishing_gradients', 'vanishing-gradients'
    ),
    run('Exploding gradients', 'sequences/exploding_gradients', 'exploding-gradients'),
    run(
      'Truncated backpropagation by its window',
      'sequences/tbptt_window',
      'tbptt-window',
    ),
    part('Memory of a gradient', 'train/residuals', tests='train/residuals'),
    run('An average of several nets', 'vision/ensemble', 'ensemble-logits-640'),
  ),
  'Measuring and looking inside': (
    part(
      'Accuracy, precision, recall, F1, confusion matrix',
      'metrics/classification',
      tests='metrics/classification',
    ),
    part('Calibration', 'metrics/calibration', tests='metrics/calibration'),
    part('ROC and precision-recall', 'metrics/ranking', tests='metrics/ranking'),
    part(
      'IoU and Dice of pixels', 'metrics/segmentation', tests='metrics/segmentation'
    ),
    part('Boxes: IoU, generalised IoU, suppression', 'boxes', tests='boxes'),
    part(
      "Mean average precision by COCO's rule",
      'metrics/detection',
      tests='metrics/detection',
    ),
    part('PSNR and SSIM', 'metrics/pictures', tests='metrics/pictures'),
    part(
      'BLEU',
      *('metrics/translation', 'metrics/token_bleu'),
      tests='metrics/translation metrics/token_bleu',
    ),
    part(
      'MMD, Frechet distance, inception score',
      *('metrics/distributions', 'metrics/generation'),
      tests='metrics/distributions tasks/image_generation',
    ),
    part(
      'Gradients that vanish or explode', 'inspect/gradients', tests='inspect/gradients'
    ),
    part(
      'Activations, dead units and gradients of any experiment, by one line',
      'inspect/inside',
      tests='inspect/inside',
    ),
  ),
  'Convolutional nets': (
    part(
      'Receptive fields',
      *('inspect/receptive_field', 'inspect/fields'),
      tests='inspect/receptive_field inspect/fields',
    ),
    run(
      'Theory, gradients and what the middle unit sees',
      'vision/conv_stack',
      'conv-stack',
    ),
    run('The same over depth', 'vision/receptive_field', 'receptive-field'),
    run(
      'A perceptron, or convolutions, on images that have moved',
      'vision/cnn_vs_mlp_shift',
      'cnn-vs-mlp-shift',
    ),
    run('A small net on digits', 'vision/cnn', 'cnn-mnist'),
    run('LeNet', 'vision/lenet', 'lenet-mnist', test='vision/lenet'),
    run('AlexNet', 'vision/alexnet', 'alexnet-digits', test='vision/small_images'),
    run('VGG', 'vision/vgg', 'vgg-digits', test='vision/small_images'),
    run('Inception', 'vision/inception', 'inception-digits', test='vision/inception'),
    run('Residual nets', 'vision/resnet', 'resnet-cifar10', test='vision/resnet'),
    run('Why shortcuts', 'vision/residual_depth', 'residual-depth'),
    run('Densely connected nets', 'vision/densenet', 'densenet-digits'),
    run(
      'A mean over positions in place of dense layers',
      'vision/modern_cnn',
      'modern-cnn-digits',
    ),
    run(
      'CIFAR-10 as fast as can be',
      'vision/cifar_speedrun',
      'speedrun-digits',
      test='vision/cifar_speedrun',
    ),
    run('ConvNeXt', 'vision/convnext', 'convnext-digits', test='vision/image_sizes'),
    run('MobileNet', 'vision/mobilenet', 'mobilenet-digits', test='vision/image_sizes'),
    run(
      'EfficientNet',
      'vision/efficientnet',
      'efficientnet-digits',
      test='vision/image_sizes',
    ),
    run(
      'ResNet-50 on ImageNet',
      'vision/imagenet_resnet50',
      'imagenet-resnet50-digits',
      test='vision/imagenet',
    ),
    run(
      'ConvNeXt on ImageNet',
      'vision/imagenet_convnext',
      'imagenet-convnext-digits',
      test='vision/imagenet',
    ),
    run(
      'A class for every pixel',
      'vision/segmentation',
      'segmentation-digits',
      test='vision/segmentation',
    ),
    part(
      'Objects as points: targets, net, decoding',
      *('detection', 'models/center_net'),
      tests='detection models/center_net',
    ),
    run(
      'Objects and their boxes',
      'vision/detection',
      'detection-digits',
      test='vision/detection',
    ),
    run('Sound as a picture', 'vision/spectrogram', 'spectrogram-cnn / rnn / waveform'),
    run(
      'From one domain to another',
      'vision/domain_adaptation',
      'domain-adaptation-source_only / adabn / coral / dann',
      test='vision/domain_adaptation',
    ),
    run(
      'What pretraining is worth',
      'vision/transfer',
      'transfer-cifar10-scratch / features / full',
      test='vision/transfer',
    ),
    run(
      'How many labels it saves',
      'vision/label_efficiency',
      'label-efficiency-cifar10',
      test='vision/label_efficiency',
    ),
    part(
      'Filters, maps, Grad-CAM and its kin, of any run',
      'inspect/maps/gradients',
      'inspect/maps/filters',
      'inspect/maps/occlusion',
      'inspect/maps/patches',
      tests='inspect/maps/gradients inspect/maps/filters inspect/maps/localisation',
    ),
  ),
  **SEQUENCES,
  **ATTENTION,
}


def figures() -> dict[str, str]:
  """The first figure of each run in the tables of results, by the name of the run."""
  found: dict[str, str] = {}
  for path in sorted(README.parent.glob('*/README.md')):
    for line in re.findall(r'^\| `.*', path.read_text(encoding='utf-8'), re.M):
      _, _, name, data, figure, mean, sd, seeds, *_ = map(str.strip, line.split('|'))
      spread = f', sd {sd}' if sd != '-' else ''
      value = f'[{mean}]({path.parent.name}/README.md){spread} ({seeds})'
      found.setdefault(name, f'{data}: {figure}: {value}')
  return found


def table() -> str:
  """The tables of all areas.

  Raises:
    KeyError: a run has no row in the results.
  """
  known, lines = figures(), []
  link = lambda path: f'[{pathlib.Path(path).name}](../{path})'
  for area, topics in AREAS.items():
    lines += [f'### {area}', '', '| Topic | Code | Test | Figure (seeds) |']
    lines.append('| --- | --- | --- | --- |')
    for topic in topics:
      code, tests = (', '.join(map(link, x)) for x in (topic.code, topic.tests))
      figure = '; '.join(known[name] for name in topic.runs) or '-'
      lines.append(f'| {topic.title} | {code} | {tests} | {figure} |')
    lines.append('')
  return '\n'.join(lines)


def written(text: str) -> str:
  """The README with the tables of today between its two marks."""
  before, rest = text.split(BEGIN)
  _, after = rest.split(END)
  return f'{before}{BEGIN}\n{table()}\n{END}{after}'


if __name__ == '__main__':
  README.write_text(written(README.read_text(encoding='utf-8')), encoding='utf-8')

"""Topics of sequences, text, graphs and tables."""

from tests.house.topic import Topic, part, run

SEQUENCES: dict[str, tuple[Topic, ...]] = {
  'Sequences in time': (
    part(
      'RNN, LSTM with peepholes or without, GRU, minimal gated unit, ReLU from the '
      'identity',
      *('layers/recurrent/cells', 'layers/recurrent/stack'),
      tests='layers/recurrent/cells layers/recurrent/stack',
    ),
    run(
      'What gates buy over a hundred steps', 'sequences/rnn_lstm_gru', 'rnn-lstm-gru'
    ),
    run(
      'A language model with a state for a context',
      'sequences/char_rnn',
      'char-shakespeare',
      test='sequences/char_rnn',
    ),
    run(
      'The gradient against the lag', 'sequences/vanishing_in_time', 'vanishing-in-time'
    ),
    run(
      'One word decides, many words later',
      'sequences/long_range',
      'long-range',
      test='sequences/long_range',
    ),
    run('Two numbers to add, far apart', 'sequences/adding', 'adding-lstm / gru'),
    run(
      'Order in time',
      'sequences/temporal_order',
      'temporal-order',
      test='sequences/temporal_order',
    ),
    run(
      'Gradients that explode, and clipping',
      'sequences/exploding_gradients',
      'exploding-gradients',
    ),
    part(
      'Linear recurrences by an associative scan: minGRU, LRU, Mamba',
      *('layers/recurrent/linear', 'layers/recurrent/selective'),
      tests='layers/recurrent/linear',
    ),
    run(
      'Induction heads at eight times the length',
      'sequences/selective_scan',
      'induction-mamba / min_gru / gru / lstm / lru',
      test='sequences/selective_scan',
    ),
    run(
      'A state carried from window to window',
      'sequences/sst2_tbptt',
      'tbptt-sst2',
      test='sequences/sst2_tbptt',
    ),
    run(
      'A cell of our own, by heart, and its gradient through time',
      'sequences/reset_gate_cell',
      'reset-gate',
      test='sequences/reset_gate_cell',
    ),
    run('How far back a gradient need go', 'sequences/tbptt_window', 'tbptt-window'),
    run('Forecasts with bands', 'sequences/forecast', 'forecast-gru / mlp / linear'),
    part('Baselines of a forecast', 'tasks/forecasting', tests='tasks/forecasting'),
  ),
  'Text': (
    part(
      'Words, characters, byte pairs, files of Hugging Face; a vocabulary',
      *('data/text/vocabulary', 'data/text/byte_pairs', 'data/text/tokenizer_file'),
      tests='data/text/vocabulary data/text/byte_pairs data/text/tokenizer_file',
    ),
    part(
      'Padding, buckets of lengths, several texts in a row',
      *('data/text/padded', 'data/batches/buckets', 'data/text/packed'),
      tests='models/padding data/batches/buckets data/text/packed',
    ),
    part(
      'Variational dropout and zoneout',
      'layers/recurrent/noise',
      tests='layers/recurrent/noise',
    ),
    run(
      'Sentiment by recurrent nets, one direction or both',
      'sequences/sst2',
      *('sst2-rnn', 'sst2-lstm', 'sst2-bilstm', 'sst2-gru', 'sst2-noisy-lstm'),
      test='sequences/sst2',
    ),
    run(
      'Sentiment by convolutions',
      'sequences/text_cnn',
      'text-cnn-seven',
      test='sequences/text_cnn',
    ),
    part(
      'Encoder and decoder, attention of Bahdanau and Luong',
      'models/seq2seq',
      tests='models/seq2seq',
    ),
    run(
      'Sums written digit by digit',
      'sequences/seq2seq_addition',
      'seq2seq-addition',
      test='sequences/seq2seq',
    ),
    run(
      'Fifty characters reversed, with attention and without',
      'sequences/seq2seq_reverse',
      'reverse-general / none',
      test='sequences/seq2seq',
    ),
    run(
      'Translation, greedy and by beams',
      'sequences/translation',
      'translation-multi30k',
      test='sequences/seq2seq',
    ),
    part(
      'BLEU, of texts and of tokens in a jitted evaluation',
      *('metrics/translation', 'metrics/token_bleu'),
      tests='metrics/translation metrics/token_bleu',
    ),
  ),
  'Graphs': (
    part(
      'Messages as sums over edges: convolution, attention, GraphSAGE, GIN',
      *('layers/graph', 'layers/graph_modules'),
      tests='layers/graph layers/graph_modules',
    ),
    run('Graph convolution on Cora', 'graphs/gcn', 'gcn-cora', test='graphs/gcn'),
    run('Graph attention on Cora', 'graphs/gat', 'gat-cora', test='graphs/gat'),
    run(
      'Neighbours drawn anew: graphs that do not fit',
      'graphs/sage',
      'sage-cora',
      test='graphs/sage',
    ),
    run(
      'A class for a whole graph',
      'graphs/graph_classification',
      'families-gin / gcn / mean',
      test='graphs/graph_classification',
    ),
    run(
      'Which edges are missing',
      'graphs/link_prediction',
      'link-cora',
      test='graphs/link_prediction',
    ),
    run('Layers of a graph net: over-smoothing', 'graphs/graph_depth', 'graph-depth'),
  ),
  'Tables': (
    part(
      'Numbers and categories of any table',
      *('data/sets/columns', 'data/prepare/table'),
      tests='data/sets/columns data/prepare/table',
    ),
    run('House prices by a perceptron', 'tables/house_prices', 'house-california'),
    run(
      'Embeddings of categories',
      'tables/tabular',
      'tabular-housing',
      test='tables/tabular',
    ),
    part('FT-Transformer', 'models/ft_transformer', tests='models/ft_transformer'),
    part('Quantiles as classes', 'data/quantiles', tests='data/quantiles'),
    run(
      'Deciles of a number',
      'tables/label_deciles',
      'label-deciles-california',
      test='tables/label_deciles',
    ),
    run('Deciles or percentiles', 'tables/deciles_or_percentiles'),
    run(
      'Forest and boosting on any table',
      'tables/table_trees',
      'table-trees-california',
      test='tables/table_trees',
    ),
    run('Trees or nets on tables', 'tables/tabular_models', 'tabular-models'),
  ),
}

--- Instructions per step as tests/bench/quick.lua counts them; written by its option --update.
return {
  attention = 205404,
  batch_norm = 528023,
  cnn = 10739330,
  conv_strided = 934391,
  depthwise = 702671,
  eager_tiny = 241229,
  embedding = 187763,
  fit_step = 117299,
  gru = 493363,
  infer_cnn = 1781825,
  infer_mlp = 4442,
  lenet5 = 3469036,
  lstm = 661376,
  mlp_784 = 10836212,
  mlp_tiny = 25412,
  replay_100_ops = 31790,
}

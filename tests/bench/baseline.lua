--- Instructions per step as tests/bench/quick.lua counts them; written by its option --update.
return {
  attention = 198510,
  batch_norm = 498798,
  cnn = 11333522,
  conv_strided = 917781,
  depthwise = 719723,
  eager_tiny = 263576,
  embedding = 48069,
  fit_step = 116571,
  gru = 545555,
  infer_cnn = 1946100,
  infer_mlp = 4180,
  lenet5 = 3147265,
  lstm = 730804,
  mlp_784 = 10988657,
  mlp_tiny = 25339,
  replay_100_ops = 31460,
}

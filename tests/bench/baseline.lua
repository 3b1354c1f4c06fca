--- Instructions per step as tests/bench/quick.lua counts them; written by its option --update.
return {
  batch_norm = 489567,
  cnn = 16042575,
  infer_mlp = 5769,
  mlp_784 = 11143930,
  mlp_tiny = 25713,
}
